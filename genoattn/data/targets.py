"""The outputs that a task asks a model for."""

from typing import Literal, NamedTuple

IGNORE_INDEX = -1
"""The target of a base, a token or a window that has no label; it does not enter the loss."""

Level = Literal["base", "token", "window"]

StrandSymmetry = Literal["per_base", "between_bases", "complement", "invariant", "none"]


class TargetSpec(NamedTuple):
    """An output of the model.

    Attributes:
        classes: Number of classes; 1: a probability or a number; 0: one class per id of the tokenizer.
        weight: The weight of the output in the loss.
        level: The model predicts per base, per token or per window.
        strand_symmetry: The place on the forward strand of a prediction for the reverse strand. "per_base": at the same
            base; "between_bases": between the same bases, as a deletion; "complement": at the same base, with the
            complement of each class; "invariant": it is for the whole window; "none": it cannot be used.
        balance: The weight of each class in the loss; empty: all equal.
        number: True if the output is a number, whose targets are numbers and whose loss is the squared error.
    """

    classes: int
    weight: float
    level: Level = "base"
    strand_symmetry: StrandSymmetry = "per_base"
    balance: tuple[float, ...] = ()
    number: bool = False


MUTATION_OUTPUTS = ("substitution", "insertion", "deletion")
"""The columns of scores of every detection task."""

COLUMNS = (*MUTATION_OUTPUTS, "inversion")
"""All columns of scores in order; only tasks with inversions have the last."""
