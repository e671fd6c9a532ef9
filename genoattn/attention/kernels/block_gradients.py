"""Kernels of attention over lists of key blocks by key blocks: dK and dV; no atomics, so repeatable.

The query blocks that read a key block are listed in block_lists. They are split over programs if they are many, and the
parts are then added up in their order. Legend: as in block_kernels; work, readers, sums as in `Work`.
"""

# pyright takes a kernel for plain Python, and does not know that a tl.constexpr has the attributes of its value.
# pyright: reportGeneralTypeIssues=false, reportOperatorIssue=false, reportAttributeAccessIssue=false

import triton
import triton.language as tl

from genoattn.attention.kernels.block_kernels import LN2, load_key_masks, load_rows
from genoattn.attention.kernels.tiles import load_tile, score_gradient, store_tile


@triton.jit
def add_dkv(dk_tile, dv_tile, key, query_source, at, first, scale, C: tl.constexpr):
    """Add the parts of dK and dV of a key tile that the query tile from `first` on gives.

    Tiles of scores are [keys, queries]. Row 0 of this head is number `rows_at` of lse and delta.
    """
    k_tile, v_tile, real, key_bias, last = key
    q, dout, q_strides, dout_strides, lse, delta, padding_mask, batch, length = query_source
    head, rows_at = at
    q_tile = load_tile(
        q, batch, first, head, q_strides, length, padding_mask, C.BLOCK_Q, C.DIM, C.WIDTH, True, C.PADDED
    )
    dout_tile = load_tile(
        dout, batch, first, head, dout_strides, length, padding_mask, C.BLOCK_Q, C.DIM, C.WIDTH, True, C.PADDED
    )
    queries = first + tl.arange(0, C.BLOCK_Q)
    lse_rows = tl.load(lse + rows_at + queries.to(tl.int64), mask=queries < length, other=float("-inf"))
    delta_rows = tl.load(delta + rows_at + queries.to(tl.int64), mask=queries < length, other=0.0)
    attends = lse_rows > float("-inf")
    lse_rows = tl.where(attends, lse_rows, 0.0)
    visible = real[:, None] & attends[None, :]
    if C.ENDS:
        visible = visible & (last[:, None] <= queries[None, :])
    scores = tl.dot(k_tile, q_tile.T, input_precision=C.PRECISION) * scale + key_bias[:, None]
    products = tl.dot(v_tile, dout_tile.T, input_precision=C.PRECISION)
    weights, ds = score_gradient(scores, products, lse_rows[None, :], delta_rows[None, :], visible, 1.0, True)
    dv_tile = tl.dot(weights.to(dout_tile.dtype), dout_tile, dv_tile, input_precision=C.PRECISION)
    dk_tile = tl.dot(ds.to(q_tile.dtype), q_tile, dk_tile, input_precision=C.PRECISION)
    return dk_tile, dv_tile


@triton.jit
def block_dkv_kernel(
    q, k, v, work, readers, bias, ends, padding_mask, dout, lse, delta, dk, dv, parts, strides, sizes, scale,
    C: tl.constexpr,
):  # fmt: skip
    """dK and dV of a tile of a block of keys, from some of the query blocks whose lists hold it.

    Where others of them are another program's, the sum goes to `parts` [parts · shares, 2, SIZE, WIDTH] in float32;
    `shares` sequences and heads share a place. The tile may be wider than its block.
    """
    q_strides, k_strides, v_strides, dout_strides, dk_strides, dv_strides = strides
    length, count, kv_heads, group, members, programs, table_heads, shares, mask_stride = sizes
    TILES: tl.constexpr = C.QUERIES // C.BLOCK_Q
    ROWS: tl.constexpr = min(C.SIZE, C.BLOCK_K)
    SUB: tl.constexpr = C.SIZE // ROWS
    blocks = tl.cdiv(count, C.SIZE)
    query_blocks = tl.cdiv(length, C.QUERIES)
    # The last blocks may stand for the most tokens and have the most readers, so they go first.
    unit = programs * SUB - 1 - tl.program_id(0) % (programs * SUB)
    share = tl.program_id(0) // (programs * SUB)
    entry = (unit // SUB).to(tl.int64) * 4
    named, part = tl.load(work + entry), tl.load(work + (entry + 3))
    begin, stop = tl.load(work + (entry + 1)).to(tl.int64), tl.load(work + (entry + 2)).to(tl.int64)
    place = tl.maximum(named, 0)
    block = place % blocks
    heads_here = kv_heads // table_heads
    head = place // blocks % table_heads * heads_here + share % heads_here
    batch = place // (blocks * table_heads) * (shares // heads_here) + share // heads_here
    first_key = block * C.SIZE + unit % SUB * ROWS
    limit = tl.where(named < 0, 0, count)
    spots = tl.arange(0, C.BLOCK_K)
    index = first_key + spots
    padding_mask += batch.to(tl.int64) * mask_stride
    inside = (spots < ROWS) & (index < limit)
    real, key_bias, last = load_key_masks(bias + batch.to(tl.int64) * count, ends, index, inside, C)
    k += batch.to(tl.int64) * k_strides[0] + head.to(tl.int64) * k_strides[2]
    v += batch.to(tl.int64) * v_strides[0] + head.to(tl.int64) * v_strides[2]
    k_tile = load_rows(k, index.to(tl.int64) * k_strides[1], real, C.DIM, C.WIDTH)
    v_tile = load_rows(v, index.to(tl.int64) * v_strides[1], real, C.DIM, C.WIDTH)
    dk_tile = tl.full([C.BLOCK_K, C.DIM], 0.0, tl.float32)
    dv_tile = tl.full([C.BLOCK_K, C.DIM], 0.0, tl.float32)
    key = (k_tile, v_tile, real, key_bias, last)
    query_source = (q, dout, q_strides, dout_strides, lse, delta, padding_mask, batch, length)
    for member in range(members):
        for step in range(begin * TILES, stop * TILES):
            reader = tl.load(readers + step // TILES)
            q_at = head * group + member + reader // query_blocks
            rows_at = (batch * kv_heads * group + q_at).to(tl.int64) * length
            first = (reader % query_blocks * C.QUERIES + step % TILES * C.BLOCK_Q).to(tl.int32)
            dk_tile, dv_tile = add_dkv(dk_tile, dv_tile, key, query_source, (q_at, rows_at), first, scale, C)
    dk_tile = dk_tile * (scale * LN2)
    if part < 0:
        # Rows of a tile wider than its block belong to the next block's program.
        end = tl.minimum(first_key + ROWS, limit)
        store_tile(dk, dk_tile, batch, first_key, head, dk_strides, end, C.BLOCK_K, C.DIM, C.WIDTH)
        store_tile(dv, dv_tile, batch, first_key, head, dv_strides, end, C.BLOCK_K, C.DIM, C.WIDTH)
    else:
        at, row = part * shares + share, unit % SUB * ROWS
        places = (2 * C.SIZE * C.WIDTH, C.WIDTH, C.SIZE * C.WIDTH)
        store_tile(parts, dk_tile, at, row, unit * 0, places, row + ROWS, C.BLOCK_K, C.DIM, C.WIDTH)
        store_tile(parts, dv_tile, at, row, unit * 0 + 1, places, row + ROWS, C.BLOCK_K, C.DIM, C.WIDTH)


@triton.jit
def block_sum_kernel(sums, parts, dk, dv, strides, sizes, C: tl.constexpr):
    """dK and dV of a block of keys whose readers were split over programs: the sum of their parts, in their order."""
    dk_strides, dv_strides = strides
    count, kv_heads, splits, table_heads, shares = sizes
    ROWS: tl.constexpr = max(16, C.SIZE)  # pyright: ignore[reportAssignmentType]
    blocks = tl.cdiv(count, C.SIZE)
    program = tl.program_id(0)
    share = program // splits
    entry = (program % splits).to(tl.int64) * 3
    named, first, many = tl.load(sums + entry), tl.load(sums + (entry + 1)), tl.load(sums + (entry + 2))
    place = tl.maximum(named, 0)
    heads_here = kv_heads // table_heads
    head = place // blocks % table_heads * heads_here + share % heads_here
    batch = place // (blocks * table_heads) * (shares // heads_here) + share // heads_here
    real = tl.arange(0, ROWS) < C.SIZE
    rows = tl.arange(0, ROWS).to(tl.int64) * C.WIDTH
    dk_tile = tl.full([ROWS, C.DIM], 0.0, tl.float32)
    dv_tile = tl.full([ROWS, C.DIM], 0.0, tl.float32)
    for part in range(first, first + tl.where(named < 0, 0, many)):
        source = (part * shares + share).to(tl.int64) * (2 * C.SIZE * C.WIDTH)
        dk_tile += load_rows(parts, source + rows, real, C.DIM, C.WIDTH)
        dv_tile += load_rows(parts, source + C.SIZE * C.WIDTH + rows, real, C.DIM, C.WIDTH)
    first_key = place % blocks * C.SIZE
    end = tl.where(named < 0, 0, tl.minimum(first_key + C.SIZE, count))
    store_tile(dk, dk_tile, batch, first_key, head, dk_strides, end, ROWS, C.DIM, C.WIDTH)
    store_tile(dv, dv_tile, batch, first_key, head, dv_strides, end, ROWS, C.DIM, C.WIDTH)
