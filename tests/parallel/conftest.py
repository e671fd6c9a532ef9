"""Processes that train together, for all tests of this folder, and what their runs are compared by."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.parallel.ranks import Ranks
from tests.toy_genomes import write_genome
from tests.training.quick import leave_out_evaluation

WORDS = ("experiment=smoke", "control=null", "trainer.threads=1", "trainer.memory_check=false", "data.batch=4")
WORDS += ("trainer.accelerator=cpu", "optimizer.lr=0.01", "schedule.warmup=0", "data.vcf=null", "+optimizer.eps=0.01")
"""A step of Adam with its own eps makes a difference of 1e-9 in a gradient near zero a difference of lr."""


@pytest.fixture(scope="session")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    ranks = Ranks(2, tmp_path_factory.mktemp("cache"))
    yield ranks
    ranks.end()


@pytest.fixture(scope="session")
def four(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ranks]:
    ranks = Ranks(4, tmp_path_factory.mktemp("cache"))
    yield ranks
    ranks.end()


@pytest.fixture(scope="module")
def evaluation_left_out() -> Iterator[None]:
    """The end of a run only saves the model that it was trained to."""
    with pytest.MonkeyPatch.context() as patch:
        leave_out_evaluation(patch)
        yield


@pytest.fixture(scope="session")
def fasta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_genome(tmp_path_factory.mktemp("genome"), "chr", seed=1)[0]


def last(folder: Path) -> dict[str, Any]:
    return torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)


def largest_difference(one: Path, other: Path) -> float:
    """Largest difference of a weight at the end; the bases and tokens that were seen must be equal."""
    first, second = last(one)["state_dict"], last(other)["state_dict"]
    assert first.keys() == second.keys()
    assert torch.equal(first["bases_seen"], second["bases_seen"])
    assert first.pop("tokens_seen")[0] == second["tokens_seen"][0]  # padding is that of each process
    return max(float((first[name] - second[name]).abs().max()) for name in first)
