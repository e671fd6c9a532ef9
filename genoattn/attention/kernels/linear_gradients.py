"""Kernels of the backward pass of linear attention, by chunk; conventions and names are those of `linear_kernels`.

`states` are those of the forward pass. `upstream` are sums of q gᵀ and of h q: way 0 over the earlier chunks, for keys
that queries before them see, and way 1 over the later chunks; a causal layer has way 1 alone, and TOTAL one sum.
"""

# pyright takes a kernel for plain Python, and does not know that a tl.constexpr has the attributes of its value.
# pyright: reportGeneralTypeIssues=false, reportAttributeAccessIssue=false

import triton
import triton.language as tl

from genoattn.attention.kernels.linear_kernels import (
    load_decay,
    load_part,
    load_state,
    load_sums,
    near_weights,
    place,
    store_part,
    to_end,
    visible,
)
from genoattn.attention.kernels.tiles import load_numbers, load_padding_mask


@triton.jit
def load_gradient(h, padding_mask, batch, head, first, length, heads, C: tl.constexpr):
    """h of the tokens of a chunk, 0 at padding and without SUMS."""
    numbers = tl.full([C.CHUNK], 0.0, tl.float32)
    if C.SUMS:
        numbers = load_numbers(h, batch, head, first, heads, length, C.CHUNK)
        if C.PADDED:
            numbers = tl.where(load_padding_mask(padding_mask, first, length, C.CHUNK), numbers, 0.0)
    return numbers


@triton.jit
def load_logs(log_decay, batch, first, head, strides, length, lead, C: tl.constexpr):
    """Sums of logarithms up to each query and to each key of a chunk, and over all of it; 0 without DECAY."""
    keys = tl.full([C.CHUNK], 0.0, tl.float32)
    queries, total = keys, 0.0
    if C.DECAY:
        each, keys = load_decay(log_decay, batch, first, head, strides, length, C)
        queries, total = keys + lead * each, tl.sum(each, 0)
    return queries, keys, total


@triton.jit
def dq_kernel(q, k, v, g, h, padding_mask, log_decay, states, dq, strides, sizes, lead, C: tl.constexpr):
    """dq_i = sum_j w_ij (g_i·v_j + h_i) k_j, BLOCK_M channels: the forward pass with g for q, v for k, k for v."""
    of_k, of_v, of_g, of_dq, of_decay, mask_stride = strides
    length, heads, chunks, apart = sizes
    blocks: tl.constexpr = (C.M + C.BLOCK_M - 1) // C.BLOCK_M
    batch, head, first, number, block = place(sizes, blocks, C)
    before = number // chunks if C.TOTAL else number
    row = block * C.BLOCK_M
    padding_mask += batch.to(tl.int64) * mask_stride
    queries, keys, total = load_logs(log_decay, batch, first, head, of_decay, length, lead, C)
    since, until = tl.exp2(queries), to_end(total, queries)
    by = load_gradient(h, padding_mask, batch, head, first, length, heads, C)
    gradient = tl.full([C.CHUNK, C.BLOCK_M], 0.0, tl.float32)
    if C.SUMS:
        gradient += (by * since)[:, None] * load_sums(states, before, row, C)[None, :]
        if not (C.CAUSAL or C.TOTAL):
            gradient += (by * until)[:, None] * load_sums(states, before + apart, row, C)[None, :]
    products = tl.full([C.CHUNK, C.CHUNK], 0.0, tl.float32) + by[:, None]
    for column in range(0, C.D, C.BLOCK_D):
        g_tile = load_part(g, batch, first, head, of_g, length, padding_mask, column, C.BLOCK_D, C.D, False, C)
        if not C.TOTAL:
            v_tile = load_part(v, batch, first, head, of_v, length, padding_mask, column, C.BLOCK_D, C.D, True, C)
            products = tl.dot(g_tile, v_tile.to(tl.float32), products, input_precision=C.PRECISION)
        faded = g_tile * since[:, None] if C.DECAY else g_tile
        state = load_state(states, before, row, column, True, C)
        gradient = tl.dot(faded, state, gradient, input_precision=C.PRECISION)
        if not (C.CAUSAL or C.TOTAL):
            faded = g_tile * until[:, None] if C.DECAY else g_tile
            state = load_state(states, before + apart, row, column, True, C)
            gradient = tl.dot(faded, state, gradient, input_precision=C.PRECISION)
    if not C.TOTAL:
        products = visible(products * near_weights(queries[:, None], keys[None, :], C), False, C)
        k_tile = load_part(k, batch, first, head, of_k, length, padding_mask, row, C.BLOCK_M, C.M, False, C)
        gradient = tl.dot(products, k_tile.to(tl.float32), gradient, input_precision=C.PRECISION)
    store_part(dq, gradient, batch, first, head, of_dq, length, row, C.BLOCK_M, C.M, C)


@triton.jit
def dk_kernel(q, v, g, h, padding_mask, log_decay, upstream, dk, strides, sizes, lead, C: tl.constexpr):
    """dk_j = sum_i w_ij (g_i·v_j + h_i) q_i, BLOCK_M channels, over the i that j is visible to."""
    of_q, of_v, of_g, of_dk, of_decay, mask_stride = strides
    length, heads, chunks, apart = sizes
    blocks: tl.constexpr = (C.M + C.BLOCK_M - 1) // C.BLOCK_M
    batch, head, first, number, block = place(sizes, blocks, C)
    earlier = number // chunks if C.TOTAL else number
    later = earlier if C.CAUSAL or C.TOTAL else earlier + apart
    row = block * C.BLOCK_M
    padding_mask += batch.to(tl.int64) * mask_stride
    queries, keys, total = load_logs(log_decay, batch, first, head, of_decay, length, lead, C)
    left, since = to_end(total, keys), tl.exp2(keys)
    by = load_gradient(h, padding_mask, batch, head, first, length, heads, C)
    gradient = tl.full([C.CHUNK, C.BLOCK_M], 0.0, tl.float32)
    if C.SUMS:
        gradient += left[:, None] * load_sums(upstream, later, row, C)[None, :]
        if not (C.CAUSAL or C.TOTAL):
            gradient += since[:, None] * load_sums(upstream, earlier, row, C)[None, :]
    products = tl.full([C.CHUNK, C.CHUNK], 0.0, tl.float32) + by[None, :]
    for column in range(0, C.D, C.BLOCK_D):
        v_tile = load_part(v, batch, first, head, of_v, length, padding_mask, column, C.BLOCK_D, C.D, False, C)
        v_tile = v_tile.to(tl.float32)
        if not C.TOTAL:
            g_tile = load_part(g, batch, first, head, of_g, length, padding_mask, column, C.BLOCK_D, C.D, True, C)
            products = tl.dot(v_tile, g_tile, products, input_precision=C.PRECISION)
        faded = v_tile * left[:, None] if C.DECAY else v_tile
        state = load_state(upstream, later, row, column, True, C)
        gradient = tl.dot(faded, state, gradient, input_precision=C.PRECISION)
        if not (C.CAUSAL or C.TOTAL):
            faded = v_tile * since[:, None] if C.DECAY else v_tile
            state = load_state(upstream, earlier, row, column, True, C)
            gradient = tl.dot(faded, state, gradient, input_precision=C.PRECISION)
    if not C.TOTAL:
        products = visible(products * near_weights(queries[None, :], keys[:, None], C), True, C)
        q_tile = load_part(q, batch, first, head, of_q, length, padding_mask, row, C.BLOCK_M, C.M, False, C)
        gradient = tl.dot(products, q_tile.to(tl.float32), gradient, input_precision=C.PRECISION)
    if C.PADDED:
        gradient = tl.where(load_padding_mask(padding_mask, first, length, C.CHUNK)[:, None], gradient, 0.0)
    store_part(dk, gradient, batch, first, head, of_dk, length, row, C.BLOCK_M, C.M, C)


@triton.jit
def dv_kernel(q, k, g, padding_mask, log_decay, upstream, dv, strides, sizes, lead, FAR: tl.constexpr, C: tl.constexpr):
    """dv_j = sum_i w_ij (q_i·k_j) g_i, BLOCK_D channels, over the i that j is visible to.

    Without FAR only those of the chunk count.
    """
    of_q, of_k, of_g, of_dv, of_decay, mask_stride = strides
    length, _, chunks, apart = sizes
    blocks: tl.constexpr = (C.D + C.BLOCK_D - 1) // C.BLOCK_D
    batch, head, first, number, block = place(sizes, blocks, C)
    earlier = number // chunks if C.TOTAL else number
    later = earlier if C.CAUSAL or C.TOTAL else earlier + apart
    column = block * C.BLOCK_D
    padding_mask += batch.to(tl.int64) * mask_stride
    queries, keys, total = load_logs(log_decay, batch, first, head, of_decay, length, lead, C)
    left, since = to_end(total, keys), tl.exp2(keys)
    gradient = tl.full([C.CHUNK, C.BLOCK_D], 0.0, tl.float32)
    products = tl.full([C.CHUNK, C.CHUNK], 0.0, tl.float32)
    for row in range(0, C.M, C.BLOCK_M):
        k_tile = load_part(k, batch, first, head, of_k, length, padding_mask, row, C.BLOCK_M, C.M, False, C)
        if not C.TOTAL:
            q_tile = load_part(q, batch, first, head, of_q, length, padding_mask, row, C.BLOCK_M, C.M, True, C)
            products = tl.dot(k_tile, q_tile, products, input_precision=C.PRECISION)
        k_tile = k_tile.to(tl.float32)
        if FAR:
            faded = k_tile * left[:, None] if C.DECAY else k_tile
            state = load_state(upstream, later, row, column, False, C)
            gradient = tl.dot(faded, state, gradient, input_precision=C.PRECISION)
        if FAR and not (C.CAUSAL or C.TOTAL):
            faded = k_tile * since[:, None] if C.DECAY else k_tile
            state = load_state(upstream, earlier, row, column, False, C)
            gradient = tl.dot(faded, state, gradient, input_precision=C.PRECISION)
    if not C.TOTAL:
        products = visible(products * near_weights(queries[None, :], keys[:, None], C), True, C)
        g_tile = load_part(g, batch, first, head, of_g, length, padding_mask, column, C.BLOCK_D, C.D, False, C)
        gradient = tl.dot(products, g_tile, gradient, input_precision=C.PRECISION)
    store_part(dv, gradient, batch, first, head, of_dv, length, column, C.BLOCK_D, C.D, C)


@triton.jit
def near_logs(q, k, v, g, by, queries, keys, of, length, padding_mask, place, lead, C: tl.constexpr):
    """Gradients of the sums of logarithms at queries and at keys from the pairs inside a chunk."""
    batch, first, head = place
    of_q, of_k, of_v, of_g = of
    products = tl.full([C.CHUNK, C.CHUNK], 0.0, tl.float32)
    for row in range(0, C.M, C.BLOCK_M):
        q_tile = load_part(q, batch, first, head, of_q, length, padding_mask, row, C.BLOCK_M, C.M, False, C)
        k_tile = load_part(k, batch, first, head, of_k, length, padding_mask, row, C.BLOCK_M, C.M, True, C)
        products = tl.dot(q_tile, k_tile, products, input_precision=C.PRECISION)
    products = visible(products * near_weights(queries[:, None], keys[None, :], C), False, C)
    values = tl.full([C.CHUNK, C.CHUNK], 0.0, tl.float32) + by[:, None]
    for column in range(0, C.D, C.BLOCK_D):
        g_tile = load_part(g, batch, first, head, of_g, length, padding_mask, column, C.BLOCK_D, C.D, False, C)
        v_tile = load_part(v, batch, first, head, of_v, length, padding_mask, column, C.BLOCK_D, C.D, True, C)
        values = tl.dot(g_tile, v_tile.to(tl.float32), values, input_precision=C.PRECISION)
    ahead = (tl.arange(0, C.CHUNK)[:, None] - tl.arange(0, C.CHUNK)[None, :]).to(tl.float32) + 0.5 * lead
    products = tl.where(ahead >= 0, products, -products) * values
    return tl.sum(products, 1), tl.sum(products, 0)


@triton.jit
def far_logs(x, y, by, states, others, number, other, of_x, of_y, length, padding_mask, place, C: tl.constexpr):
    """Sum over the pairs of each token here and all tokens in state `number`, and of those in it and in `other`.

    x are queries and y gradients, where the state is of keys and values; or keys and values, where it is of those.
    """
    batch, first, head = place
    sums, across = tl.full([C.CHUNK], 0.0, tl.float32), 0.0
    for row in range(0, C.M, C.BLOCK_M):
        x_tile = load_part(x, batch, first, head, of_x, length, padding_mask, row, C.BLOCK_M, C.M, False, C)
        x_tile = x_tile.to(tl.float32)
        for column in range(0, C.D, C.BLOCK_D):
            state = load_state(states, number, row, column, True, C)
            y_tile = load_part(y, batch, first, head, of_y, length, padding_mask, column, C.BLOCK_D, C.D, False, C)
            sums += tl.sum(x_tile * tl.dot(y_tile.to(tl.float32), state, input_precision=C.PRECISION), 1)
            across += tl.sum(state * load_state(others, other, row, column, True, C))
        if C.SUMS:
            state = load_sums(states, number, row, C)
            sums += by * tl.sum(x_tile * state[None, :], 1)
            across += tl.sum(state * load_sums(others, other, row, C))
    return sums, across


@triton.jit
def dlog_kernel(q, k, v, g, h, padding_mask, log_decay, states, upstream, dlog, strides, sizes, lead, C: tl.constexpr):
    """Gradient of log_decay at the tokens of a chunk: the sum over all pairs with the token between them.

    Pairs inside the chunk, of a token inside and one outside, and of tokens on its two sides are added up apart, so
    that nothing cancels out over the length of the sequence.
    """
    of_q, of_k, of_v, of_g, of_decay, mask_stride = strides
    length, heads, _, apart = sizes
    batch, head, first, number, _ = place(sizes, 1, C)
    padding_mask += batch.to(tl.int64) * mask_stride
    queries, keys, total = load_logs(log_decay, batch, first, head, of_decay, length, lead, C)
    by = load_gradient(h, padding_mask, batch, head, first, length, heads, C)
    here, of, one = (batch, first, head), (of_q, of_k, of_v, of_g), tl.full([C.CHUNK], 1.0, tl.float32)
    of_query, of_key = near_logs(q, k, v, g, by, queries, keys, of, length, padding_mask, here, lead, C)
    later = number if C.CAUSAL else number + apart
    read, across = far_logs(q, g, by, states, upstream, number, later, of_q, of_g, length, padding_mask, here, C)
    read *= tl.exp2(queries)
    back, _ = far_logs(k, v, one, upstream, states, later, number, of_k, of_v, length, padding_mask, here, C)
    back *= to_end(total, keys)
    onward, shifted = of_query - of_key + read, of_query + read
    if not C.CAUSAL:
        after, earlier = number + apart, number
        seen, more = far_logs(q, g, by, states, upstream, after, earlier, of_q, of_g, length, padding_mask, here, C)
        seen *= to_end(total, queries)
        wrote, _ = far_logs(k, v, one, upstream, states, earlier, after, of_k, of_v, length, padding_mask, here, C)
        onward, back = onward + wrote * tl.exp2(keys), back + seen
        across, shifted = across + more, shifted - seen
    rows = tl.arange(0, C.CHUNK)
    gradient = tl.sum(tl.where(rows[:, None] >= rows[None, :], onward[:, None], back[:, None]), 0)
    gradient += across * tl.exp2(total) + lead * shifted
    offsets = (batch.to(tl.int64) * length + (first + rows).to(tl.int64)) * heads + head
    tl.store(dlog + offsets, gradient, mask=first + rows < length)
