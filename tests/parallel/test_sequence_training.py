"""Training of sequences that several processes hold together is that of one process."""

from pathlib import Path

import pytest

from tests.parallel.conftest import WORDS, largest_difference
from tests.parallel.ranks import Ranks, call_main
from tests.parallel.test_data_parallel import assert_same_figures

pytestmark = pytest.mark.usefixtures("alone", "evaluation_left_out")

DOUBLE = ("attention=linear", "trainer.precision=64-true")
CASES = {
    "two processes, one sequence": (2, 2, *DOUBLE),
    "two and two": (4, 2, *DOUBLE, "trainer.accumulate_batches=2", "model.activation_checkpointing=mlp"),
    "bases that share a context": (4, 4, *DOUBLE, "task=paired", "heads=default", "reverse_complement=equivariant"),
    "tokens": (2, 2, *DOUBLE, "task=pretrain", "heads=default", "curriculum=none", "tokenizer=kmer", "tokenizer.k=3"),
    "sharded weights": (4, 2, *DOUBLE, "trainer.strategy=fsdp", "trainer.gradient_clip=0"),
}


@pytest.mark.parametrize("case", CASES)
def test_several_processes_train_a_sequence_as_one(
    case: str, fasta: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    world, size, *words = CASES[case]
    ranks = request.getfixturevalue({2: "two", 4: "four"}[world])
    alone = [word for word in words if not word.startswith("trainer.strategy")]
    one, several = tmp_path / "one", tmp_path / "several"
    assert call_main(["train", *WORDS, *alone, f"data.fasta={fasta}", f"hydra.run.dir={one}"])[0] == 0
    more = [f"trainer.devices={world}", f"trainer.sequence_parallel={size}", f"hydra.run.dir={several}"]
    answers = ranks.run(call_main, ["train", *WORDS, *words, f"data.fasta={fasta}", *more])
    assert [(status, grumbled) for status, _, grumbled in answers] == [(0, "")] * world
    assert largest_difference(one, several) < 1e-12
    assert_same_figures(one, several, 1e-6)


def test_settings_that_do_not_fit(two: Ranks, fasta: Path, tmp_path: Path) -> None:
    words = ["train", *WORDS, f"data.fasta={fasta}", f"hydra.run.dir={tmp_path}", "trainer.devices=2"]
    for more, sentence in (
        (["trainer.sequence_parallel=3"], "trainer.sequence_parallel=3 must divide the 2 of trainer.devices"),
        (["trainer.sequence_parallel=2", "attention=topk", "attention.max_length=9"], "attention.max_length=9 tokens"),
    ):
        status, _, grumbled = two.run(call_main, [*words, *more])[0]
        assert status == 2 and sentence in grumbled
