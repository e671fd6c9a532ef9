"""Backward kernels of flash attention: dQ by query blocks, dK and dV by key blocks; no atomics, so repeatable.

Method: FlashAttention-2 (arXiv 2307.08691), its one backward pass split in two. With P the weights, dO the gradient of
the output and delta = rowsum(dO ∘ O) - dlse: dV = Pᵀ dO, dS = P ∘ (dO Vᵀ - delta), dQ = scale dS K, dK = scale dSᵀ Q.

Legend: as in flash_forward; out, dout and dq are like q; dk and dv like k; dlse and delta like lse; `strides` in the
order of the tensors. `scale` is that of the scores times log2(e).
"""

# pyright does not know that a tl.constexpr has the attributes of its value.
# pyright: reportAttributeAccessIssue=false

import triton
import triton.language as tl

from genoattn.attention.kernels.flash_forward import (
    load_keys,
    load_queries,
    read_by_any,
    row_of_marks,
    visible_pairs,
)
from genoattn.attention.kernels.tiles import (
    REAL,
    load_marks,
    load_padding_mask,
    load_span,
    load_tile,
    score_gradient,
    store_tile,
    visible_range,
)

LN2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit
def delta_kernel(
    out,
    dout,
    dlse,
    padding_mask,
    delta,
    strides,
    sizes,
    BLOCK: tl.constexpr,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
):
    """delta = rowsum(dO ∘ O) - dlse, the part of each score's gradient due to the normalisation of the softmax."""
    out_strides, dout_strides = strides
    length, heads, phases = sizes
    program = tl.program_id(0)
    blocks = tl.cdiv(length, BLOCK)
    first = program % blocks * BLOCK
    head = program // blocks % heads
    batch = program // (blocks * heads)
    padding_mask += row_of_marks(batch, head, heads, phases).to(tl.int64) * length
    output = load_tile(out, batch, first, head, out_strides, length, padding_mask, BLOCK, DIM, WIDTH, True, PADDED)
    gradient = load_tile(dout, batch, first, head, dout_strides, length, padding_mask, BLOCK, DIM, WIDTH, True, PADDED)
    rows = first + tl.arange(0, BLOCK)
    at = (batch * heads + head).to(tl.int64) * length + rows.to(tl.int64)
    total = tl.sum(output.to(tl.float32) * gradient.to(tl.float32), 1)
    total -= tl.load(dlse + at, mask=rows < length, other=0.0)
    if PADDED:  # merging two outputs gives NaN as the gradient of a lse of -inf
        total = tl.where(load_padding_mask(padding_mask, first, length, BLOCK), total, 0.0)
    tl.store(delta + at, total, mask=rows < length)


@triton.jit
def dq_range(dq_tile, query, keys, window, start, stop, MASKED: tl.constexpr, C: tl.constexpr):
    """Add the part of dQ of a query block that the key tiles from `start` to `stop` give."""
    q_tile, dout_tile, lse_rows, delta_rows, q_mark, place, slope = query
    k, v, k_at, v_at, k_marks = keys
    count, scale = window[2], window[3]
    for at in range(start, stop, C.BLOCK_K):
        k_tile = load_keys(k, k_at, at, count, k_marks, MASKED, C)
        v_tile = load_keys(v, v_at, at, count, k_marks, MASKED, C)
        scores = tl.dot(q_tile, k_tile.T, input_precision=C.PRECISION)
        products = tl.dot(dout_tile, v_tile.T, input_precision=C.PRECISION)
        places = place + tl.arange(0, C.BLOCK_Q)[:, None]
        positions = at + tl.arange(0, C.BLOCK_K)[None, :]
        if C.ALIBI:
            scores -= slope * tl.abs(positions - places).to(tl.float32)
        visible = True
        if MASKED:
            k_mark = load_marks(k_marks, at, count, C.BLOCK_K)[None, :] if C.K_MARKS else positions
            visible = visible_pairs(places, positions, window, q_mark, k_mark, C)
        _, ds = score_gradient(scores, products, lse_rows[:, None], delta_rows[:, None], visible, scale, MASKED)
        dq_tile = tl.dot(ds.to(k_tile.dtype), k_tile, dq_tile, input_precision=C.PRECISION)
    return dq_tile


@triton.jit(do_not_specialize=["left", "right", "before"])
def dq_kernel(
    q, k, v, q_marks, k_marks, k_spans, slopes, dout, lse, delta, dq, strides, sizes, left, right, before, scale,
    C: tl.constexpr,
):  # fmt: skip
    """dQ of one block of queries."""
    q_strides, k_strides, v_strides, dout_strides, dq_strides = strides
    length, count, heads, group, phases = sizes
    program = tl.program_id(0)
    blocks = tl.cdiv(length, C.BLOCK_Q)
    first = (blocks - 1 - program % blocks) * C.BLOCK_Q  # the longest causal rows go first
    head = program // blocks % heads
    batch = program // (blocks * heads)
    row = row_of_marks(batch, head, heads, phases)
    q_marks += row.to(tl.int64) * length
    k_marks += row.to(tl.int64) * count
    q_tile = load_queries(q, (batch, head, q_strides), first, length, q_marks, True, C)
    dout_tile = load_queries(dout, (batch, head, dout_strides), first, length, q_marks, True, C)
    rows = first + tl.arange(0, C.BLOCK_Q)
    at = (batch * heads + head).to(tl.int64) * length + rows.to(tl.int64)
    lse_rows = tl.load(lse + at, mask=rows < length, other=0.0)
    delta_rows = tl.load(delta + at, mask=rows < length, other=0.0)
    span = load_span(k_spans, row, count, C.K_MARKS)
    q_mark = first
    if C.Q_MARKS:
        marks = load_marks(q_marks, first, length, C.BLOCK_Q)
        span = read_by_any(span, marks)
        # Padding has an lse of -inf, which in a tile without a mask would give weights of infinity.
        lse_rows = tl.where((marks & REAL) != 0, lse_rows, 0.0)
        q_mark = marks[:, None]
    slope = tl.load(slopes + head.to(tl.int64)) if C.ALIBI else 0.0
    place = first + before
    dq_tile = tl.full([C.BLOCK_Q, C.DIM], 0.0, tl.float32)
    query = (q_tile, dout_tile, lse_rows, delta_rows, q_mark, place, slope)
    keys = (k, v, (batch, head // group, k_strides), (batch, head // group, v_strides), k_marks)
    window = (left, right, count, scale)
    last = tl.minimum(place + C.BLOCK_Q, length + before) - 1
    start, full, ragged, stop = visible_range(place, last, left, right, span, C.BLOCK_K, C.EDGE)
    if not C.FULL:
        ragged = start
    elif C.EDGE:
        dq_tile = dq_range(dq_tile, query, keys, window, start, full, True, C)
    if C.FULL:
        dq_tile = dq_range(dq_tile, query, keys, window, full, ragged, False, C)
    dq_tile = dq_range(dq_tile, query, keys, window, ragged, stop, True, C)
    store_tile(dq, dq_tile * (scale * LN2), batch, first, head, dq_strides, length, C.BLOCK_Q, C.DIM, C.WIDTH)


@triton.jit
def dkv_range(dk_tile, dv_tile, key, queries, window, start, stop, MASKED: tl.constexpr, C: tl.constexpr):
    """Add the parts of dK and dV of a key block that the query tiles from `start` to `stop` of one head give.

    Tiles of scores are [keys, queries]. `lse` and `delta` point at the first row of this head. No result of a product
    is transposed into an operand of another, which triton 3.4 to 3.7.0 compiles wrongly for sm_90.
    """
    k_tile, v_tile, k_mark, first = key
    q, dout, q_at, dout_at, lse, delta, q_marks, length, before, slope = queries
    scale = window[3]
    for at in range(start, stop, C.BLOCK_Q):
        q_tile = load_queries(q, q_at, at, length, q_marks, MASKED, C)
        rows = at + tl.arange(0, C.BLOCK_Q)
        offsets = rows.to(tl.int64)
        if MASKED:
            lse_rows = tl.load(lse + offsets, mask=rows < length, other=0.0)
            delta_rows = tl.load(delta + offsets, mask=rows < length, other=0.0)
        else:
            lse_rows = tl.load(lse + offsets)
            delta_rows = tl.load(delta + offsets)
        scores = tl.dot(k_tile, q_tile.T, input_precision=C.PRECISION)
        dout_tile = load_queries(dout, dout_at, at, length, q_marks, MASKED, C)
        products = tl.dot(v_tile, dout_tile.T, input_precision=C.PRECISION)
        keys = first + tl.arange(0, C.BLOCK_K)[:, None]
        places = before + rows[None, :]
        if C.ALIBI:
            scores -= slope * tl.abs(keys - places).to(tl.float32)
        visible = True
        if MASKED:
            q_mark = load_marks(q_marks, at, length, C.BLOCK_Q)[None, :] if C.Q_MARKS else rows[None, :]
            visible = visible_pairs(places, keys, window, q_mark, k_mark, C)
        weights, ds = score_gradient(scores, products, lse_rows[None, :], delta_rows[None, :], visible, scale, MASKED)
        dv_tile = tl.dot(weights.to(dout_tile.dtype), dout_tile, dv_tile, input_precision=C.PRECISION)
        dk_tile = tl.dot(ds.to(q_tile.dtype), q_tile, dk_tile, input_precision=C.PRECISION)
    return dk_tile, dv_tile


@triton.jit(do_not_specialize=["left", "right", "before"])
def dkv_kernel(
    q, k, v, q_marks, k_marks, q_spans, slopes, dout, lse, delta, dk, dv, strides, sizes, left, right, before, scale,
    C: tl.constexpr,
):  # fmt: skip
    """dK and dV of one block of keys, summed over the query heads that share it in their order; `heads` are k's."""
    q_strides, k_strides, v_strides, dout_strides, dk_strides, dv_strides = strides
    length, count, heads, group, phases = sizes
    program = tl.program_id(0)
    blocks = tl.cdiv(count, C.BLOCK_K)
    first = program % blocks * C.BLOCK_K
    head = program // blocks % heads
    batch = program // (blocks * heads)
    row = row_of_marks(batch, head, heads, phases)
    q_marks += row.to(tl.int64) * length
    k_marks += row.to(tl.int64) * count
    k_tile = load_keys(k, (batch, head, k_strides), first, count, k_marks, True, C)
    v_tile = load_keys(v, (batch, head, v_strides), first, count, k_marks, True, C)
    span = load_span(q_spans, row, length, C.Q_MARKS)
    k_mark = first
    if C.K_MARKS:
        marks = load_marks(k_marks, first, count, C.BLOCK_K)
        span = read_by_any(span, marks)
        k_mark = marks[:, None]
    dk_tile = tl.full([C.BLOCK_K, C.DIM], 0.0, tl.float32)
    dv_tile = tl.full([C.BLOCK_K, C.DIM], 0.0, tl.float32)
    key = (k_tile, v_tile, k_mark, first)
    window = (left, right, count, scale)
    # Key j is visible to the queries j - before - right to j - before + left: the same range with its sides exchanged.
    place = first - before
    last = tl.minimum(place + C.BLOCK_K, count - before) - 1
    start, full, ragged, stop = visible_range(place, last, right, left, span, C.BLOCK_Q, C.EDGE)
    if not C.FULL:
        ragged = start
    for member in range(group):
        head_q = head * group + member
        at = ((batch * heads + head) * group + member).to(tl.int64) * length
        slope = tl.load(slopes + head_q.to(tl.int64)) if C.ALIBI else 0.0
        q_at, dout_at = (batch, head_q, q_strides), (batch, head_q, dout_strides)
        queries = (q, dout, q_at, dout_at, lse + at, delta + at, q_marks, length, before, slope)
        if C.FULL and C.EDGE:
            dk_tile, dv_tile = dkv_range(dk_tile, dv_tile, key, queries, window, start, full, True, C)
        if C.FULL:
            dk_tile, dv_tile = dkv_range(dk_tile, dv_tile, key, queries, window, full, ragged, False, C)
        dk_tile, dv_tile = dkv_range(dk_tile, dv_tile, key, queries, window, ragged, stop, True, C)
    if C.K_MARKS:  # tiles without a mask hold queries that see all keys of the block, padding too
        real = (k_mark & REAL) != 0
        dk_tile = tl.where(real, dk_tile, 0.0)
        dv_tile = tl.where(real, dv_tile, 0.0)
    store_tile(dk, dk_tile * (scale * LN2), batch, first, head, dk_strides, count, C.BLOCK_K, C.DIM, C.WIDTH)
    store_tile(dv, dv_tile, batch, first, head, dv_strides, count, C.BLOCK_K, C.DIM, C.WIDTH)
