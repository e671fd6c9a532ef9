"""One softmax over tokens nearby and cells far away, for a segment of queries at a time, and its gradient."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from genoattn.attention.base import blank
from genoattn.attention.cells import NEAR, Cells, Reading, Runs, levels, pool, readings, tokens, unit
from genoattn.attention.heads import rotate
from genoattn.attention.segments import HIDDEN

ROWS = 8192
"""Queries of all heads and sequences together that are answered at once: their scores stay in the cache."""


def segments(length, sequences, block):
    step = unit(length, block)
    size = max(1, ROWS // sequences // step) * step
    return [(start, min(start + size, length)) for start in range(0, length, size)]


def rows_of(q, positions, whole):
    """Turned and scaled: [batch * heads * queries, dim_head], with zeros to a whole number of units."""
    exact = torch.promote_types(q.dtype, torch.float32)
    q = (q if positions is None else rotate(q, positions)).to(exact) * q.shape[-1] ** -0.5
    return F.pad(q, (0, 0, 0, 0, 0, -q.shape[1] % whole)).transpose(1, 2).flatten(0, 2)


class Part:
    """What groups of queries read: their keys' biases, and where keys and values are taken from."""

    def __init__(self, reading: Reading, source: Runs, dim_head: int):
        self.group, self.held = reading.group, reading.held
        self.dim_head = dim_head
        sequences, runs = source.k.shape[:2]
        at = reading.runs.clamp_min(0)
        self.index = (torch.arange(sequences, device=at.device)[:, None, None] * runs + at).flatten()
        self.shape = (sequences * at.shape[0], -1, dim_head)
        bias = source.bias[:, at].masked_fill((reading.runs < 0)[..., None], HIDDEN)
        self.bias = bias.flatten(2)[:, None, :, None]  # [batch, 1, groups, 1, keys]
        self.keys = self.bias.shape[-1]

    def take(self, runs: Tensor) -> Tensor:
        """[sequences * groups, keys, dim_head]."""
        return runs.flatten(0, 1).index_select(0, self.index).view(self.shape)

    def give(self, total: Tensor, gradient: Tensor):
        total.flatten(0, 1).index_add_(0, self.index, gradient.view(len(self.index), -1))


def triangle(part: Part, block: int) -> None:
    """In a causal layer's part with the nearest tokens, hide those after a query in its own block."""
    index = torch.arange(block, device=part.bias.device)
    ahead = F.pad(index[None, :] > index[:, None], (block, part.keys - 2 * block))
    part.bias = part.bias.masked_fill(ahead, HIDDEN)


def parts_of(start, stop, length, block, causal, near, held, dim_head):
    whole = unit(length, block)
    stop = start + -(-(stop - start) // whole) * whole
    found = readings(
        start,
        stop,
        length,
        block,
        causal,
        near.begin,
        held.begin if held else [],
        held.k.shape[1] if held else 0,
        near.k.device,
    )
    parts = [Part(reading, held if reading.held else near, dim_head) for reading in found]
    if causal:
        triangle(parts[0], block)
    return parts


def fill(parts, rows, keys, bias, into):
    """rows times each part's keys, into the columns."""
    at = 0
    for part, key in zip(parts, keys, strict=True):
        product = torch.bmm(rows.view(-1, part.group, part.dim_head), key.transpose(1, 2))
        batch, groups = part.bias.shape[0], part.bias.shape[2]
        target = into.view(batch, -1, groups, part.group, into.shape[-1])[..., at : at + part.keys]
        if bias:
            torch.add(product.view(target.shape), part.bias, out=target)
        else:
            target.copy_(product.view(target.shape))
        at += part.keys
    return into


def columns(parts, matrix):
    at = 0
    for part in parts:
        yield part, matrix.view(-1, part.group, matrix.shape[-1])[..., at : at + part.keys]
        at += part.keys


def weights(rows, parts, keys):
    scores = rows.new_empty(len(rows), sum(part.keys for part in parts))
    fill(parts, rows, keys, True, scores)
    return torch.softmax(scores, dim=-1, out=scores)


def answer(rows, parts, near, held):
    keys = [part.take((held if part.held else near).k) for part in parts]
    weight = weights(rows, parts, keys)
    y = torch.zeros_like(rows)
    for part, share in columns(parts, weight):
        values = part.take((held if part.held else near).v)
        out = y.view(-1, part.group, part.dim_head)
        torch.baddbmm(out, share, values, out=out)
    return y


def gradients(rows, parts, near, held, upstream, near_grad, held_grad):
    """d rows; the gradients of runs are added to near_grad and held_grad (k, v)."""
    keys = [part.take((held if part.held else near).k) for part in parts]
    weight = weights(rows, parts, keys)
    values = [part.take((held if part.held else near).v) for part in parts]
    change = fill(parts, upstream, values, False, torch.empty_like(weight))
    del values
    for part, share in columns(parts, weight):
        up = upstream.view(-1, part.group, part.dim_head)
        part.give((held_grad if part.held else near_grad)[1], torch.bmm(share.transpose(1, 2), up))
    torch.ops.aten._softmax_backward_data.out(change, weight, -1, weight.dtype, grad_input=change)
    d_rows = torch.zeros_like(rows)
    for (part, share), key in zip(columns(parts, change), keys, strict=True):
        out = d_rows.view(-1, part.group, part.dim_head)
        torch.baddbmm(out, share, key, out=out)
        query = rows.view(-1, part.group, part.dim_head)
        part.give((held_grad if part.held else near_grad)[0], torch.bmm(share.transpose(1, 2), query))
    return d_rows


def held_sums(k, v, positions, keep, block):
    sums = []
    for start, stop in segments(k.shape[1], k.shape[0] * k.shape[2], block):
        cells = tokens(*cut(k, v, positions, keep, start, stop))
        sums.append(cells.padded(0, -(stop - start) % (1 << NEAR)).coarse(NEAR))
    return Cells(*(None if parts[0] is None else torch.cat(parts, 1) for parts in zip(*sums, strict=True)))


def cut(k, v, positions, keep, start, stop):
    return (*(t[:, start:stop] for t in (k, v)), *(None if t is None else t[:, start:stop] for t in (positions, keep)))


def surroundings(k, v, positions, keep, start, stop, length, block, causal):
    """Cells from one unit before start to one after stop; and where they begin"""
    whole = unit(length, block)
    first, last = max(0, start - whole), min(length, stop if causal else stop + whole)
    padded = start + -(-(stop - start) // whole) * whole + (0 if causal else whole)
    return tokens(*cut(k, v, positions, keep, first, last)).padded(first - start + whole, padded - last), first, last


class HierarchicalFunction(torch.autograd.Function):
    @staticmethod
    def forward(ctx, q, k, v, positions, keep, causal, block):
        ctx.save_for_backward(q, k, v, positions, keep)
        ctx.causal, ctx.block = causal, block
        batch, length, heads, dim_head = q.shape
        high = levels(length, block) - NEAR
        low = min(levels(length, block), NEAR)
        held = pool(held_sums(k, v, positions, keep, block), high, block) if high > 0 else None
        out = torch.empty_like(q, memory_format=torch.contiguous_format)
        for start, stop in segments(length, batch * heads, block):
            cells, _, _ = surroundings(k, v, positions, keep, start, stop, length, block, causal)
            near = pool(cells, low, block)
            turns = None if positions is None else positions[:, start:stop]
            rows = rows_of(q[:, start:stop], turns, unit(length, block))
            y = answer(rows, parts_of(start, stop, length, block, causal, near, held, dim_head), near, held)
            out[:, start:stop] = y.view(batch, heads, -1, dim_head)[:, :, : stop - start].transpose(1, 2)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream):
        q, k, v, positions, keep = ctx.saved_tensors
        causal, block = ctx.causal, ctx.block
        batch, length, heads, dim_head = q.shape
        high = levels(length, block) - NEAR
        low = min(levels(length, block), NEAR)
        whole = unit(length, block)
        held = held_grad = sums = None
        if high > 0:
            sums = held_sums(k, v, positions, keep, block)
            with torch.enable_grad():
                sums = sums._replace(k=sums.k.requires_grad_(), v=sums.v.requires_grad_())
                held = pool(sums, high, block)
            held_grad = torch.zeros_like(held.k), torch.zeros_like(held.v)
        dq = torch.empty_like(q, memory_format=torch.contiguous_format)
        dk, dv = (torch.zeros_like(t, memory_format=torch.contiguous_format) for t in (k, v))
        for start, stop in segments(length, batch * heads, block):
            turns = None if positions is None else positions[:, start:stop]
            with torch.enable_grad():
                leaf = q[:, start:stop].detach().requires_grad_()
                rows = rows_of(leaf, turns, whole)
                first, last = max(0, start - whole), min(length, stop if causal else stop + whole)
                lk, lv = (t[:, first:last].detach().requires_grad_() for t in (k, v))
                cells = tokens(lk, lv, *(None if t is None else t[:, first:last] for t in (positions, keep)))
                padded = start + -(-(stop - start) // whole) * whole + (0 if causal else whole)
                near = pool(cells.padded(first - start + whole, padded - last), low, block)
            up = upstream[:, start:stop].to(rows.dtype)
            up = F.pad(up, (0, 0, 0, 0, 0, -(stop - start) % whole)).transpose(1, 2).flatten(0, 2)
            near_grad = torch.zeros_like(near.k), torch.zeros_like(near.v)
            parts = parts_of(start, stop, length, block, causal, near, held, dim_head)
            d_rows = gradients(rows.detach(), parts, near, held, up, near_grad, held_grad)
            gq, gk, gv = torch.autograd.grad((rows, near.k, near.v), (leaf, lk, lv), (d_rows, *near_grad))
            dq[:, start:stop] = gq
            dk[:, first:last] += gk
            dv[:, first:last] += gv
        if high > 0:
            grads = torch.autograd.grad((held.k, held.v), (sums.k, sums.v), held_grad)
            for total, g in zip((dk, dv), grads, strict=True):
                for start, stop in segments(length, batch * heads, block):
                    wide = g[:, start >> NEAR : -(-stop >> NEAR)].repeat_interleave(1 << NEAR, dim=1)[:, : stop - start]
                    total[:, start:stop] += blank(wide, None if keep is None else keep[:, start:stop])
        return dq, dk, dv, None, None, None, None
