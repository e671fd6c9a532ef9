"""Kernels of attention over lists of key blocks, by query blocks: forward and dQ; block_gradients has dK and dV.

A list names blocks of SIZE keys for a block of QUERIES queries; tiles are of BLOCK_Q and BLOCK_K: a block of queries
may be split into several tiles. A tile of keys is filled from the blocks of a list one after another, so that small
blocks give full tiles too.

Legend: q, out, dout, dq [batch, length, heads, WIDTH]; k, v, dk, dv [batch, keys, kv_heads, WIDTH]; table [batch or 1,
heads or 1, query blocks, slots] of key blocks, negative for none; counts [batch or 1, heads or 1, query blocks] of the
slots to read; bias [batch, keys] added to scores in base 2, -inf for a key that is hidden and not read; ends [keys],
the last token that each key stands for; lse, delta [batch, heads, length]; `strides` in the order of the tensors, then
of table and padding_mask; `sizes` as unpacked. `scale` holds log2(e); `group` query heads share a key head.
"""

# pyright takes a kernel for plain Python, and does not know that a tl.constexpr has the attributes of its value.
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false, reportAttributeAccessIssue=false

from typing import NamedTuple

import triton
import triton.language as tl

from genoattn.attention.kernels.tiles import (
    finish_softmax,
    load_padding_mask,
    load_tile,
    score_gradient,
    softmax_step,
    store_tile,
)

LN2: tl.constexpr = tl.constexpr(0.6931471805599453)


class BlockConstants(NamedTuple):
    """Compile-time constants of a kernel over lists: sizes of blocks and tiles, channels, masks, dot precision."""

    QUERIES: int
    BLOCK_Q: int
    BLOCK_K: int
    SIZE: int
    DIM: int
    WIDTH: int
    BIAS: bool
    ENDS: bool
    COUNTED: bool
    PADDED: bool
    PRECISION: str


@triton.jit
def load_rows(source, rows, real, DIM: tl.constexpr, WIDTH: tl.constexpr):
    """Rows of one head [rows, DIM] from pointers to their first channels; 0 where not `real`."""
    columns = tl.arange(0, DIM)
    offsets = rows[:, None] + columns[None, :]
    return tl.load(source + offsets, mask=real[:, None] & (columns < WIDTH)[None, :], other=0.0)


@triton.jit
def load_key_masks(bias, ends, index, real, C: tl.constexpr):
    """For the keys `index`: which of them are read, their bias, and the last token that each stands for."""
    key_bias = tl.full([C.BLOCK_K], 0.0, tl.float32)
    if C.BIAS:
        key_bias = tl.load(bias + index.to(tl.int64), mask=real, other=float("-inf"))
        real = real & (key_bias > float("-inf"))
        key_bias = tl.where(real, key_bias, 0.0)
    last = index
    if C.ENDS:
        last = tl.load(ends + index.to(tl.int64), mask=real, other=0)
    return real, key_bias, last


@triton.jit
def load_listed_keys(keys, at, C: tl.constexpr):
    """Tile of BLOCK_K listed keys from number `at` on: index, which are read, bias, last tokens, and their k tile."""
    k, _, k_strides, _, table, bias, ends, slots, count = keys
    spots = at + tl.arange(0, C.BLOCK_K)
    slot = spots // C.SIZE
    entry = tl.load(table + slot.to(tl.int64), mask=slot < slots, other=-1)
    index = entry * C.SIZE + spots % C.SIZE
    real, key_bias, last = load_key_masks(bias, ends, index, (entry >= 0) & (index < count), C)
    return index, real, key_bias, last, load_rows(k, index.to(tl.int64) * k_strides[1], real, C.DIM, C.WIDTH)


@triton.jit
def listed_scores(q_tile, k_tile, queries, length, real, key_bias, last, scale, C: tl.constexpr):
    """Scores [queries, keys] in base 2, and the mask of visible pairs, in which padded queries still count."""
    visible = real[None, :] & (queries < length)[:, None]
    if C.ENDS:
        visible = visible & (last[None, :] <= queries[:, None])
    return tl.dot(q_tile, k_tile.T, input_precision=C.PRECISION) * scale + key_bias[None, :], visible


@triton.jit
def listed_keys(k, v, table, counts, bias, ends, batch, head, first, strides, sizes, C: tl.constexpr):
    """Pointers to the keys and values of one sequence and head, to their masks and to the list of a query block."""
    k_strides, v_strides, table_strides = strides
    count, group, slots, blocks = sizes
    bias += batch.to(tl.int64) * count
    row = batch.to(tl.int64) * table_strides[0] + head.to(tl.int64) * table_strides[1]
    row = row * blocks + first // C.QUERIES
    table += row * slots
    if C.COUNTED:
        slots = tl.load(counts + row)
    k += batch.to(tl.int64) * k_strides[0] + (head // group).to(tl.int64) * k_strides[2]
    v += batch.to(tl.int64) * v_strides[0] + (head // group).to(tl.int64) * v_strides[2]
    return k, v, k_strides, v_strides, table, bias, ends, slots, count


@triton.jit
def block_forward_kernel(
    q, k, v, table, counts, bias, ends, padding_mask, out, lse, strides, sizes, scale, C: tl.constexpr
):
    """Outputs and log-sum-exps of one block of queries."""
    q_strides, k_strides, v_strides, out_strides, table_strides, mask_stride = strides
    length, count, heads, group, slots = sizes
    program = tl.program_id(0)
    tiles = tl.cdiv(length, C.BLOCK_Q)
    first = program % tiles * C.BLOCK_Q
    head = program // tiles % heads
    batch = program // (tiles * heads)
    padding_mask += batch.to(tl.int64) * mask_stride
    key_strides = (k_strides, v_strides, table_strides)
    key_sizes = (count, group, slots, tl.cdiv(length, C.QUERIES))
    keys = listed_keys(k, v, table, counts, bias, ends, batch, head, first, key_strides, key_sizes, C)
    q_tile = load_tile(
        q, batch, first, head, q_strides, length, padding_mask, C.BLOCK_Q, C.DIM, C.WIDTH, True, C.PADDED
    )
    queries = first + tl.arange(0, C.BLOCK_Q)
    mixed = tl.full([C.BLOCK_Q, C.DIM], 0.0, tl.float32)
    total = tl.full([C.BLOCK_Q], 0.0, tl.float32)
    peak = tl.full([C.BLOCK_Q], float("-inf"), tl.float32)
    for at in range(0, keys[7] * C.SIZE, C.BLOCK_K):
        index, real, key_bias, last, k_tile = load_listed_keys(keys, at, C)
        scores, visible = listed_scores(q_tile, k_tile, queries, length, real, key_bias, last, scale, C)
        scores = tl.where(visible, scores, float("-inf"))
        v_tile = load_rows(keys[1], index.to(tl.int64) * v_strides[1], real, C.DIM, C.WIDTH)
        mixed, total, peak = softmax_step(scores, v_tile, mixed, total, peak, 1.0, True, C)
    if C.PADDED:
        real_queries = load_padding_mask(padding_mask, first, length, C.BLOCK_Q)
        total = tl.where(real_queries, total, 0.0)
        mixed = tl.where(real_queries[:, None], mixed, 0.0)
    output, logarithm = finish_softmax(mixed, total, peak)
    store_tile(out, output, batch, first, head, out_strides, length, C.BLOCK_Q, C.DIM, C.WIDTH)
    lse += (batch * heads + head).to(tl.int64) * length
    tl.store(lse + queries.to(tl.int64), logarithm, mask=queries < length)


@triton.jit
def block_dq_kernel(
    q, k, v, table, counts, bias, ends, padding_mask, dout, lse, delta, dq, strides, sizes, scale, C: tl.constexpr
):
    """dQ of one block of queries."""
    q_strides, k_strides, v_strides, dout_strides, dq_strides, table_strides, mask_stride = strides
    length, count, heads, group, slots = sizes
    program = tl.program_id(0)
    tiles = tl.cdiv(length, C.BLOCK_Q)
    first = program % tiles * C.BLOCK_Q
    head = program // tiles % heads
    batch = program // (tiles * heads)
    padding_mask += batch.to(tl.int64) * mask_stride
    key_strides = (k_strides, v_strides, table_strides)
    key_sizes = (count, group, slots, tl.cdiv(length, C.QUERIES))
    keys = listed_keys(k, v, table, counts, bias, ends, batch, head, first, key_strides, key_sizes, C)
    q_tile = load_tile(
        q, batch, first, head, q_strides, length, padding_mask, C.BLOCK_Q, C.DIM, C.WIDTH, True, C.PADDED
    )
    dout_tile = load_tile(
        dout, batch, first, head, dout_strides, length, padding_mask, C.BLOCK_Q, C.DIM, C.WIDTH, True, C.PADDED
    )
    queries = first + tl.arange(0, C.BLOCK_Q)
    rows = (batch * heads + head).to(tl.int64) * length + queries.to(tl.int64)
    lse_rows = tl.load(lse + rows, mask=queries < length, other=0.0)
    delta_rows = tl.load(delta + rows, mask=queries < length, other=0.0)
    # A row without a visible key, such as padding, has an lse of -inf and takes no part.
    attends = lse_rows > float("-inf")
    lse_rows = tl.where(attends, lse_rows, 0.0)
    dq_tile = tl.full([C.BLOCK_Q, C.DIM], 0.0, tl.float32)
    for at in range(0, keys[7] * C.SIZE, C.BLOCK_K):
        index, real, key_bias, last, k_tile = load_listed_keys(keys, at, C)
        v_tile = load_rows(keys[1], index.to(tl.int64) * v_strides[1], real, C.DIM, C.WIDTH)
        scores, visible = listed_scores(q_tile, k_tile, queries, length, real, key_bias, last, scale, C)
        visible = visible & attends[:, None]
        products = tl.dot(dout_tile, v_tile.T, input_precision=C.PRECISION)
        _, ds = score_gradient(scores, products, lse_rows[:, None], delta_rows[:, None], visible, 1.0, True)
        dq_tile = tl.dot(ds.to(k_tile.dtype), k_tile, dq_tile, input_precision=C.PRECISION)
    store_tile(dq, dq_tile * (scale * LN2), batch, first, head, dq_strides, length, C.BLOCK_Q, C.DIM, C.WIDTH)
