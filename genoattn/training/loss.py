"""The loss: cross-entropy, or the squared error of a number, at every labelled base, token or window."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from genoattn.data.batch import count_labels
from genoattn.data.targets import IGNORE_INDEX, TargetSpec


class Loss(NamedTuple):
    """The weighted sum, and its terms by output before they are weighted (nats a base)."""

    total: Float[Tensor, ""]
    terms: dict[str, Float[Tensor, ""]]


class LossSums(NamedTuple):
    """By output, the sum of the losses of all labelled bases, tokens or windows, and their number."""

    sums: Float[Tensor, "outputs"]
    labels: Int[Tensor, "outputs"]


def loss(
    logits: Mapping[str, Float[Tensor, "batch _ _"]],
    targets: Mapping[str, Shaped[Tensor, "batch _"]],
    outputs: Mapping[str, TargetSpec],
) -> Loss:
    """Mean over the labelled bases (tokens, windows) of every output; 0 for an output without a label."""
    return mean_loss(*sum_losses(logits, targets, outputs), outputs)


def sum_losses(
    logits: Mapping[str, Float[Tensor, "batch _ _"]],
    targets: Mapping[str, Shaped[Tensor, "batch _"]],
    outputs: Mapping[str, TargetSpec],
) -> LossSums:
    """The sums that `loss` is a mean of; those of the parts of a batch may be added."""
    sums = torch.stack([_sum(logits[name], targets[name], output) for name, output in outputs.items()])
    return LossSums(sums, count_labels(targets, outputs))


def mean_loss(
    sums: Float[Tensor, "outputs"], labels: Shaped[Tensor, "outputs"], outputs: Mapping[str, TargetSpec]
) -> Loss:
    """The loss of sums over a number of labels, which may be more than those that were summed."""
    terms = sums / labels.clamp_min(1)
    weights = torch.tensor([output.weight for output in outputs.values()], dtype=terms.dtype, device=terms.device)
    return Loss((weights * terms).sum(), dict(zip(outputs, terms.unbind(), strict=True)))


def _sum(logits: Float[Tensor, "batch length classes"], target: Tensor, output: TargetSpec) -> Tensor:
    logits = logits if logits.dtype == torch.float64 else logits.float()
    if output.number:
        return F.mse_loss(logits[..., 0], target.to(logits.dtype), reduction="sum")
    target = target.long()
    labelled = target != IGNORE_INDEX
    if logits.shape[-1] == 1:
        numbers = target.to(logits.dtype).clamp_min(0)
        return (F.binary_cross_entropy_with_logits(logits[..., 0], numbers, reduction="none") * labelled).sum()
    weight = torch.tensor(output.balance, device=logits.device, dtype=logits.dtype) if output.balance else None
    return F.cross_entropy(logits.flatten(0, 1), target.flatten(), weight, ignore_index=IGNORE_INDEX, reduction="sum")
