"""Models of different layers brought to equal parameters or equal FLOPs by the width of their MLPs."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from torch import nn

from genoattn.errors import UserError
from genoattn.models.cost import blocks, model_flops
from genoattn.models.sequence_model import SequenceModel

Size: TypeAlias = Literal["parameters", "flops"]

TOLERANCE = 0.02
"""Largest relative difference from the target that counts as matched."""


@dataclass(frozen=True)
class SizeMatch:
    """The overrides that bring a model nearest to the target, and its size then: parameters, or FLOPs of a context."""

    overrides: list[str]
    """Empty if the model stays as it is."""
    count: int
    target: int

    @property
    def relative_error(self) -> float:
        """Relative difference of the count from the target: 0.01 is 1 % above."""
        return self.count / self.target - 1


def match_size(models: Mapping[str, SequenceModel], by: Size, tokens: int) -> dict[str, SizeMatch]:
    """For each model, the overrides that bring it to the size of the first one.

    Only `model.mlp_ratio` is set, so that embeddings, stem, heads and residual stream stay equal. Both sizes grow
    linearly with the channels of the MLPs, so the nearest number of channels is known at once.

    Args:
        models: Models by name; their weights do not matter and are not changed.
        by: The size that is made equal.
        tokens: Tokens of a context, which matter to FLOPs only. `task=paired data.length=512` has 1,025 of them with
            one token a base.

    Raises:
        UserError: The nearest size of a model differs from the target by more than `TOLERANCE`.
    """
    counts = {name: _count(model, by, tokens) for name, model in models.items()}
    first, target = next(iter(counts.items()))
    matches = {name: _nearest(models[name], by, tokens, count, target) for name, count in counts.items()}
    for name, match in matches.items():
        if abs(match.relative_error) > TOLERANCE:
            size = f"{by} ({target:,})" if by == "parameters" else f"FLOPs of a context ({target:,})"
            raise UserError(
                f"{name} cannot be matched to the {size} of {first}: the nearest that model.mlp_ratio brings it, with"
                f" {' '.join(match.overrides) or 'no change'}, is {match.count:,} ({match.relative_error:+.1%});"
                f" name {name} first"
            )
    return matches


def _count(model: SequenceModel, by: Size, tokens: int) -> int:
    return model_flops(model, tokens) if by == "flops" else sum(weight.numel() for weight in model.parameters())


def _nearest(model: SequenceModel, by: Size, tokens: int, count: int, target: int) -> SizeMatch:
    """The number of MLP channels that brings a model nearest to the target."""
    backbone = blocks(model)
    last = backbone[0].mlp[-1]
    assert isinstance(last, nn.Linear)
    dim, width = last.weight.shape
    channel = len(backbone) * (4 * dim * tokens if by == "flops" else 2 * dim + 1)  # one in every MLP
    more = max(round((target - count) / channel), 1 - width)
    overrides = [f"model.mlp_ratio={(width + more) / dim:.6g}"] if more else []
    return SizeMatch(overrides, count + more * channel, target)
