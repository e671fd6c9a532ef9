"""The backward kernels of flash attention: dQ by query blocks, dK and dV by key blocks; no atomics, so repeatable.

Method: FlashAttention-2 (arXiv 2307.08691), its one backward pass split in two. With P the weights, dO the answer's
gradient and delta = rowsum(dO ∘ O) - dlse: dV = Pᵀ dO, dS = P ∘ (dO Vᵀ - delta), dQ = scale dS K, dK = scale dSᵀ Q.

Legend: q, k, v, out, dout, dq, dk, dv [batch, length, heads, WIDTH]; lse, dlse, delta [batch, heads, length]; keep
[batch, length] of bytes. `scale` is that of the scores times log2(e); `group` query heads share a key head.
"""

import triton
import triton.language as tl

from genoattn.attention.kernels.flash_forward import visible_pairs
from genoattn.attention.kernels.tiles import load_keep, load_tile, reach, score_gradient, store_tile

LN2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit
def delta_kernel(
    out, dout, dlse, keep, delta,
    out_strides, dout_strides, keep_batch, length, heads,
    BLOCK: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr, KEEP: tl.constexpr,
):  # fmt: skip
    """delta = rowsum(dO ∘ O) - dlse: what the softmax's own normalisation takes back from each score's gradient."""
    program = tl.program_id(0)
    blocks = tl.cdiv(length, BLOCK)
    first = program % blocks * BLOCK
    head = program // blocks % heads
    batch = program // (blocks * heads)
    keep += batch.to(tl.int64) * keep_batch
    answer = load_tile(out, batch, first, head, out_strides, length, keep, BLOCK, DIM, WIDTH, True, KEEP, False)
    gradient = load_tile(dout, batch, first, head, dout_strides, length, keep, BLOCK, DIM, WIDTH, True, KEEP, False)
    rows = first + tl.arange(0, BLOCK)
    at = (batch * heads + head).to(tl.int64) * length + rows.to(tl.int64)
    taken = tl.sum(answer.to(tl.float32) * gradient.to(tl.float32), 1)
    taken -= tl.load(dlse + at, mask=rows < length, other=0.0)
    if KEEP:  # merging two answers gives NaN for the gradient of a lse of -inf
        taken = tl.where(load_keep(keep, first, length, BLOCK), taken, 0.0)
    tl.store(delta + at, taken, mask=rows < length)


@triton.jit
def dq_range(
    dq_tile, q_tile, dout_tile, lse_rows, delta_rows, q_real, k, v, keep, batch, head,
    start, stop, first, left, right, length, scale, k_strides, v_strides,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr,
    MASKED: tl.constexpr, KEEP: tl.constexpr, DESCRIPTORS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What the key tiles from `start` to `stop` add to dQ of a query block."""
    for at in range(start, stop, BLOCK_K):
        k_tile = load_tile(k, batch, at, head, k_strides, length, keep, BLOCK_K, DIM, WIDTH, MASKED, KEEP, DESCRIPTORS)
        v_tile = load_tile(v, batch, at, head, v_strides, length, keep, BLOCK_K, DIM, WIDTH, MASKED, KEEP, DESCRIPTORS)
        scores = tl.dot(q_tile, k_tile.T, input_precision=PRECISION)
        products = tl.dot(dout_tile, v_tile.T, input_precision=PRECISION)
        visible = True
        if MASKED:
            queries = first + tl.arange(0, BLOCK_Q)[:, None]
            keys = at + tl.arange(0, BLOCK_K)[None, :]
            k_real = load_keep(keep, at, length, BLOCK_K)[None, :] if KEEP else keys
            visible = visible_pairs(queries, keys, left, right, length, q_real, k_real, KEEP)
        _, ds = score_gradient(scores, products, lse_rows[:, None], delta_rows[:, None], visible, scale, MASKED)
        dq_tile = tl.dot(ds.to(k_tile.dtype), k_tile, dq_tile, input_precision=PRECISION)
    return dq_tile


@triton.jit(do_not_specialize=["left", "right"])
def dq_kernel(
    q, k, v, keep, dout, lse, delta, dq,
    q_strides, k_strides, v_strides, dout_strides,
    dq_strides, keep_batch, length, heads, group, left, right, scale,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr,
    LEFT_EDGE: tl.constexpr, KEEP: tl.constexpr, DESCRIPTORS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dQ of one block of queries."""
    program = tl.program_id(0)
    blocks = tl.cdiv(length, BLOCK_Q)
    first = (blocks - 1 - program % blocks) * BLOCK_Q  # the longest causal rows go first
    head = program // blocks % heads
    batch = program // (blocks * heads)
    last = tl.minimum(first + BLOCK_Q, length) - 1
    keep += batch.to(tl.int64) * keep_batch
    q_tile = load_tile(q, batch, first, head, q_strides, length, keep, BLOCK_Q, DIM, WIDTH, True, KEEP, DESCRIPTORS)
    dout_tile = load_tile(
        dout, batch, first, head, dout_strides, length, keep,
        BLOCK_Q, DIM, WIDTH, True, KEEP, DESCRIPTORS,
    )  # fmt: skip
    rows = first + tl.arange(0, BLOCK_Q)
    at = (batch * heads + head).to(tl.int64) * length + rows.to(tl.int64)
    lse_rows = tl.load(lse + at, mask=rows < length, other=0.0)
    delta_rows = tl.load(delta + at, mask=rows < length, other=0.0)
    q_real = load_keep(keep, first, length, BLOCK_Q)[:, None] if KEEP else first
    dq_tile = tl.zeros([BLOCK_Q, DIM], tl.float32)
    start, full, ragged, stop = reach(first, last, left, right, length, BLOCK_K, LEFT_EDGE, KEEP)
    if LEFT_EDGE or KEEP:
        dq_tile = dq_range(
            dq_tile, q_tile, dout_tile, lse_rows, delta_rows, q_real, k, v, keep, batch, head // group,
            start, full, first, left, right, length, scale, k_strides, v_strides,
            BLOCK_Q, BLOCK_K, DIM, WIDTH, True, KEEP, DESCRIPTORS, PRECISION,
        )  # fmt: skip
    if not KEEP:
        dq_tile = dq_range(
            dq_tile, q_tile, dout_tile, lse_rows, delta_rows, q_real, k, v, keep, batch, head // group,
            full, ragged, first, left, right, length, scale, k_strides, v_strides,
            BLOCK_Q, BLOCK_K, DIM, WIDTH, False, KEEP, DESCRIPTORS, PRECISION,
        )  # fmt: skip
        dq_tile = dq_range(
            dq_tile, q_tile, dout_tile, lse_rows, delta_rows, q_real, k, v, keep, batch, head // group,
            ragged, stop, first, left, right, length, scale, k_strides, v_strides,
            BLOCK_Q, BLOCK_K, DIM, WIDTH, True, KEEP, DESCRIPTORS, PRECISION,
        )  # fmt: skip
    store_tile(dq, dq_tile * (scale * LN2), batch, first, head, dq_strides, length, BLOCK_Q, DIM, WIDTH)


@triton.jit
def dkv_range(
    dk_tile, dv_tile, k_tile, v_tile, k_real, q, dout, lse, delta, keep, batch, head,
    start, stop, first, left, right, length, scale, q_strides, dout_strides,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr,
    MASKED: tl.constexpr, KEEP: tl.constexpr, DESCRIPTORS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """What the query tiles from `start` to `stop` of one head add to dK and dV of a key block.

    Tiles of scores are [keys, queries]. `lse` and `delta` point at this head's first row.
    """
    for at in range(start, stop, BLOCK_Q):
        q_tile = load_tile(q, batch, at, head, q_strides, length, keep, BLOCK_Q, DIM, WIDTH, MASKED, KEEP, DESCRIPTORS)
        rows = at + tl.arange(0, BLOCK_Q)
        offsets = rows.to(tl.int64)
        if MASKED:
            lse_rows = tl.load(lse + offsets, mask=rows < length, other=0.0)
            delta_rows = tl.load(delta + offsets, mask=rows < length, other=0.0)
        else:
            lse_rows = tl.load(lse + offsets)
            delta_rows = tl.load(delta + offsets)
        scores = tl.dot(k_tile, q_tile.T, input_precision=PRECISION)
        dout_tile = load_tile(
            dout, batch, at, head, dout_strides, length, keep,
            BLOCK_Q, DIM, WIDTH, MASKED, KEEP, DESCRIPTORS,
        )  # fmt: skip
        products = tl.dot(v_tile, dout_tile.T, input_precision=PRECISION)
        visible = True
        if MASKED:
            queries = rows[None, :]
            keys = first + tl.arange(0, BLOCK_K)[:, None]
            q_real = load_keep(keep, at, length, BLOCK_Q)[None, :] if KEEP else queries
            visible = visible_pairs(queries, keys, left, right, length, q_real, k_real, KEEP)
        weights, ds = score_gradient(scores, products, lse_rows[None, :], delta_rows[None, :], visible, scale, MASKED)
        dv_tile = tl.dot(weights.to(dout_tile.dtype), dout_tile, dv_tile, input_precision=PRECISION)
        dk_tile = tl.dot(ds.to(q_tile.dtype), q_tile, dk_tile, input_precision=PRECISION)
    return dk_tile, dv_tile


@triton.jit(do_not_specialize=["left", "right"])
def dkv_kernel(
    q, k, v, keep, dout, lse, delta, dk, dv,
    q_strides, k_strides, v_strides, dout_strides,
    dk_strides, dv_strides, keep_batch, length, heads, group, left, right, scale,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr,
    LEFT_EDGE: tl.constexpr, KEEP: tl.constexpr, DESCRIPTORS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dK and dV of one block of keys, the query heads that share it summed in their order; `heads` are k's."""
    program = tl.program_id(0)
    blocks = tl.cdiv(length, BLOCK_K)
    first = program % blocks * BLOCK_K
    head = program // blocks % heads
    batch = program // (blocks * heads)
    last = tl.minimum(first + BLOCK_K, length) - 1
    keep += batch.to(tl.int64) * keep_batch
    k_tile = load_tile(k, batch, first, head, k_strides, length, keep, BLOCK_K, DIM, WIDTH, True, KEEP, DESCRIPTORS)
    v_tile = load_tile(v, batch, first, head, v_strides, length, keep, BLOCK_K, DIM, WIDTH, True, KEEP, DESCRIPTORS)
    k_real = load_keep(keep, first, length, BLOCK_K)[:, None] if KEEP else first
    dk_tile = tl.zeros([BLOCK_K, DIM], tl.float32)
    dv_tile = tl.zeros([BLOCK_K, DIM], tl.float32)
    # Key j is seen by the queries j - right to j + left: the same reach, looked at from the other side.
    start, full, ragged, stop = reach(first, last, right, left, length, BLOCK_Q, LEFT_EDGE, KEEP)
    for member in range(group):
        q_at = head * group + member
        rows_at = ((batch * heads + head) * group + member).to(tl.int64) * length
        if LEFT_EDGE or KEEP:
            dk_tile, dv_tile = dkv_range(
                dk_tile, dv_tile, k_tile, v_tile, k_real, q, dout, lse + rows_at, delta + rows_at, keep, batch, q_at,
                start, full, first, left, right, length, scale, q_strides, dout_strides,
                BLOCK_Q, BLOCK_K, DIM, WIDTH, True, KEEP, DESCRIPTORS, PRECISION,
            )  # fmt: skip
        if not KEEP:
            dk_tile, dv_tile = dkv_range(
                dk_tile, dv_tile, k_tile, v_tile, k_real, q, dout, lse + rows_at, delta + rows_at, keep, batch, q_at,
                full, ragged, first, left, right, length, scale, q_strides, dout_strides,
                BLOCK_Q, BLOCK_K, DIM, WIDTH, False, KEEP, DESCRIPTORS, PRECISION,
            )  # fmt: skip
            dk_tile, dv_tile = dkv_range(
                dk_tile, dv_tile, k_tile, v_tile, k_real, q, dout, lse + rows_at, delta + rows_at, keep, batch, q_at,
                ragged, stop, first, left, right, length, scale, q_strides, dout_strides,
                BLOCK_Q, BLOCK_K, DIM, WIDTH, True, KEEP, DESCRIPTORS, PRECISION,
            )  # fmt: skip
    store_tile(dk, dk_tile * (scale * LN2), batch, first, head, dk_strides, length, BLOCK_K, DIM, WIDTH)
    store_tile(dv, dv_tile, batch, first, head, dv_strides, length, BLOCK_K, DIM, WIDTH)
