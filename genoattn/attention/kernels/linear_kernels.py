"""Kernels of linear attention: sums of chunks, their scan and outputs by chunk; float32 throughout.

With G_i the sum of log_decay up to token i, and w_ij = exp(-|G_i + lead log_decay_i - G_j|), over the j visible to i:
N_i = sum_j w_ij (q_i·k_j) v_j, d_i = sum_j w_ij q_i·k_j. Way 0 of `states` holds the sum over the chunks before one,
decayed to the last token before it, and way 1 that over the chunks after it, decayed to its own last token. Logarithms
are summed inside a chunk alone and in base 2; no factor is above 1, but for a lead. Method: chunkwise retention (arXiv
2307.08621) with decays by token (arXiv 2405.21060).

Legend: q, k [batch, length, heads, M]; v [batch, length, heads, D]; log_decay [batch, length, heads]; states [ways,
batch, heads, chunks, SIZE], a matrix [M, D] of sums k vᵀ and with SUMS a vector [M] of sums of k, in the backward pass
of q gᵀ and of h q, where g and h are the gradients of N and d; a causal layer has one way. `totals` [batch, heads,
chunks] is the logarithm of what a chunk keeps; `strides` are in the order of the tensors, then of log_decay, then of
padding_mask; `sizes` (length, heads, chunks, states of a way). A program computes BLOCK_M or BLOCK_D channels, or adds
up over blocks of them.
"""

# pyright takes a kernel for plain Python, and does not know that a tl.constexpr has the attributes of its value.
# pyright: reportGeneralTypeIssues=false, reportAttributeAccessIssue=false

from typing import NamedTuple

import triton
import triton.language as tl

from genoattn.attention.kernels.tiles import load_numbers, load_padding_mask


class LinearConstants(NamedTuple):
    """Compile-time constants of a kernel: chunk size, channels, masks, dot precision."""

    CHUNK: int
    M: int
    D: int
    BLOCK_M: int
    BLOCK_D: int
    SIZE: int
    CAUSAL: bool
    TOTAL: bool
    DECAY: bool
    SUMS: bool
    PADDED: bool
    PRECISION: str
    STRICT: bool = False  # a causal token does not see itself
    EXACT: str = "ieee"  # precision of products by which a system is solved


@triton.jit
def place(sizes, BLOCKS: tl.constexpr, C: tl.constexpr):
    """Sequence, head, first token, number (int64) of the chunk among those of all heads, and block of this program."""
    _, heads, chunks, _ = sizes
    program = tl.program_id(0)
    block, program = program % BLOCKS, program // BLOCKS
    chunk = program % chunks
    row = program // chunks
    return row // heads, row % heads, chunk * C.CHUNK, row.to(tl.int64) * chunks + chunk, block


@triton.jit
def load_part(
    source,
    batch,
    first,
    head,
    strides,
    length,
    padding_mask,
    column,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    TURNED: tl.constexpr,
    C: tl.constexpr,
):
    """Channels from `column` on of a chunk [CHUNK, DIM], or [DIM, CHUNK] with TURNED; 0 outside and at padding.

    A tile is read as it is multiplied: transposing it in registers is what compilers for Hopper got wrong.
    """
    rows, columns = first + tl.arange(0, C.CHUNK), column + tl.arange(0, DIM)
    real = load_padding_mask(padding_mask, first, length, C.CHUNK) if C.PADDED else rows < length
    source += batch.to(tl.int64) * strides[0] + head.to(tl.int64) * strides[2]
    along = rows.to(tl.int64) * strides[1]
    if TURNED:
        inside = real[None, :] & (columns < WIDTH)[:, None]
        tile = tl.load(source + (along[None, :] + columns[:, None]), mask=inside, other=0.0)
    else:
        inside = real[:, None] & (columns < WIDTH)[None, :]
        tile = tl.load(source + (along[:, None] + columns[None, :]), mask=inside, other=0.0)
    return tile


@triton.jit
def store_part(
    target, tile, batch, first, head, strides, length, column, DIM: tl.constexpr, WIDTH: tl.constexpr, C: tl.constexpr
):
    """Write channels from `column` on of a chunk [CHUNK, DIM], of tokens before the end."""
    rows, columns = first + tl.arange(0, C.CHUNK), column + tl.arange(0, DIM)
    offsets = rows.to(tl.int64)[:, None] * strides[1] + columns[None, :]
    pointers = target + batch.to(tl.int64) * strides[0] + head.to(tl.int64) * strides[2] + offsets
    inside = (rows < length)[:, None] & (columns < WIDTH)[None, :]
    tl.store(pointers, tile.to(target.dtype.element_ty), mask=inside)


@triton.jit
def load_decay(log_decay, batch, first, head, strides, length, C: tl.constexpr):
    """Logarithms (base 2) of the decays of the tokens of a chunk, and their sums from the first on; 0 past the end."""
    rows = first + tl.arange(0, C.CHUNK)
    log_decay += batch.to(tl.int64) * strides[0] + head.to(tl.int64) * strides[2]
    each = tl.load(log_decay + rows.to(tl.int64) * strides[1], mask=rows < length, other=0.0) * 1.4426950408889634
    return each, tl.cumsum(each, 0)


@triton.jit
def to_end(total, log_sum):
    """The share of each token left at the end of its chunk; with a lead it may be above 1, but must stay finite."""
    return tl.exp2(tl.minimum(total - log_sum, 100.0))


@triton.jit
def state_part(number, row, column, TURNED: tl.constexpr, C: tl.constexpr):
    """Offsets of a part of the matrix of a state, and which of them are inside; [BLOCK_D, BLOCK_M] with TURNED."""
    rows, columns = row + tl.arange(0, C.BLOCK_M), column + tl.arange(0, C.BLOCK_D)
    base = number * C.SIZE
    if TURNED:
        offsets = base + (rows.to(tl.int64)[None, :] * C.D + columns[:, None])
        inside = (rows < C.M)[None, :] & (columns < C.D)[:, None]
    else:
        offsets = base + (rows.to(tl.int64)[:, None] * C.D + columns[None, :])
        inside = (rows < C.M)[:, None] & (columns < C.D)[None, :]
    return offsets, inside


@triton.jit
def load_state(states, number, row, column, TURNED: tl.constexpr, C: tl.constexpr):
    """A part of the matrix of state `number` (int64)."""
    offsets, inside = state_part(number, row, column, TURNED, C)
    return tl.load(states + offsets, mask=inside, other=0.0)


@triton.jit
def load_sums(states, number, row, C: tl.constexpr):
    """A part [BLOCK_M] of the vector of state `number` (int64)."""
    rows = row + tl.arange(0, C.BLOCK_M)
    return tl.load(states + (number * C.SIZE + C.M * C.D + rows), mask=rows < C.M, other=0.0)


@triton.jit
def write_state(states, number, k_tile, v_tile, by, kept, row, column, C: tl.constexpr):
    """Write a part of a state: the sum of k vᵀ, and of k times `by`; of each token `kept` is left."""
    values = v_tile * kept[:, None] if C.DECAY else v_tile
    offsets, inside = state_part(number, row, column, False, C)
    tl.store(states + offsets, tl.dot(k_tile, values, input_precision=C.PRECISION), mask=inside)
    if C.SUMS:
        rows = row + tl.arange(0, C.BLOCK_M)
        at = states + (number * C.SIZE + C.M * C.D + rows)
        tl.store(at, tl.sum(k_tile * (by * kept)[None, :], 1), mask=(rows < C.M) & (column == 0))


@triton.jit
def states_kernel(
    k,
    v,
    weights,
    padding_mask,
    log_decay,
    states,
    totals,
    strides,
    sizes,
    lead,
    WEIGHTS: tl.constexpr,
    PAST: tl.constexpr,
    FUTURE: tl.constexpr,
    C: tl.constexpr,
):
    """A part of the sums of one chunk alone, for readers after it (PAST), before it (FUTURE) or both.

    They are sums of k vᵀ, and of k (times `weights`, with WEIGHTS). `lead` is that of the tokens, 0 for keys.
    """
    of_k, of_v, of_decay, mask_stride = strides
    length, heads, _, apart = sizes
    across: tl.constexpr = (C.D + C.BLOCK_D - 1) // C.BLOCK_D
    blocks: tl.constexpr = (C.M + C.BLOCK_M - 1) // C.BLOCK_M * across
    batch, head, first, number, block = place(sizes, blocks, C)
    row, column = block // across * C.BLOCK_M, block % across * C.BLOCK_D
    padding_mask += batch.to(tl.int64) * mask_stride
    k_tile = load_part(k, batch, first, head, of_k, length, padding_mask, row, C.BLOCK_M, C.M, True, C)
    v_tile = load_part(v, batch, first, head, of_v, length, padding_mask, column, C.BLOCK_D, C.D, False, C)
    k_tile, v_tile = k_tile.to(tl.float32), v_tile.to(tl.float32)
    by = tl.full([C.CHUNK], 1.0, tl.float32)
    if C.SUMS and WEIGHTS:
        by = load_numbers(weights, batch, head, first, heads, length, C.CHUNK)
        if C.PADDED:
            by = tl.where(load_padding_mask(padding_mask, first, length, C.CHUNK), by, 0.0)
    left = tl.full([C.CHUNK], 1.0, tl.float32)
    since = left
    if C.DECAY:
        each, log_sum = load_decay(log_decay, batch, first, head, of_decay, length, C)
        total = tl.sum(each, 0)
        log_sum += lead * each
        left, since = to_end(total, log_sum), tl.exp2(log_sum)
        tl.store(totals + number, total, mask=block == 0)
    if PAST:
        write_state(states, number, k_tile, v_tile, by, left, row, column, C)
    if FUTURE:
        write_state(states, number + (apart if PAST else 0), k_tile, v_tile, by, since, row, column, C)


@triton.jit
def scan_kernel(
    states, totals, sizes, BLOCK: tl.constexpr, SIZE: tl.constexpr, PAST: tl.constexpr, DECAY: tl.constexpr
):
    """Replace the sums of single chunks, in place, by those of all chunks before each in way 0, after each in way 1.

    Without PAST there is way 1 alone. A program carries BLOCK numbers of a state along one head's chunks.
    """
    rows, chunks = sizes
    program = tl.program_id(0)
    blocks: tl.constexpr = (SIZE + BLOCK - 1) // BLOCK
    columns = (program % blocks * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    line = program // blocks  # of a way and a head
    backward = line >= (rows if PAST else 0)
    begin, step = tl.where(backward, chunks - 1, 0), tl.where(backward, -1, 1)
    states += line.to(tl.int64) * chunks * SIZE + columns
    totals += (line % rows).to(tl.int64) * chunks
    carried = tl.zeros([BLOCK], tl.float32)
    own = tl.load(states + begin.to(tl.int64) * SIZE, mask=columns < SIZE, other=0.0)
    for at in range(chunks):
        chunk = (begin + at * step).to(tl.int64)
        more = (columns < SIZE) & (at + 1 < chunks)
        following = tl.load(states + (chunk + step) * SIZE, mask=more, other=0.0)  # before it is waited for
        tl.store(states + chunk * SIZE, carried, mask=columns < SIZE)
        if DECAY:
            carried = carried * tl.exp2(tl.load(totals + chunk))
        carried += own
        own = following


@triton.jit
def near_weights(queries, keys, C: tl.constexpr):
    """w_ij inside a chunk from the sums of logarithms of queries and of keys, one of them a column and one a row."""
    return tl.exp2(-tl.abs(queries - keys)) if C.DECAY else 1.0


@triton.jit
def visible(weights, TURNED: tl.constexpr, C: tl.constexpr):
    """Weights [CHUNK queries, CHUNK keys], or [keys, queries] with TURNED: 0 where the query does not see the key."""
    rows, columns = tl.arange(0, C.CHUNK)[:, None], tl.arange(0, C.CHUNK)[None, :]
    if C.CAUSAL:
        least = 1 if C.STRICT else 0
        weights = tl.where((columns if TURNED else rows) >= (rows if TURNED else columns) + least, weights, 0.0)
    return weights


@triton.jit
def answers_kernel(
    q, k, v, padding_mask, log_decay, states, numerators, denominators, strides, sizes, lead, C: tl.constexpr
):
    """N of BLOCK_D channels of one chunk, and d. With TOTAL way 0 alone is read, one sum over all tokens by head."""
    of_q, of_k, of_v, of_out, of_decay, mask_stride = strides
    length, heads, chunks, apart = sizes
    blocks: tl.constexpr = (C.D + C.BLOCK_D - 1) // C.BLOCK_D
    batch, head, first, number, block = place(sizes, blocks, C)
    before = number // chunks if C.TOTAL else number
    after = before + apart
    column = block * C.BLOCK_D
    padding_mask += batch.to(tl.int64) * mask_stride
    each = tl.full([C.CHUNK], 0.0, tl.float32)
    queries, keys = each, each
    if C.DECAY:
        each, keys = load_decay(log_decay, batch, first, head, of_decay, length, C)
        queries = keys + lead * each
    since, until = tl.exp2(queries), to_end(tl.sum(each, 0), queries)
    output, total = tl.full([C.CHUNK, C.BLOCK_D], 0.0, tl.float32), tl.full([C.CHUNK], 0.0, tl.float32)
    products = tl.full([C.CHUNK, C.CHUNK], 0.0, tl.float32)
    for row in range(0, C.M, C.BLOCK_M):
        q_tile = load_part(q, batch, first, head, of_q, length, padding_mask, row, C.BLOCK_M, C.M, False, C)
        if not C.TOTAL:
            k_tile = load_part(k, batch, first, head, of_k, length, padding_mask, row, C.BLOCK_M, C.M, True, C)
            products = tl.dot(q_tile, k_tile, products, input_precision=C.PRECISION)
        q_tile = q_tile.to(tl.float32)
        faded = q_tile * since[:, None] if C.DECAY else q_tile
        output = tl.dot(faded, load_state(states, before, row, column, False, C), output, input_precision=C.PRECISION)
        if C.SUMS:
            total += tl.sum(faded * load_sums(states, before, row, C)[None, :], 1)
        if not (C.CAUSAL or C.TOTAL):
            faded = q_tile * until[:, None] if C.DECAY else q_tile
            state = load_state(states, after, row, column, False, C)
            output = tl.dot(faded, state, output, input_precision=C.PRECISION)
            if C.SUMS:
                total += tl.sum(faded * load_sums(states, after, row, C)[None, :], 1)
    if not C.TOTAL:
        products = visible(products * near_weights(queries[:, None], keys[None, :], C), False, C)
        v_tile = load_part(v, batch, first, head, of_v, length, padding_mask, column, C.BLOCK_D, C.D, False, C)
        output = tl.dot(products, v_tile.to(tl.float32), output, input_precision=C.PRECISION)
        if C.SUMS:
            total += tl.sum(products, 1)
    store_part(numerators, output, batch, first, head, of_out, length, column, C.BLOCK_D, C.D, C)
    if C.SUMS:
        rows = first + tl.arange(0, C.CHUNK)
        offsets = (batch.to(tl.int64) * length + rows.to(tl.int64)) * heads + head
        tl.store(denominators + offsets, total, mask=(rows < length) & (block == 0))
