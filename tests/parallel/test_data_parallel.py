"""Training on several processes is the training of one: weights, figures, files, and what is said."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from genoattn.training import processes
from tests.parallel.ranks import Ranks, call_main
from tests.toy_genomes import write_genome
from tests.toy_models import CAUSAL, saved, toy_model
from tests.training.quick import leave_out_evaluation, rows

pytestmark = pytest.mark.usefixtures("alone")

WORDS = ("experiment=smoke", "control=null", "trainer.threads=1", "trainer.memory_check=false", "data.batch=4")
WORDS += ("trainer.accelerator=cpu", "optimizer.lr=0.01", "schedule.warmup=0", "data.vcf=null", "+optimizer.eps=0.01")
"""A step of Adam with its own eps makes a difference of 1e-9 in a gradient near zero a difference of lr."""


@pytest.fixture(scope="module")
def two(alone: None) -> Iterator[Ranks]:
    ranks = Ranks(2)
    yield ranks
    ranks.end()


@pytest.fixture(scope="module")
def four(alone: None) -> Iterator[Ranks]:
    ranks = Ranks(4)
    yield ranks
    ranks.end()


@pytest.fixture(scope="module", autouse=True)
def quick() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        leave_out_evaluation(patch)
        yield


@pytest.fixture(scope="module")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_genome(tmp_path_factory.mktemp("genome"), "chr", seed=1)[0]


def alone_and_together(ranks: Ranks, folder: Path, *words: str) -> tuple[Path, Path]:
    """Run folders of the same training in this process and in several, of which the first one alone speaks."""
    one, several = folder / "one", folder / "several"
    assert call_main([*words, f"hydra.run.dir={one}"])[0] == 0
    together = [*words, f"hydra.run.dir={several}", f"trainer.devices={ranks.world}"]
    (status, said, grumbled), *others = ranks.run(call_main, together)
    assert (status, grumbled) == (0, "") and f"run folder: {several}\n" in said
    assert others == [(0, "", "")] * (ranks.world - 1)
    return one, several


def last(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def largest_difference(one: Path, other: Path) -> float:
    """Largest difference of a weight at the end; the bases and tokens that were seen must be equal."""
    first, second = last(one)["state_dict"], last(other)["state_dict"]
    assert first.keys() == second.keys()
    assert torch.equal(first["bases_seen"], second["bases_seen"])
    assert first.pop("tokens_seen")[0] == second["tokens_seen"][0]  # padding is that of each process
    return max(float((first[name] - second[name]).abs().max()) for name in first)


def assert_same_figures(one: Path, other: Path, tolerance: float) -> None:
    """metrics.csv of both, the validation included."""
    assert len(rows(one)) == len(rows(other)) > 0
    for row, found in zip(rows(one), rows(other), strict=True):
        assert row.keys() == found.keys()
        logged = [key for key in row if row[key] and key != "padding"]
        expected = {key: float(row[key]) for key in logged}
        assert {key: float(found[key]) for key in logged} == pytest.approx(expected, rel=tolerance, abs=tolerance)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


PRETRAIN = ("task=pretrain", "heads=default", "curriculum=none", "tokenizer=bpe", "reverse_complement=augment")
CASES = {
    # Windows of mixed lengths, whose number is no multiple of four; several batches a step.
    "default, float64": (4, "train", "trainer.precision=64-true", "trainer.accumulate_batches=2"),
    "default": (2, "train"),
    "paired": (4, "train", "task=paired", "heads=default", "curriculum=anneal", "data.bucket_batches=2"),
    "pretrain": (2, "train", *PRETRAIN, "tokenizer.vocabulary_size=64"),
}


@pytest.mark.parametrize("case", CASES)
def test_several_processes_train_as_one(case: str, fasta: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    world, program, *words = CASES[case]
    ranks = request.getfixturevalue({2: "two", 4: "four"}[world])
    one, several = alone_and_together(ranks, tmp_path, program, *WORDS, *words, f"data.fasta={fasta}")
    double = "trainer.precision=64-true" in words
    assert largest_difference(one, several) < (1e-12 if double else 1e-6)
    assert_same_figures(one, several, 1e-6)
    assert files(one) == files(several)


def test_two_processes_train_as_one_that_accumulates_to_the_last_bit(two: Ranks, fasta: Path, tmp_path: Path) -> None:
    words = ["train", *WORDS[:-1], "curriculum=none", f"data.fasta={fasta}"]
    halves = ["data.batch=2", "trainer.accumulate_batches=2", f"hydra.run.dir={tmp_path / 'one'}"]
    assert call_main([*words, *halves])[0] == 0
    two.run(call_main, [*words, f"hydra.run.dir={tmp_path / 'two'}", "trainer.devices=2"])
    assert largest_difference(tmp_path / "one", tmp_path / "two") == 0


def test_adapters(two: Ranks, fasta: Path, tmp_path: Path) -> None:
    model = saved(tmp_path / "model", toy_model(CAUSAL, layer="linear"))
    own = [f"checkpoint={model}", "finetune.mode=lora", "data.batch=4", "data.length=32", "data.validation_windows=8"]
    own += ["trainer.max_steps=3", "trainer.validate_every=2", f"data.fasta={fasta}"]
    words = [word for word in WORDS if word.partition("=")[0] not in ("experiment", "control", "data.batch")]
    one, several = alone_and_together(two, tmp_path, "finetune", *words, *own)
    assert largest_difference(one, several) < 1e-6


SLURM = {"PROCID": "5", "LOCALID": "1", "NODEID": "2", "JOB_ID": "123456", "NTASKS": "6", "NTASKS_PER_NODE": "2"}
STEP = {"STEP_NUM_TASKS": "6", "STEP_NUM_NODES": "3", "STEP_NODELIST": "gpu[07-09]"}


def test_the_place_of_a_process() -> None:
    slurm, step = ({f"SLURM_{name}": value for name, value in part.items()} for part in (SLURM, STEP))
    assert processes.variables({}) == {}
    assert processes.variables(slurm) == {}  # of a batch script, which is no task
    torchrun = {"RANK": "5", "WORLD_SIZE": "6", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    addressed = {"MASTER_ADDR": "gpu07", "MASTER_PORT": "18456"}
    assert processes.variables(slurm | step) == {**torchrun, **addressed, "GROUP_RANK": "2"}
    assert processes.variables({**torchrun, **addressed, "HOME": "/"}) == torchrun | addressed
    chosen = {"MASTER_ADDR": "gpu09", "MASTER_PORT": "7"}
    assert processes.variables(slurm | step | chosen) == {**torchrun, **chosen, "GROUP_RANK": "2"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trainer.devices=3"], "data.batch=4 is the batch of all devices together, so it must be a multiple of the 3"),
        (
            ["trainer.devices=2", "trainer.num_nodes=2"],
            "trainer.num_nodes=2: torchrun or srun must start",
        ),
        (["-m", "trainer.devices=2", "seed=0,1"], "-m runs its jobs in one process, one after another, so it needs"),
    ],
)
def test_what_one_process_refuses(words: list[str], sentence: str, fasta: Path, tmp_path: Path) -> None:
    status, _, said = call_main(["train", *WORDS, f"data.fasta={fasta}", f"hydra.run.dir={tmp_path / 'run'}", *words])
    assert status == 2 and sentence in said and said.count("\n") == 1


def test_what_several_processes_refuse(two: Ranks, fasta: Path, tmp_path: Path) -> None:
    words = ["train", *WORDS, f"data.fasta={fasta}", f"hydra.run.dir={tmp_path / 'run'}"]
    (status, _, said), other = two.run(call_main, words)
    assert status == 2 and said == "trainer.devices=1 and trainer.num_nodes=1: 2 processes were started\n"
    assert other == (2, "", "")
    missing = [*words, f"data.fasta={tmp_path / 'no.fa'}", "trainer.devices=2"]
    (status, _, said), other = two.run(call_main, missing)
    assert status == 2 and f"{tmp_path / 'no.fa'} does not exist" in said and other == (2, "", "")
    (tmp_path / "run" / "model").mkdir()
    (status, _, said), other = two.run(call_main, [*words, "trainer.devices=2"])
    assert status == 2 and "holds a run already (model)" in said and other == (2, "", "")


def test_the_console_command_starts_a_process_for_each_device(fasta: Path, tmp_path: Path) -> None:
    words = [*WORDS, f"data.fasta={fasta}", "test.windows=4", "test.threshold_windows=4", "test.resamples=2"]
    words += ["trainer.devices=2", f"hydra.run.dir={tmp_path / 'run'}"]
    done = subprocess.run([sys.executable, "-m", "genoattn", "train", *words], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    lines = (tmp_path / "run" / "train.log").read_text().splitlines()
    assert sum(line.startswith("step ") for line in lines) == 2
    assert done.stdout.count(f"run folder: {tmp_path / 'run'}\n") == 1
    assert {"metrics.json", "run.html", "report.md", "model/weights.safetensors"} <= files(tmp_path / "run")
    assert not [name for name in files(tmp_path / "run") if name.endswith(".part")]
    assert [int(row["step"]) for row in rows(tmp_path / "run") if row["loss"]] == [0, 1, 2, 3]
