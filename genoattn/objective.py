"""What a wrong answer costs: cross-entropy at every base about which something is asked, weighted by output."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int8
from torch import Tensor

IGNORE = -1
"""The target of a base about which nothing is asked."""


class Output(NamedTuple):
    """What the model answers at each token: how many classes (1: yes or no), and the weight of it in the loss."""

    classes: int
    weight: float


class Loss(NamedTuple):
    """The weighted sum, and its parts by output before they are weighted (nats a base)."""

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]]


def loss(
    answers: Mapping[str, Float[Tensor, "batch length _"]],
    targets: Mapping[str, Int8[Tensor, "batch length"]],
    outputs: Mapping[str, Output],
) -> Loss:
    """Mean over the bases asked about; 0 for an output that nothing is asked of."""
    parts = {name: _part(answers[name].float(), targets[name].long(), outputs[name].classes) for name in outputs}
    total = torch.stack([output.weight * parts[name] for name, output in outputs.items()]).sum()
    return Loss(total, parts)


def _part(logits: Float[Tensor, "batch length classes"], target: Tensor, classes: int) -> Float[Tensor, ""]:
    asked = target != IGNORE
    if classes > 1:
        lost = F.cross_entropy(logits.flatten(0, 1), target.flatten(), ignore_index=IGNORE, reduction="sum")
    else:
        lost = F.binary_cross_entropy_with_logits(logits[..., 0], target.float().clamp_min(0), reduction="none")
        lost = (lost * asked).sum()
    return lost / asked.sum().clamp_min(1)
