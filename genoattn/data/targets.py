"""To be said in a sentence."""

from typing import Literal, NamedTuple

IGNORE = -1
"""The target of a base about which nothing is asked."""


Level = Literal["base", "token", "window"]


Mirror = Literal["flip", "gap", "letter", "whole", "own"]


class Output(NamedTuple):
    """What the model answers: how many classes (1: yes or no; 0: one for each token there is), and its weight.

    It answers at every base, token, or once for the window. `mirror` says how an answer about the other strand is read
    on this one: "flip" base by base; "gap" as what lies before a base; "letter" with the complement of each class;
    "whole" as it is; "own" not at all.
    """

    classes: int
    weight: float
    level: Level = "base"
    mirror: Mirror = "flip"
    balance: tuple[float, ...] = ()
    """What an answer of each class counts in the loss; empty: all alike."""


OUTPUTS = ("substitution", "insertion", "deletion")
"""The columns of a table of scores that every comparison has."""


COLUMNS = (*OUTPUTS, "inversion")
"""All columns in order; the last is there in tasks that ask for inversions."""
