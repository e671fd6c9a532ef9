"""Examples of a genome by number, and batches of them."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from itertools import chain
from typing import Any, final

import numpy as np

from genoattn.data.batch import Batch, collate
from genoattn.data.curriculum import Curriculum, CurriculumStage
from genoattn.data.example import Example, reverse_complement_example
from genoattn.data.share import WHOLE, DataShare
from genoattn.data.targets import IGNORE_INDEX
from genoattn.data.tasks.base import Task
from genoattn.data.tasks.conditional import Conditional
from genoattn.data.tasks.variant_classification import VariantClassification
from genoattn.data.tasks.window_classification import ItemClassification
from genoattn.data.tokenizers.base import Tokenizer
from genoattn.errors import UserError
from genoattn.genome.intervals import Interval
from genoattn.genome.labelled_variants import LabelledVariant
from genoattn.genome.sequence_store import Genome
from genoattn.genome.strains import Strain, reverse_complement_block
from genoattn.genome.windows import Windows

RESAMPLING_UNIT = 8192
"""Bases of a genome that a bootstrap resamples together; for longer windows, the bases of a window."""


class ExampleSampler(ABC):
    """Draws random examples."""

    @property
    @abstractmethod
    def skipped(self) -> int:
        """Draws that were skipped so far."""

    @abstractmethod
    def draw(self, rng: np.random.Generator, stage: CurriculumStage) -> Example:
        """A random example at a stage of the curriculum; it depends on nothing but the generator and the stage."""


@final
class WindowSampler(ExampleSampler):
    """Draws a window of a genome, on a random strand if `both_strands`, and makes an example of it."""

    def __init__(self, windows: Windows, task: Task, both_strands: bool = False):
        self.windows, self.task, self.both_strands = windows, task, both_strands

    @property
    def skipped(self) -> int:
        return self.windows.skipped

    def draw(self, rng: np.random.Generator, stage: CurriculumStage) -> Example:
        window = self.windows.draw(rng)
        reverse = self.both_strands and rng.random() < 0.5
        example = self.task.example_at(self.windows.genome, window, stage.length, stage.rates, rng, reverse)
        return example._replace(block=(window.record, window.start // max(RESAMPLING_UNIT, window.length)))


@final
class VariantSampler(ExampleSampler):
    """Draws a labelled variant, on a random strand if `both_strands`; every variant is equally likely."""

    def __init__(
        self, genome: Genome, labelled: Sequence[LabelledVariant], task: VariantClassification, both_strands: bool
    ):
        self.genome, self.labelled, self.task, self.both_strands = genome, labelled, task, both_strands

    @property
    def skipped(self) -> int:
        return 0

    def draw(self, rng: np.random.Generator, stage: CurriculumStage) -> Example:
        variant = self.labelled[int(rng.integers(len(self.labelled)))]
        example = self.task.window_around(self.genome, variant, stage.length)
        return _on_either_strand(example, self.both_strands, rng)


@final
class ItemSampler(ExampleSampler):
    """Draws one of the items of a task, on a random strand if `both_strands`; every item is equally likely."""

    def __init__(self, genome: Genome, items: Sequence[Any], task: ItemClassification, both_strands: bool):
        self.genome, self.items, self.task, self.both_strands = genome, items, task, both_strands

    @property
    def skipped(self) -> int:
        return 0

    def draw(self, rng: np.random.Generator, stage: CurriculumStage) -> Example:
        item = self.items[int(rng.integers(len(self.items)))]
        return _on_either_strand(self.task.item_example(self.genome, item, stage.length, rng), self.both_strands, rng)


def _on_either_strand(example: Example, both_strands: bool, rng: np.random.Generator) -> Example:
    """The same example, half of the time on the reverse strand if `both_strands`; there only the window has a label."""
    if both_strands and rng.random() < 0.5:
        targets = {
            name: target if len(target) == 1 else np.full_like(target, IGNORE_INDEX)
            for name, target in example.targets.items()
        }
        return reverse_complement_example(example)._replace(targets=targets)
    return example


@final
class StrainSampler(ExampleSampler):
    """Draws a window of one of several strains within intervals of their relative, every base equally likely."""

    def __init__(
        self,
        strains: Sequence[Strain],
        intervals: Sequence[Interval],
        task: Conditional,
        length: int,
        both_strands: bool = False,
    ):
        """Build the sampler; raises UserError if no strain has a window of `length` bases within the intervals."""
        found = [part for strain in strains for part in strain.within(intervals, length)]
        if not found:
            names = ", ".join(strain.name for strain in strains)
            raise UserError(
                f"data.strains: no stretch of {length} bases of {names} lies beside the training, validation or test"
                " blocks of data.fasta; choose a shorter data.length, or strains that are more closely related"
            )
        self._parts, self._task, self._both_strands = found, task, both_strands
        self._starts = np.cumsum([stop - first - length + 1 for _, first, stop in found])

    @property
    def skipped(self) -> int:
        return 0

    def draw(self, rng: np.random.Generator, stage: CurriculumStage) -> Example:
        start = int(rng.integers(self._starts[-1]))
        number = int(np.searchsorted(self._starts, start, side="right"))
        block, _, stop = self._parts[number]
        # Counted from the end of the stretch.
        first = stop - stage.length - (int(self._starts[number]) - 1 - start)
        if self._both_strands and rng.random() < 0.5:
            lead = self._task.lead
            block, first = reverse_complement_block(block.part(max(first - lead, 0), first + stage.length, lead)), 0
        return self._task.window_of(block, first, stage.length, rng)


@final
class ExampleDataset:
    """Examples by number, and batches of them; example i depends on nothing but the seed, i and the curriculum."""

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
        """Build the dataset.

        Args:
            sampler: Draws the examples.
            task: The task, which gives the rates at the end of the curriculum.
            length: Sample bases of a window at the end of the curriculum.
            seed: The seed of all examples.
            curriculum: The rates and lengths during training.
            total: Examples of the whole training, at which the curriculum ends.
            bucket_batches: Batches whose examples are sorted by length together, so that little is padded.
        """
        self.sampler, self.task, self.length, self.seed = sampler, task, length, seed
        self.curriculum, self.total, self.bucket_batches = curriculum, total, bucket_batches
        self._last_bucket: tuple[tuple[int, int], list[list[Example]]] | None = None

    def stage(self, number: int) -> CurriculumStage:
        """The rates and the length at example `number`."""
        chance = np.random.default_rng((self.seed, number, 0, 1)).random()  # no example has these numbers
        return self.curriculum.at(number / self.total, self.task.rates, self.length, chance)

    def example(self, number: int, stage: CurriculumStage, more: int = 0) -> Example:
        """Example `number`; a batch of shorter windows has more examples, and `more` numbers the added ones from 1."""
        entropy = (self.seed, number) if more == 0 else (self.seed, number, more)
        return self.sampler.draw(np.random.default_rng(entropy), stage)

    def batch(
        self,
        number: int,
        size: int,
        tokenizer: Tokenizer,
        both_strands: bool = False,
        length: int | None = None,
        share: DataShare = WHOLE,
    ) -> Batch:
        """Batch `number`, or a share of it, at the stage of the first batch of its bucket.

        Args:
            number: The number of the batch, from 0.
            size: Examples of full length; of shorter windows there are more, so that the bases stay the same.
            tokenizer: Makes tokens of the bases.
            both_strands: Add the same examples on the reverse strand.
            length: Sample bases of a window; None: as the curriculum has it.
            share: The rows that are made; by default all.
        """
        first = number // self.bucket_batches * self.bucket_batches
        stage = self.stage(first * size)
        stage = stage._replace(length=length or stage.length)
        rows = share.rows(max(1, round(size * self.length / stage.length)))
        if self.bucket_batches == 1:
            examples = [self.example(number * size + row % size, stage, row // size) for row in rows]
        else:
            examples = self._bucket(first, size, stage, tokenizer)[number - first][rows.start : rows.stop]
        return collate(examples, tokenizer, stage, self.task.context_format, both_strands=both_strands)

    def _bucket(self, first: int, size: int, stage: CurriculumStage, tokenizer: Tokenizer) -> list[list[Example]]:
        """The examples of the batches of a bucket of several batches, each of which holds similar lengths."""
        if self._last_bucket is not None and self._last_bucket[0] == (first, size):
            return self._last_bucket[1]
        count = max(1, round(size * self.length / stage.length))
        batches = [
            [self.example(batch * size + number % size, stage, number // size) for number in range(count)]
            for batch in range(first, first + self.bucket_batches)
        ]
        ranked = sorted(chain(*batches), key=lambda example: len(tokenizer.encode(example.bases).ids))
        order = np.random.default_rng([self.seed, first, self.bucket_batches]).permutation(self.bucket_batches)
        batches = [ranked[turn * count : (turn + 1) * count] for turn in order.tolist()]
        self._last_bucket = (first, size), batches
        return batches

    def __getstate__(self) -> dict:
        return self.__dict__ | {"_last_bucket": None}
