"""The sums that linear attention reads: written and read segment by segment, over all tokens, the past, or both sides.

The memory is [batch, heads, features, dim_value + 1], the sum of φ(k) [v, 1]ᵀ in at least float32 under any autocast
(bfloat16 has lost it at a million tokens): its last column makes the denominator.
"""

from functools import partial
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.base import zero_padding
from genoattn.attention.modules.feature_maps import feature_dim, feature_map
from genoattn.attention.modules.rotary import rotate
from genoattn.attention.ops.chunk_state import CHUNK, bounds_of, cut, memories, read_chunks
from genoattn.attention.ops.chunked_scan import Inputs, State, scan, segment_of

EPSILON = 1e-6
"""The least denominator for each visible token: it weighs the same against the sum at any length."""


Seen: TypeAlias = tuple[Tensor, Tensor]
"""The memory, and the number of tokens in it for each sequence of the batch."""


class How(NamedTuple):
    """The feature map, what `linear_attention` is given of each token, and how fast each head forgets."""

    features: str
    keep: Tensor | None
    positions: Tensor | None
    rates: Tensor | None


def nothing_seen(batch: int, heads: int, features: int, channels: int, like: Tensor) -> Seen:
    """The memory before the first token, on the device of `like`."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    memory = torch.zeros(batch, heads, features, channels + 1, dtype=dtype, device=like.device)
    return memory, torch.zeros(batch, dtype=torch.long, device=like.device)


def write_all(k: Tensor, v: Tensor, seen: Seen, how: How) -> Seen:
    """What has been seen, and these tokens too."""
    _, (memory, count) = _walk(_write_all, how, seen, (k, v, how.keep, how.positions))
    return memory, count


def read_all(q: Tensor, seen: Seen, how: How) -> Tensor:
    """The answers from what has been seen."""
    return _walk(_read_all, how, (), (q, how.keep, how.positions), seen)[0]


def read_past(q: Tensor, k: Tensor, v: Tensor, seen: Seen, how: How) -> tuple[Tensor, Seen]:
    """Each token's answer from what has been seen and the tokens up to itself, and all of that as seen."""
    y, (memory, count) = _walk(_read_past, how, seen, (q, k, v, how.keep, how.positions), (how.rates,))
    return y, (memory, count)


def write_ahead(k: Tensor, v: Tensor, ahead: Tensor, how: How) -> Tensor:
    """The fading memory of these tokens and of what lies ahead of them, as it is at the first of them."""
    pieces = (k, v, how.keep, how.positions)
    return _walk(_write_ahead, how, (ahead,), pieces, (how.rates,), ahead=True)[1][0]


def read_both(q: Tensor, k: Tensor, v: Tensor, memory: Tensor, ahead: Tensor, how: How) -> tuple[Tensor, Tensor]:
    """The answers from these tokens and the fading memories at both ends, and the memory after the last of them."""
    pieces, rates = (k, v, how.keep, how.positions), (how.rates,)
    borders, _ = _walk(_write_ahead, how, (ahead,), pieces, rates, ahead=True)
    y, (memory,) = _walk(_read_both, how, (memory,), (q, *pieces, borders), rates)
    return y, memory


def _walk(
    step: Any, how: How, state: State, pieces: Inputs, shared: Inputs = (), *, ahead: bool = False
) -> tuple[Any, State]:
    """A scan from the left, or of what lies `ahead` from the right, with an answer for each segment."""
    x = pieces[0]
    numbers = len(x) * x.shape[2] * feature_dim(x.shape[3], how.features)
    step = partial(step, features=how.features)
    return scan(step, state, pieces, shared, segment=segment_of(numbers, CHUNK), backwards=ahead, sparse=ahead)


def _write_all(state: State, pieces: Inputs, _: Inputs, *, features: str) -> tuple[None, State]:
    """Add a segment to the memory and to the count of its tokens."""
    (memory, seen), (k, v, keep, positions) = state, pieces
    phi, turned = _mapped(k, keep, positions, features)
    written = turned.permute(0, 2, 3, 1) @ v.to(phi.dtype).transpose(1, 2)
    memory = memory + torch.cat([written, phi.sum(1)[..., None]], dim=-1)
    return None, (memory, seen + _ones(k, keep).sum(1))


def _read_all(state: State, pieces: Inputs, shared: Inputs, *, features: str) -> tuple[Tensor, State]:
    """The answers from a memory of all tokens."""
    (q, keep, positions), (memory, seen) = pieces, shared
    phi, turned = _mapped(q, None, positions, features)
    if turned is phi:
        above, below = (phi.transpose(1, 2) @ memory).transpose(1, 2).split([memory.shape[-1] - 1, 1], dim=-1)
    else:
        above = (turned.transpose(1, 2) @ memory[..., :-1]).transpose(1, 2)
        below = (phi * memory[..., -1][:, None]).sum(-1, keepdim=True)
    return _divided(above, below, seen[:, None], keep).to(q.dtype), state


def _read_past(state: State, pieces: Inputs, shared: Inputs, *, features: str) -> tuple[Tensor, State]:
    """The answers from a segment and from the memory of what lies before it, and the memory after it."""
    (memory, seen), (q, k, v, keep, positions), (rates,) = state, pieces, shared
    above, below, memory = _read_chunks(q, k, v, keep, positions, memory, rates, features=features)
    seen = seen[:, None] + _ones(k, keep).cumsum(1)
    return _divided(above, below, seen if rates is None else None, keep).to(v.dtype), (memory, seen[:, -1].clone())


def _write_ahead(state: State, pieces: Inputs, shared: Inputs, *, features: str) -> tuple[Tensor, State]:
    """As its answer the fading memory of what lies ahead of a segment, and that at its first token."""
    (memory,), (k, v, keep, positions), (rates,) = state, pieces, shared
    phi, turned = _mapped(k, keep, positions, features)
    bounds, v = bounds_of(k.shape[1], k.device), v.to(phi.dtype)
    if turned is phi:
        after = memories(cut(phi), cut(F.pad(v, (0, 1), value=1.0)), memory, rates, bounds, ahead=True)[:, :, 0].clone()
    else:
        above = memories(cut(turned), cut(v), memory[..., :-1], rates, bounds, ahead=True)[:, :, 0]
        below = memories(cut(phi), cut(torch.ones_like(v[..., :1])), memory[..., -1:], rates, bounds, ahead=True)
        after = torch.cat([above, below[:, :, 0]], dim=-1)
    return memory[:, None], (after,)


def _read_both(state: State, pieces: Inputs, shared: Inputs, *, features: str) -> tuple[Tensor, State]:
    """The answers from a segment and from what lies before and ahead of it, fading with distance."""
    (memory,), (q, k, v, keep, positions, ahead), (rates,) = state, pieces, shared
    above, below, memory = _read_chunks(q, k, v, keep, positions, memory, rates, ahead[:, 0], features=features)
    return _divided(above, below, None, keep).to(v.dtype), (memory,)


def _read_chunks(
    q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None, positions: Tensor | None, memory: Tensor,
    rates: Tensor | None, ahead: Tensor | None = None, *, features: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Numerator, denominator and the memory after a segment."""
    (phi_q, turned_q), (phi_k, turned_k) = _mapped(q, None, positions, features), _mapped(k, keep, positions, features)
    v = v.to(phi_k.dtype)
    if turned_q is phi_q:
        sums, memory = read_chunks(phi_q, phi_k, F.pad(v, (0, 1), value=1.0), memory, rates, ahead)
        above, below = sums.split([v.shape[-1], 1], dim=-1)
        return above, below, memory
    ones = torch.ones_like(v[..., :1])
    far, total = (None, None) if ahead is None else (ahead[..., :-1], ahead[..., -1:])
    above, numbers = read_chunks(turned_q, turned_k, v, memory[..., :-1], rates, far)
    below, count = read_chunks(phi_q, phi_k, ones, memory[..., -1:], rates, total)
    return above, below, torch.cat([numbers, count], dim=-1)


def _divided(above: Tensor, below: Tensor, seen: Tensor | None, keep: Tensor | None) -> Tensor:
    """The quotient, 0 at padding; what fades has the least denominator of one token."""
    least = below.new_tensor(EPSILON) if seen is None else EPSILON * seen.clamp_min(1)[..., None, None].to(below.dtype)
    return zero_padding(above * torch.maximum(below, least).reciprocal(), keep)


def _mapped(x: Tensor, keep: Tensor | None, positions: Tensor | None, features: str) -> tuple[Tensor, Tensor]:
    """φ(x) in at least float32, 0 at padding, and the same turned."""
    phi = zero_padding(feature_map(x.to(torch.promote_types(x.dtype, torch.float32)), features), keep)
    return phi, phi if positions is None else rotate(phi, positions)


def _ones(x: Tensor, keep: Tensor | None) -> Tensor:
    return torch.ones(x.shape[:2], dtype=torch.long, device=x.device) if keep is None else keep.long()


def linear_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_value"],
    *,
    causal: bool,
    features: str = "elu",
    keep: Bool[Tensor, "batch length"] | None = None,
    positions: Int[Tensor, "#batch length"] | None = None,
    rates: Float[Tensor, "heads"] | None = None,
) -> Float[Tensor, "batch length heads dim_value"]:
    """y_i = sum_j φ(q_i)·φ(k_j) v_j / sum_j φ(q_i)·φ(k_j), by sums of φ(k) vᵀ and φ(k); 0 at padding.

    With `positions` the features are turned in the numerator alone: turned in the denominator too they could make it
    0 or negative. With `rates` a token at distance d weighs exp(-rate d) times less, on both sides. The sums are at
    least float32 under any autocast: bfloat16 has lost them at a million tokens. At padding q, k and v may hold
    anything finite.
    """
    if not q.numel():
        return v
    seen = nothing_seen(len(q), q.shape[2], feature_dim(q.shape[3], features), v.shape[3], v)
    how = How(features, keep, positions, rates)
    if causal:
        return read_past(q, k, v, seen, how)[0]
    if rates is not None:
        return read_both(q, k, v, seen[0], seen[0], how)[0]
    return read_all(q, write_all(k, v, seen, how), how)
