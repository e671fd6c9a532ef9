"""The loss: cross-entropy, or the squared error of a number, at every labelled base, token or window."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Shaped
from torch import Tensor

from genoattn.data.targets import IGNORE_INDEX, TargetSpec


class Loss(NamedTuple):
    """The weighted sum, and its terms by output before they are weighted (nats a base)."""

    total: Float[Tensor, ""]
    terms: dict[str, Float[Tensor, ""]]


def loss(
    logits: Mapping[str, Float[Tensor, "batch _ _"]],
    targets: Mapping[str, Shaped[Tensor, "batch _"]],
    outputs: Mapping[str, TargetSpec],
) -> Loss:
    """Mean over the labelled bases (tokens, windows) of every output; 0 for an output without a label."""
    terms = {name: _term(logits[name], targets[name], output) for name, output in outputs.items()}
    total = torch.stack([output.weight * terms[name] for name, output in outputs.items()]).sum()
    return Loss(total, terms)


def _term(logits: Float[Tensor, "batch length classes"], target: Tensor, output: TargetSpec) -> Tensor:
    logits = logits.float()
    if output.number:
        return F.mse_loss(logits[..., 0], target.float())
    target = target.long()
    labelled = target != IGNORE_INDEX
    if logits.shape[-1] == 1:
        each = F.binary_cross_entropy_with_logits(logits[..., 0], target.float().clamp_min(0), reduction="none")
        return (each * labelled).sum() / labelled.sum().clamp_min(1)
    weight = torch.tensor(output.balance, device=logits.device, dtype=torch.float32) if output.balance else None
    total = F.cross_entropy(logits.flatten(0, 1), target.flatten(), weight, ignore_index=IGNORE_INDEX, reduction="sum")
    return total / labelled.sum().clamp_min(1)
