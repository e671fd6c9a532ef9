"""States of many chunks by few products, for devices on which a step for each chunk would cost more than the work."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

GROUP = 32
"""Chunks whose states are one product; groups of them are passed on in the same way."""


def faded_states(
    first: Float[Tensor, "*batch rows columns"],
    added: Float[Tensor, "*batch chunks rows columns"],
    log_kept: Float[Tensor, "*batch chunks"],
) -> tuple[Float[Tensor, "*batch chunks rows columns"], Float[Tensor, "*batch rows columns"]]:
    """The states S of S ← exp(log_kept) S + added before each chunk, from the first, and the state after the last.

    Logarithms are at most 0 and finite, so that every factor is at most 1.
    """
    count, (rows, columns) = log_kept.shape[-1], added.shape[-2:]
    added = added.flatten(-2)
    if count <= GROUP:
        within = _within(torch.cat([first.flatten(-2)[..., None, :], added], dim=-2), F.pad(log_kept, (1, 0)))
        states = within[..., 1:, :].unflatten(-1, (rows, columns))
        return states[..., :-1, :, :], states[..., -1, :, :]
    tail = -count % GROUP
    log_kept = F.pad(log_kept, (0, tail)).unflatten(-1, (-1, GROUP))
    within = _within(F.pad(added, (0, 0, 0, tail)).unflatten(-2, (-1, GROUP)), log_kept)
    totals = within[..., -1, :].unflatten(-1, (rows, columns))
    before, after = faded_states(first, totals, log_kept.sum(-1))
    faded = F.pad(log_kept.cumsum(-1), (1, -1)).exp()[..., None] * before.flatten(-2)[..., None, :]
    states = (within[..., :-1, :] + faded).flatten(-3, -2)[..., :count, :]
    return states.unflatten(-1, (rows, columns)), after


def _within(
    added: Float[Tensor, "*batch chunks channels"], log_kept: Float[Tensor, "*batch chunks"]
) -> Float[Tensor, "*batch states channels"]:
    """States from an empty one, before each chunk and after the last."""
    total = F.pad(log_kept.cumsum(-1), (1, 0))
    factor = (total[..., :, None] - total[..., None, 1:]).clamp_max(0).exp_().tril(-1)
    return factor @ added


def changed_states(
    first: Float[Tensor, "batch n m"],
    changes: Float[Tensor, "batch chunks n n"],
    added: Float[Tensor, "batch chunks n m"],
) -> Float[Tensor, "batch states n m"]:
    """The states S of S ← changes S + added, from the first, before each chunk and after the last.

    A change and what it adds are joined with those of the chunks before, over 1, 2, 4, … chunks. It has no gradient.
    """
    states = torch.cat([first[None], added.transpose(0, 1)])  # chunks first: parts of them then lie in one piece
    changes, step = changes.transpose(0, 1).contiguous(), 1
    while True:  # entry i of `changes` belongs to state i + step; the first `step` states are complete
        states[step:].add_(changes @ states[:-step])
        if 2 * step >= len(states):
            return states.transpose(0, 1)
        changes = changes[step:] @ changes[:-step]
        step *= 2
