"""The gated delta rule (arXiv 2412.06464): chunks of tokens update a state and read it."""

from functools import partial
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from genoattn.attention.base import State
from genoattn.attention.ops.chunked_scan import Inputs, chunk_length, scan

DeltaInputs: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Queries, keys, values, write strength of each token, and logarithm of its decay."""


CHUNK = 64


def delta_rule(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    write: Float[Tensor, "batch length heads"],
    log_kept: Float[Tensor, "batch length heads"],
    memory: Float[Tensor, "batch heads dim_head dim_head"],
    ahead: bool = False,
    own: bool | None = None,
) -> tuple[Float[Tensor, "batch length heads dim_head"], Float[Tensor, "batch heads dim_head dim_head"]]:
    """Delta rule: y_t = S_tᵀ q_t with S_t = a_t (I - b_t k_t k_tᵀ) S_{t-1} + b_t k_t v_tᵀ.

    The updates of the tokens of a chunk depend on one another through a triangular system, which is solved for many
    chunks at once; the state is passed from chunk to chunk.

    Args:
        q: Queries.
        k: Keys of length 1.
        v: Values.
        write: b_t, the write strength of each token.
        log_kept: Logarithm of a_t, the decay of each token.
        memory: The state before the first token, or with `ahead` after the last.
        ahead: Update from right to left.
        own: A token reads the state after its own update; by default only from left to right.

    Returns:
        The output of each token and the last state.
    """
    if not q.numel():
        return v.to(memory.dtype), memory
    step = partial(_backward_step if ahead else _forward_step, own=not ahead if own is None else own)
    pieces = q, k, v, write, log_kept
    y, (memory,) = scan(step, (memory,), pieces, segment=chunk_length(q[0, 0].numel(), CHUNK), backwards=ahead)
    return y, memory


def _forward_step(state: State, pieces: Inputs, _: Inputs, *, own: bool) -> tuple[Tensor, State]:
    (memory,), (q, k, v, write, log_kept) = state, (t.to(state[0].dtype) for t in pieces)
    y, memory = _chunks(q, k, v, write, log_kept, memory, own=own)
    return y, (memory,)


def _backward_step(state: State, pieces: Inputs, _: Inputs, *, own: bool) -> tuple[Tensor, State]:
    (memory,), (q, k, v, write, log_kept) = state, (t.to(state[0].dtype).flip(1) for t in pieces)
    y, memory = _chunks(q, k, v, write, log_kept, memory, own=own)
    return y.flip(1), (memory,)


def _chunks(
    q: Tensor, k: Tensor, v: Tensor, write: Tensor, log_kept: Tensor, memory: Tensor, *, own: bool
) -> tuple[Tensor, Tensor]:
    """Outputs of a segment of the sequence from the state before it, and the state after it."""
    length, size = q.shape[1], min(CHUNK, q.shape[1])
    tail = -length % size
    q, k, v = (F.pad(t, (0, 0, 0, 0, 0, tail)).unflatten(1, (-1, size)).transpose(2, 3).contiguous() for t in (q, k, v))
    b, log_a = (F.pad(t, (0, 0, 0, tail)).unflatten(1, (-1, size)).transpose(2, 3) for t in (write, log_kept))
    log_decay = log_a.cumsum(-1)
    # Differences of logarithms before the exponential, and only of later tokens less earlier ones: never above 1.
    between = (log_decay[..., :, None] - log_decay[..., None, :]).clamp_max(0).exp()
    system = ((k @ k.transpose(-1, -2)) * between * b[..., None]).tril(-1)
    targets = torch.cat([v, k * log_decay.exp()[..., None]], dim=-1) * b[..., None]
    solved = torch.linalg.solve_triangular(system, targets, upper=False, unitriangular=True)
    new_values, old_keys = solved.split(v.shape[-1], dim=-1)
    last = log_decay[..., -1:]
    # A chunk updates a state S to `transition` S + `added`.
    added, transition = ((k * (last - log_decay).exp()[..., None]).transpose(-1, -2) @ solved).split(
        v.shape[-1], dim=-1
    )
    transition = torch.diag_embed(last.exp().expand(*last.shape[:-1], k.shape[-1])) - transition
    states = [memory]
    for more, turn in zip(added.unbind(1), transition.unbind(1), strict=True):
        states.append(more + turn @ states[-1])
    before = torch.stack(states[:-1], dim=1)
    query_decay = log_decay if own else log_decay - log_a
    weights = (q @ k.transpose(-1, -2)) * (query_decay[..., :, None] - log_decay[..., None, :]).clamp_max(0).exp()
    weights = weights.tril(0 if own else -1)
    y = (q * query_decay.exp()[..., None]) @ before + weights @ (new_values - old_keys @ before)
    return y.transpose(2, 3).flatten(1, 2)[:, :length], states[-1]
