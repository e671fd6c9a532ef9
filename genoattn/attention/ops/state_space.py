"""State space recurrence with a scalar decay by head (SSD, arXiv 2405.21060): products inside chunks and between them.

Chunked tensors are [batch, chunks, chunk, …]. Every decay factor is at most 1, because logarithms are subtracted first.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from genoattn.attention.base import State
from genoattn.attention.ops.chunked_scan import Inputs, chunk_bounds, chunk_length, scan
from genoattn.attention.ops.sizes import CPU, Sizes, sizes
from genoattn.attention.ops.states_at_once import faded_states

CHUNK = 64


def state_space_scan(
    c: Float[Tensor, "batch length state"],
    b: Float[Tensor, "batch length state"],
    v: Float[Tensor, "batch length heads channels"],
    log_kept: Float[Tensor, "batch length heads"],
    memory: Float[Tensor, "batch heads state channels"],
) -> tuple[Float[Tensor, "batch length heads channels"], Float[Tensor, "batch heads state channels"]]:
    """y_t = S_tᵀ c_t of S_t = a_t S_{t-1} + b_t v_tᵀ for each head, from left to right.

    Args:
        c: What reads the state, shared by the heads.
        b: What writes it, shared by the heads.
        v: Values.
        log_kept: Logarithm of a_t, at most 0.
        memory: The state before the first token.

    Returns:
        The outputs in the dtype of the state, and the last state.
    """
    if not v.numel():
        return v.to(memory.dtype), memory
    if torch.compiler.is_compiling():  # one graph; the scan would break it to run its own backward
        with torch.autocast(v.device.type, enabled=False):
            y, (memory,) = _segment((memory,), (c, b, v, log_kept), ())
        return y, memory
    y, (memory,) = scan(_segment, (memory,), (c, b, v, log_kept), segment=_segment_length(v.shape[2], sizes(v.device)))
    return y, memory


def state_space_memory(
    b: Float[Tensor, "batch length state"],
    v: Float[Tensor, "batch length heads channels"],
    log_kept: Float[Tensor, "batch length heads"],
    memory: Float[Tensor, "batch heads state channels"],
) -> Float[Tensor, "batch heads state channels"]:
    """The last state of `state_space_scan`, without its outputs."""
    return scan(_written, (memory,), (b, v, log_kept), segment=_segment_length(v.shape[2], sizes(v.device)))[1][0]


def _written(state: State, pieces: Inputs, _: Inputs) -> tuple[None, State]:
    """The state after a segment from the state before it."""
    (memory,), (b, v, log_a) = state, (t.to(state[0].dtype) for t in pieces)
    log_decay = log_a.cumsum(1)  # from the start of the segment
    last = log_decay[:, -1]
    added = b.mT @ (v * (last[:, None] - log_decay).exp()[..., None]).flatten(2)
    added = added.unflatten(-1, v.shape[2:]).transpose(1, 2)
    return None, (memory * last.exp()[..., None, None] + added,)


def _segment_length(heads: int, by: Sizes = CPU) -> int:
    """Tokens of a segment of the scan, whose largest tensor is the weights inside its chunks."""
    return chunk_length(heads * CHUNK, CHUNK, by)


def _segment(state: State, pieces: Inputs, _: Inputs) -> tuple[Tensor, State]:
    """Outputs of a segment from the state before it, and the state after it."""
    (memory,), (c, b, v, log_a) = state, (t.to(state[0].dtype) for t in pieces)
    length, (heads, channels) = v.shape[1], v.shape[2:]
    size = min(CHUNK, length)
    tail = -length % size
    if tail:
        c, b, log_a = (F.pad(t, (0, 0, 0, tail)) for t in (c, b, log_a))
        v = F.pad(v, (0, 0, 0, 0, 0, tail))
    c, b, log_a, v = (t.unflatten(1, (-1, size)) for t in (c, b, log_a, v))
    log_decay = log_a.cumsum(2)  # from the start of its chunk
    last = log_decay[:, :, -1:]
    rows = log_decay.transpose(2, 3)
    between = (rows[..., :, None] - rows[..., None, :]).clamp_max(0).exp_()  # ahead of a token clamped and not used
    weights = (c @ b.mT).tril()[:, :, None] * between
    near = (weights @ v.transpose(2, 3)).transpose(2, 3)
    added = b.mT @ (v * (last - log_decay).exp()[..., None]).flatten(3)
    added = added.unflatten(-1, (heads, channels)).permute(0, 3, 1, 2, 4)
    before, after = _memories(memory, added, last[:, :, 0].transpose(1, 2))
    before = before.permute(0, 2, 3, 1, 4).flatten(3)
    far = (c @ before).unflatten(-1, (heads, channels)) * log_decay.exp()[..., None]
    # A copy, so that a saved state does not keep all of them in memory.
    return (near + far).flatten(1, 2)[:, :length], (after.clone(),)


def _memories(memory: Tensor, added: Tensor, log_kept: Tensor) -> tuple[Tensor, Tensor]:
    """Memories before each chunk [batch, heads, chunks, …] and after the last."""
    if sizes(added.device).at_once:
        return faded_states(memory, added, log_kept)
    sources = torch.cat([memory[:, :, None], added], dim=2)
    log_total = F.pad(log_kept.cumsum(2), (1, 0))  # from the start of the segment
    factor = (log_total[..., :, None] - log_total[..., None, :]).clamp_max(0).exp_().tril()
    memories = (factor @ sources.flatten(3)).view(sources.shape)
    return memories[:, :, :-1], memories[:, :, -1]


def state_space_flops(length: int, heads: int, states: int, channels: int) -> int:
    """FLOPs of `state_space_scan` for one sequence."""
    total = 0
    for start, stop in chunk_bounds(length, _segment_length(heads)):
        size = min(CHUNK, stop - start)
        chunks = -(-(stop - start) // size)
        inside = chunks * size * (size * (states + heads * channels) + 2 * states * heads * channels)
        total += 2 * (inside + (chunks + 1) ** 2 * heads * states * channels)
    return total
