"""Windows become examples, examples tokens, tokens padded batches.

1. `Windows.draw` chooses a stretch of the genome          -> Interval
2. `Task.example` makes a sample of it and the truth         -> Example (bases)
3. the tokenizer encodes the bases                           -> ids
4. `collate` pads examples to the longest and stacks them    -> Batch (tensors)

Example i of a run is a pure function of (seed, i): any worker, any order, any resume gives the same examples. How far
the curriculum has come by then is a function of i too, of the first example of its batch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import final

import lightning
import numpy as np
import torch
from jaxtyping import Bool, Int8, UInt8
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from genoattn.genome.mutate import Event
from genoattn.genome.regions import Windows
from genoattn.objective import IGNORE
from genoattn.tasks.base import Example, Task
from genoattn.tasks.curriculum import Curriculum, Stage
from genoattn.tokenizers.base import BaseTokenizer


@final
@dataclass(frozen=True)
class Batch:
    """Examples as a model takes them; ids stay bytes until they are embedded."""

    ids: UInt8[Tensor, "batch length"]
    beside: UInt8[Tensor, "batch wide"] | None
    keep: Bool[Tensor, "batch length"]
    targets: dict[str, Int8[Tensor, "batch length"]]
    events: tuple[tuple[Event, ...], ...]
    stage: Stage | None = None

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """The same batch on another device."""
        moved = {
            field.name: value.to(device, non_blocking=non_blocking)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        targets = {name: target.to(device, non_blocking=non_blocking) for name, target in self.targets.items()}
        return replace(self, **moved, targets=targets)


def collate(examples: Sequence[Example], tokenizer: BaseTokenizer, stage: Stage | None = None) -> Batch:
    """Stacks examples of one reach, padding the shorter at their ends."""
    length = max(len(example.bases) for example in examples)

    def stack(rows: Sequence[np.ndarray], width: int, filler: int) -> Tensor:
        table = np.full((len(rows), width), filler, rows[0].dtype)
        for row, values in zip(table, rows, strict=True):
            row[: len(values)] = values
        return torch.from_numpy(table)

    beside = [tokenizer.encode(example.beside).ids for example in examples if example.beside is not None]
    return Batch(
        ids=stack([tokenizer.encode(example.bases).ids for example in examples], length, tokenizer.pad),
        beside=stack(beside, max(map(len, beside)), tokenizer.pad) if beside else None,
        keep=stack([np.ones(len(example.bases), np.bool_) for example in examples], length, False),
        targets={
            name: stack([example.targets[name] for example in examples], length, IGNORE) for name in examples[0].targets
        },
        events=tuple(example.events for example in examples),
        stage=stage,
    )


@final
class Examples:
    """Example i of a task on the windows of a split, at the stage that the curriculum has reached by then."""

    def __init__(self, windows: Windows, task: Task, length: int, seed: int, curriculum: Curriculum, total: int):
        self.windows, self.task, self.length, self.seed = windows, task, length, seed
        self.curriculum, self.total = curriculum, total

    def stage(self, number: int) -> Stage:
        """The rates and the length at example `number` of `total`."""
        return self.curriculum.at(number / self.total, self.task.rates, self.length)

    def make(self, number: int, stage: Stage) -> Example:
        rng = np.random.default_rng([self.seed, number])
        reference = self.windows.genome.bases(*self.windows.draw(rng))
        return self.task.example(reference, stage.length, stage.rates, rng)

    def batch(self, number: int, size: int, tokenizer: BaseTokenizer) -> Batch:
        """Examples [number * size, (number + 1) * size), all at the stage of the first."""
        first = number * size
        stage = self.stage(first)
        return collate([self.make(first + more, stage) for more in range(size)], tokenizer, stage)


@final
class _Batches(IterableDataset):
    """Batches number start, start + step, …; workers take turns."""

    def __init__(self, make: Callable[[int], Batch], start: int, step: int):
        self.make, self.start, self.step = make, start, step

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        turn, turns = (0, 1) if worker is None else (worker.id, worker.num_workers)
        number = self.start + turn * self.step
        while True:
            yield self.make(number)
            number += turns * self.step


@final
class GenomeData(lightning.LightningDataModule):
    """Training batches without end from where the run stands, and a fixed set of validation batches."""

    def __init__(
        self,
        training: Examples,
        validation: Examples,
        tokenizer: BaseTokenizer,
        batch: int,
        accumulate: int,
        validation_windows: int,
        workers: int,
    ):
        super().__init__()
        self.training, self.validation, self.tokenizer = training, validation, tokenizer
        self.batch, self.accumulate, self.workers = batch, accumulate, workers
        self.validation_batches = max(1, validation_windows // batch)

    def _make(self, number: int) -> Batch:
        return self.training.batch(number, self.batch, self.tokenizer)

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        ranks = self.trainer.world_size
        start = self.trainer.global_step * self.accumulate * ranks + self.trainer.global_rank
        return DataLoader(_Batches(self._make, start, ranks), batch_size=None, num_workers=self.workers)

    def val_dataloader(self) -> DataLoader:
        batches = [self.validation.batch(n, self.batch, self.tokenizer) for n in range(self.validation_batches)]
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
