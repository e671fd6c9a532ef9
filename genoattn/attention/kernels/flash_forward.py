"""The kernels of flash attention: forward, dQ by query blocks, dK and dV by key blocks; no atomics, so repeatable.

Method: FlashAttention-2 (arXiv 2307.08691). One family for full, causal and windowed attention: a query i sees the
keys i - left to i + right; tiles out of reach are not visited, full tiles carry no mask.

Legend: q, k, v, out [batch, length, heads, WIDTH]; lse, delta [batch, heads, length]; keep [batch, length] of bytes.
A program takes one block of one head of one sequence; `group` query heads share a key head. `scale` holds log2(e)
wherever it meets exp2.
"""

import triton
import triton.language as tl

from genoattn.attention.kernels.tiles import finish_softmax, load_keep, load_tile, reach, softmax_step, store_tile


@triton.jit
def visible_pairs(queries, keys, left, right, length, query_keep, key_keep, KEEP: tl.constexpr):
    """Which pairs [queries, keys] an edge tile lets through; `queries` and `keys` are positions that broadcast."""
    inside = (keys >= queries - left) & (keys <= queries + right) & (keys < length) & (queries < length)
    if KEEP:
        inside = inside & query_keep & key_keep
    return inside


@triton.jit
def forward_range(
    mixed, total, peak, q_tile, q_real, k, v, keep, batch, head, start, stop, first, left, right, length, scale,
    k_strides, v_strides,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr,
    MASKED: tl.constexpr, KEEP: tl.constexpr, DESCRIPTORS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The running softmax of a query block over the key tiles from `start` to `stop`."""
    for at in range(start, stop, BLOCK_K):
        k_tile = load_tile(k, batch, at, head, k_strides, length, keep, BLOCK_K, DIM, WIDTH, MASKED, KEEP, DESCRIPTORS)
        scores = tl.dot(q_tile, k_tile.T, input_precision=PRECISION)
        if MASKED:
            queries = first + tl.arange(0, BLOCK_Q)[:, None]
            keys = at + tl.arange(0, BLOCK_K)[None, :]
            k_real = load_keep(keep, at, length, BLOCK_K)[None, :] if KEEP else keys
            visible = visible_pairs(queries, keys, left, right, length, q_real, k_real, KEEP)
            scores = tl.where(visible, scores, float("-inf"))
        v_tile = load_tile(v, batch, at, head, v_strides, length, keep, BLOCK_K, DIM, WIDTH, MASKED, KEEP, DESCRIPTORS)
        mixed, total, peak = softmax_step(scores, v_tile, mixed, total, peak, scale, MASKED, PRECISION)
    return mixed, total, peak


@triton.jit(do_not_specialize=["left", "right"])
def forward_kernel(
    q, k, v, keep, out, lse,
    q_strides, k_strides, v_strides, out_strides, keep_batch,
    length, heads, group, left, right, scale,
    BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr,
    LEFT_EDGE: tl.constexpr, KEEP: tl.constexpr, DESCRIPTORS: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """Answers and log-sum-exps of one block of queries."""
    program = tl.program_id(0)
    blocks = tl.cdiv(length, BLOCK_Q)
    first = (blocks - 1 - program % blocks) * BLOCK_Q  # in causal attention the last blocks take longest: they go first
    head = program // blocks % heads
    batch = program // (blocks * heads)
    last = tl.minimum(first + BLOCK_Q, length) - 1
    keep += batch.to(tl.int64) * keep_batch
    q_tile = load_tile(q, batch, first, head, q_strides, length, keep, BLOCK_Q, DIM, WIDTH, True, KEEP, DESCRIPTORS)
    q_real = load_keep(keep, first, length, BLOCK_Q)[:, None] if KEEP else first
    mixed = tl.zeros([BLOCK_Q, DIM], tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    peak = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    start, full, ragged, stop = reach(first, last, left, right, length, BLOCK_K, LEFT_EDGE, KEEP)
    if LEFT_EDGE or KEEP:
        mixed, total, peak = forward_range(
            mixed, total, peak, q_tile, q_real, k, v, keep, batch, head // group,
            start, full, first, left, right, length, scale, k_strides, v_strides,
            BLOCK_Q, BLOCK_K, DIM, WIDTH, True, KEEP, DESCRIPTORS, PRECISION,
        )  # fmt: skip
    if not KEEP:
        mixed, total, peak = forward_range(
            mixed, total, peak, q_tile, q_real, k, v, keep, batch, head // group,
            full, ragged, first, left, right, length, scale, k_strides, v_strides,
            BLOCK_Q, BLOCK_K, DIM, WIDTH, False, KEEP, DESCRIPTORS, PRECISION,
        )  # fmt: skip
        mixed, total, peak = forward_range(
            mixed, total, peak, q_tile, q_real, k, v, keep, batch, head // group,
            ragged, stop, first, left, right, length, scale, k_strides, v_strides,
            BLOCK_Q, BLOCK_K, DIM, WIDTH, True, KEEP, DESCRIPTORS, PRECISION,
        )  # fmt: skip
    answer, logarithm = finish_softmax(mixed, total, peak)
    store_tile(out, answer, batch, first, head, out_strides, length, BLOCK_Q, DIM, WIDTH)
    rows = first + tl.arange(0, BLOCK_Q)
    lse += (batch * heads + head).to(tl.int64) * length
    tl.store(lse + rows.to(tl.int64), logarithm, mask=rows < length)
