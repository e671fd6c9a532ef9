"""Forward kernel of flash attention; no atomics, so results are repeatable.

Method: FlashAttention-2 (arXiv 2307.08691). One kernel for full, causal and windowed attention: query i stands at key
i + before and attends to keys i + before - left to i + before + right; tiles outside this range are not visited, full
tiles carry no mask. ALiBi (arXiv 2108.12409) subtracts slope · distance from the scores.

Legend: q, out [batch, length, heads, WIDTH]; k, v [batch, count, kv_heads, WIDTH]; lse [batch, heads, length]; q_marks
[batch · phases, length] and k_marks [batch · phases, count] of bytes: the bit REAL, and above it the segment of the
token; k_spans [batch · phases, 3] as from `span_kernel`; slopes [heads] over the scale of scores; `strides` of q, k, v,
out; `sizes` (length, count, heads, group, phases). A program computes one block of queries of one head of one
sequence; `group` query heads share a key head, and the heads of one phase share marks. `scale` holds log2(e) wherever
it meets exp2.
"""

# pyright does not know that a tl.constexpr has the attributes of its value.
# pyright: reportAttributeAccessIssue=false

from typing import NamedTuple

import triton
import triton.language as tl

from genoattn.attention.kernels.tiles import (
    REAL,
    finish_softmax,
    load_marks,
    load_span,
    load_tile,
    softmax_step,
    store_tile,
    visible_range,
)


class FlashConstants(NamedTuple):
    """Compile-time constants of a flash kernel: tile sizes, channels, masks, how tiles are read, dot precision."""

    BLOCK_Q: int
    BLOCK_K: int
    DIM: int
    WIDTH: int
    EDGE: bool
    """The first tiles in reach may need a mask."""
    FULL: bool
    """Some tiles may need no mask."""
    Q_MARKS: bool
    K_MARKS: bool
    SEGMENTS: bool
    """Queries see the keys of other segments only."""
    ALIBI: bool
    DESCRIPTORS: bool
    PRECISION: str


@triton.jit
def visible_pairs(places, keys, window, q_marks, k_marks, C: tl.constexpr):
    """Mask of the visible pairs of an edge tile; the positions of queries among the keys, and marks, broadcast."""
    left, right, count, _ = window
    visible = (keys >= places - left) & (keys <= places + right) & (keys < count)
    if C.Q_MARKS:
        visible = visible & ((q_marks & REAL) != 0)
    if C.K_MARKS:
        visible = visible & ((k_marks & REAL) != 0)
    if C.SEGMENTS:
        visible = visible & ((q_marks >> 1) != (k_marks >> 1))
    return visible


@triton.jit
def load_queries(source, at, first, length, marks, MASKED: tl.constexpr, C: tl.constexpr):
    """Tile [BLOCK_Q, DIM] of q or of a tensor like it; `at` (batch, head, strides)."""
    batch, head, strides = at
    return load_tile(
        source, batch, first, head, strides, length, marks, C.BLOCK_Q, C.DIM, C.WIDTH, MASKED, C.Q_MARKS, C.DESCRIPTORS
    )


@triton.jit
def load_keys(source, at, first, count, marks, MASKED: tl.constexpr, C: tl.constexpr):
    """Tile [BLOCK_K, DIM] of k or v; `at` (batch, head, strides)."""
    batch, head, strides = at
    return load_tile(
        source, batch, first, head, strides, count, marks, C.BLOCK_K, C.DIM, C.WIDTH, MASKED, C.K_MARKS, C.DESCRIPTORS
    )


@triton.jit
def row_of_marks(batch, head, heads, phases):
    """The number of the marks of a head: its phase is one of `phases` of equally many heads."""
    return batch * phases + head // (heads // phases)


@triton.jit
def read_by_any(span, marks):
    """The span, or an empty one if none of the tokens with these marks is real."""
    begin, solid, end = span
    some = tl.max(marks) > 0
    return begin, tl.where(some, solid, 0), tl.where(some, end, 0)


@triton.jit
def forward_range(mixed, total, peak, query, keys, window, start, stop, MASKED: tl.constexpr, C: tl.constexpr):
    """Add the key tiles from `start` to `stop` to the running softmax of a query block."""
    q_tile, q_mark, place, slope = query
    k, v, k_at, v_at, k_marks = keys
    count, scale = window[2], window[3]
    for at in range(start, stop, C.BLOCK_K):
        k_tile = load_keys(k, k_at, at, count, k_marks, MASKED, C)
        scores = tl.dot(q_tile, k_tile.T, input_precision=C.PRECISION)
        places = place + tl.arange(0, C.BLOCK_Q)[:, None]
        positions = at + tl.arange(0, C.BLOCK_K)[None, :]
        if C.ALIBI:
            scores -= slope * tl.abs(positions - places).to(tl.float32)
        if MASKED:
            k_mark = load_marks(k_marks, at, count, C.BLOCK_K)[None, :] if C.K_MARKS else positions
            visible = visible_pairs(places, positions, window, q_mark, k_mark, C)
            scores = tl.where(visible, scores, float("-inf"))
        v_tile = load_keys(v, v_at, at, count, k_marks, MASKED, C)
        mixed, total, peak = softmax_step(scores, v_tile, mixed, total, peak, scale, MASKED, C)
    return mixed, total, peak


@triton.jit(do_not_specialize=["left", "right", "before"])
def forward_kernel(
    q, k, v, q_marks, k_marks, k_spans, slopes, out, lse, strides, sizes, left, right, before, scale, C: tl.constexpr
):
    """Outputs and log-sum-exps of one block of queries."""
    q_strides, k_strides, v_strides, out_strides = strides
    length, count, heads, group, phases = sizes
    program = tl.program_id(0)
    blocks = tl.cdiv(length, C.BLOCK_Q)
    # In causal attention the last blocks take longest, so they go first.
    first = (blocks - 1 - program % blocks) * C.BLOCK_Q
    head = program // blocks % heads
    batch = program // (blocks * heads)
    row = row_of_marks(batch, head, heads, phases)
    q_marks += row.to(tl.int64) * length
    k_marks += row.to(tl.int64) * count
    q_tile = load_queries(q, (batch, head, q_strides), first, length, q_marks, True, C)
    q_mark = load_marks(q_marks, first, length, C.BLOCK_Q) if C.Q_MARKS else first
    slope = tl.load(slopes + head.to(tl.int64)) if C.ALIBI else 0.0
    mixed = tl.full([C.BLOCK_Q, C.DIM], 0.0, tl.float32)
    total = tl.full([C.BLOCK_Q], 0.0, tl.float32)
    peak = tl.full([C.BLOCK_Q], float("-inf"), tl.float32)
    place = first + before
    query = (q_tile, q_mark[:, None] if C.Q_MARKS else first, place, slope)
    keys = (k, v, (batch, head // group, k_strides), (batch, head // group, v_strides), k_marks)
    window = (left, right, count, scale)
    span = load_span(k_spans, row, count, C.K_MARKS)
    if C.Q_MARKS:
        span = read_by_any(span, q_mark)
    last = tl.minimum(place + C.BLOCK_Q, length + before) - 1
    start, full, ragged, stop = visible_range(place, last, left, right, span, C.BLOCK_K, C.EDGE)
    if not C.FULL:
        ragged = start
    elif C.EDGE:
        mixed, total, peak = forward_range(mixed, total, peak, query, keys, window, start, full, True, C)
    if C.FULL:
        mixed, total, peak = forward_range(mixed, total, peak, query, keys, window, full, ragged, False, C)
    mixed, total, peak = forward_range(mixed, total, peak, query, keys, window, ragged, stop, True, C)
    rows = first + tl.arange(0, C.BLOCK_Q)
    if C.Q_MARKS:
        real = (q_mark & REAL) != 0
        total = tl.where(real, total, 0.0)
        mixed = tl.where(real[:, None], mixed, 0.0)
    output, logarithm = finish_softmax(mixed, total, peak)
    store_tile(out, output, batch, first, head, out_strides, length, C.BLOCK_Q, C.DIM, C.WIDTH)
    lse += (batch * heads + head).to(tl.int64) * length
    tl.store(lse + rows.to(tl.int64), logarithm, mask=rows < length)
