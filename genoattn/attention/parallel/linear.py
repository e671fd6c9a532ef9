"""Linear attention over shards: sums of φ(k) [v, 1]ᵀ of the shards, added up or carried from shard to shard."""

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

from genoattn.attention.layout import Span
from genoattn.attention.modules.feature_maps import feature_dim
from genoattn.attention.ops.chunk_state import decay_factor
from genoattn.attention.ops.chunked_scan import Inputs, State
from genoattn.attention.ops.linear import (
    Features,
    LinearOptions,
    accumulate_state,
    bidirectional_scan,
    causal_scan,
    empty_state,
    features_of,
    query_state,
    scan_tokens,
)
from genoattn.attention.parallel.states import carried, gather_states, total_states

LinearInputs: TypeAlias = tuple[Tensor, Tensor, Tensor, LinearOptions]
"""Queries, keys and values of a shard by head, and their options."""


def linear_over_shards(parts: Sequence[LinearInputs], causal: bool, span: Span) -> list[Tensor]:
    """Outputs `[batch, shard, heads, dim_value]` of heads that are scanned together, each part by itself.

    All parts have a decay, or none has. One collective serves all of them: a sum of the shards' sums if every token
    sees every other one alike, else a gather of them.
    """
    if parts[0][3].decay is not None:
        return _decayed(parts, causal, span)
    return _alike(parts, causal, span)


def _alike(parts: Sequence[LinearInputs], causal: bool, span: Span) -> list[Tensor]:
    """Without a decay: sums and counts of the tokens before, or of all."""
    own, outputs = [], []
    for _, k, v, options in parts:
        memory, count = accumulate_state(k, v, _empty(k, v, options), options)
        own += [memory, count.to(memory.dtype)]
    if not causal:
        sums = iter(total_states(own, span))
        for q, _, _, options in parts:
            state = next(sums), next(sums).detach().round().long()
            outputs.append(query_state(q, state, options))
        return outputs
    told = iter(gather_states(own, span))
    for q, k, v, options in parts:
        before, count = carried(next(told), span), next(told)[: span.rank].detach().round().long().sum(0)
        outputs.append(causal_scan(q, k, v, (before, count), options)[0])
    return outputs


def _decayed(parts: Sequence[LinearInputs], causal: bool, span: Span) -> list[Tensor]:
    """With a decay: sums of the tokens before, and of those ahead, each by its distance from the shard."""
    own, outputs = [], []
    for _, k, v, options in parts:
        own += _written(k, v, options, both=not causal)
    told = iter(gather_states(own, span))
    for q, k, v, options in parts:
        through = _fading(options, span)
        before = carried(next(told), span, through)
        if causal:
            _, count = _empty(k, v, options)
            outputs.append(causal_scan(q, k, v, (before, count), options)[0])
        else:
            ahead = carried(next(told), span, through, ahead=True)
            outputs.append(bidirectional_scan(q, k, v, before, ahead, options)[0])
    return outputs


def _empty(k: Tensor, v: Tensor, options: LinearOptions) -> tuple[Tensor, Tensor]:
    return empty_state(len(k), k.shape[2], feature_dim(k.shape[3], options.features), v.shape[3], v)


def _fading(options: LinearOptions, span: Span) -> Callable[[int, Tensor], Tensor]:
    """The function that fades a memory over the tokens of a shard."""
    assert options.decay is not None
    kept = torch.exp(-options.decay * span.length)[:, None, None]
    return lambda _, state: state * kept


def _written(k: Tensor, v: Tensor, options: LinearOptions, both: bool) -> list[Tensor]:
    """The decayed sums after the last token of a shard, and if so asked at its first one."""
    empty, _ = _empty(k, v, options)
    state = (empty, *([empty] if both else []), torch.zeros((), dtype=torch.long, device=k.device))
    *sums, _ = scan_tokens(_write, options, state, (k, v, *options.of_keys), (options.decay,))[1]
    return sums


def _write(state: State, pieces: Inputs, shared: Inputs, *, features: Features) -> tuple[None, State]:
    """Add a segment to the sums after it, and to those at the first token of all."""
    (*sums, done), (k, v, padding_mask, positions), (decay,) = state, pieces, shared
    phi, rotated = features_of(k, padding_mask, positions, features)
    phi, rotated, v = phi.permute(0, 2, 3, 1), rotated.permute(0, 2, 3, 1), v.to(phi.dtype).transpose(1, 2)
    index, length = torch.arange(k.shape[1], device=k.device), k.shape[1]

    def written(distance: Tensor) -> Tensor:
        left = decay_factor(decay, distance)[..., None]
        return torch.cat([rotated @ (v * left), phi @ left], dim=-1)

    kept = decay_factor(decay, done.new_full((), length))[:, None, None]
    after = [sums[0] * kept + written(length - 1 - index)]
    if len(sums) > 1:
        after.append(sums[1] + written(done + index))
    return None, (*after, done + length)
