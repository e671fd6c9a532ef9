"""Checks of what a layer learns, near and far, and of what it can tell apart before it learns anything."""

import torch
import torch.nn.functional as F
from torch import Tensor

from genoattn.attention.base import Attention, TokenLayout
from genoattn.attention.conformance.check import (
    FAR,
    LEARNED,
    LEARNED_FAR,
    STEPS,
    Factory,
    Outcome,
    register,
)
from genoattn.attention.conformance.probes import Stack, far_task, stored_letters, toy_task
from genoattn.attention.modules.projections import QKVProjection

KEYS, TOLD = 64, 0.45
"""Random keys that are stored together, and the share of them below which the check of capacity warns."""


@register("a layer that is correct and useless")
def learns(factory: Factory, dim: int, causal: bool) -> Outcome:
    """Two blocks with the layer learn to copy the kind of a marked run to all tokens that can see it.

    Sequences of 32 tokens of four letters hold one run of eight equal marks. The label of a token is the kind of the
    marks, one of four, and does not depend on the token's own letter. A causal layer is scored after the run,
    a bidirectional one at every token outside it.
    """
    accuracy, step = 0.0, 0
    model = Stack(factory, dim, causal)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    while step < STEPS and accuracy < LEARNED:
        tokens, labels, scored = toy_task(16, causal)
        logits = model(tokens)[scored]
        optimizer.zero_grad()
        F.cross_entropy(logits, labels[scored]).backward()
        optimizer.step()
        right = (logits.argmax(-1) == labels[scored]).float().mean().item()
        accuracy += 0.2 * (right - accuracy)
        step += 1
    return accuracy >= LEARNED, f"accuracy {accuracy:.2f} after {step} steps"


@register("a memory that fades before it is asked")
def learns_far(factory: Factory, dim: int, causal: bool) -> Outcome:
    """One block with the layer learns to tell the last 16 of 512 tokens the kind of the marks among the first 64."""
    layer = factory(dim=dim, causal=causal)
    if layer.receptive_field is not None and layer.receptive_field[0] < FAR:
        return True, f"the layer declares that it sees {layer.receptive_field[0]} tokens to the left"
    accuracy, step = 0.0, 0
    model = Stack(factory, dim, causal, depth=1)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    while step < STEPS and accuracy < LEARNED_FAR:
        tokens, kind = far_task(2, FAR)
        logits = model(tokens)[:, -16:]
        optimizer.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), kind.repeat_interleave(16)).backward()
        optimizer.step()
        accuracy += 0.2 * ((logits.argmax(-1) == kind[:, None]).float().mean().item() - accuracy)
        step += 1
    return accuracy >= LEARNED_FAR, f"accuracy {accuracy:.2f} after {step} steps at {FAR} tokens"


@register("nothing: it warns of a memory that cannot tell its keys apart")
def capacity(factory: Factory, dim: int, causal: bool) -> Outcome:
    """A warning if the untrained layer cannot tell the letters that are stored under 64 random keys."""
    layer = factory(dim=dim, causal=causal)
    if layer.receptive_field is not None:
        return True, "the layer declares a receptive field"
    share = letters_told(layer, KEYS, dim)
    warning = f"untrained, it tells {share:.2f} of the letters stored under {KEYS} random keys (guessing: 0.25)"
    return True, f"tells {share:.2f} of the letters stored under {KEYS} random keys", warning if share < TOLD else ""


def letters_told(layer: Attention, keys: int, dim: int, apart: bool = False) -> float:
    """Share of the letters stored under so many random keys that an untrained layer tells; guessing gives 0.25.

    Sixteen tokens repeat one of the keys each, at the same position and with the projection of queries equal to that of
    keys. The letters are read by the best linear map of the layer's outputs. With `apart` these tokens are a segment of
    their own, so that heads that see only another segment read the keys.
    """
    for heads in layer.modules():
        if isinstance(heads, QKVProjection):
            shared = heads.key.weight.unflatten(0, (heads.kv_count, 1, -1))
            heads.query.weight.data.copy_(shared.expand(-1, heads.count // heads.kv_count, -1, -1).flatten(0, 2))
    x, letters = stored_letters(96, keys, dim)
    with torch.no_grad():
        segments = (torch.arange(x.shape[1]) >= keys).long().expand(x.shape[:2]) if apart else None
        positions = torch.zeros(x.shape[:2], dtype=torch.long)
        y = layer(x, TokenLayout(position_ids=positions, segment_ids=segments))[:, keys:]
    return _told(y, letters)


def _told(y: Tensor, letters: Tensor) -> float:
    """Share of letters that the best linear map of y [sequences, asked, channels] tells in the last third."""
    y = torch.cat([y, torch.ones_like(y[..., :1])], dim=-1).double()
    y = y / y.square().mean((0, 1)).sqrt().clamp_min(1e-12)
    known = 2 * len(y) // 3
    seen, wanted = y[:known].flatten(0, 1), F.one_hot(letters[:known].flatten(), 4).double()
    ridge = 1e-3 * len(seen) * torch.eye(seen.shape[1], dtype=seen.dtype)
    read = torch.linalg.solve(seen.T @ seen + ridge, seen.T @ wanted)
    return ((y[known:] @ read).argmax(-1) == letters[known:]).float().mean().item()
