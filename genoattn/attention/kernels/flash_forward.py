"""Forward kernel of flash attention; no atomics, so results are repeatable.

Method: FlashAttention-2 (arXiv 2307.08691). One kernel for full, causal and windowed attention: query i attends to
keys i - left to i + right; tiles outside this range are not visited, full tiles carry no mask.

Legend: q, k, v, out [batch, length, heads, WIDTH]; lse [batch, heads, length]; padding_mask [batch, length] of bytes
with the bits IS_KEY and IS_QUERY; `strides` of q, k, v, out and of padding_mask; `sizes` (length, heads, group). A
program computes one block of queries
of one head of one sequence; `group` query heads share a key head. `scale` holds log2(e) wherever it meets exp2.
"""

# pyright does not know that a tl.constexpr has the attributes of its value.
# pyright: reportAttributeAccessIssue=false

from typing import NamedTuple

import triton
import triton.language as tl

from genoattn.attention.kernels.tiles import (
    IS_KEY,
    IS_QUERY,
    finish_softmax,
    load_marks,
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
    LEFT_EDGE: bool
    PADDED: bool
    DESCRIPTORS: bool
    PRECISION: str


@triton.jit
def visible_pairs(queries, keys, left, right, length, query_real, key_real, PADDED: tl.constexpr):
    """Mask [queries, keys] of the visible pairs of an edge tile; `queries` and `keys` are positions that broadcast."""
    inside = (keys >= queries - left) & (keys <= queries + right) & (keys < length) & (queries < length)
    if PADDED:
        inside = inside & query_real & key_real
    return inside


@triton.jit
def forward_range(mixed, total, peak, query, keys, window, start, stop, MASKED: tl.constexpr, C: tl.constexpr):
    """Add the key tiles from `start` to `stop` to the running softmax of a query block."""
    q_tile, q_real, first = query
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
        scores = tl.dot(q_tile, k_tile.T, input_precision=C.PRECISION)
        if MASKED:
            queries = first + tl.arange(0, C.BLOCK_Q)[:, None]
            positions = at + tl.arange(0, C.BLOCK_K)[None, :]
            k_real = load_marks(padding_mask, at, length, C.BLOCK_K, IS_KEY)[None, :] if C.PADDED else positions
            visible = visible_pairs(queries, positions, left, right, length, q_real, k_real, C.PADDED)
            scores = tl.where(visible, scores, float("-inf"))
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
        mixed, total, peak = softmax_step(scores, v_tile, mixed, total, peak, scale, MASKED, C.PRECISION)
    return mixed, total, peak


@triton.jit(do_not_specialize=["left", "right"])
def forward_kernel(q, k, v, padding_mask, out, lse, strides, sizes, left, right, scale, C: tl.constexpr):
    """Outputs and log-sum-exps of one block of queries."""
    q_strides, k_strides, v_strides, out_strides, mask_stride = strides
    length, heads, group = sizes
    program = tl.program_id(0)
    blocks = tl.cdiv(length, C.BLOCK_Q)
    # In causal attention the last blocks take longest, so they go first.
    first = (blocks - 1 - program % blocks) * C.BLOCK_Q
    head = program // blocks % heads
    batch = program // (blocks * heads)
    last = tl.minimum(first + C.BLOCK_Q, length) - 1
    padding_mask += batch.to(tl.int64) * mask_stride
    q_tile = load_tile(
        q, batch, first, head, q_strides, length, padding_mask, C.BLOCK_Q, C.DIM, C.WIDTH, True, C.PADDED, C.DESCRIPTORS
    )
    q_real = load_marks(padding_mask, first, length, C.BLOCK_Q, IS_QUERY)[:, None] if C.PADDED else first
    mixed = tl.full([C.BLOCK_Q, C.DIM], 0.0, tl.float32)
    total = tl.full([C.BLOCK_Q], 0.0, tl.float32)
    peak = tl.full([C.BLOCK_Q], float("-inf"), tl.float32)
    query = (q_tile, q_real, first)
    keys = (k, v, k_strides, v_strides, padding_mask, batch, head // group)
    window = (left, right, length, scale)
    start, full, ragged, stop = visible_range(first, last, left, right, length, C.BLOCK_K, C.LEFT_EDGE, C.PADDED)
    if C.LEFT_EDGE or C.PADDED:
        mixed, total, peak = forward_range(mixed, total, peak, query, keys, window, start, full, True, C)
    if not C.PADDED:
        mixed, total, peak = forward_range(mixed, total, peak, query, keys, window, full, ragged, False, C)
        mixed, total, peak = forward_range(mixed, total, peak, query, keys, window, ragged, stop, True, C)
    output, logarithm = finish_softmax(mixed, total, peak)
    store_tile(out, output, batch, first, head, out_strides, length, C.BLOCK_Q, C.DIM, C.WIDTH)
    rows = first + tl.arange(0, C.BLOCK_Q)
    lse += (batch * heads + head).to(tl.int64) * length
    tl.store(lse + rows.to(tl.int64), logarithm, mask=rows < length)
