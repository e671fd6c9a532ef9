"""Backward kernels of flash attention: dQ by query blocks, dK and dV by key blocks; no atomics, so repeatable.

Method: FlashAttention-2 (arXiv 2307.08691), its one backward pass split in two. With P the weights, dO the gradient of
the output and delta = rowsum(dO ∘ O) - dlse: dV = Pᵀ dO, dS = P ∘ (dO Vᵀ - delta), dQ = scale dS K, dK = scale dSᵀ Q.

Legend: q, k, v, out, dout, dq, dk, dv [batch, length, heads, WIDTH]; lse, dlse, delta [batch, heads, length];
padding_mask [batch, length] of bytes with the bits IS_KEY and IS_QUERY; `strides` in the order of the tensors, then of
padding_mask; `sizes` (length, heads, group). `scale` is that of the scores times log2(e); `group` query heads share a
key head.
"""

# pyright does not know that a tl.constexpr has the attributes of its value.
# pyright: reportAttributeAccessIssue=false

import triton
import triton.language as tl

from genoattn.attention.kernels.flash_forward import visible_pairs
from genoattn.attention.kernels.tiles import (
    IS_KEY,
    IS_QUERY,
    load_marks,
    load_padding_mask,
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
    length,
    heads,
    BLOCK: tl.constexpr,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    PADDED: tl.constexpr,
):
    """delta = rowsum(dO ∘ O) - dlse, the part of each score's gradient due to the normalisation of the softmax."""
    out_strides, dout_strides, mask_stride = strides
    program = tl.program_id(0)
    blocks = tl.cdiv(length, BLOCK)
    first = program % blocks * BLOCK
    head = program // blocks % heads
    batch = program // (blocks * heads)
    padding_mask += batch.to(tl.int64) * mask_stride
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
    q_tile, dout_tile, lse_rows, delta_rows, q_real, first = query
    k, v, k_strides, v_strides, padding_mask, batch, head = keys
    left, right, length, scale = window
    for at in range(start, stop, C.BLOCK_K):
        k_tile = load_tile(
            k,
            batch,
            at,
            head,
            k_strides,
            length,
            padding_mask,
            C.BLOCK_K,
            C.DIM,
            C.WIDTH,
            MASKED,
            C.PADDED,
            C.DESCRIPTORS,
        )
        v_tile = load_tile(
            v,
            batch,
            at,
            head,
            v_strides,
            length,
            padding_mask,
            C.BLOCK_K,
            C.DIM,
            C.WIDTH,
            MASKED,
            C.PADDED,
            C.DESCRIPTORS,
        )
        scores = tl.dot(q_tile, k_tile.T, input_precision=C.PRECISION)
        products = tl.dot(dout_tile, v_tile.T, input_precision=C.PRECISION)
        visible = True
        if MASKED:
            queries = first + tl.arange(0, C.BLOCK_Q)[:, None]
            positions = at + tl.arange(0, C.BLOCK_K)[None, :]
            k_real = load_marks(padding_mask, at, length, C.BLOCK_K, IS_KEY)[None, :] if C.PADDED else positions
            visible = visible_pairs(queries, positions, left, right, length, q_real, k_real, C.PADDED)
        _, ds = score_gradient(scores, products, lse_rows[:, None], delta_rows[:, None], visible, scale, MASKED)
        dq_tile = tl.dot(ds.to(k_tile.dtype), k_tile, dq_tile, input_precision=C.PRECISION)
    return dq_tile


@triton.jit(do_not_specialize=["left", "right"])
def dq_kernel(q, k, v, padding_mask, dout, lse, delta, dq, strides, sizes, left, right, scale, C: tl.constexpr):
    """dQ of one block of queries."""
    q_strides, k_strides, v_strides, dout_strides, dq_strides, mask_stride = strides
    length, heads, group = sizes
    program = tl.program_id(0)
    blocks = tl.cdiv(length, C.BLOCK_Q)
    first = (blocks - 1 - program % blocks) * C.BLOCK_Q  # the longest causal rows go first
    head = program // blocks % heads
    batch = program // (blocks * heads)
    last = tl.minimum(first + C.BLOCK_Q, length) - 1
    padding_mask += batch.to(tl.int64) * mask_stride
    q_tile = load_tile(
        q, batch, first, head, q_strides, length, padding_mask, C.BLOCK_Q, C.DIM, C.WIDTH, True, C.PADDED, C.DESCRIPTORS
    )
    dout_tile = load_tile(
        dout,
        batch,
        first,
        head,
        dout_strides,
        length,
        padding_mask,
        C.BLOCK_Q,
        C.DIM,
        C.WIDTH,
        True,
        C.PADDED,
        C.DESCRIPTORS,
    )
    rows = first + tl.arange(0, C.BLOCK_Q)
    at = (batch * heads + head).to(tl.int64) * length + rows.to(tl.int64)
    lse_rows = tl.load(lse + at, mask=rows < length, other=0.0)
    delta_rows = tl.load(delta + at, mask=rows < length, other=0.0)
    q_real = load_marks(padding_mask, first, length, C.BLOCK_Q, IS_QUERY)[:, None] if C.PADDED else first
    dq_tile = tl.full([C.BLOCK_Q, C.DIM], 0.0, tl.float32)
    query = (q_tile, dout_tile, lse_rows, delta_rows, q_real, first)
    keys = (k, v, k_strides, v_strides, padding_mask, batch, head // group)
    window = (left, right, length, scale)
    start, full, ragged, stop = visible_range(first, last, left, right, length, C.BLOCK_K, C.LEFT_EDGE, C.PADDED)
    if C.LEFT_EDGE or C.PADDED:
        dq_tile = dq_range(dq_tile, query, keys, window, start, full, True, C)
    if not C.PADDED:
        dq_tile = dq_range(dq_tile, query, keys, window, full, ragged, False, C)
        dq_tile = dq_range(dq_tile, query, keys, window, ragged, stop, True, C)
    store_tile(dq, dq_tile * (scale * LN2), batch, first, head, dq_strides, length, C.BLOCK_Q, C.DIM, C.WIDTH)


@triton.jit
def dkv_range(dk_tile, dv_tile, key, queries, window, start, stop, MASKED: tl.constexpr, C: tl.constexpr):
    """Add the parts of dK and dV of a key block that the query tiles from `start` to `stop` of one head give.

    Tiles of scores are [keys, queries]. `lse` and `delta` point at the first row of this head.
    """
    k_tile, v_tile, k_real, first = key
    q, dout, q_strides, dout_strides, lse, delta, padding_mask, batch, head = queries
    left, right, length, scale = window
    for at in range(start, stop, C.BLOCK_Q):
        q_tile = load_tile(
            q,
            batch,
            at,
            head,
            q_strides,
            length,
            padding_mask,
            C.BLOCK_Q,
            C.DIM,
            C.WIDTH,
            MASKED,
            C.PADDED,
            C.DESCRIPTORS,
        )
        rows = at + tl.arange(0, C.BLOCK_Q)
        offsets = rows.to(tl.int64)
        if MASKED:
            lse_rows = tl.load(lse + offsets, mask=rows < length, other=0.0)
            delta_rows = tl.load(delta + offsets, mask=rows < length, other=0.0)
        else:
            lse_rows = tl.load(lse + offsets)
            delta_rows = tl.load(delta + offsets)
        scores = tl.dot(k_tile, q_tile.T, input_precision=C.PRECISION)
        dout_tile = load_tile(
            dout,
            batch,
            at,
            head,
            dout_strides,
            length,
            padding_mask,
            C.BLOCK_Q,
            C.DIM,
            C.WIDTH,
            MASKED,
            C.PADDED,
            C.DESCRIPTORS,
        )
        products = tl.dot(v_tile, dout_tile.T, input_precision=C.PRECISION)
        visible = True
        if MASKED:
            keys = first + tl.arange(0, C.BLOCK_K)[:, None]
            q_real = load_marks(padding_mask, at, length, C.BLOCK_Q, IS_QUERY)[None, :] if C.PADDED else rows[None, :]
            visible = visible_pairs(rows[None, :], keys, left, right, length, q_real, k_real, C.PADDED)
        weights, ds = score_gradient(scores, products, lse_rows[None, :], delta_rows[None, :], visible, scale, MASKED)
        dv_tile = tl.dot(weights.to(dout_tile.dtype), dout_tile, dv_tile, input_precision=C.PRECISION)
        dk_tile = tl.dot(ds.to(q_tile.dtype), q_tile, dk_tile, input_precision=C.PRECISION)
    return dk_tile, dv_tile


@triton.jit(do_not_specialize=["left", "right"])
def dkv_kernel(q, k, v, padding_mask, dout, lse, delta, dk, dv, strides, sizes, left, right, scale, C: tl.constexpr):
    """dK and dV of one block of keys, summed over the query heads that share it in their order; `heads` are k's."""
    q_strides, k_strides, v_strides, dout_strides, dk_strides, dv_strides, mask_stride = strides
    length, heads, group = sizes
    program = tl.program_id(0)
    blocks = tl.cdiv(length, C.BLOCK_K)
    first = program % blocks * C.BLOCK_K
    head = program // blocks % heads
    batch = program // (blocks * heads)
    last = tl.minimum(first + C.BLOCK_K, length) - 1
    padding_mask += batch.to(tl.int64) * mask_stride
    k_tile = load_tile(
        k, batch, first, head, k_strides, length, padding_mask, C.BLOCK_K, C.DIM, C.WIDTH, True, C.PADDED, C.DESCRIPTORS
    )
    v_tile = load_tile(
        v, batch, first, head, v_strides, length, padding_mask, C.BLOCK_K, C.DIM, C.WIDTH, True, C.PADDED, C.DESCRIPTORS
    )
    k_real = load_marks(padding_mask, first, length, C.BLOCK_K, IS_KEY)[:, None] if C.PADDED else first
    dk_tile = tl.full([C.BLOCK_K, C.DIM], 0.0, tl.float32)
    dv_tile = tl.full([C.BLOCK_K, C.DIM], 0.0, tl.float32)
    key = (k_tile, v_tile, k_real, first)
    window = (left, right, length, scale)
    # Key j is visible to the queries j - right to j + left: the same range with its sides exchanged.
    start, full, ragged, stop = visible_range(first, last, right, left, length, C.BLOCK_Q, C.LEFT_EDGE, C.PADDED)
    for member in range(group):
        q_at = head * group + member
        rows_at = ((batch * heads + head) * group + member).to(tl.int64) * length
        queries = (q, dout, q_strides, dout_strides, lse + rows_at, delta + rows_at, padding_mask, batch, q_at)
        if C.LEFT_EDGE or C.PADDED:
            dk_tile, dv_tile = dkv_range(dk_tile, dv_tile, key, queries, window, start, full, True, C)
        if not C.PADDED:
            dk_tile, dv_tile = dkv_range(dk_tile, dv_tile, key, queries, window, full, ragged, False, C)
            dk_tile, dv_tile = dkv_range(dk_tile, dv_tile, key, queries, window, ragged, stop, True, C)
    store_tile(dk, dk_tile * (scale * LN2), batch, first, head, dk_strides, length, C.BLOCK_K, C.DIM, C.WIDTH)
    store_tile(dv, dv_tile, batch, first, head, dv_strides, length, C.BLOCK_K, C.DIM, C.WIDTH)
