"""The sums that linear attention reads, and the steps of the scans that write and read them.

The memory is [batch, heads, features, dim_value + 1], the sum of φ(k) [v, 1]ᵀ: its last column makes the denominator.
Each step takes its pieces in the order in which it unpacks them.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from genoattn.attention.base import blank
from genoattn.attention.chunks import bounds_of, cut, memories, read_chunks
from genoattn.attention.features import feature
from genoattn.attention.heads import rotate
from genoattn.attention.scan import Inputs, State

EPSILON = 1e-6
"""The least denominator for each visible token: it weighs the same against the sum at any length."""


def write_all(state: State, pieces: Inputs, _: Inputs, *, features: str) -> tuple[None, State]:
    """Add a segment to the memory and to the count of its tokens."""
    (memory, seen), (k, v, keep, positions) = state, pieces
    phi, turned = _mapped(k, keep, positions, features)
    written = turned.permute(0, 2, 3, 1) @ v.to(phi.dtype).transpose(1, 2)
    memory = memory + torch.cat([written, phi.sum(1)[..., None]], dim=-1)
    return None, (memory, seen + _ones(k, keep).sum(1))


def read_all(state: State, pieces: Inputs, shared: Inputs, *, features: str) -> tuple[Tensor, State]:
    """The answers from a memory of all tokens."""
    (q, keep, positions), (memory, seen) = pieces, shared
    phi, turned = _mapped(q, None, positions, features)
    above = (turned.transpose(1, 2) @ memory[..., :-1]).transpose(1, 2)
    below = (phi * memory[..., -1][:, None]).sum(-1, keepdim=True)
    return _divided(above, below, seen[:, None], keep).to(q.dtype), state


def read_past(state: State, pieces: Inputs, shared: Inputs, *, features: str) -> tuple[Tensor, State]:
    """The answers from a segment and from the memory of what lies before it, and the memory after it."""
    (memory, seen), (q, k, v, keep, positions), (rates,) = state, pieces, shared
    above, below, memory = _both(q, k, v, keep, positions, memory, rates, features=features)
    seen = seen[:, None] + _ones(k, keep).cumsum(1)
    return _divided(above, below, seen if rates is None else None, keep).to(v.dtype), (memory, seen[:, -1])


def write_ahead(state: State, pieces: Inputs, shared: Inputs, *, features: str) -> tuple[Tensor, State]:
    """As its answer the fading memory of what lies ahead of a segment; after it that of what lies ahead of its start."""
    (memory,), (k, v, keep, positions), (rates,) = state, pieces, shared
    phi, turned = _mapped(k, keep, positions, features)
    bounds, v = bounds_of(k.shape[1], k.device), v.to(phi.dtype)
    if turned is phi:
        after = memories(cut(phi), cut(F.pad(v, (0, 1), value=1.0)), memory, rates, bounds, ahead=True)[:, :, 0]
    else:
        above = memories(cut(turned), cut(v), memory[..., :-1], rates, bounds, ahead=True)[:, :, 0]
        below = memories(cut(phi), cut(torch.ones_like(v[..., :1])), memory[..., -1:], rates, bounds, ahead=True)
        after = torch.cat([above, below[:, :, 0]], dim=-1)
    return memory[:, None], (after,)


def read_both(state: State, pieces: Inputs, shared: Inputs, *, features: str) -> tuple[Tensor, State]:
    """The answers from a segment and from what lies before and ahead of it, fading with distance."""
    (memory,), (q, k, v, keep, positions, ahead), (rates,) = state, pieces, shared
    above, below, memory = _both(q, k, v, keep, positions, memory, rates, ahead[:, 0], features=features)
    return _divided(above, below, None, keep).to(v.dtype), (memory,)


def _both(
    q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None, positions: Tensor | None, memory: Tensor,
    rates: Tensor | None, ahead: Tensor | None = None, *, features: str,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Numerator, denominator and the memory after a segment."""
    (phi_q, turned_q), (phi_k, turned_k) = _mapped(q, None, positions, features), _mapped(k, keep, positions, features)
    v = v.to(phi_k.dtype)
    if turned_q is phi_q:
        sums, memory = read_chunks(phi_q, phi_k, F.pad(v, (0, 1), value=1.0), memory, rates, ahead)
        return sums[..., :-1], sums[..., -1:], memory
    ones = torch.ones_like(v[..., :1])
    far, total = (None, None) if ahead is None else (ahead[..., :-1], ahead[..., -1:])
    above, numbers = read_chunks(turned_q, turned_k, v, memory[..., :-1], rates, far)
    below, count = read_chunks(phi_q, phi_k, ones, memory[..., -1:], rates, total)
    return above, below, torch.cat([numbers, count], dim=-1)


def _divided(above: Tensor, below: Tensor, seen: Tensor | None, keep: Tensor | None) -> Tensor:
    """The quotient, 0 at padding; what fades has the least denominator of one token."""
    least = below.new_tensor(EPSILON) if seen is None else EPSILON * seen.clamp_min(1)[..., None, None].to(below.dtype)
    return blank(above / torch.maximum(below, least), keep)


def _mapped(x: Tensor, keep: Tensor | None, positions: Tensor | None, features: str) -> tuple[Tensor, Tensor]:
    """φ(x) in at least float32, 0 at padding, and the same turned."""
    phi = blank(feature(x.to(torch.promote_types(x.dtype, torch.float32)), features), keep)
    return phi, phi if positions is None else rotate(phi, positions)


def _ones(x: Tensor, keep: Tensor | None) -> Tensor:
    return torch.ones(x.shape[:2], dtype=torch.long, device=x.device) if keep is None else keep.long()
