"""Windows become examples, examples tokens, tokens padded batches.

1. `Windows.draw` chooses a stretch of the genome          -> Interval
2. `Task.example` makes a sample of it and the truth         -> Example (bases)
3. the tokenizer encodes the bases                           -> ids
4. `collate` pads examples to the longest and stacks them    -> Batch (tensors)

Example i of a run is a pure function of (seed, i): any worker, any order, any resume gives the same examples. How far
the curriculum has come by then is a function of i too, of the first example of its batch.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import final

import lightning
import numpy as np
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from genoattn.batch import Batch, collate
from genoattn.genome.alphabet import reverse_complement
from genoattn.genome.labels import Labelled
from genoattn.genome.regions import Windows
from genoattn.genome.store import Genome
from genoattn.tasks.base import Example, Task, other_strand
from genoattn.tasks.curriculum import Curriculum, Stage
from genoattn.tasks.variant import VariantEffect
from genoattn.tokenizers.contract import Tokenizer

BLOCK = 8192
"""Bases of a stretch that is drawn or left out as one when a genome is resampled; of longer windows, a window."""


class Maker(ABC):
    """Where examples come from: one drawn at random, at the stage that training has reached."""

    passed_over: int
    """How many draws were left out."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, stage: Stage) -> Example:
        """An example, of what the generator gives alone."""


@final
class WindowMaker(Maker):
    """Draws a window of a genome and has the task make an example of it, of either strand where asked to."""

    def __init__(self, windows: Windows, task: Task, both_strands: bool = False):
        self.windows, self.task, self.both_strands = windows, task, both_strands

    @property
    def passed_over(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Windows left out because they are mostly N."""
        return self.windows.passed_over

    def draw(self, rng: np.random.Generator, stage: Stage) -> Example:
        window = self.windows.draw(rng)
        reference = self.windows.genome.bases(*window)
        if self.both_strands and rng.random() < 0.5:
            reference = reverse_complement(reference)
        example = self.task.example(reference, stage.length, stage.rates, rng)
        return example._replace(block=(window.record, window.start // max(BLOCK, window.length)))


@final
class VariantMaker(Maker):
    """Draws a labelled variant, each as likely as any other, and shows it on either strand where asked to."""

    passed_over = 0

    def __init__(self, genome: Genome, labelled: Sequence[Labelled], task: VariantEffect, both_strands: bool = False):
        self.genome, self.labelled, self.task, self.both_strands = genome, labelled, task, both_strands

    def draw(self, rng: np.random.Generator, stage: Stage) -> Example:
        example = self.task.show(self.genome, self.labelled[int(rng.integers(len(self.labelled)))], stage.length)
        if self.both_strands and rng.random() < 0.5:
            return other_strand(example)._replace(targets=example.targets)
        return example


@final
class Examples:
    """Example i of a maker, at the stage that the curriculum has reached by then, and batches of them.

    A batch holds `length` bases times its size: shorter windows, when a curriculum begins with such, are more of them.
    With `bucket` above 1 the examples of so many batches are sorted by length before they are dealt out.
    """

    def __init__(
        self, maker: Maker, task: Task, length: int, seed: int, curriculum: Curriculum, total: int, bucket: int = 1
    ):
        self.maker, self.task, self.length, self.seed = maker, task, length, seed
        self.curriculum, self.total, self.bucket = curriculum, total, bucket
        self._kept: tuple[tuple[int, int], list[list[Example]]] | None = None

    def stage(self, number: int) -> Stage:
        """The rates and the length at example `number` of `total`."""
        return self.curriculum.at(number / self.total, self.task.rates, self.length)

    def make(self, number: int, stage: Stage, more: int = 0) -> Example:
        """Example `number`; `more` counts those that shorter windows add to it."""
        return self.maker.draw(np.random.default_rng([self.seed, number] + [more] * (more > 0)), stage)

    def batch(self, number: int, size: int, tokenizer: Tokenizer, strands: bool = False) -> Batch:
        """The examples of batch `number`, all at the stage of the first of its bucket."""
        first = number // self.bucket * self.bucket
        stage = self.stage(first * size)
        made = self._bucket(first, size, stage, tokenizer)[number - first]
        return collate(made, tokenizer, stage, self.task.framing, strands=strands)

    def _bucket(self, first: int, size: int, stage: Stage, tokenizer: Tokenizer) -> list[list[Example]]:
        """The examples of batches first … first + bucket, those of like length together where there are several."""
        if self._kept is not None and self._kept[0] == (first, size):
            return self._kept[1]
        count = max(1, round(size * self.length / stage.length))
        made = [
            [self.make((first + batch) * size + one % size, stage, one // size) for one in range(count)]
            for batch in range(self.bucket)
        ]
        if self.bucket > 1:
            ranked = sorted(chain(*made), key=lambda example: len(tokenizer.encode(example.bases).ids))
            order = np.random.default_rng([self.seed, first, self.bucket]).permutation(self.bucket)
            made = [ranked[turn * count : (turn + 1) * count] for turn in order.tolist()]
            self._kept = (first, size), made
        return made

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_kept": None}


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
        tokenizer: Tokenizer,
        batch: int,
        accumulate: int,
        validation_windows: int,
        workers: int,
        strands: bool = False,
    ):
        super().__init__()
        self.training, self.validation, self.tokenizer = training, validation, tokenizer
        self.batch, self.accumulate, self.workers, self.strands = batch, accumulate, workers, strands
        self.validation_batches = max(1, validation_windows // batch)

    def _make(self, number: int) -> Batch:
        return self.training.batch(number, self.batch, self.tokenizer, self.strands)

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        ranks = self.trainer.world_size
        start = self.trainer.global_step * self.accumulate * ranks + self.trainer.global_rank
        return DataLoader(_Batches(self._make, start, ranks), batch_size=None, num_workers=self.workers)

    def val_dataloader(self) -> DataLoader:
        size, numbers = self.batch, range(self.validation_batches)
        batches = [self.validation.batch(number, size, self.tokenizer, self.strands) for number in numbers]
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
