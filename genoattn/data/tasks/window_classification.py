"""The contract of tasks whose label is the class of a whole window, with or without items to make the windows of."""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from genoattn.data.example import Example
from genoattn.data.tasks.base import Task
from genoattn.errors import UserError
from genoattn.genome.input_files import describe_counts
from genoattn.genome.intervals import Interval
from genoattn.genome.sequence_store import Genome
from genoattn.genome.simulate import Rates
from genoattn.genome.splits import Splits


class Items(NamedTuple):
    """The items that the examples of a task are made of, such as genes.

    Attributes:
        name: A word for them in what is printed and in errors, such as "genes".
        train: Those of the training split.
        validation: Those of the validation split.
        test: Those of the test split.
        skipped: The number of those in no split, by reason.
    """

    name: str
    train: Sequence[Any]
    validation: Sequence[Any]
    test: Sequence[Any]
    skipped: Mapping[str, int]

    def of(self, split: str) -> Sequence[Any]:
        """The items of a split; raises UserError if it has none."""
        items = getattr(self, split)
        if not items:
            raise UserError(f"no {self.name} for {split}: {self}")
        return items

    def __str__(self) -> str:
        counts = ", ".join(f"{split} {len(getattr(self, split)):,}" for split in ("train", "validation", "test"))
        return f"{self.name}: {counts}" + (f"; left out: {describe_counts(self.skipped)}" if self.skipped else "")


class WindowClassification(Task):
    """A task with one label for each window: the output "class".

    Attributes:
        class_names: The names of the classes, in the order of their numbers.
    """

    evaluator = "windows"
    class_names: Sequence[str]

    def reference_length(self, length: int) -> int:
        return length


class ItemClassification(WindowClassification):
    """A task whose windows are made of items that it reads from a genome or from files."""

    @abstractmethod
    def read_items(self, genome: Genome, splits: Splits) -> Items:
        """The items by split; raises UserError if their file is missing or malformed."""

    @abstractmethod
    def item_example(self, genome: Genome, item: Any, length: int, rng: np.random.Generator) -> Example:
        """The window of an item.

        Args:
            genome: The genome.
            item: One of those that `read_items` found.
            length: Bases of the window.
            rng: The only source of randomness.
        """

    def example(
        self, reference: UInt8[np.ndarray, "reference_length"], length: int, rates: Rates, rng: np.random.Generator
    ) -> Example:
        raise ValueError("examples of this task are made of its items; see `item_example`")


def within(interval: Interval, parts: Sequence[Interval]) -> bool:
    """True if an interval lies in one of the others as a whole."""
    return any(
        part.record == interval.record and part.start <= interval.start and interval.stop <= part.stop for part in parts
    )
