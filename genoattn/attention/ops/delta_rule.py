"""The gated delta rule (arXiv 2412.06464): chunks of tokens update a state and read it."""

from functools import partial
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from genoattn.attention.base import State
from genoattn.attention.modules.autograd import first_order_only
from genoattn.attention.ops.chunked_scan import Inputs, chunk_length, scan
from genoattn.attention.ops.sizes import sizes
from genoattn.attention.ops.states_at_once import changed_states

DeltaInputs: TypeAlias = tuple[Tensor, Tensor, Tensor, Tensor, Tensor]
"""Queries, keys, values, write strength of each token, and logarithm of its decay."""


CHUNK = 64
"""Largest number of tokens of a chunk."""


def chunk_size(channels: int) -> int:
    """Tokens of a chunk for keys of so many channels: the squares of a chunk should not outweigh its states."""
    return CHUNK if channels > 32 else CHUNK // 2


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
    segment = chunk_length(q[0, 0].numel(), CHUNK, sizes(q.device))
    y, (memory,) = scan(step, (memory,), pieces, segment=segment, backwards=ahead)
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
    length, size = q.shape[1], min(chunk_size(k.shape[-1]), q.shape[1])
    q, k, v, b, log_a = (_to_chunks(t, size) for t in (q, k, v, write[..., None], log_kept[..., None]))
    log_decay = log_a.cumsum(-2)
    # Differences of logarithms before the exponential, and only of later tokens less earlier ones: never above 1.
    between = (log_decay - log_decay.mT).clamp_max(0).exp_().tril()
    written, decay, last = k * b, log_decay.exp(), log_decay[:, -1:]
    inverse = UnitLowerInverse.apply(torch.bmm(written, k.mT) * between)
    solved = torch.bmm(inverse, torch.cat([v * b, written * decay], dim=-1))  # pyright: ignore
    new_values, old_keys = solved.split([v.shape[-1], k.shape[-1]], dim=-1)
    chunks = len(q) // (memory.shape[0] * memory.shape[1])
    states, values = Recurrence.apply(  # pyright: ignore
        *(t.unflatten(0, (-1, chunks)) for t in (last.exp(), k * (last - log_decay).exp(), old_keys, new_values)),
        memory.flatten(0, 1),
    )
    before = states[:, :-1].flatten(0, 1)
    if not own:  # a token reads the state before its own update: the decay up to the token before it
        between, decay = F.pad(between[:, :-1], (0, 0, 1, 0)), (log_decay - log_a).exp()
    weights = torch.bmm(q, k.mT) * between
    y = torch.baddbmm(torch.bmm(q * decay, before), weights, values.flatten(0, 1))
    y = y.view(*memory.shape[:2], chunks * size, -1)[:, :, :length].transpose(1, 2)
    return y, states[:, -1].view_as(memory)


def _to_chunks(x: Tensor, size: int) -> Tensor:
    """Chunks of every sequence and head [batch * heads * chunks, chunk, channels], the last filled up with zeros."""
    x, tail = x.transpose(1, 2), -x.shape[1] % size
    return (F.pad(x, (0, 0, 0, tail)) if tail else x).reshape(-1, size, x.shape[-1])


class UnitLowerInverse(torch.autograd.Function):
    """(I + A)⁻¹ of the parts A below the diagonals of matrices [count, size, size]."""

    @staticmethod
    def forward(ctx: Any, system: Tensor) -> Tensor:
        inverse = _inverse(system)
        ctx.save_for_backward(inverse)
        return inverse

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> Tensor:
        (inverse,) = ctx.saved_tensors
        product = torch.bmm(inverse.mT, upstream[0])
        return torch.baddbmm(product, product, inverse.mT, beta=0, alpha=-1).tril_(-1)


def _inverse(system: Tensor) -> Tensor:
    """By powers in blocks of 8, where no power is large, and then by merging blocks in pairs: products only."""
    count, size, _ = system.shape
    if size not in (32, 64):  # a sequence shorter than a chunk
        eye = torch.eye(size, dtype=system.dtype, device=system.device).expand_as(system)
        return torch.linalg.solve_triangular(system, eye, upper=False, unitriangular=True)
    block = 8
    blocks = system.view(count, size // block, block, size // block, block).diagonal(dim1=1, dim2=3)
    negative = blocks.movedim(-1, 1).tril(-1).neg_().view(-1, block, block)
    inverse = negative + torch.eye(block, dtype=system.dtype, device=system.device)
    for _ in range(2):
        negative = torch.bmm(negative, negative)
        inverse = torch.baddbmm(inverse, inverse, negative)
    while block < size:
        pairs = size // (2 * block)
        below = system.view(count, pairs, 2, block, pairs, 2, block)[:, :, 1, :, :, 0].diagonal(dim1=1, dim2=3)
        first, second = inverse.view(-1, 2, block, block).unbind(1)
        merged = system.new_zeros(count * pairs, 2 * block, 2 * block)
        merged[:, :block, :block], merged[:, block:, block:] = first, second
        lower = below.movedim(-1, 1).reshape(-1, block, block)
        merged[:, block:, :block] = torch.bmm(torch.bmm(second, lower), first).neg_()
        inverse, block = merged, 2 * block
    return inverse


def inverse_flops(size: int) -> int:
    """FLOPs of the products of `UnitLowerInverse` for one chunk."""
    if size not in (32, 64):
        return 0
    merges = sum(4 * block**3 * (size // (2 * block)) for block in (8, 16, 32) if block < size)
    return size // 8 * 4 * 2 * 8**3 + merges


class Recurrence(torch.autograd.Function):
    """The states of S ← kept S + keysᵀ (new - old_keys S), one step for each chunk, and the values new - old_keys S.

    Inputs are [count, chunks, …] and the first state [count, n, m]; the states are [count, chunks + 1, n, m].
    """

    @staticmethod
    def forward(
        ctx: Any, kept: Tensor, keys: Tensor, old_keys: Tensor, new: Tensor, first: Tensor
    ) -> tuple[Tensor, Tensor]:
        count, chunks = new.shape[:2]
        if sizes(new.device).at_once:
            states = changed_states(first, _changes(kept, keys, old_keys), keys.mT @ new)
            values = new - old_keys @ states[:, :-1]
            ctx.save_for_backward(kept, keys, old_keys, states, values)
            return states, values
        states, values = new.new_empty(count, chunks + 1, *first.shape[1:]), torch.empty_like(new)
        states[:, 0] = state = first
        for at in range(chunks):
            value = torch.baddbmm(new[:, at], old_keys[:, at], state, alpha=-1)
            state = torch.baddbmm(state * kept[:, at], keys[:, at].mT, value)
            values[:, at], states[:, at + 1] = value, state
        ctx.save_for_backward(kept, keys, old_keys, states, values)
        return states, values

    @staticmethod
    @first_order_only
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Tensor, ...]:
        kept, keys, old_keys, states, values = ctx.saved_tensors
        if sizes(values.device).at_once:
            added = upstream[0][:, :-1] - old_keys.mT @ upstream[1]
            changes = _changes(kept, keys, old_keys).mT
            by_states = changed_states(upstream[0][:, -1], changes.flip(1), added.flip(1)).flip(1)
            by_values, slope = upstream[1] + keys @ by_states[:, 1:], by_states[:, 0]
        else:
            by_states, by_values = torch.empty_like(states), torch.empty_like(values)
            by_states[:, -1] = slope = upstream[0][:, -1]
            for at in reversed(range(values.shape[1])):
                by_values[:, at] = value = torch.baddbmm(upstream[1][:, at], keys[:, at], slope)
                slope = torch.baddbmm(upstream[0][:, at], old_keys[:, at].mT, value, alpha=-1)
                by_states[:, at] = slope.addcmul_(by_states[:, at + 1], kept[:, at])
        later, before = by_states[:, 1:], states[:, :-1]
        by_kept = (later * before).sum((-1, -2), keepdim=True)
        return by_kept, values @ later.mT, -(by_values @ before.mT), by_values, slope


def _changes(kept: Tensor, keys: Tensor, old_keys: Tensor) -> Tensor:
    """The change of a state in each chunk, as matrices [count, chunks, n, n]."""
    same = torch.eye(keys.shape[-1], dtype=keys.dtype, device=keys.device)
    return kept * same - keys.mT @ old_keys
