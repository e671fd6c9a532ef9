"""Blocks of queries of sliding-window attention: their schedule, their masks, and the autograd function."""

from collections.abc import Iterator
from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from genoattn.attention.modules.autograd import first_order_only
from genoattn.attention.ops.block_softmax import (
    attend,
    attend_backward,
    beside_gradients,
    merge_softmax,
)
from genoattn.attention.ops.sizes import CPU, sizes


class GlobalKeys(NamedTuple):
    """Keys that every query attends to beside its window, and their values."""

    k: Float[Tensor, "batch few kv_heads dim_head"]
    v: Float[Tensor, "batch few kv_heads dim_head"]
    padding_mask: Bool[Tensor, "batch few"]


class Window(NamedTuple):
    """Window of query i: the keys before + i + dilation * t for t from -left to right."""

    left: int
    right: int
    dilation: int = 1
    before: int = 0
    """Keys before the key of the first query."""


class BlockBatch(NamedTuple):
    """Query blocks of one call, and their keys."""

    row: int | None
    """Sequence whose blocks form the batch of the call; None: one block of every sequence."""
    start: int
    """First query of the first block."""
    blocks: int
    rows: int
    """Queries of each block."""
    first: int
    """First key of the first block."""
    keys: int
    """Keys of each block."""
    skipped: int
    """Keys of a full span that are missing before `first`, because the sequence begins there."""


def _rows_of_channels(x: Tensor) -> Tensor:
    return x if x.stride(-1) == 1 else x.contiguous()


def backward_block(window: Window) -> int:
    """Queries of a block in the backward pass: with more of them fewer partial gradients of each key are summed."""
    wide = window.left + window.right
    return 128 if wide >= 256 else 64 if wide >= 64 else 32


def block_batches(
    queries: int, keys: int, window: Window, block: int, batch: int, segment: int
) -> Iterator[BlockBatch]:
    """Batches that cover every query of every sequence once, of one phase of the dilation; `window.dilation` is 1."""
    left, right, before = window.left, window.right, window.before
    first = max(0, -(-(left - before) // block))
    last = min(queries, keys - right - before) // block
    if last - first < batch:  # many short sequences: their blocks are as many as the batch
        last = first
    for at in (*range(0, first * block, block), *range(last * block, queries, block)):
        rows = min(block, queries - at)
        low, high = max(0, before + at - left), min(keys, before + at + rows + right)
        if rows > 0:
            yield BlockBatch(None, at, 1, rows, low, high - low, low - (before + at - left))
    count = max(1, segment // block)
    for row in range(batch if first < last else 0):
        for at in range(first, last, count):
            blocks, span = min(count, last - at), left + block + right
            yield BlockBatch(row, at * block, blocks, block, before + at * block - left, span, 0)


def schedule(
    queries: int, keys: int, window: Window, batch: int, block: int, segment: int
) -> Iterator[tuple[int, int, Window, Iterator[BlockBatch]]]:
    """First query, first key, window and block batches of each phase of the dilation."""
    step = window.dilation
    for phase in range(min(step, queries)):
        own = (window.before + phase) % step
        count, key_count = -(-(queries - phase) // step), -(-(keys - own) // step)
        # A window beyond the ends would only make the mask wider.
        near = Window(
            min(window.left, key_count - 1), min(window.right, key_count - 1), 1, (window.before + phase) // step
        )
        yield phase, own, near, block_batches(count, key_count, near, min(block, count), batch, segment)


def keys_in_window(key_mask: Bool[Tensor, "batch keys"], window: Window, queries: int) -> Bool[Tensor, "batch queries"]:
    """True for the queries that see one of the keys in the mask or more."""
    step, keys = window.dilation, key_mask.shape[1]
    counts = F.pad(key_mask.int(), (step, -keys % step)).unflatten(1, (-1, step)).cumsum(1).flatten(1)
    # counts[j + step] is the number of keys in the mask at j, j - step, j - 2 step, …
    at = window.before + torch.arange(queries, device=key_mask.device)
    last = torch.minimum(
        at + window.right * step, (keys - 1 - at % step).div(step, rounding_mode="floor") * step + at % step
    )
    first = torch.maximum(at - (window.left + 1) * step, at % step - step)
    return counts[:, last + step] > counts[:, first + step]


def scored_pairs(queries: int, keys: int, window: Window) -> int:
    """Number of (query, key) pairs that are scored in one sequence, including those outside the window."""
    phases = schedule(queries, keys, window, 1, CPU.window_block, CPU.window_queries)
    return sum(run.blocks * run.rows * run.keys for *_, phase in phases for run in phase)


@final
class _WindowAttention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx, q, k, v, global_k, global_v, score, value, window, padding_mask, real, near_mask, global_mask, slopes
    ):
        batch, queries, heads, _ = q.shape
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        total = torch.empty(batch, queries, heads, 1, dtype=q.dtype, device=q.device)
        scale = q.shape[-1] ** -0.5
        step, segment, block = window.dilation, _chunk_queries(padding_mask, slopes, q), sizes(q.device).window_block
        for phase, own, near, calls in schedule(queries, k.shape[1], window, batch, block, segment):
            x, o, t = q[:, phase::step], out[:, phase::step], total[:, phase::step]
            keys, values, key_mask = (
                k[:, own::step],
                v[:, own::step],
                None if padding_mask is None else padding_mask[:, own::step],
            )
            mask = _window_bias(near, min(block, x.shape[1]), None if slopes is None else slopes * step, q)
            for run in calls:
                bias = _block_bias(mask, key_mask, run)
                y, lse = attend(_queries(x, run), _keys(keys, run), _keys(values, run), bias, scale)
                _queries(o, run).copy_(y)
                _queries(t, run).copy_(lse[..., None])
                whole = run._replace(blocks=1, rows=run.blocks * run.rows)
                if near_mask is not None and (global_mask is not None or score is not None):
                    # A softmax over no key is NaN, or counts a key of score 0: its result is removed.
                    no_keys = ~_queries(near_mask[:, phase::step, None, None], whole)
                    _queries(o, whole).masked_fill_(no_keys, 0)
                    _queries(t, whole).masked_fill_(no_keys, float("-inf"))
                if score is not None:  # first, so that every sum is finite
                    read = None if value is None else _queries(value[:, phase::step], whole)
                    merge_softmax(_queries(o, whole), _queries(t, whole), read, _queries(score[:, phase::step], whole))
                if global_mask is not None:
                    global_keys = (
                        _global_view(global_k, run),
                        _global_view(global_v, run),
                        _global_bias(global_mask, run, q),
                    )
                    y, lse = attend(_queries(x, whole), *global_keys, scale)
                    no_keys = ~_global_rows(global_mask, run).any(1)[:, None, None, None]
                    lse = lse[..., None].masked_fill(no_keys, float("-inf"))
                    merge_softmax(_queries(o, whole), _queries(t, whole), y.masked_fill(no_keys, 0), lse)
                if real is not None:
                    # Weights of exp(score - infinity) are 0, and so are their gradients.
                    padding = ~_queries(real[:, phase::step, None, None], whole)
                    _queries(o, whole).masked_fill_(padding, 0)
                    _queries(t, whole).masked_fill_(padding, float("inf"))
        ctx.save_for_backward(q, k, v, global_k, global_v, score, value, out, total)
        ctx.others = window, padding_mask, global_mask, slopes
        return out

    @staticmethod
    @first_order_only
    def backward(ctx, g):  # pyright: ignore
        q, k, v, global_k, global_v, score, value, out, total = ctx.saved_tensors
        window, padding_mask, global_mask, slopes = ctx.others
        scale = q.shape[-1] ** -0.5
        g = _rows_of_channels(g)
        dq, dk, dv = torch.empty_like(q), torch.zeros_like(k), torch.zeros_like(v)
        more = () if global_mask is None else (torch.zeros_like(global_k), torch.zeros_like(global_v))
        step, segment, block = window.dilation, _chunk_queries(padding_mask, slopes, q), backward_block(window)
        for phase, own, near, calls in schedule(q.shape[1], k.shape[1], window, len(q), block, segment):
            mine = [t[:, phase::step] for t in (g, q, out, total, dq)]
            keys, values, to_k, to_v = (t[:, own::step] for t in (k, v, dk, dv))
            key_mask = None if padding_mask is None else padding_mask[:, own::step]
            mask = _window_bias(near, min(block, mine[1].shape[1]), None if slopes is None else slopes * step, q)
            for run in calls:
                up, x, y, lse, into = (_queries(t, run) for t in mine)
                bias = _block_bias(mask, key_mask, run)
                to_q, *both = attend_backward(up, x, _keys(keys, run), _keys(values, run), y, lse[..., 0], bias, scale)
                into.copy_(to_q)
                for gradient, part in zip((to_k, to_v), both, strict=True):
                    _add(gradient, part, run)
                if global_mask is not None:
                    whole = run._replace(blocks=1, rows=run.blocks * run.rows)
                    up, x, y, lse, into = (_queries(t, whole) for t in mine)
                    global_keys = _global_view(global_k, run), _global_view(global_v, run)
                    to_q, *both = attend_backward(
                        up, x, *global_keys, y, lse[..., 0], _global_bias(global_mask, run, q), scale
                    )
                    into.add_(to_q)
                    for gradient, part in zip(more, both, strict=True):
                        _global_view(gradient, run).add_(part)
        beside = (None, None) if score is None else beside_gradients(g, out, total, score, value)
        return dq, dk, dv, *(more or (None, None)), *beside, None, None, None, None, None, None


def _chunk_queries(padding_mask: Tensor | None, slopes: Tensor | None, q: Tensor) -> int:
    """Queries of a call: fewer if padding gives each block a mask, still fewer if ALiBi gives each head one."""
    many = sizes(q.device).window_queries
    if padding_mask is None:
        return many
    return many // 4 if slopes is None else many // (4 * len(slopes))


def _view(x: Tensor, row: int | None, start: int, blocks: int, rows: int, step: int) -> Tensor:
    """Tokens [batch, length, heads, channels] as [blocks, heads, rows, channels], a block beginning every `step`."""
    if row is None:
        return x[:, start : start + rows].transpose(1, 2)
    return x[row, start : start + (blocks - 1) * step + rows].unfold(0, rows, step).transpose(2, 3)


def _queries(x: Tensor, run: BlockBatch) -> Tensor:
    return _view(x, run.row, run.start, run.blocks, run.rows, run.rows)


def _keys(x: Tensor, run: BlockBatch) -> Tensor:
    return _view(x, run.row, run.first, run.blocks, run.keys, run.rows)


def _global_view(x: Tensor, run: BlockBatch) -> Tensor:
    return (x if run.row is None else x[run.row : run.row + 1]).transpose(1, 2)


def _global_rows(global_mask: Tensor, run: BlockBatch) -> Tensor:
    return global_mask if run.row is None else global_mask[run.row : run.row + 1]


def _global_bias(global_mask: Tensor, run: BlockBatch, like: Tensor) -> Tensor:
    visible = _global_rows(global_mask, run)
    return torch.zeros(visible.shape, dtype=like.dtype, device=like.device).masked_fill_(~visible, float("-inf"))[
        :, None, None
    ]


def _add(gradient: Tensor, part: Tensor, run: BlockBatch) -> None:
    """Add each block's gradients to those of its keys, a block's length of them at a time: those do not overlap."""
    for at in range(0, run.keys, run.rows):
        count = min(run.rows, run.keys - at)
        _view(gradient, run.row, run.first + at, run.blocks, count, run.rows).add_(part[:, :, at : at + count])


def _window_bias(window: Window, block: int, slopes: Tensor | None, like: Tensor) -> Tensor:
    """Bias of the scores of a block [1, 1 or heads, block, span]: minus infinity outside the window."""
    span = window.left + block + window.right
    ahead = torch.arange(span, device=like.device) - torch.arange(block, device=like.device)[:, None] - window.left
    cost = torch.zeros(1, 1, 1, device=like.device) if slopes is None else slopes[:, None, None] * ahead.abs()
    return (-cost).masked_fill((ahead < -window.left) | (ahead > window.right), float("-inf")).to(like.dtype)[None]


def _block_bias(mask: Tensor, padding_mask: Tensor | None, run: BlockBatch) -> Tensor:
    """Bias of the scores of a batch of blocks, with padding hidden."""
    mask = mask[:, :, : run.rows, run.skipped : run.skipped + run.keys]
    if padding_mask is None:
        return mask
    visible = _keys(padding_mask[..., None, None], run)[..., 0]  # [blocks, 1, keys]
    if visible.device.type == "cpu" and visible.all():  # on a GPU the question would cost more than the mask
        return mask
    return mask.masked_fill(~visible[:, :, None], float("-inf"))
