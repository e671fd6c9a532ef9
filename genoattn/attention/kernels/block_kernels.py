"""The kernels of attention by lists of key blocks: forward, dQ by query blocks, dK and dV by key blocks; no atomics.

Lists are of blocks of QUERIES queries and SIZE keys, tiles of BLOCK_Q and BLOCK_K: a block of queries may be cut into
several tiles. A tile of keys is filled from the blocks of a list one after another, whatever their size: blocks of 8
keys make as full a tile as blocks of 64. The keys' side goes through `readers`, the same lists turned round, with
`begins` where each key block's part begins.

Legend: q, out, dout, dq [batch, length, heads, WIDTH]; k, v, dk, dv [batch, keys, kv_heads, WIDTH]; table [batch or 1,
heads or 1, query blocks, slots] of key blocks, negative for none; bias [batch, keys] added to scores in base 2, -inf
for a key that is hidden and not read; ends [keys], the last token that each key stands for; lse, delta [batch, heads,
length]. `scale` holds log2(e); `group` query heads share a key head.
"""

# pyright takes a kernel for plain Python.
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false

import triton
import triton.language as tl

from genoattn.attention.kernels.tiles import (
    finish_softmax,
    load_keep,
    load_tile,
    score_gradient,
    softmax_step,
    store_tile,
)

LN2: tl.constexpr = tl.constexpr(0.6931471805599453)


@triton.jit
def load_rows(source, rows, real, DIM: tl.constexpr, WIDTH: tl.constexpr):
    """Rows of one head [rows, DIM] from pointers to their first channels; 0 where not `real`."""
    columns = tl.arange(0, DIM)
    offsets = rows[:, None] + columns[None, :]
    return tl.load(source + offsets, mask=real[:, None] & (columns < WIDTH)[None, :], other=0.0)


@triton.jit
def listed_keys(
    table, bias, ends, at, slots, keys,
    SIZE: tl.constexpr, BLOCK_K: tl.constexpr, BIAS: tl.constexpr, ENDS: tl.constexpr,
):  # fmt: skip
    """Of the keys of a list, BLOCK_K from number `at` on: which they are, which are read, their bias, their ends."""
    spots = at + tl.arange(0, BLOCK_K)
    slot = spots // SIZE
    entry = tl.load(table + slot.to(tl.int64), mask=slot < slots, other=-1)
    index = entry * SIZE + spots % SIZE
    real = (entry >= 0) & (index < keys)
    added = tl.zeros([BLOCK_K], tl.float32)
    if BIAS:
        added = tl.load(bias + index.to(tl.int64), mask=real, other=float("-inf"))
        real = real & (added > float("-inf"))
        added = tl.where(real, added, 0.0)
    last = index
    if ENDS:
        last = tl.load(ends + index.to(tl.int64), mask=real, other=0)
    return index, real, added, last


@triton.jit
def listed_scores(
    q_tile, k_tile, queries, length, real, added, last, scale, ENDS: tl.constexpr, PRECISION: tl.constexpr
):
    """Scores [queries, keys] in base 2, and which pairs are seen; rows of padding are not told apart here."""
    visible = real[None, :] & (queries < length)[:, None]
    if ENDS:
        visible = visible & (last[None, :] <= queries[:, None])
    return tl.dot(q_tile, k_tile.T, input_precision=PRECISION) * scale + added[None, :], visible


@triton.jit
def block_forward_kernel(
    q, k, v, table, bias, ends, keep, out, lse,
    q_strides, k_strides, v_strides, out_strides, table_strides, keep_batch,
    length, keys, heads, group, slots, scale,
    QUERIES: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, SIZE: tl.constexpr,
    DIM: tl.constexpr, WIDTH: tl.constexpr, BIAS: tl.constexpr, ENDS: tl.constexpr, KEEP: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """Answers and log-sum-exps of one block of queries."""
    program = tl.program_id(0)
    tiles = tl.cdiv(length, BLOCK_Q)
    first = program % tiles * BLOCK_Q
    head = program // tiles % heads
    batch = program // (tiles * heads)
    keep += batch.to(tl.int64) * keep_batch
    bias += batch.to(tl.int64) * keys
    table += batch.to(tl.int64) * table_strides[0] + head.to(tl.int64) * table_strides[1]
    table += (first // QUERIES).to(tl.int64) * slots
    k += batch.to(tl.int64) * k_strides[0] + (head // group).to(tl.int64) * k_strides[2]
    v += batch.to(tl.int64) * v_strides[0] + (head // group).to(tl.int64) * v_strides[2]
    q_tile = load_tile(q, batch, first, head, q_strides, length, keep, BLOCK_Q, DIM, WIDTH, True, KEEP, False)
    queries = first + tl.arange(0, BLOCK_Q)
    mixed = tl.zeros([BLOCK_Q, DIM], tl.float32)
    total = tl.zeros([BLOCK_Q], tl.float32)
    peak = tl.full([BLOCK_Q], float("-inf"), tl.float32)
    for at in range(0, slots * SIZE, BLOCK_K):
        index, real, added, last = listed_keys(table, bias, ends, at, slots, keys, SIZE, BLOCK_K, BIAS, ENDS)
        k_tile = load_rows(k, index.to(tl.int64) * k_strides[1], real, DIM, WIDTH)
        scores, visible = listed_scores(q_tile, k_tile, queries, length, real, added, last, scale, ENDS, PRECISION)
        scores = tl.where(visible, scores, float("-inf"))
        v_tile = load_rows(v, index.to(tl.int64) * v_strides[1], real, DIM, WIDTH)
        mixed, total, peak = softmax_step(scores, v_tile, mixed, total, peak, 1.0, True, PRECISION)
    if KEEP:
        real_queries = load_keep(keep, first, length, BLOCK_Q)
        total = tl.where(real_queries, total, 0.0)
        mixed = tl.where(real_queries[:, None], mixed, 0.0)
    answer, logarithm = finish_softmax(mixed, total, peak)
    store_tile(out, answer, batch, first, head, out_strides, length, BLOCK_Q, DIM, WIDTH)
    lse += (batch * heads + head).to(tl.int64) * length
    tl.store(lse + queries.to(tl.int64), logarithm, mask=queries < length)


@triton.jit
def block_dq_kernel(
    q, k, v, table, bias, ends, keep, dout, lse, delta, dq,
    q_strides, k_strides, v_strides, dout_strides, dq_strides, table_strides, keep_batch,
    length, keys, heads, group, slots, scale,
    QUERIES: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, SIZE: tl.constexpr,
    DIM: tl.constexpr, WIDTH: tl.constexpr, BIAS: tl.constexpr, ENDS: tl.constexpr, KEEP: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """dQ of one block of queries."""
    program = tl.program_id(0)
    tiles = tl.cdiv(length, BLOCK_Q)
    first = program % tiles * BLOCK_Q
    head = program // tiles % heads
    batch = program // (tiles * heads)
    keep += batch.to(tl.int64) * keep_batch
    bias += batch.to(tl.int64) * keys
    table += batch.to(tl.int64) * table_strides[0] + head.to(tl.int64) * table_strides[1]
    table += (first // QUERIES).to(tl.int64) * slots
    k += batch.to(tl.int64) * k_strides[0] + (head // group).to(tl.int64) * k_strides[2]
    v += batch.to(tl.int64) * v_strides[0] + (head // group).to(tl.int64) * v_strides[2]
    q_tile = load_tile(q, batch, first, head, q_strides, length, keep, BLOCK_Q, DIM, WIDTH, True, KEEP, False)
    dout_tile = load_tile(dout, batch, first, head, dout_strides, length, keep, BLOCK_Q, DIM, WIDTH, True, KEEP, False)
    queries = first + tl.arange(0, BLOCK_Q)
    rows = (batch * heads + head).to(tl.int64) * length + queries.to(tl.int64)
    lse_rows = tl.load(lse + rows, mask=queries < length, other=0.0)
    delta_rows = tl.load(delta + rows, mask=queries < length, other=0.0)
    # A row that saw nothing, padding among them, has an lse of -inf and takes no part.
    sees = lse_rows > float("-inf")
    lse_rows = tl.where(sees, lse_rows, 0.0)
    dq_tile = tl.zeros([BLOCK_Q, DIM], tl.float32)
    for at in range(0, slots * SIZE, BLOCK_K):
        index, real, added, last = listed_keys(table, bias, ends, at, slots, keys, SIZE, BLOCK_K, BIAS, ENDS)
        k_tile = load_rows(k, index.to(tl.int64) * k_strides[1], real, DIM, WIDTH)
        v_tile = load_rows(v, index.to(tl.int64) * v_strides[1], real, DIM, WIDTH)
        scores, visible = listed_scores(q_tile, k_tile, queries, length, real, added, last, scale, ENDS, PRECISION)
        visible = visible & sees[:, None]
        products = tl.dot(dout_tile, v_tile.T, input_precision=PRECISION)
        _, ds = score_gradient(scores, products, lse_rows[:, None], delta_rows[:, None], visible, 1.0, True)
        dq_tile = tl.dot(ds.to(k_tile.dtype), k_tile, dq_tile, input_precision=PRECISION)
    store_tile(dq, dq_tile * (scale * LN2), batch, first, head, dq_strides, length, BLOCK_Q, DIM, WIDTH)


@triton.jit
def block_dkv_kernel(
    q, k, v, readers, begins, bias, ends, keep, dout, lse, delta, dk, dv,
    q_strides, k_strides, v_strides, dout_strides, dk_strides, dv_strides, table_of, keep_batch,
    length, keys, kv_heads, group, scale,
    QUERIES: tl.constexpr, BLOCK_Q: tl.constexpr, BLOCK_K: tl.constexpr, SIZE: tl.constexpr,
    DIM: tl.constexpr, WIDTH: tl.constexpr, BIAS: tl.constexpr, ENDS: tl.constexpr, KEEP: tl.constexpr,
    PRECISION: tl.constexpr,
):  # fmt: skip
    """dK and dV of a tile of a block of keys, from the query blocks whose lists hold it; the tile may be the wider.

    `table_of` says by how much the number of a table grows with the sequence and with the head: 0 where it is shared.
    """
    program = tl.program_id(0)
    PARTS: tl.constexpr = QUERIES // BLOCK_Q
    ROWS: tl.constexpr = min(SIZE, BLOCK_K)
    blocks = tl.cdiv(keys, SIZE)
    tiles = blocks * (SIZE // ROWS)
    first_key = program % tiles * ROWS
    block = first_key // SIZE
    head = program // tiles % kv_heads
    batch = program // (tiles * kv_heads)
    spots = tl.arange(0, BLOCK_K)
    index = first_key + spots
    inside = (spots < ROWS) & (index < keys)
    keep += batch.to(tl.int64) * keep_batch
    real, added, last = inside, tl.zeros([BLOCK_K], tl.float32), index
    if BIAS:
        added = tl.load(bias + (batch.to(tl.int64) * keys + index), mask=inside, other=float("-inf"))
        real = inside & (added > float("-inf"))
        added = tl.where(real, added, 0.0)
    if ENDS:
        last = tl.load(ends + index.to(tl.int64), mask=real, other=0)
    k += batch.to(tl.int64) * k_strides[0] + head.to(tl.int64) * k_strides[2]
    v += batch.to(tl.int64) * v_strides[0] + head.to(tl.int64) * v_strides[2]
    k_tile = load_rows(k, index.to(tl.int64) * k_strides[1], real, DIM, WIDTH)
    v_tile = load_rows(v, index.to(tl.int64) * v_strides[1], real, DIM, WIDTH)
    dk_tile = tl.zeros([BLOCK_K, DIM], tl.float32)
    dv_tile = tl.zeros([BLOCK_K, DIM], tl.float32)
    for member in range(group):
        q_at = head * group + member
        rows_at = (batch * kv_heads * group + q_at).to(tl.int64) * length
        place = (batch * table_of[0] + q_at * table_of[1]).to(tl.int64) * blocks + block
        for step in range(tl.load(begins + place) * PARTS, tl.load(begins + (place + 1)) * PARTS):
            first = (tl.load(readers + step // PARTS) * QUERIES + step % PARTS * BLOCK_Q).to(tl.int32)
            q_tile = load_tile(q, batch, first, q_at, q_strides, length, keep, BLOCK_Q, DIM, WIDTH, True, KEEP, False)
            dout_tile = load_tile(
                dout, batch, first, q_at, dout_strides, length, keep, BLOCK_Q, DIM, WIDTH, True, KEEP, False
            )
            queries = first + tl.arange(0, BLOCK_Q)
            lse_rows = tl.load(lse + rows_at + queries.to(tl.int64), mask=queries < length, other=float("-inf"))
            delta_rows = tl.load(delta + rows_at + queries.to(tl.int64), mask=queries < length, other=0.0)
            sees = lse_rows > float("-inf")
            lse_rows = tl.where(sees, lse_rows, 0.0)
            visible = real[:, None] & sees[None, :]
            if ENDS:
                visible = visible & (last[:, None] <= queries[None, :])
            scores = tl.dot(k_tile, q_tile.T, input_precision=PRECISION) * scale + added[:, None]
            products = tl.dot(v_tile, dout_tile.T, input_precision=PRECISION)
            weights, ds = score_gradient(scores, products, lse_rows[None, :], delta_rows[None, :], visible, 1.0, True)
            dv_tile = tl.dot(weights.to(dout_tile.dtype), dout_tile, dv_tile, input_precision=PRECISION)
            dk_tile = tl.dot(ds.to(q_tile.dtype), q_tile, dk_tile, input_precision=PRECISION)
    # Rows of a tile wider than its block belong to the next block's program.
    stop = tl.minimum(first_key + ROWS, keys)
    store_tile(dk, dk_tile * (scale * LN2), batch, first_key, head, dk_strides, stop, BLOCK_K, DIM, WIDTH)
    store_tile(dv, dv_tile, batch, first_key, head, dv_strides, stop, BLOCK_K, DIM, WIDTH)
