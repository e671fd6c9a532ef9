"""Kernels of the gated delta rule (arXiv 2412.06464): the system of each chunk, and the states of chunks in turn.

With G_i the sum of log_decay up to token i of a chunk and b_i what it writes, a chunk updates the state as in linear
attention with other values: values = U - W S of the state S before the chunk, where U = T b v, W = T b exp(G) k and
T = (1 + A)⁻¹ with A_ij = b_i k_i·k_j exp(G_i - G_j) for j < i. All else is done by the kernels of linear attention.

Legend, names and sizes are those of `linear_kernels`; write [batch, length, heads]; u and values [batch, length, heads,
D], w [batch, length, heads, M] and solved, which holds the rows of T, [batch, length, heads, CHUNK], all float32.
"""

# pyright takes a kernel for plain Python, and does not know that a tl.constexpr has the attributes of its value.
# pyright: reportGeneralTypeIssues=false, reportAttributeAccessIssue=false

import triton
import triton.language as tl

from genoattn.attention.kernels.linear_kernels import (
    load_decay,
    load_part,
    load_state,
    place,
    state_part,
    store_part,
    to_end,
)
from genoattn.attention.kernels.tiles import load_numbers


@triton.jit
def inverse(system, C: tl.constexpr):
    """(1 + A)⁻¹ of a system A below the diagonal.

    Blocks of 16 on the diagonal are solved row by row, all at once, and then merged in pairs: powers of A, which would
    be faster, may be large.
    """
    rows, columns = tl.arange(0, C.CHUNK)[:, None], tl.arange(0, C.CHUNK)[None, :]
    same = rows // 16 == columns // 16
    own = tl.where(same, system, 0.0)
    solved = tl.full([C.CHUNK, C.CHUNK], 0.0, tl.float32)
    for at in range(1, 16):
        row = -tl.sum(tl.where(rows % 16 == at, own, 0.0), 0)  # of all blocks, which share no column
        row += tl.sum(row[:, None] * solved, 0)
        solved = tl.where((rows % 16 == at) & same, row[None, :], solved)
    solved += tl.where(rows == columns, 1.0, 0.0)
    if C.CHUNK > 16:
        solved = merged(solved, system, 16, C)
    if C.CHUNK > 32:
        solved = merged(solved, system, 32, C)
    return solved


@triton.jit
def merged(solved, system, SIZE: tl.constexpr, C: tl.constexpr):
    """Inverses of blocks of twice the SIZE from those of blocks of the SIZE."""
    rows, columns = tl.arange(0, C.CHUNK)[:, None] // SIZE, tl.arange(0, C.CHUNK)[None, :] // SIZE
    below = tl.where((rows // 2 == columns // 2) & (rows > columns), system, 0.0)
    return solved - tl.dot(tl.dot(solved, below, input_precision=C.EXACT), solved, input_precision=C.EXACT)


@triton.jit
def key_products(k, batch, first, head, of_k, length, log_sum, C: tl.constexpr):
    """k_i·k_j exp(-|G_i - G_j|) [CHUNK, CHUNK]."""
    products = tl.full([C.CHUNK, C.CHUNK], 0.0, tl.float32)
    for row in range(0, C.M, C.BLOCK_M):
        left = load_part(k, batch, first, head, of_k, length, k, row, C.BLOCK_M, C.M, False, C)
        right = load_part(k, batch, first, head, of_k, length, k, row, C.BLOCK_M, C.M, True, C)
        products = tl.dot(left, right, products, input_precision=C.PRECISION)
    return products * tl.exp2(-tl.abs(log_sum[:, None] - log_sum[None, :]))


@triton.jit
def solve_kernel(k, v, write, log_decay, u, w, solved, strides, sizes, C: tl.constexpr):
    """U, W and T of a chunk."""
    of_k, of_v, of_u, of_w, of_solved, of_decay, _ = strides
    length, heads, _, _ = sizes
    batch, head, first, _, _ = place(sizes, 1, C)
    _, log_sum = load_decay(log_decay, batch, first, head, of_decay, length, C)
    by = load_numbers(write, batch, head, first, heads, length, C.CHUNK)
    rows, columns = tl.arange(0, C.CHUNK)[:, None], tl.arange(0, C.CHUNK)[None, :]
    system = key_products(k, batch, first, head, of_k, length, log_sum, C) * by[:, None]
    inverted = inverse(tl.where(rows > columns, system, 0.0), C)
    store_part(solved, inverted, batch, first, head, of_solved, length, 0, C.CHUNK, C.CHUNK, C)
    for column in range(0, C.D, C.BLOCK_D):
        tile = load_part(v, batch, first, head, of_v, length, v, column, C.BLOCK_D, C.D, False, C)
        tile = tl.dot(inverted, tile.to(tl.float32) * by[:, None], input_precision=C.PRECISION)
        store_part(u, tile, batch, first, head, of_u, length, column, C.BLOCK_D, C.D, C)
    by *= tl.exp2(log_sum)
    for row in range(0, C.M, C.BLOCK_M):
        tile = load_part(k, batch, first, head, of_k, length, k, row, C.BLOCK_M, C.M, False, C)
        tile = tl.dot(inverted, tile.to(tl.float32) * by[:, None], input_precision=C.PRECISION)
        store_part(w, tile, batch, first, head, of_w, length, row, C.BLOCK_M, C.M, C)


@triton.jit
def recur_kernel(k, u, w, log_decay, states, values, strides, sizes, C: tl.constexpr):
    """The states before all chunks of a head, and the values; a program carries BLOCK_D channels of all rows."""
    of_k, of_u, of_w, of_values, of_decay, _ = strides
    length, heads, chunks, _ = sizes
    blocks: tl.constexpr = (C.D + C.BLOCK_D - 1) // C.BLOCK_D
    program = tl.program_id(0)
    column, line = program % blocks * C.BLOCK_D, program // blocks
    batch, head = line // heads, line % heads
    state = tl.full([C.BLOCK_M, C.BLOCK_D], 0.0, tl.float32)
    for chunk in range(chunks):
        first, number = chunk * C.CHUNK, line.to(tl.int64) * chunks + chunk
        offsets, inside = state_part(number, 0, column, False, C)
        tl.store(states + offsets, state, mask=inside)
        each, log_sum = load_decay(log_decay, batch, first, head, of_decay, length, C)
        total = tl.sum(each, 0)
        tile = load_part(w, batch, first, head, of_w, length, w, 0, C.BLOCK_M, C.M, False, C)
        value = load_part(u, batch, first, head, of_u, length, u, column, C.BLOCK_D, C.D, False, C)
        value -= tl.dot(tile, state, input_precision=C.PRECISION)
        store_part(values, value, batch, first, head, of_values, length, column, C.BLOCK_D, C.D, C)
        k_tile = load_part(k, batch, first, head, of_k, length, k, 0, C.BLOCK_M, C.M, True, C)
        value *= to_end(total, log_sum)[:, None]
        state = tl.dot(k_tile.to(tl.float32), value, state * tl.exp2(total), input_precision=C.PRECISION)


@triton.jit
def recur_back_kernel(q, k, w, g, log_decay, dvalues, upstream, strides, sizes, lead, C: tl.constexpr):
    """Gradients of the states after all chunks of a head, from the last on; `dvalues` gets what flows through them."""
    of_q, of_k, of_w, of_g, of_values, of_decay, _ = strides
    length, heads, chunks, _ = sizes
    blocks: tl.constexpr = (C.D + C.BLOCK_D - 1) // C.BLOCK_D
    program = tl.program_id(0)
    column, line = program % blocks * C.BLOCK_D, program // blocks
    batch, head = line // heads, line % heads
    slope = tl.full([C.BLOCK_M, C.BLOCK_D], 0.0, tl.float32)
    for step in range(chunks):
        chunk = chunks - 1 - step
        first, number = chunk * C.CHUNK, line.to(tl.int64) * chunks + chunk
        offsets, inside = state_part(number, 0, column, False, C)
        tl.store(upstream + offsets, slope, mask=inside)
        each, log_sum = load_decay(log_decay, batch, first, head, of_decay, length, C)
        total = tl.sum(each, 0)
        tile = load_part(k, batch, first, head, of_k, length, k, 0, C.BLOCK_M, C.M, False, C)
        value = load_part(dvalues, batch, first, head, of_values, length, k, column, C.BLOCK_D, C.D, False, C)
        faded = tile.to(tl.float32) * to_end(total, log_sum)[:, None]
        value = tl.dot(faded, slope, value, input_precision=C.PRECISION)
        store_part(dvalues, value, batch, first, head, of_values, length, column, C.BLOCK_D, C.D, C)
        g_tile = load_part(g, batch, first, head, of_g, length, k, column, C.BLOCK_D, C.D, False, C)
        g_tile *= tl.exp2(log_sum + lead * each)[:, None]
        tile = load_part(q, batch, first, head, of_q, length, k, 0, C.BLOCK_M, C.M, True, C)
        slope = tl.dot(tile.to(tl.float32), g_tile, slope * tl.exp2(total), input_precision=C.PRECISION)
        tile = load_part(w, batch, first, head, of_w, length, k, 0, C.BLOCK_M, C.M, True, C)
        slope = tl.dot(-tile, value, slope, input_precision=C.PRECISION)


@triton.jit
def unsolve_kernel(write, solved, states, dvalues, p, r, dv, strides, sizes, C: tl.constexpr):
    """P = Tᵀ dU and R = Tᵀ dW of a chunk, where dU are `dvalues` and dW = -dU Sᵀ, and dv = b P."""
    of_solved, of_values, of_p, of_r, of_dv, _, _ = strides
    length, heads, _, _ = sizes
    batch, head, first, number, _ = place(sizes, 1, C)
    by = load_numbers(write, batch, head, first, heads, length, C.CHUNK)
    turned = load_part(solved, batch, first, head, of_solved, length, solved, 0, C.CHUNK, C.CHUNK, True, C)
    for column in range(0, C.D, C.BLOCK_D):
        tile = load_part(dvalues, batch, first, head, of_values, length, write, column, C.BLOCK_D, C.D, False, C)
        tile = tl.dot(turned, tile, input_precision=C.PRECISION)
        store_part(p, tile, batch, first, head, of_p, length, column, C.BLOCK_D, C.D, C)
        store_part(dv, tile * by[:, None], batch, first, head, of_dv, length, column, C.BLOCK_D, C.D, C)
    for row in range(0, C.M, C.BLOCK_M):
        total = tl.full([C.CHUNK, C.BLOCK_M], 0.0, tl.float32)
        for column in range(0, C.D, C.BLOCK_D):
            tile = load_part(dvalues, batch, first, head, of_values, length, write, column, C.BLOCK_D, C.D, False, C)
            state = load_state(states, number, row, column, True, C)
            total = tl.dot(-tile, state, total, input_precision=C.PRECISION)
        total = tl.dot(turned, total, input_precision=C.PRECISION)
        store_part(r, total, batch, first, head, of_r, length, row, C.BLOCK_M, C.M, C)


@triton.jit
def outer(x, y, batch, first, head, of_x, of_y, length, DIM: tl.constexpr, WIDTH: tl.constexpr, C: tl.constexpr):
    """x yᵀ of a chunk [CHUNK, CHUNK]."""
    products = tl.full([C.CHUNK, C.CHUNK], 0.0, tl.float32)
    for column in range(0, WIDTH, DIM):
        left = load_part(x, batch, first, head, of_x, length, x, column, DIM, WIDTH, False, C)
        right = load_part(y, batch, first, head, of_y, length, y, column, DIM, WIDTH, True, C)
        products = tl.dot(left, right, products, input_precision=C.PRECISION)
    return products


@triton.jit
def system_kernel(k, v, write, log_decay, u, w, p, r, dk, dwrite, dlog, strides, sizes, C: tl.constexpr):
    """Gradients of k, b and log_decay through the system of a chunk; what dk and dlog hold is added to.

    The gradient of A is -(P Uᵀ + R Wᵀ). It is computed in both orders of its tokens, and not turned in registers.
    """
    of_k, of_v, of_u, of_w, of_p, of_r, of_dk, of_decay, _ = strides
    length, heads, _, _ = sizes
    batch, head, first, _, _ = place(sizes, 1, C)
    _, log_sum = load_decay(log_decay, batch, first, head, of_decay, length, C)
    by = load_numbers(write, batch, head, first, heads, length, C.CHUNK)
    rows, columns = tl.arange(0, C.CHUNK)[:, None], tl.arange(0, C.CHUNK)[None, :]
    onward = outer(p, u, batch, first, head, of_p, of_u, length, C.BLOCK_D, C.D, C)
    onward += outer(r, w, batch, first, head, of_r, of_w, length, C.BLOCK_M, C.M, C)
    back = outer(u, p, batch, first, head, of_u, of_p, length, C.BLOCK_D, C.D, C)
    back += outer(w, r, batch, first, head, of_w, of_r, length, C.BLOCK_M, C.M, C)
    onward, back = tl.where(rows > columns, -onward, 0.0), tl.where(rows < columns, -back, 0.0)
    products = key_products(k, batch, first, head, of_k, length, log_sum, C)
    by_write = tl.sum(onward * products, 1)
    by_log = by * by_write - tl.sum(back * products * by[None, :], 1)
    both = onward * by[:, None] + back * by[None, :]
    both *= tl.exp2(-tl.abs(log_sum[:, None] - log_sum[None, :]))
    for column in range(0, C.D, C.BLOCK_D):
        left = load_part(p, batch, first, head, of_p, length, p, column, C.BLOCK_D, C.D, False, C)
        right = load_part(v, batch, first, head, of_v, length, v, column, C.BLOCK_D, C.D, False, C)
        by_write += tl.sum(left * right.to(tl.float32), 1)
    since = tl.exp2(log_sum)
    for row in range(0, C.M, C.BLOCK_M):
        left = load_part(r, batch, first, head, of_r, length, r, row, C.BLOCK_M, C.M, False, C) * since[:, None]
        right = load_part(k, batch, first, head, of_k, length, k, row, C.BLOCK_M, C.M, False, C).to(tl.float32)
        along = tl.sum(left * right, 1)
        by_write, by_log = by_write + along, by_log + by * along
        tile = load_part(dk, batch, first, head, of_dk, length, k, row, C.BLOCK_M, C.M, False, C) + left * by[:, None]
        tile = tl.dot(both, right, tile, input_precision=C.PRECISION)
        store_part(dk, tile, batch, first, head, of_dk, length, row, C.BLOCK_M, C.M, C)
    at = first + tl.arange(0, C.CHUNK)
    offsets = (batch.to(tl.int64) * length + at.to(tl.int64)) * heads + head
    tl.store(dwrite + offsets, by_write, mask=at < length)
    sums = tl.sum(tl.where(rows >= columns, by_log[:, None], 0.0), 0)
    tl.store(dlog + offsets, sums + tl.load(dlog + offsets, mask=at < length, other=0.0), mask=at < length)
