"""Models of different layers brought to equal parameters or equal FLOPs, by the width of their MLPs alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig
from torch import nn

from genoattn.errors import UserError
from genoattn.models.build import build_model
from genoattn.models.cost import _blocks, model_flops
from genoattn.models.sequence_model import SequenceModel

Size: TypeAlias = Literal["parameters", "flops"]


TOLERANCE = 0.02
"""How far from the target a match may be, of the target."""


@dataclass(frozen=True)
class SizeMatch:
    """What brings a model to the target, and how near it comes: counts of parameters, or of FLOPs of one context."""

    overrides: list[str]
    """Empty where the model is left as it is."""
    count: int
    target: int

    @property
    def relative_error(self) -> float:
        """By how much of the target the count misses it: 0.01 is 1 % above."""
        return self.count / self.target - 1


def match_size(configs: Mapping[str, DictConfig], by: Size, tokens: int) -> dict[str, SizeMatch]:
    """For each layer's config of `train`, the overrides that bring its model to the count of the first one's.

    `tokens` stand in a context (at `task=paired data.length=512` 1,025, with one token a base); they matter to FLOPs
    alone. Only `model.mlp_ratio` is set, so that embeddings, stem, heads and the residual stream stay equal.
    Both counts grow evenly with the channels of the MLPs, so that the nearest number of these is known at once. Raises
    UserError where that leaves a model further off than `TOLERANCE`.
    """
    models = {name: _model(config) for name, config in configs.items()}
    counts = {name: _count(model, by, tokens) for name, model in models.items()}
    first = next(iter(counts))
    found = {name: _nearest(models[name], by, tokens, count, counts[first]) for name, count in counts.items()}
    for name, one in found.items():
        if abs(one.relative_error) > TOLERANCE:
            what = f"{by} ({one.target:,})" if by == "parameters" else f"FLOPs of a context ({one.target:,})"
            raise UserError(
                f"{name} cannot be matched to the {what} of {first}: the nearest that model.mlp_ratio brings it, with"
                f" {' '.join(one.overrides) or 'no change'}, is {one.count:,} ({one.relative_error:+.1%});"
                f" name {name} first"
            )
    return found


def _model(config: DictConfig) -> SequenceModel:
    """The model of a config; what a tokenizer has yet to learn of its vocabulary is the same for every layer."""
    with torch.random.fork_rng(devices=[]):
        return build_model(config, instantiate(config.task), instantiate(config.tokenizer)).model  # type: ignore[arg-type]


def _count(model: SequenceModel, by: Size, tokens: int) -> int:
    return model_flops(model, tokens) if by == "flops" else sum(one.numel() for one in model.parameters())


def _nearest(model: SequenceModel, by: Size, tokens: int, count: int, target: int) -> SizeMatch:
    """The nearest that the channels of its MLPs bring a model to the target."""
    blocks = _blocks(model)
    last = blocks[0].mlp[-1]
    assert isinstance(last, nn.Linear)
    dim, width = last.weight.shape
    channel = len(blocks) * (4 * dim * tokens if by == "flops" else 2 * dim + 1)  # one in every MLP
    more = max(round((target - count) / channel), 1 - width)
    overrides = [f"model.mlp_ratio={(width + more) / dim:.6g}"] if more else []
    return SizeMatch(overrides, count + more * channel, target)
