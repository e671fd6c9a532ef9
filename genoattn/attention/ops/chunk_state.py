"""Linear attention by chunks: weights inside a chunk, a state between chunks, with an optional decay by head.

Chunked tensors are [batch, heads, chunks, chunk, channels]. Every decay factor is at most 1, because
distances are measured from the bounds of a chunk.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

CHUNK = 64


CHUNKS_PER_PRODUCT = 16  # chunks whose states are computed by one product


def to_chunks(x: Float[Tensor, "batch length heads channels"]) -> Float[Tensor, "batch heads chunks chunk channels"]:
    """Split a segment into chunks, the last one filled up with zeros; a segment shorter than a chunk is one chunk."""
    size = min(CHUNK, x.shape[1])
    x, tail = x.transpose(1, 2), -x.shape[1] % size
    return (F.pad(x, (0, 0, 0, tail)) if tail else x.contiguous()).unflatten(2, (-1, size))


def bounds_of(length: int, device: torch.device) -> Tensor:
    """Bounds of the chunks of a segment: the start of each and the end of the last."""
    size = min(CHUNK, length)
    return torch.arange(0, length + size, size, device=device).clamp_max(length)


def decay_factor(decay: Float[Tensor, "heads"] | None, distance: Tensor) -> Tensor | None:
    """Factor [heads, …] after `distance` tokens; None without a decay."""
    if decay is None:
        return None
    return torch.exp(-decay.view(-1, *(1,) * distance.dim()) * distance)


def apply_decay(x: Tensor, decay: Tensor | None, distance: Tensor) -> Tensor:
    """Chunked values or outputs, times the decay factors at the distances [chunks, chunk]."""
    left = decay_factor(decay, distance)
    return x if left is None else x * left[..., None]


def chunk_states(
    k: Float[Tensor, "batch heads chunks chunk features"],
    v: Float[Tensor, "batch heads chunks chunk channels"],
    border: Float[Tensor, "batch heads features channels"],
    decay: Float[Tensor, "heads"] | None,
    bounds: Tensor,
    ahead: bool = False,
) -> Float[Tensor, "batch heads bounds features channels"]:
    """Sum of k vᵀ over the tokens before each bound (with `ahead`: from it on), decayed to the bound.

    `border` is the sum over the tokens before the first bound (with `ahead`: from the last bound on).
    """
    inside = torch.arange(k.shape[3], device=k.device)
    distance = inside[None] if ahead else (bounds.diff()[:, None] - 1 - inside).clamp_min(0)
    written = k.transpose(-1, -2) @ apply_decay(v, decay, distance)  # values are narrower than features
    states, border = [], border[:, :, None]
    for start in range(0, len(bounds) - 1, CHUNKS_PER_PRODUCT)[:: -1 if ahead else 1]:
        near, group = bounds[start : start + CHUNKS_PER_PRODUCT + 1], written[:, :, start : start + CHUNKS_PER_PRODUCT]
        group = torch.cat([group, border] if ahead else [border, group], dim=2)
        factor = decay_factor(decay, (near[:, None] - near).clamp_min(0))
        between = (k.new_ones(1, len(near), len(near)) if factor is None else factor).tril()
        sums = ((between.mT if ahead else between) @ group.flatten(3)).view_as(group)
        border = sums[:, :, :1] if ahead else sums[:, :, -1:]
        states.append(sums[:, :, 1:] if ahead else sums[:, :, :-1])
    return torch.cat([border, *states[::-1]] if ahead else [*states, border], dim=2)


def read_chunks(
    q: Float[Tensor, "batch length heads features"],
    k: Float[Tensor, "batch length heads features"],
    v: Float[Tensor, "batch length heads channels"],
    before: Float[Tensor, "batch heads features channels"],
    decay: Float[Tensor, "heads"] | None = None,
    ahead: Float[Tensor, "batch heads features channels"] | None = None,
    lead: float = 0.0,
) -> tuple[Float[Tensor, "batch length heads channels"], Float[Tensor, "batch heads features channels"]]:
    """Sum of exp(-decay |i - j|) (q_i·k_j) v_j over the state `before` a segment and j ≤ i in it; the state after it.

    Query i stands `lead` tokens after key i, so that its distances are |i - j + lead|. With the state `ahead` of the
    segment, the sum also covers that state and all j in the segment.
    """
    length = q.shape[1]
    bounds = bounds_of(length, q.device)
    q, k, v = to_chunks(q), to_chunks(k), to_chunks(v)
    inside = torch.arange(q.shape[3], device=q.device)
    weights = q @ k.transpose(-1, -2)
    near = decay_factor(decay, (inside[:, None] - inside + lead).abs())
    if near is not None:
        weights = weights * near[:, None]
    if ahead is None:
        weights = weights.tril()
    previous = chunk_states(k, v, before, decay, bounds)
    sums = weights @ v + apply_decay(q @ previous[:, :, :-1], decay, inside[None] + 1 + lead)
    if ahead is not None:
        future = chunk_states(k, v, ahead, decay, bounds, ahead=True)
        distance = (bounds.diff()[:, None] - inside - lead).clamp_min(0)
        sums = sums + apply_decay(q @ future[:, :, 1:], decay, distance)
    # A copy, so that a saved state does not keep all states in memory.
    return sums.flatten(2, 3)[:, :, :length].transpose(1, 2), previous[:, :, -1].clone()


def chunk_flops(length: int, features: int, channels: int, ways: int) -> int:
    """FLOPs of `read_chunks` for one head; with 2 ways the state ahead is written twice and read once."""
    size = min(CHUNK, length)
    chunks = -(-length // size)
    padded = chunks * size
    squares = 2 * padded * size * (features + channels)
    groups = sum((min(CHUNKS_PER_PRODUCT, chunks - start) + 1) ** 2 for start in range(0, chunks, CHUNKS_PER_PRODUCT))
    written = 2 * features * channels * (padded + groups)
    read = 2 * padded * features * channels
    return squares + written + read + (2 * written + read if ways == 2 else 0)
