"""A small folder of configs, and the classes that it names, for the tests of the package that composes and checks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

from genoattn.config.schema import Settings, Target
from genoattn.errors import UserError


class Layer:
    """Built by the small configs; refuses 7 heads, as a constructor may."""

    def __init__(
        self,
        dim: int,
        causal: bool = False,
        heads: int = 4,
        scale: float | None = None,
        kind: Literal["soft", "hard"] = "soft",
        reaches: Sequence[int] = (),
        betas: tuple[float, float] = (0.9, 0.99),
        gate: bool = False,
        rate: Annotated[float, Gt(0), Le(1)] = 0.5,
        size: Annotated[int, Ge(1)] | Literal["auto"] = 1,
        length: Annotated[int, Ge(1)] | Sequence[Annotated[int, Ge(1)]] = 1,
        inner: Callable[..., Any] | None = None,
    ):
        if heads == 7:
            raise UserError(f"heads must not be prime, got {heads}")


def make_layer(dim: int, causal: bool) -> Layer:
    return Layer(dim, causal)


@dataclass(frozen=True)
class Trainer:
    max_steps: Annotated[int, Ge(0)]
    max_seconds: Annotated[float, Gt(0)] | None
    devices: int | str


class Run(Settings):
    """The settings of the program `train` of the small configs."""

    seed: int
    attention: Target
    trainer: Target
    checkpoint: str | None = None


FILES = {
    "train": """
defaults: [_self_, attention: linear, trainer: short, experiment: null]
seed: 1
checkpoint: null
hydra: {run: {dir: "runs/train/${now:%Y}"}, sweep: {dir: "runs/sweep"}}
""",
    "attention/linear": """# Linear attention.
_target_: tests.config.trees.Layer
_partial_: true
heads: 4 # a comment
""",
    "attention/full": "_target_: tests.config.trees.Layer\n_partial_: true\nheads: 4\nscale: null\n",
    "attention/none": "_target_: tests.config.trees.Layer\n_partial_: true\n",
    "trainer/short": "_target_: tests.config.trees.Trainer\nmax_steps: 3\nmax_seconds: null\ndevices: 1\n",
    "experiment/typo": "# @package _global_\ntrainer: {max_stepz: 3}\n",
    "experiment/stale": "# @package _global_\ndefaults: [override /attention: liner]\n",
    "broken": "defaults: [_self_\n",
    "open": "defaults: [_self_, attention: '???']\n",
}
"""Name and text of each yaml file."""
