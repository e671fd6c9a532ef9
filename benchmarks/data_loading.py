"""Speed of making examples: bases a second that 0, 1 and 2 workers hand to a training, and what a base costs them.

python -m benchmarks.data_loading [--seconds 2] [--json FILE]

A worker is timed by its own processor time, so that other programs on the machine disturb it little. The bases a second
of a second of the clock, which they disturb, stand beside.
"""

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.data import DataLoader

from genoattn.cli.values import value_of
from genoattn.config.compose import compose
from genoattn.data.curriculum import Curriculum
from genoattn.data.datamodule import BatchStream
from genoattn.data.dataset import ExampleDataset
from genoattn.data.source import build_dataset, open_data_source
from genoattn.data.tokenizers.base import Tokenizer
from genoattn.data.workers import loader_options

TASKS = {
    "default task": [],
    "paired": ["experiment=paired"],
    "side by side": ["experiment=side_by_side"],
    "pretrain": ["experiment=pretrain"],
}
LENGTHS, BASES = (512, 8192), 8192
GOAL = 4.0
"""Million bases a second of two workers."""


class Measurement(NamedTuple):
    """A row of the table; speeds are millions of bases a second."""

    task: str
    length: int
    workers: int
    by_processor: float
    by_clock: float


class Cost(NamedTuple):
    """The bases of a batch, and the processor time that it took to make it."""

    bases: int
    seconds: float


def costs(dataset: ExampleDataset, tokenizer: Tokenizer, workers: int) -> Iterator[Cost]:
    """Make batches without end, in so many workers."""

    def make(number: int) -> Cost:
        start = time.process_time()
        batch = dataset.batch(number, max(1, BASES // dataset.length), tokenizer)
        return Cost(batch.bases, time.process_time() - start)

    options = loader_options(workers, torch.device("cpu"))
    return iter(DataLoader(BatchStream(make, 0), batch_size=None, **options))  # type: ignore[arg-type]


def measure(name: str, words: list[str], length: int, workers: int, seconds: float) -> Measurement:
    """Make batches of a task for some seconds of the clock, after the first ones."""
    config = compose("train", [*words, f"data.length={length}"])
    task, data = value_of(config.task), value_of(config.data)
    dataset = build_dataset(open_data_source(data, task, 0), "train", data, task, 0, 1, Curriculum())
    batches = costs(dataset, value_of(config.tokenizer), workers)
    for _ in range(8 * max(1, workers)):
        next(batches)  # those that were made while nobody waited
    start, made = time.perf_counter(), []
    while time.perf_counter() - start < seconds:
        made.append(next(batches))
    elapsed, bases = time.perf_counter() - start, sum(cost.bases for cost in made)
    processor = bases * max(1, workers) / sum(cost.seconds for cost in made)
    return Measurement(name, length, workers, processor / 1e6, bases / elapsed / 1e6)


def main() -> None:
    """Measure, print a table and, with --json, save it."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--seconds", type=float, default=2.0, help="seconds of the clock of each measurement")
    arguments.add_argument("--json", type=Path, help="file to save the measurements in")
    options = arguments.parse_args()
    rows = [
        measure(name, words, length, workers, options.seconds)
        for name, words in TASKS.items()
        for length in LENGTHS
        for workers in (0, 1, 2)
    ]
    table = Table("task", "length", "workers", "by processor time", "by the clock", title=f"Mb/s; 2 workers: {GOAL:g}")
    for row in rows:
        table.add_row(row.task, str(row.length), str(row.workers), f"{row.by_processor:.2f}", f"{row.by_clock:.2f}")
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps([row._asdict() for row in rows], indent=2) + "\n")


if __name__ == "__main__":
    main()
