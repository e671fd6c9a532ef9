"""The kernels of linear attention: sums of chunks, their scan, answers and gradients by chunk; float32 throughout.

With w_ij = exp(log_decay |i - j|), over the j that i sees: N_i = sum_j w_ij (q_i·k_j) v_j and d_i = sum_j w_ij q_i·k_j.
What a chunk reads of those before it, `before`, is as seen from its first token; of those after it, `after`, from its
last (full chunks, whether or not they end past the sequence). Method: chunkwise retention (arXiv 2307.08621).

Legend: q, k [batch, length, heads, M]; v [batch, length, heads, D]; matrices [batch, heads, chunks, M, D] of sums k vᵀ
and vectors [batch, heads, chunks, M] of sums of k; in the backward pass of q gᵀ and of h q, where g and h are the
gradients of N and d. DIM_M, DIM_D are M, D as powers of two.
"""

import triton
import triton.language as tl

from genoattn.attention.kernels.tiles import load_keep, load_tile, store_tile


@triton.jit
def load_matrix(matrices, at, M: tl.constexpr, D: tl.constexpr, DIM_M: tl.constexpr, DIM_D: tl.constexpr):
    """One matrix [DIM_M, DIM_D], number `at` (int64) of those stored; 0 outside M and D."""
    rows, columns = tl.arange(0, DIM_M).to(tl.int64), tl.arange(0, DIM_D).to(tl.int64)
    inside = (rows < M)[:, None] & (columns < D)[None, :]
    return tl.load(matrices + at * M * D + rows[:, None] * D + columns[None, :], mask=inside, other=0.0)


@triton.jit
def load_vector(vectors, at, M: tl.constexpr, DIM_M: tl.constexpr):
    """One vector [DIM_M], number `at` (int64) of those stored; 0 outside M."""
    rows = tl.arange(0, DIM_M).to(tl.int64)
    return tl.load(vectors + at * M + rows, mask=rows < M, other=0.0)


@triton.jit
def load_numbers(numbers, batch, head, first, heads, length, ROWS: tl.constexpr):
    """One number a row from [batch, length, heads], contiguous; 0 past the end."""
    rows = first + tl.arange(0, ROWS)
    offsets = (batch.to(tl.int64) * length + rows.to(tl.int64)) * heads + head
    return tl.load(numbers + offsets, mask=rows < length, other=0.0)


@triton.jit
def decay_of(log_decay, head, DECAY: tl.constexpr):
    """The logarithm of one head's decay per token, in base 2."""
    return tl.load(log_decay + head.to(tl.int64)) * 1.4426950408889634 if DECAY else 0.0


@triton.jit
def states_kernel(
    k, v, weights, keep, log_decay, matrices, vectors, k_strides, v_strides, keep_batch, length, heads, chunks,
    CHUNK: tl.constexpr, M: tl.constexpr, D: tl.constexpr, DIM_M: tl.constexpr, DIM_D: tl.constexpr,
    WEIGHTS: tl.constexpr, BACKWARD: tl.constexpr, DECAY: tl.constexpr, KEEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """The sums of one chunk alone: k vᵀ, and k (times `weights`, with WEIGHTS).

    Decayed to the first token of the next chunk or, with BACKWARD, to the last token of the chunk before.
    """
    program = tl.program_id(0)
    chunk = program % chunks
    head = program // chunks % heads
    batch = program // (chunks * heads)
    first = chunk * CHUNK
    keep += batch.to(tl.int64) * keep_batch
    k_tile = load_tile(k, batch, first, head, k_strides, length, keep, CHUNK, DIM_M, M, True, KEEP, False)
    v_tile = load_tile(v, batch, first, head, v_strides, length, keep, CHUNK, DIM_D, D, True, KEEP, False)
    k_tile = k_tile.to(tl.float32)
    if DECAY:
        rate = decay_of(log_decay, head, DECAY)
        index = tl.arange(0, CHUNK)
        steps = index + 1 if BACKWARD else CHUNK - index
        k_tile = k_tile * tl.exp2(rate * steps)[:, None]
    matrix = tl.dot(k_tile.T, v_tile.to(tl.float32), input_precision=PRECISION)
    if WEIGHTS:
        numbers = load_numbers(weights, batch, head, first, heads, length, CHUNK)
        if KEEP:
            numbers = tl.where(load_keep(keep, first, length, CHUNK), numbers, 0.0)
        k_tile = k_tile * numbers[:, None]
    vector = tl.sum(k_tile, 0)
    rows, columns = tl.arange(0, DIM_M).to(tl.int64), tl.arange(0, DIM_D).to(tl.int64)
    at = (batch * heads + head).to(tl.int64) * chunks + chunk
    inside = (rows < M)[:, None] & (columns < D)[None, :]
    tl.store(matrices + at * M * D + rows[:, None] * D + columns[None, :], matrix, mask=inside)
    tl.store(vectors + at * M + rows, vector, mask=rows < M)


@triton.jit
def scan_kernel(
    sums, log_decay, heads, chunks, size,
    CHUNK: tl.constexpr, BLOCK: tl.constexpr, BACKWARD: tl.constexpr, DECAY: tl.constexpr,
):  # fmt: skip
    """Sums of single chunks [batch, heads, chunks, size] turned, in place, into those of all chunks before each.

    With BACKWARD, of all chunks after each. A program carries BLOCK of the `size` numbers along one head's chunks.
    """
    program = tl.program_id(0)
    blocks = tl.cdiv(size, BLOCK)
    columns = (program % blocks * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)
    row = program // blocks
    rate = decay_of(log_decay, row % heads, DECAY)
    shrink = tl.exp2(rate * CHUNK)
    carried = tl.zeros([BLOCK], tl.float32)
    for step in range(chunks):
        chunk = chunks - 1 - step if BACKWARD else step
        pointers = sums + (row.to(tl.int64) * chunks + chunk) * size + columns
        alone = tl.load(pointers, mask=columns < size, other=0.0)
        tl.store(pointers, carried, mask=columns < size)
        carried = carried * shrink + alone


@triton.jit
def decays(rate, CHUNK: tl.constexpr, CAUSAL: tl.constexpr, DECAY: tl.constexpr):
    """w_ij inside a chunk [CHUNK queries, CHUNK keys]; 0 where the query does not see the key."""
    ahead = tl.arange(0, CHUNK)[:, None] - tl.arange(0, CHUNK)[None, :]
    inside = tl.exp2(rate * tl.abs(ahead).to(tl.float32)) if DECAY else tl.full([CHUNK, CHUNK], 1.0, tl.float32)
    return tl.where(ahead >= 0, inside, 0.0) if CAUSAL else inside


@triton.jit
def answers_kernel(
    q, k, v, keep, log_decay, before, before_vectors, after, after_vectors, numerators, denominators,
    q_strides, k_strides, v_strides, out_strides, keep_batch, length, heads, chunks,
    CHUNK: tl.constexpr, M: tl.constexpr, D: tl.constexpr, DIM_M: tl.constexpr, DIM_D: tl.constexpr,
    CAUSAL: tl.constexpr, TOTAL: tl.constexpr, DECAY: tl.constexpr, KEEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """N and d of one chunk. With TOTAL `before` holds one sum over everything for each head, and is all it reads."""
    program = tl.program_id(0)
    chunk = program % chunks
    head = program // chunks % heads
    batch = program // (chunks * heads)
    first = chunk * CHUNK
    keep += batch.to(tl.int64) * keep_batch
    at = (batch * heads + head).to(tl.int64) * (1 if TOTAL else chunks) + (0 if TOTAL else chunk)
    rate = decay_of(log_decay, head, DECAY)
    index = tl.arange(0, CHUNK)
    q_tile = load_tile(q, batch, first, head, q_strides, length, keep, CHUNK, DIM_M, M, True, KEEP, False)
    q_tile = q_tile.to(tl.float32)
    matrix = load_matrix(before, at, M, D, DIM_M, DIM_D)
    answer = tl.dot(q_tile, matrix, input_precision=PRECISION)
    total = tl.sum(q_tile * load_vector(before_vectors, at, M, DIM_M)[None, :], 1)
    if DECAY:
        since = tl.exp2(rate * index.to(tl.float32))
        answer, total = answer * since[:, None], total * since
    if not (CAUSAL or TOTAL):
        until = tl.exp2(rate * (CHUNK - 1 - index).to(tl.float32))
        matrix = load_matrix(after, at, M, D, DIM_M, DIM_D)
        answer += tl.dot(q_tile, matrix, input_precision=PRECISION) * until[:, None]
        total += tl.sum(q_tile * load_vector(after_vectors, at, M, DIM_M)[None, :], 1) * until
    if not TOTAL:
        k_tile = load_tile(k, batch, first, head, k_strides, length, keep, CHUNK, DIM_M, M, True, KEEP, False)
        v_tile = load_tile(v, batch, first, head, v_strides, length, keep, CHUNK, DIM_D, D, True, KEEP, False)
        products = tl.dot(q_tile, k_tile.to(tl.float32).T, input_precision=PRECISION)
        products = products * decays(rate, CHUNK, CAUSAL, DECAY)
        answer = tl.dot(products, v_tile.to(tl.float32), answer, input_precision=PRECISION)
        total += tl.sum(products, 1)
    store_tile(numerators, answer, batch, first, head, out_strides, length, CHUNK, DIM_D, D)
    rows = first + index
    offsets = (batch.to(tl.int64) * length + rows.to(tl.int64)) * heads + head
    tl.store(denominators + offsets, total, mask=rows < length)


@triton.jit
def dq_chunk_kernel(
    q, k, v, g, h, keep, log_decay, before, before_vectors, after, after_vectors, dq,
    k_strides, v_strides, g_strides, dq_strides, keep_batch, length, heads, chunks,
    CHUNK: tl.constexpr, M: tl.constexpr, D: tl.constexpr, DIM_M: tl.constexpr, DIM_D: tl.constexpr,
    CAUSAL: tl.constexpr, TOTAL: tl.constexpr, DECAY: tl.constexpr, KEEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dq_i = sum_j w_ij (g_i·v_j + h_i) k_j of one chunk: an answer again, with g for q, v for k and k for v."""
    program = tl.program_id(0)
    chunk = program % chunks
    head = program // chunks % heads
    batch = program // (chunks * heads)
    first = chunk * CHUNK
    keep += batch.to(tl.int64) * keep_batch
    at = (batch * heads + head).to(tl.int64) * (1 if TOTAL else chunks) + (0 if TOTAL else chunk)
    rate = decay_of(log_decay, head, DECAY)
    index = tl.arange(0, CHUNK)
    real = load_keep(keep, first, length, CHUNK) if KEEP else first + index < length
    g_tile = load_tile(g, batch, first, head, g_strides, length, keep, CHUNK, DIM_D, D, True, KEEP, False)
    h_rows = tl.where(real, load_numbers(h, batch, head, first, heads, length, CHUNK), 0.0)[:, None]
    gradient = tl.dot(g_tile, load_matrix(before, at, M, D, DIM_M, DIM_D).T, input_precision=PRECISION)
    gradient += h_rows * load_vector(before_vectors, at, M, DIM_M)[None, :]
    if DECAY:
        gradient = gradient * tl.exp2(rate * index.to(tl.float32))[:, None]
    if not (CAUSAL or TOTAL):
        part = tl.dot(g_tile, load_matrix(after, at, M, D, DIM_M, DIM_D).T, input_precision=PRECISION)
        part += h_rows * load_vector(after_vectors, at, M, DIM_M)[None, :]
        gradient += part * tl.exp2(rate * (CHUNK - 1 - index).to(tl.float32))[:, None]
    if not TOTAL:
        k_tile = load_tile(k, batch, first, head, k_strides, length, keep, CHUNK, DIM_M, M, True, KEEP, False)
        v_tile = load_tile(v, batch, first, head, v_strides, length, keep, CHUNK, DIM_D, D, True, KEEP, False)
        products = tl.dot(g_tile, v_tile.to(tl.float32).T, input_precision=PRECISION) + h_rows
        products = products * decays(rate, CHUNK, CAUSAL, DECAY)
        gradient = tl.dot(products, k_tile.to(tl.float32), gradient, input_precision=PRECISION)
    store_tile(dq, gradient, batch, first, head, dq_strides, length, CHUNK, DIM_M, M)


@triton.jit
def dk_chunk_kernel(
    q, v, g, h, keep, log_decay, after, after_vectors, before, before_vectors, dk,
    q_strides, v_strides, g_strides, dk_strides, keep_batch, length, heads, chunks,
    CHUNK: tl.constexpr, M: tl.constexpr, D: tl.constexpr, DIM_M: tl.constexpr, DIM_D: tl.constexpr,
    CAUSAL: tl.constexpr, TOTAL: tl.constexpr, DECAY: tl.constexpr, KEEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dk_j = sum_i w_ij (g_i·v_j + h_i) q_i of one chunk, over the i that see j.

    `after` and `before` hold sums of q gᵀ and of h q over later and earlier chunks; with TOTAL `after` holds it all.
    """
    program = tl.program_id(0)
    chunk = program % chunks
    head = program // chunks % heads
    batch = program // (chunks * heads)
    first = chunk * CHUNK
    keep += batch.to(tl.int64) * keep_batch
    at = (batch * heads + head).to(tl.int64) * (1 if TOTAL else chunks) + (0 if TOTAL else chunk)
    rate = decay_of(log_decay, head, DECAY)
    index = tl.arange(0, CHUNK)
    real = load_keep(keep, first, length, CHUNK) if KEEP else first + index < length
    v_tile = load_tile(v, batch, first, head, v_strides, length, keep, CHUNK, DIM_D, D, True, KEEP, False)
    v_tile = v_tile.to(tl.float32)
    matrix = load_matrix(after, at, M, D, DIM_M, DIM_D)
    dk_tile = tl.dot(v_tile, matrix.T, input_precision=PRECISION)
    dk_tile += load_vector(after_vectors, at, M, DIM_M)[None, :]
    if DECAY:
        dk_tile = dk_tile * tl.exp2(rate * (CHUNK - 1 - index).to(tl.float32))[:, None]
    if not (CAUSAL or TOTAL):
        matrix = load_matrix(before, at, M, D, DIM_M, DIM_D)
        part = tl.dot(v_tile, matrix.T, input_precision=PRECISION)
        part += load_vector(before_vectors, at, M, DIM_M)[None, :]
        dk_tile += part * tl.exp2(rate * index.to(tl.float32))[:, None]
    if not TOTAL:
        q_tile = load_tile(q, batch, first, head, q_strides, length, keep, CHUNK, DIM_M, M, True, KEEP, False)
        g_tile = load_tile(g, batch, first, head, g_strides, length, keep, CHUNK, DIM_D, D, True, KEEP, False)
        h_rows = tl.where(real, load_numbers(h, batch, head, first, heads, length, CHUNK), 0.0)[None, :]
        products = tl.dot(v_tile, g_tile.T, input_precision=PRECISION) + h_rows
        products = products * decays(rate, CHUNK, CAUSAL, DECAY).T
        dk_tile = tl.dot(products, q_tile.to(tl.float32), dk_tile, input_precision=PRECISION)
    dk_tile = tl.where(real[:, None], dk_tile, 0.0)
    store_tile(dk, dk_tile, batch, first, head, dk_strides, length, CHUNK, DIM_M, M)


@triton.jit
def dv_chunk_kernel(
    q, k, g, keep, log_decay, after, before, dv,
    q_strides, k_strides, g_strides, dv_strides, keep_batch, length, heads, chunks,
    CHUNK: tl.constexpr, M: tl.constexpr, D: tl.constexpr, DIM_M: tl.constexpr, DIM_D: tl.constexpr,
    CAUSAL: tl.constexpr, TOTAL: tl.constexpr, DECAY: tl.constexpr, KEEP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """dv_j = sum_i w_ij (q_i·k_j) g_i of one chunk, over the i that see j; `after` and `before` as for dk."""
    program = tl.program_id(0)
    chunk = program % chunks
    head = program // chunks % heads
    batch = program // (chunks * heads)
    first = chunk * CHUNK
    keep += batch.to(tl.int64) * keep_batch
    at = (batch * heads + head).to(tl.int64) * (1 if TOTAL else chunks) + (0 if TOTAL else chunk)
    rate = decay_of(log_decay, head, DECAY)
    index = tl.arange(0, CHUNK)
    k_tile = load_tile(k, batch, first, head, k_strides, length, keep, CHUNK, DIM_M, M, True, KEEP, False)
    k_tile = k_tile.to(tl.float32)
    dv_tile = tl.dot(k_tile, load_matrix(after, at, M, D, DIM_M, DIM_D), input_precision=PRECISION)
    if DECAY:
        dv_tile = dv_tile * tl.exp2(rate * (CHUNK - 1 - index).to(tl.float32))[:, None]
    if not (CAUSAL or TOTAL):
        part = tl.dot(k_tile, load_matrix(before, at, M, D, DIM_M, DIM_D), input_precision=PRECISION)
        dv_tile += part * tl.exp2(rate * index.to(tl.float32))[:, None]
    if not TOTAL:
        q_tile = load_tile(q, batch, first, head, q_strides, length, keep, CHUNK, DIM_M, M, True, KEEP, False)
        g_tile = load_tile(g, batch, first, head, g_strides, length, keep, CHUNK, DIM_D, D, True, KEEP, False)
        products = tl.dot(k_tile, q_tile.to(tl.float32).T, input_precision=PRECISION)
        products = products * decays(rate, CHUNK, CAUSAL, DECAY).T
        dv_tile = tl.dot(products, g_tile, dv_tile, input_precision=PRECISION)
    store_tile(dv, dv_tile, batch, first, head, dv_strides, length, CHUNK, DIM_D, D)
