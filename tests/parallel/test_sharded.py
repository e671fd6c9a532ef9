"""Sharded training: weights, checkpoints that any strategy goes on from, and a plain model at the end."""

import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from genoattn.models.block import Block
from genoattn.training.sharded_files import read_whole
from tests.parallel.conftest import WORDS, largest_difference, last
from tests.parallel.ranks import Ranks, call_main
from tests.parallel.test_stop_and_resume import call_stopped
from tests.toy_models import CAUSAL, saved, toy_model
from tests.training.quick import trained

pytestmark = pytest.mark.usefixtures("alone", "evaluation_left_out")

SHARDED = "trainer.strategy=fsdp"
UNCLIPPED = (*WORDS, "trainer.gradient_clip=0")
"""The norm of all gradients is added up from parts in another order."""


def both(ranks: Ranks, folder: Path, *words: str) -> tuple[Path, Path]:
    """Run folders of the same training with ddp and with fsdp."""
    folders = folder / "ddp", folder / "fsdp"
    for run in folders:
        own = [*words, f"trainer.strategy={run.name}", f"trainer.devices={ranks.world}", f"hydra.run.dir={run}"]
        answers = ranks.run(call_main, own)
        assert [status for status, _, _ in answers] == [0] * ranks.world
        assert [said for _, _, said in answers] == [""] * ranks.world
    return folders


EQUIVARIANT = ("task=paired", "heads=default", "reverse_complement=equivariant", "trainer.precision=64-true")
CASES = {
    # An odd number of heads, whose weights four processes cannot share evenly.
    "default": ("four", "heads.count=3", "model.dim=24"),
    "every block is computed again": ("two", "model.activation_checkpointing=block", "model.depth=2"),
    "MLPs, both strands, float64": ("two", *EQUIVARIANT, "model.activation_checkpointing=mlp"),
}


@pytest.mark.parametrize("case", CASES)
def test_shards_train_as_whole_models(case: str, fasta: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    world, *more = CASES[case]
    ddp, fsdp = both(request.getfixturevalue(world), tmp_path, "train", *UNCLIPPED, *more, f"data.fasta={fasta}")
    tolerance = 1e-6 if world == "four" else 0  # four numbers have several sums
    assert largest_difference(ddp, fsdp) <= tolerance
    one, other = last(ddp), last(fsdp)
    torch.testing.assert_close(one["optimizer_states"], other["optimizer_states"], rtol=0, atol=tolerance)
    assert one["loops"] == other["loops"] and one["lr_schedulers"] == other["lr_schedulers"]
    torch.testing.assert_close(trained(ddp), trained(fsdp), rtol=0, atol=tolerance)


def test_adapters_are_sharded(two: Ranks, fasta: Path, tmp_path: Path) -> None:
    model = saved(tmp_path / "model", toy_model(CAUSAL, layer="linear"))
    words = [f"checkpoint={model}", "finetune.mode=lora", "data.batch=4", "data.length=32", "data.validation_windows=8"]
    words += ["trainer.max_steps=3", "trainer.validate_every=2", f"data.fasta={fasta}"]
    words += [word for word in UNCLIPPED if word.partition("=")[0] not in ("experiment", "control", "data.batch")]
    ddp, fsdp = both(two, tmp_path, "finetune", *words)
    assert largest_difference(ddp, fsdp) == 0
    torch.testing.assert_close(last(ddp)["optimizer_states"], last(fsdp)["optimizer_states"], rtol=0, atol=0)


def test_a_run_goes_on_with_another_strategy(two: Ranks, four: Ranks, fasta: Path, tmp_path: Path) -> None:
    words = ["train", *WORDS, "trainer.max_steps=6", f"data.fasta={fasta}"]
    whole, run = tmp_path / "whole", tmp_path / "run"
    assert call_main([*words, f"hydra.run.dir={whole}"])[0] == 0
    here, checkpoint = [*words, f"hydra.run.dir={run}"], run / "checkpoints" / "last.ckpt"
    stopped = two.run(call_stopped, 1, signal.SIGTERM, 2, [*here, SHARDED, "trainer.devices=2"])
    assert [status for status, _, _ in stopped] == [143, 143]
    here.append(f"trainer.resume={checkpoint}")
    stopped = four.run(call_stopped, 3, signal.SIGTERM, 2, [*here, SHARDED, "trainer.devices=4"])
    assert [status for status, _, _ in stopped] == [143] * 4 and last(run)["global_step"] == 4
    assert call_main(here)[0] == 0
    assert largest_difference(whole, run) < 1e-6


def test_checkpoints_in_parts(two: Ranks, four: Ranks, fasta: Path, tmp_path: Path) -> None:
    words = ["train", *WORDS, "trainer.max_steps=6", f"data.fasta={fasta}", SHARDED, "trainer.sharded_checkpoints=true"]
    whole, run, other = (tmp_path / name for name in ("whole", "run", "other"))
    plain = [*words, "trainer.sharded_checkpoints=false", "trainer.devices=2", f"hydra.run.dir={whole}"]
    assert [status for status, _, _ in two.run(call_main, plain)] == [0, 0]

    stopped = two.run(call_stopped, 1, signal.SIGTERM, 3, [*words, "trainer.devices=2", f"hydra.run.dir={run}"])
    assert [status for status, _, _ in stopped] == [143, 143]
    checkpoints, checkpoint = run / "checkpoints", run / "checkpoints" / "last.ckpt"
    names = {path.name for path in checkpoints.iterdir()}
    assert names == {"best.ckpt", "best.ckpt.2", "last.ckpt", "last.ckpt.3"} and checkpoint.is_symlink()

    more = f"trainer.resume={checkpoint}"
    answers = two.run(call_main, [*words, "trainer.devices=2", more, f"hydra.run.dir={other}"])  # on as many processes
    assert [status for status, _, _ in answers] == [0, 0]
    torch.testing.assert_close(trained(other), trained(whole), rtol=0, atol=0)
    found, expected = read_whole(other / "checkpoints" / "last.ckpt"), last(whole)
    for key in ("state_dict", "optimizer_states", "lr_schedulers", "global_step"):
        torch.testing.assert_close(found[key], expected[key], rtol=0, atol=0)

    stopped = four.run(call_stopped, 0, signal.SIGTERM, 2, [*words, "trainer.devices=4", more, f"hydra.run.dir={run}"])
    assert [status for status, _, _ in stopped] == [143] * 4
    assert call_main([*words, more, f"hydra.run.dir={run}"])[0] == 0  # in one process, which writes files
    assert largest_difference(whole, run) < 1e-6
    assert {path.name for path in checkpoints.iterdir()} == {"best.ckpt", "last.ckpt"}


def look(words: list[str]) -> list[str]:
    """The class of each block while a model is trained, and after it."""
    kinds: list[str] = []
    forward: Callable = Block.forward

    def spy(self: Block, *args: object) -> torch.Tensor:
        kinds.append(f"{type(self).__name__}, weights {type(self.mlp_norm.weight).__name__}")
        return forward(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Block, "forward", spy)
        status, _, said = call_main(words)
    return [*dict.fromkeys(kinds), f"{status} {said}"]


def test_weights_are_shared_out_and_narrow_ones_learn(two: Ranks, fasta: Path, tmp_path: Path) -> None:
    words = ["train", *WORDS, f"data.fasta={fasta}", SHARDED, "trainer.devices=2", f"hydra.run.dir={tmp_path / 'run'}"]
    words += ["trainer.precision=bf16-mixed", "trainer.max_steps=2", "data.length=16", "data.validation_windows=4"]
    first, second = two.run(look, words)
    assert first == second == ["FSDPBlock, weights Parameter", "0 "]
    pure = two.run(call_main, [*words, "trainer.precision=bf16-true", f"hydra.run.dir={tmp_path / 'pure'}"])
    assert [status for status, _, _ in pure] == [0, 0]
    assert {weight.dtype for weight in trained(tmp_path / "pure").values()} == {torch.float32}
    refused = two.run(call_main, [*words, "trainer.precision=16-mixed", f"hydra.run.dir={tmp_path / 'other'}"])
    assert refused[0][2].startswith("trainer.strategy=fsdp knows no trainer.precision=16-mixed")
