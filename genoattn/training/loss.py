"""What a wrong answer costs: cross-entropy at every base about which something is asked, weighted by output."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from genoattn.data.targets import IGNORE_INDEX, TargetSpec


class Loss(NamedTuple):
    """The weighted sum, and its parts by output before they are weighted (nats a base)."""

    total: Float[Tensor, ""]
    terms: dict[str, Float[Tensor, ""]]


def loss(
    answers: Mapping[str, Float[Tensor, "batch _ _"]],
    targets: Mapping[str, Int[Tensor, "batch _"]],
    outputs: Mapping[str, TargetSpec],
) -> Loss:
    """Mean over the bases (tokens, windows) asked about; 0 for an output that nothing is asked of."""
    parts = {name: _part(answers[name], targets[name].long(), one.balance) for name, one in outputs.items()}
    total = torch.stack([output.weight * parts[name] for name, output in outputs.items()]).sum()
    return Loss(total, parts)


def _part(
    logits: Float[Tensor, "batch length classes"], target: Tensor, balance: tuple[float, ...]
) -> Float[Tensor, ""]:
    logits, asked = logits.float(), target != IGNORE_INDEX
    if logits.shape[-1] == 1:
        lost = F.binary_cross_entropy_with_logits(logits[..., 0], target.float().clamp_min(0), reduction="none")
        return (lost * asked).sum() / asked.sum().clamp_min(1)
    weight = torch.tensor(balance, device=logits.device) if balance else None
    lost = F.cross_entropy(logits.flatten(0, 1), target.flatten(), weight, ignore_index=IGNORE_INDEX, reduction="sum")
    return lost / asked.sum().clamp_min(1)
