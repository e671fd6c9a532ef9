"""Kernels of linear attention: sums of chunks, their scan, outputs and gradients by chunk; float32 throughout.

With w_ij = exp(log_decay |i - j|), over the j visible to i: N_i = sum_j w_ij (q_i·k_j) v_j, d_i = sum_j w_ij q_i·k_j.
`before` is the state of the earlier chunks, decayed to the first token of a chunk; `after` is the state of the later
chunks, decayed to its last token (chunks are full, even past the end). Method: chunkwise retention (arXiv 2307.08621).

Legend: q, k [batch, length, heads, M]; v [batch, length, heads, D]; matrices [batch, heads, chunks, M, D] of sums k vᵀ
and vectors [batch, heads, chunks, M] of sums of k; in the backward pass of q gᵀ and of h q, where g and h are the
gradients of N and d; `states` a matrix and a vector of one side, then of the other; `strides` in the
order of the tensors, then of padding_mask; `sizes` (length, heads, chunks). DIM_M, DIM_D are M, D as powers of two.
"""

# pyright takes a kernel for plain Python, and does not know that a tl.constexpr has the attributes of its value.
# pyright: reportGeneralTypeIssues=false, reportAttributeAccessIssue=false

from typing import NamedTuple

import triton
import triton.language as tl

from genoattn.attention.kernels.tiles import (
    load_matrix,
    load_numbers,
    load_padding_mask,
    load_tile,
    load_vector,
    store_tile,
)


class LinearConstants(NamedTuple):
    """Compile-time constants of a kernel of linear attention: chunk size, channels, masks, dot precision."""

    CHUNK: int
    M: int
    D: int
    DIM_M: int
    DIM_D: int
    CAUSAL: bool
    TOTAL: bool
    DECAY: bool
    PADDED: bool
    PRECISION: str


@triton.jit
def decay_of(log_decay, head, DECAY: tl.constexpr):
    """The logarithm of one head's decay per token, in base 2."""
    return tl.load(log_decay + head.to(tl.int64)) * 1.4426950408889634 if DECAY else 0.0


@triton.jit
def chunk_position(sizes, C: tl.constexpr):
    """Sequence, head and first token of the chunk of this program, and the number (int64) of the state it reads."""
    _, heads, chunks = sizes
    program = tl.program_id(0)
    chunk = program % chunks
    head = program // chunks % heads
    batch = program // (chunks * heads)
    at = (batch * heads + head).to(tl.int64) * (1 if C.TOTAL else chunks) + (0 if C.TOTAL else chunk)
    return batch, head, chunk * C.CHUNK, at


@triton.jit
def states_kernel(
    k,
    v,
    weights,
    padding_mask,
    log_decay,
    matrices,
    vectors,
    strides,
    sizes,
    WEIGHTS: tl.constexpr,
    BACKWARD: tl.constexpr,
    C: tl.constexpr,
):
    """Sums of one chunk alone: k vᵀ, and k (times `weights`, with WEIGHTS).

    Decayed to the first token of the next chunk or, with BACKWARD, to the last token of the chunk before.
    """
    k_strides, v_strides, mask_stride = strides
    length, heads, chunks = sizes
    program = tl.program_id(0)
    chunk = program % chunks
    head = program // chunks % heads
    batch = program // (chunks * heads)
    first = chunk * C.CHUNK
    padding_mask += batch.to(tl.int64) * mask_stride
    k_tile = load_tile(k, batch, first, head, k_strides, length, padding_mask, C.CHUNK, C.DIM_M, C.M, True, C.PADDED)
    v_tile = load_tile(v, batch, first, head, v_strides, length, padding_mask, C.CHUNK, C.DIM_D, C.D, True, C.PADDED)
    k_tile = k_tile.to(tl.float32)
    if C.DECAY:
        decay = decay_of(log_decay, head, C.DECAY)
        index = tl.arange(0, C.CHUNK)
        steps = index + 1 if BACKWARD else C.CHUNK - index
        k_tile = k_tile * tl.exp2(decay * steps)[:, None]
    matrix = tl.dot(k_tile.T, v_tile.to(tl.float32), input_precision=C.PRECISION)
    if WEIGHTS:
        numbers = load_numbers(weights, batch, head, first, heads, length, C.CHUNK)
        if C.PADDED:
            numbers = tl.where(load_padding_mask(padding_mask, first, length, C.CHUNK), numbers, 0.0)
        k_tile = k_tile * numbers[:, None]
    vector = tl.sum(k_tile, 0)
    rows, columns = tl.arange(0, C.DIM_M).to(tl.int64), tl.arange(0, C.DIM_D).to(tl.int64)
    at = (batch * heads + head).to(tl.int64) * chunks + chunk
    inside = (rows < C.M)[:, None] & (columns < C.D)[None, :]
    tl.store(matrices + at * C.M * C.D + rows[:, None] * C.D + columns[None, :], matrix, mask=inside)
    tl.store(vectors + at * C.M + rows, vector, mask=rows < C.M)


@triton.jit
def scan_kernel(
    sums, log_decay, sizes, CHUNK: tl.constexpr, BLOCK: tl.constexpr, BACKWARD: tl.constexpr, DECAY: tl.constexpr
):
    """Replace the sums of single chunks [batch, heads, chunks, size], in place, by those of all chunks before each.

    With BACKWARD: of all chunks after each. A program carries BLOCK of the `size` numbers along one head's chunks.
    """
    heads, chunks, size = sizes
    program = tl.program_id(0)
    blocks = tl.cdiv(size, BLOCK)
    columns = (program % blocks * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    row = program // blocks
    decay = decay_of(log_decay, row % heads, DECAY)
    shrink = tl.exp2(decay * CHUNK)
    carried = tl.zeros([BLOCK], tl.float32)
    for step in range(chunks):
        chunk = chunks - 1 - step if BACKWARD else step
        pointers = sums + (row.to(tl.int64) * chunks + chunk) * size + columns
        own = tl.load(pointers, mask=columns < size, other=0.0)
        tl.store(pointers, carried, mask=columns < size)
        carried = carried * shrink + own


@triton.jit
def decays(decay, C: tl.constexpr):
    """w_ij inside a chunk [CHUNK queries, CHUNK keys]; 0 where the key is not visible to the query."""
    ahead = tl.arange(0, C.CHUNK)[:, None] - tl.arange(0, C.CHUNK)[None, :]
    weights = tl.full([C.CHUNK, C.CHUNK], 1.0, tl.float32)
    if C.DECAY:
        weights = tl.exp2(decay * tl.abs(ahead).to(tl.float32))
    return tl.where(ahead >= 0, weights, 0.0) if C.CAUSAL else weights


@triton.jit
def answers_kernel(q, k, v, padding_mask, log_decay, states, numerators, denominators, strides, sizes, C: tl.constexpr):
    """N and d of one chunk. With TOTAL only `before` is read, one sum over all tokens for each head."""
    q_strides, k_strides, v_strides, out_strides, mask_stride = strides
    before, before_vectors, after, after_vectors = states
    length, heads, _ = sizes
    batch, head, first, at = chunk_position(sizes, C)
    padding_mask += batch.to(tl.int64) * mask_stride
    decay = decay_of(log_decay, head, C.DECAY)
    index = tl.arange(0, C.CHUNK)
    q_tile = load_tile(q, batch, first, head, q_strides, length, padding_mask, C.CHUNK, C.DIM_M, C.M, True, C.PADDED)
    q_tile = q_tile.to(tl.float32)
    matrix = load_matrix(before, at, C.M, C.D, C.DIM_M, C.DIM_D)
    output = tl.dot(q_tile, matrix, input_precision=C.PRECISION)
    total = tl.sum(q_tile * load_vector(before_vectors, at, C.M, C.DIM_M)[None, :], 1)
    if C.DECAY:
        since = tl.exp2(decay * index.to(tl.float32))
        output, total = output * since[:, None], total * since
    if not (C.CAUSAL or C.TOTAL):
        until = tl.exp2(decay * (C.CHUNK - 1 - index).to(tl.float32))
        matrix = load_matrix(after, at, C.M, C.D, C.DIM_M, C.DIM_D)
        output += tl.dot(q_tile, matrix, input_precision=C.PRECISION) * until[:, None]
        total += tl.sum(q_tile * load_vector(after_vectors, at, C.M, C.DIM_M)[None, :], 1) * until
    if not C.TOTAL:
        k_tile = load_tile(
            k, batch, first, head, k_strides, length, padding_mask, C.CHUNK, C.DIM_M, C.M, True, C.PADDED
        )
        v_tile = load_tile(
            v, batch, first, head, v_strides, length, padding_mask, C.CHUNK, C.DIM_D, C.D, True, C.PADDED
        )
        products = tl.dot(q_tile, k_tile.to(tl.float32).T, input_precision=C.PRECISION)
        products = products * decays(decay, C)
        output = tl.dot(products, v_tile.to(tl.float32), output, input_precision=C.PRECISION)
        total += tl.sum(products, 1)
    store_tile(numerators, output, batch, first, head, out_strides, length, C.CHUNK, C.DIM_D, C.D)
    rows = first + index
    offsets = (batch.to(tl.int64) * length + rows.to(tl.int64)) * heads + head
    tl.store(denominators + offsets, total, mask=rows < length)


@triton.jit
def dq_chunk_kernel(q, k, v, g, h, padding_mask, log_decay, states, dq, strides, sizes, C: tl.constexpr):
    """dq_i = sum_j w_ij (g_i·v_j + h_i) k_j of one chunk: the forward pass with g for q, v for k, k for v."""
    k_strides, v_strides, g_strides, dq_strides, mask_stride = strides
    before, before_vectors, after, after_vectors = states
    length, heads, _ = sizes
    batch, head, first, at = chunk_position(sizes, C)
    padding_mask += batch.to(tl.int64) * mask_stride
    decay = decay_of(log_decay, head, C.DECAY)
    index = tl.arange(0, C.CHUNK)
    real = load_padding_mask(padding_mask, first, length, C.CHUNK) if C.PADDED else first + index < length
    g_tile = load_tile(g, batch, first, head, g_strides, length, padding_mask, C.CHUNK, C.DIM_D, C.D, True, C.PADDED)
    h_rows = tl.where(real, load_numbers(h, batch, head, first, heads, length, C.CHUNK), 0.0)[:, None]
    gradient = tl.dot(g_tile, load_matrix(before, at, C.M, C.D, C.DIM_M, C.DIM_D).T, input_precision=C.PRECISION)
    gradient += h_rows * load_vector(before_vectors, at, C.M, C.DIM_M)[None, :]
    if C.DECAY:
        gradient = gradient * tl.exp2(decay * index.to(tl.float32))[:, None]
    if not (C.CAUSAL or C.TOTAL):
        other_side = tl.dot(g_tile, load_matrix(after, at, C.M, C.D, C.DIM_M, C.DIM_D).T, input_precision=C.PRECISION)
        other_side += h_rows * load_vector(after_vectors, at, C.M, C.DIM_M)[None, :]
        gradient += other_side * tl.exp2(decay * (C.CHUNK - 1 - index).to(tl.float32))[:, None]
    if not C.TOTAL:
        k_tile = load_tile(
            k, batch, first, head, k_strides, length, padding_mask, C.CHUNK, C.DIM_M, C.M, True, C.PADDED
        )
        v_tile = load_tile(
            v, batch, first, head, v_strides, length, padding_mask, C.CHUNK, C.DIM_D, C.D, True, C.PADDED
        )
        products = tl.dot(g_tile, v_tile.to(tl.float32).T, input_precision=C.PRECISION) + h_rows
        products = products * decays(decay, C)
        gradient = tl.dot(products, k_tile.to(tl.float32), gradient, input_precision=C.PRECISION)
    store_tile(dq, gradient, batch, first, head, dq_strides, length, C.CHUNK, C.DIM_M, C.M)


@triton.jit
def dk_chunk_kernel(q, v, g, h, padding_mask, log_decay, states, dk, strides, sizes, C: tl.constexpr):
    """dk_j = sum_i w_ij (g_i·v_j + h_i) q_i of one chunk, over the i that j is visible to.

    `after` and `before` hold sums of q gᵀ and of h q over later and earlier chunks; with TOTAL `after` is over all.
    """
    q_strides, v_strides, g_strides, dk_strides, mask_stride = strides
    after, after_vectors, before, before_vectors = states
    length, heads, _ = sizes
    batch, head, first, at = chunk_position(sizes, C)
    padding_mask += batch.to(tl.int64) * mask_stride
    decay = decay_of(log_decay, head, C.DECAY)
    index = tl.arange(0, C.CHUNK)
    real = load_padding_mask(padding_mask, first, length, C.CHUNK) if C.PADDED else first + index < length
    v_tile = load_tile(v, batch, first, head, v_strides, length, padding_mask, C.CHUNK, C.DIM_D, C.D, True, C.PADDED)
    v_tile = v_tile.to(tl.float32)
    matrix = load_matrix(after, at, C.M, C.D, C.DIM_M, C.DIM_D)
    dk_tile = tl.dot(v_tile, matrix.T, input_precision=C.PRECISION)
    dk_tile += load_vector(after_vectors, at, C.M, C.DIM_M)[None, :]
    if C.DECAY:
        dk_tile = dk_tile * tl.exp2(decay * (C.CHUNK - 1 - index).to(tl.float32))[:, None]
    if not (C.CAUSAL or C.TOTAL):
        matrix = load_matrix(before, at, C.M, C.D, C.DIM_M, C.DIM_D)
        other_side = tl.dot(v_tile, matrix.T, input_precision=C.PRECISION)
        other_side += load_vector(before_vectors, at, C.M, C.DIM_M)[None, :]
        dk_tile += other_side * tl.exp2(decay * index.to(tl.float32))[:, None]
    if not C.TOTAL:
        q_tile = load_tile(
            q, batch, first, head, q_strides, length, padding_mask, C.CHUNK, C.DIM_M, C.M, True, C.PADDED
        )
        g_tile = load_tile(
            g, batch, first, head, g_strides, length, padding_mask, C.CHUNK, C.DIM_D, C.D, True, C.PADDED
        )
        h_rows = tl.where(real, load_numbers(h, batch, head, first, heads, length, C.CHUNK), 0.0)[None, :]
        products = tl.dot(v_tile, g_tile.T, input_precision=C.PRECISION) + h_rows
        products = products * decays(decay, C).T
        dk_tile = tl.dot(products, q_tile.to(tl.float32), dk_tile, input_precision=C.PRECISION)
    dk_tile = tl.where(real[:, None], dk_tile, 0.0)
    store_tile(dk, dk_tile, batch, first, head, dk_strides, length, C.CHUNK, C.DIM_M, C.M)


@triton.jit
def dv_chunk_kernel(q, k, g, padding_mask, log_decay, states, dv, strides, sizes, C: tl.constexpr):
    """dv_j = sum_i w_ij (q_i·k_j) g_i of one chunk, over the i that j is visible to; `after` and `before` as for dk."""
    q_strides, k_strides, g_strides, dv_strides, mask_stride = strides
    after, _, before, _ = states
    length, _, _ = sizes
    batch, head, first, at = chunk_position(sizes, C)
    padding_mask += batch.to(tl.int64) * mask_stride
    decay = decay_of(log_decay, head, C.DECAY)
    index = tl.arange(0, C.CHUNK)
    k_tile = load_tile(k, batch, first, head, k_strides, length, padding_mask, C.CHUNK, C.DIM_M, C.M, True, C.PADDED)
    k_tile = k_tile.to(tl.float32)
    dv_tile = tl.dot(k_tile, load_matrix(after, at, C.M, C.D, C.DIM_M, C.DIM_D), input_precision=C.PRECISION)
    if C.DECAY:
        dv_tile = dv_tile * tl.exp2(decay * (C.CHUNK - 1 - index).to(tl.float32))[:, None]
    if not (C.CAUSAL or C.TOTAL):
        other_side = tl.dot(k_tile, load_matrix(before, at, C.M, C.D, C.DIM_M, C.DIM_D), input_precision=C.PRECISION)
        dv_tile += other_side * tl.exp2(decay * index.to(tl.float32))[:, None]
    if not C.TOTAL:
        q_tile = load_tile(
            q, batch, first, head, q_strides, length, padding_mask, C.CHUNK, C.DIM_M, C.M, True, C.PADDED
        )
        g_tile = load_tile(
            g, batch, first, head, g_strides, length, padding_mask, C.CHUNK, C.DIM_D, C.D, True, C.PADDED
        )
        products = tl.dot(k_tile, q_tile.to(tl.float32).T, input_precision=C.PRECISION)
        products = products * decays(decay, C).T
        dv_tile = tl.dot(products, g_tile, dv_tile, input_precision=C.PRECISION)
    store_tile(dv, dv_tile, batch, first, head, dv_strides, length, C.CHUNK, C.DIM_D, C.D)
