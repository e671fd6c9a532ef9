"""To be said in a sentence."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import chain
from typing import final

import numpy as np

from genoattn.data.batch import Batch, collate
from genoattn.data.curriculum import Curriculum, CurriculumStage
from genoattn.data.example import Example, reverse_complement_example
from genoattn.data.tasks.base import Task
from genoattn.data.tasks.variant_classification import VariantClassification
from genoattn.data.tokenizers.base import Tokenizer
from genoattn.genome.alphabet import reverse_complement
from genoattn.genome.labelled_variants import LabelledVariant
from genoattn.genome.sequence_store import Genome
from genoattn.genome.windows import Windows

BLOCK = 8192
"""Bases of a stretch that is drawn or left out as one when a genome is resampled; of longer windows, a window."""


class ExampleSampler(ABC):
    """Where examples come from: one drawn at random, at the stage that training has reached."""

    skipped: int
    """How many draws were left out."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, stage: CurriculumStage) -> Example:
        """An example, of what the generator gives alone."""


@final
class WindowSampler(ExampleSampler):
    """Draws a window of a genome and has the task make an example of it, of either strand where asked to."""

    def __init__(self, windows: Windows, task: Task, both_strands: bool = False):
        self.windows, self.task, self.both_strands = windows, task, both_strands

    @property
    def skipped(self) -> int:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Windows left out because they are mostly N."""
        return self.windows.skipped

    def draw(self, rng: np.random.Generator, stage: CurriculumStage) -> Example:
        window = self.windows.draw(rng)
        reference = self.windows.genome.fetch(*window)
        if self.both_strands and rng.random() < 0.5:
            reference = reverse_complement(reference)
        example = self.task.example(reference, stage.length, stage.rates, rng)
        return example._replace(block=(window.record, window.start // max(BLOCK, window.length)))


@final
class VariantSampler(ExampleSampler):
    """Draws a labelled variant, each as likely as any other, and shows it on either strand where asked to."""

    skipped = 0

    def __init__(
        self,
        genome: Genome,
        labelled: Sequence[LabelledVariant],
        task: VariantClassification,
        both_strands: bool = False,
    ):
        self.genome, self.labelled, self.task, self.both_strands = genome, labelled, task, both_strands

    def draw(self, rng: np.random.Generator, stage: CurriculumStage) -> Example:
        example = self.task.window_around(
            self.genome, self.labelled[int(rng.integers(len(self.labelled)))], stage.length
        )
        if self.both_strands and rng.random() < 0.5:
            return reverse_complement_example(example)._replace(targets=example.targets)
        return example


@final
class ExampleDataset:
    """Example i of a maker, at the stage that the curriculum has reached by then, and batches of them.

    A batch holds `length` bases times its size: shorter windows, when a curriculum begins with such, are more of them.
    With `bucket` above 1 the examples of so many batches are sorted by length before they are dealt out.
    """

    def __init__(
        self,
        sampler: ExampleSampler,
        task: Task,
        length: int,
        seed: int,
        curriculum: Curriculum,
        total: int,
        bucket_batches: int = 1,
    ):
        self.sampler, self.task, self.length, self.seed = sampler, task, length, seed
        self.curriculum, self.total, self.bucket_batches = curriculum, total, bucket_batches
        self._kept: tuple[tuple[int, int], list[list[Example]]] | None = None

    def stage(self, number: int) -> CurriculumStage:
        """The rates and the length at example `number` of `total`."""
        return self.curriculum.at(number / self.total, self.task.rates, self.length)

    def example(self, number: int, stage: CurriculumStage, more: int = 0) -> Example:
        """Example `number`; `more` counts those that shorter windows add to it."""
        return self.sampler.draw(np.random.default_rng([self.seed, number] + [more] * (more > 0)), stage)

    def batch(self, number: int, size: int, tokenizer: Tokenizer, both_strands: bool = False) -> Batch:
        """The examples of batch `number`, all at the stage of the first of its bucket."""
        first = number // self.bucket_batches * self.bucket_batches
        stage = self.stage(first * size)
        made = self._bucket(first, size, stage, tokenizer)[number - first]
        return collate(made, tokenizer, stage, self.task.context_format, both_strands=both_strands)

    def _bucket(self, first: int, size: int, stage: CurriculumStage, tokenizer: Tokenizer) -> list[list[Example]]:
        """The examples of batches first … first + bucket, those of like length together where there are several."""
        if self._kept is not None and self._kept[0] == (first, size):
            return self._kept[1]
        count = max(1, round(size * self.length / stage.length))
        made = [
            [self.example((first + batch) * size + one % size, stage, one // size) for one in range(count)]
            for batch in range(self.bucket_batches)
        ]
        if self.bucket_batches > 1:
            ranked = sorted(chain(*made), key=lambda example: len(tokenizer.encode(example.bases).ids))
            order = np.random.default_rng([self.seed, first, self.bucket_batches]).permutation(self.bucket_batches)
            made = [ranked[turn * count : (turn + 1) * count] for turn in order.tolist()]
            self._kept = (first, size), made
        return made

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_kept": None}
