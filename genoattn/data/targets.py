"""To be said in a sentence."""

from typing import Literal, NamedTuple

IGNORE_INDEX = -1
"""The target of a base about which nothing is asked."""


Level = Literal["base", "token", "window"]


StrandSymmetry = Literal["per_base", "between_bases", "complement", "invariant", "none"]


class TargetSpec(NamedTuple):
    """What the model answers: how many classes (1: yes or no; 0: one for each token there is), and its weight.

    It answers at every base, token, or once for the window. `strand_symmetry` says how an answer about the other strand
    is read on this one: "per_base" base by base; "between_bases" as the answer before a base; "complement" with the
    complement of each class; "invariant" as it is; "none" not at all.
    """

    classes: int
    weight: float
    level: Level = "base"
    strand_symmetry: StrandSymmetry = "per_base"
    balance: tuple[float, ...] = ()
    """What an answer of each class counts in the loss; empty: all alike."""


MUTATION_OUTPUTS = ("substitution", "insertion", "deletion")
"""The columns of a table of scores that every comparison has."""


COLUMNS = (*MUTATION_OUTPUTS, "inversion")
"""All columns in order; the last is there in tasks that ask for inversions."""
