"""Linear attention by chunks: weights inside a chunk, a state between chunks, with an optional decay by head.

Chunked tensors are [heads, batch, chunks, chunk, channels]. On a CPU they are views of one head at a time: no copies,
and the products of a head stay in its cache. Every decay factor is at most 1, because distances are measured from the
bounds of a chunk. A way is a direction of summing: from the left, and if bidirectional from the right.
"""

from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from genoattn.attention.modules.autograd import first_order_only
from genoattn.attention.modules.rotary import head_groups, heads_first
from genoattn.attention.ops.sizes import sizes
from genoattn.attention.ops.states_at_once import faded_states

CHUNK = 64


def decay_factor(decay: Float[Tensor, "heads"], distance: Tensor) -> Tensor:
    """Factor [heads, …] after `distance` tokens."""
    # A sum of integers and a float has the default dtype, which may be another one when a block is computed again.
    return torch.exp(-decay.view(-1, *(1,) * distance.dim()) * distance.to(decay.dtype))


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
    segment, the sum also covers that state and all j in the segment; this needs a decay.
    """
    length, size = q.shape[1], min(CHUNK, q.shape[1])
    if tail := -length % size:
        q, k, v = (F.pad(t, (0, 0, 0, 0, 0, tail)) for t in (q, k, v))
    inside = torch.arange(size, device=q.device)
    apart, borders = inside[:, None] - inside, before[:, :, None]
    near = (apart >= 0).to(q.dtype)[None]
    write = read = kept = None
    if decay is not None:
        # All chunks are alike, but for a last one that is filled up.
        starts = torch.arange(0, length if tail else size, size, device=q.device)[:, None]
        left = (length - starts).clamp_max(size)
        write, read, kept = [(left - 1 - inside).clamp_min(0)], [(inside + 1 + lead).expand(len(left), -1)], left[:, 0]
        weights = decay_factor(decay, (apart + lead).abs())
        near = weights * near if ahead is None else weights
        if ahead is not None:
            write, read = [*write, inside.expand(len(left), -1)], [*read, (left - inside - lead).clamp_min(0)]
            borders = torch.stack([before, ahead], dim=2)
        write, read = (decay_factor(decay, torch.stack(ways, dim=-1)) for ways in (write, read))
        kept = decay_factor(decay, kept)
    y, after = _ReadChunks.apply(size, q, k, v, borders, near, write, read, kept)  # pyright: ignore
    return y[:, :length], after


def read_totals(
    q: Float[Tensor, "batch length heads features"],
    k: Float[Tensor, "batch length heads features"],
    v: Float[Tensor, "batch length heads channels"],
    before: Float[Tensor, "batch heads features wide"],
) -> tuple[
    Float[Tensor, "batch length heads channels"],
    Float[Tensor, "batch length heads 1"],
    Float[Tensor, "batch heads features wide"],
]:
    """`read_chunks` without a decay, and the sum of its weights, as if of a further channel of values of 1.

    That channel is the last one of the states. It is not computed as such: products of 65 columns are far slower than
    those of 64.
    """
    length, size = q.shape[1], min(CHUNK, q.shape[1])
    if tail := -length % size:
        q, k, v = (F.pad(t, (0, 0, 0, 0, 0, tail)) for t in (q, k, v))
    y, total, after = _ReadTotals.apply(size, q, k, v, before)  # pyright: ignore
    return y[:, :length], total[:, :length], after


class _ReadTotals(torch.autograd.Function):
    """`_ReadChunks` of values with a channel of 1."""

    @staticmethod
    def forward(ctx: Any, size: int, *tensors: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.size = size
        ctx.save_for_backward(*tensors)
        q, k, v = (_chunks(heads_first(t), slice(None), size) for t in tensors[:3])
        borders = tensors[3].transpose(0, 1)[:, :, None]
        weights = (q @ k.mT).tril_()
        sums, total = weights @ v, weights.sum(-1, keepdim=True)
        states, last = _running(k.mT @ v, borders[..., :-1], None)
        counts = torch.cat([borders[..., -1], k.sum(-2)], dim=2).cumsum(2)
        total += torch.linalg.vecdot(q, counts[:, :, :-1, None])[..., None]
        sums = torch.baddbmm(*(t.flatten(0, 2) for t in (sums, q, states))).view_as(sums)
        after = torch.cat([last[:, :, 0], counts[:, :, -1, :, None]], dim=-1).transpose(0, 1)
        sums, total = (t.flatten(2, 3).permute(1, 2, 0, 3) for t in (sums, total))
        return sums, total, after

    @staticmethod
    @first_order_only
    def backward(ctx: Any, dy: Tensor, dtotal: Tensor, dafter: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        *qkv, before = ctx.saved_tensors
        q, k, v = (_chunks(heads_first(t), slice(None), ctx.size) for t in (*qkv[:2], F.pad(qkv[2], (0, 1), value=1)))
        dy = _chunks(heads_first(torch.cat([dy, dtotal], dim=-1)), slice(None), ctx.size)
        borders, dlast = (t.transpose(0, 1)[:, :, None] for t in (before, dafter))
        near = q.new_ones(ctx.size, ctx.size).tril()
        found = _gradients(Group(q, k, v, borders, near, None, None, None), dy, dlast)
        dq, dk, dv = (t.flatten(2, 3).permute(1, 2, 0, 3) for t in found[:3])
        return None, dq, dk, dv[..., :-1], found[3][:, :, 0].transpose(0, 1)


class Group(NamedTuple):
    """Tensors of `_ReadChunks` for the heads that are computed together."""

    q: Tensor
    k: Tensor
    v: Tensor
    borders: Tensor
    near: Tensor
    write: Tensor | None
    read: Tensor | None
    kept: Tensor | None


class _ReadChunks(torch.autograd.Function):
    """Sums of chunks, and the state after them, from the states `borders` at both ends and tables of decay factors.

    Only the inputs are saved: the backward pass computes the weights and the states again.

    Args of `apply`: tokens of a chunk, q, k, v, borders [batch, heads, ways, features, channels], `near` [heads or 1,
    chunk, chunk] for the weights, `write` and `read` [heads, chunks or 1, chunk, ways] for the values written to a
    state and the sums read from one, and `kept` [heads, chunks or 1] for the states; these three are None without a
    decay.
    """

    @staticmethod
    def forward(ctx: Any, size: int, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        ctx.size = size
        ctx.save_for_backward(*tensors)
        q, _, v, borders = tensors[:4]
        y, after = v.new_empty(v.shape), torch.empty_like(borders[:, :, 0])
        for heads in head_groups(q):
            q, k, v, state, near, write, read, kept = _group(tensors, heads, size)
            sums = (q @ k.mT).mul_(near) @ v
            states, last = _running(k.mT @ _spread(v, write), state, kept)
            _chunks(y, heads, size).copy_(_collect(q @ states, read, sums))
            after[:, heads] = last[:, :, 0].transpose(0, 1)
        return y, after

    @staticmethod
    @first_order_only
    def backward(ctx: Any, dy: Tensor, dafter: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        tensors, size = ctx.saved_tensors, ctx.size
        wholes = [None if t is None else torch.empty_like(t) for t in tensors]
        learned = len(wholes) if tensors[5] is not None else 4  # without a decay the table of weights is a constant
        for heads in head_groups(tensors[0]):
            group = _group(tensors, heads, size)
            dlast = torch.zeros_like(group.borders)
            dlast[:, :, 0] = dafter[:, heads].transpose(0, 1)
            parts: Any = _group(wholes, heads, size)[:learned]
            for part, d in zip(parts, _gradients(group, _chunks(dy, heads, size), dlast), strict=True):
                part.copy_(d.sum_to_size(part.shape))
        return None, *wholes[:learned], *[None] * (len(wholes) - learned)


def _gradients(group: Group, dy: Tensor, dlast: Tensor) -> list[Tensor]:
    """Gradients of the group of heads and of their tables, not yet summed over what these are shared by."""
    q, k, v, borders, near, write, read, kept = group
    weights, values = q @ k.mT, _spread(v, write)
    states, _ = _running(k.mT @ values, borders, kept)
    dfar = _spread(dy, read)
    dwritten, dborders = _running(q.mT @ dfar, dlast, kept, flip=True)
    dweights, tables = dy @ v.mT, []
    if write is not None:
        assert read is not None and kept is not None
        tables = [(dweights * weights).sum((1, 2), keepdim=True), None, _products(q @ states, dy, read)]
        tables.append((dwritten * states).sum((1, 3, 4), keepdim=True))
    dv = weights.mul_(near).mT @ dy
    dweights.mul_(near)
    dq = _add_product(dweights @ k, dfar, states.mT)
    dk = _add_product(dweights.mT @ q, values, dwritten.mT)
    dvalues = k @ dwritten
    if write is not None:
        tables[1] = _products(dvalues, v, write)
    return [dq, dk, _collect(dvalues, write, dv), dborders, *tables]


def _chunks(x: Tensor, heads: slice, size: int) -> Tensor:
    """View [heads, batch, chunks, chunk, channels] of these heads of x [batch, length, heads, channels]."""
    return x[:, :, heads].unflatten(1, (-1, size)).permute(3, 0, 1, 2, 4)


def _group(tensors: Any, heads: slice, size: int) -> Group:
    """Views of the tensors of `_ReadChunks` for these heads; tables with a dimension for the batch."""
    q, k, v, borders, near, write, read, kept = tensors
    near = (near if write is None else near[heads])[:, None, None]
    write, read = (None if t is None else t[heads, None] for t in (write, read))
    kept = None if kept is None else kept[heads, None, :, None, None]
    q, k, v = (_chunks(t, heads, size) for t in (q, k, v))
    return Group(q, k, v, borders[:, heads].transpose(0, 1), near, write, read, kept)


def _spread(x: Tensor, factors: Tensor | None) -> Tensor:
    """Channels times the factors of each way, side by side."""
    return x if factors is None else (x[..., None, :] * factors[..., None]).flatten(-2)


def _collect(x: Tensor, factors: Tensor | None, total: Tensor) -> Tensor:
    """Add to the total the channels of each way times its factors."""
    if factors is None:
        return total.add_(x)
    for part, factor in zip(x.split(total.shape[-1], dim=-1), factors.split(1, dim=-1), strict=True):
        total.addcmul_(part, factor)
    return total


def _products(x: Tensor, y: Tensor, like: Tensor) -> Tensor:
    """Gradient of factors: the products of y with the channels of each way, summed over the batch."""
    return (x.unflatten(-1, (like.shape[-1], -1)) * y[..., None, :]).sum((1, -1)).unsqueeze(1)


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """Add a @ b to the total, in place."""
    total.flatten(0, 2).baddbmm_(a.flatten(0, 2), b.flatten(0, 2))
    return total


def _running(
    written: Float[Tensor, "heads batch chunks features wide"],
    borders: Float[Tensor, "heads batch ways features channels"],
    kept: Float[Tensor, "heads 1 chunks_or_1 1 1"] | None,
    flip: bool = False,
) -> tuple[Tensor, Tensor]:
    """The state that each chunk meets, and those past the last chunk, which have been through `written` of all chunks.

    The channels of `written` are those of all ways, side by side. The first way runs from the left and the second from
    the right, with `flip` the other way round. It is so the backward pass of itself.
    """
    if sizes(written.device).at_once:
        return _running_at_once(written, borders, kept, flip)
    states, last, chunks = torch.empty_like(written), [], written.shape[2]
    width = written.shape[-1] // borders.shape[2]
    for way, (adds, met) in enumerate(zip(written.split(width, -1), states.split(width, -1), strict=True)):
        order = range(chunks)[:: 1 if (way == 1) == flip else -1]
        here = borders[:, :, way]
        for at, following in zip(order, [*order[1:], None], strict=True):
            if at == order[0]:
                met[:, :, at] = here
            left = None if kept is None else kept[:, :, at if kept.shape[2] > 1 else 0]
            out = torch.empty_like(here) if following is None else met[:, :, following]
            terms, add = (adds[:, :, at], met[:, :, at]), torch.add if left is None else torch.addcmul
            terms = terms if left is None else (*terms, left)
            if torch.compiler.is_compiling():  # which does not trace `out=` a part of a tensor
                out.copy_(add(*terms))
            else:
                add(*terms, out=out)
        last.append(out)
    return states, torch.stack(last, dim=2)


def _running_at_once(written: Tensor, borders: Tensor, kept: Tensor | None, flip: bool) -> tuple[Tensor, Tensor]:
    """`_running` by few products; factors below 1e-30 count as that."""
    states, last, log_kept = torch.empty_like(written), [], written.new_zeros(written.shape[:3])
    if kept is not None:
        log_kept = kept[..., 0, 0].clamp_min(1e-30).log().expand_as(log_kept)
    width = written.shape[-1] // borders.shape[2]
    for way, (adds, met) in enumerate(zip(written.split(width, -1), states.split(width, -1), strict=True)):
        turned = (way == 1) != flip
        adds, logs = (adds.flip(2), log_kept.flip(2)) if turned else (adds, log_kept)
        before, after = faded_states(borders[:, :, way], adds, logs)
        met.copy_(before.flip(2) if turned else before)
        last.append(after)
    return states, torch.stack(last, dim=2)


def chunk_flops(length: int, features: int, channels: int, ways: int) -> int:
    """FLOPs of `read_chunks` for one head."""
    size = min(CHUNK, length)
    padded = -(-length // size) * size
    return 2 * padded * (size * (features + channels) + 2 * features * channels * ways)
