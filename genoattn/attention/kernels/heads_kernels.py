"""Kernels of the norm and the rotation of queries and keys; no atomics, so results are repeatable.

A program computes some heads of a block of tokens of one sequence, and reads the angles of these tokens once. A head is
read as its two halves, which the rotation mixes.

Legend: x, y and their gradients [batch, length, heads, WIDTH]; gain [batch, length, heads], the factor of a head's
channels; cosine, sine [1 or batch, length, HALF]; log_scale [heads], the logarithm of the mean square of a head's
outputs; `strides` of x (dy), and of y (dx), each (batch, token, head), then of the angles (batch); `sizes` (length,
heads, heads of a program). `factor` multiplies outputs.
"""

# pyright takes a kernel for plain Python, and does not know that a tl.constexpr has the attributes of its value.
# pyright: reportGeneralTypeIssues=false, reportAttributeAccessIssue=false

from typing import NamedTuple

import triton
import triton.language as tl


class HeadsConstants(NamedTuple):
    """Compile-time constants: tokens of a block, channels of the first half and as a power of two, and what to do."""

    ROWS: int
    WIDTH: int
    HALF: int
    DIM: int
    NORMED: bool
    SCALED: bool
    TURNED: bool


@triton.jit
def place(sizes, C: tl.constexpr):
    """Sequence, first token, first head and end of the heads of this program, and the number of its block of tokens."""
    length, heads, group = sizes
    blocks, groups = tl.cdiv(length, C.ROWS), tl.cdiv(heads, group)
    program = tl.program_id(0)
    batch = program // (blocks * groups)
    block = program // groups % blocks
    head = program % groups * group
    return batch, block * C.ROWS, head, tl.minimum(head + group, heads), batch * blocks + block


@triton.jit
def halves(batch, first, head, strides, length, C: tl.constexpr):
    """Offsets (int64) and masks of the two halves [ROWS, DIM] of a head."""
    rows, columns = first + tl.arange(0, C.ROWS), tl.arange(0, C.DIM)
    start = batch.to(tl.int64) * strides[0] + head.to(tl.int64) * strides[2]
    offsets = start + rows.to(tl.int64)[:, None] * strides[1] + columns[None, :]
    real = (rows < length)[:, None]
    return offsets, real & (columns < C.HALF)[None, :], real & (columns < C.WIDTH - C.HALF)[None, :]


@triton.jit
def load_halves(source, at, C: tl.constexpr):
    """The two halves of a head in float32; 0 outside."""
    offsets, first, second = at
    return (
        tl.load(source + offsets, mask=first, other=0.0).to(tl.float32),
        tl.load(source + (offsets + C.HALF), mask=second, other=0.0).to(tl.float32),
    )


@triton.jit
def store_halves(target, one, other, at, C: tl.constexpr):
    """Write the two halves of a head."""
    offsets, first, second = at
    tl.store(target + offsets, one.to(target.dtype.element_ty), mask=first)
    tl.store(target + (offsets + C.HALF), other.to(target.dtype.element_ty), mask=second)


@triton.jit
def load_angles(cosine, sine, batch, first, stride, length, C: tl.constexpr):
    """Cosine and sine [ROWS, DIM] of a block of tokens."""
    rows, columns = first + tl.arange(0, C.ROWS), tl.arange(0, C.DIM)
    offsets = batch.to(tl.int64) * stride + rows.to(tl.int64)[:, None] * C.HALF + columns[None, :]
    inside = (rows < length)[:, None] & (columns < C.HALF)[None, :]
    return tl.load(cosine + offsets, mask=inside, other=0.0), tl.load(sine + offsets, mask=inside, other=0.0)


@triton.jit
def heads_forward_kernel(x, log_scale, cosine, sine, y, gain, strides, sizes, factor, C: tl.constexpr):
    """y = x / rms(x) · exp(log_scale / 2) · factor, turned."""
    of_x, of_y, of_angles = strides
    length, heads, _ = sizes
    batch, first, head, stop, _ = place(sizes, C)
    rows = (first + tl.arange(0, C.ROWS)).to(tl.int64)
    if C.TURNED:
        cos, sin = load_angles(cosine, sine, batch, first, of_angles, length, C)
    while head < stop:
        one, other = load_halves(x, halves(batch, first, head, of_x, length, C), C)
        if C.NORMED:
            square = (tl.sum(one * one, 1) + tl.sum(other * other, 1)) / C.WIDTH + 1e-6
            by = factor / tl.sqrt(square)
            if C.SCALED:
                by *= tl.exp(tl.load(log_scale + head.to(tl.int64)).to(tl.float32) / 2)
            tl.store(gain + ((batch.to(tl.int64) * length + rows) * heads + head), by, mask=rows < length)
            one, other = one * by[:, None], other * by[:, None]
        else:
            one, other = one * factor, other * factor
        if C.TURNED:
            one, other = one * cos - other * sin, one * sin + other * cos
        store_halves(y, one, other, halves(batch, first, head, of_y, length, C), C)
        head += 1


@triton.jit
def heads_backward_kernel(dy, y, gain, log_scale, cosine, sine, dx, along, strides, sizes, factor, C: tl.constexpr):
    """dx from y, which a turn changes neither in length nor in its product with dy; `along` [blocks, heads] sums that.

    y is contiguous, as dx is.
    """
    of_dy, of_y, of_angles = strides
    length, heads, _ = sizes
    batch, first, head, stop, block = place(sizes, C)
    rows = (first + tl.arange(0, C.ROWS)).to(tl.int64)
    if C.TURNED:
        cos, sin = load_angles(cosine, sine, batch, first, of_angles, length, C)
    while head < stop:
        one, other = load_halves(dy, halves(batch, first, head, of_dy, length, C), C)
        at = halves(batch, first, head, of_y, length, C)
        if C.NORMED:
            y_one, y_other = load_halves(y, at, C)
            product = tl.sum(one * y_one, 1) + tl.sum(other * y_other, 1)
            square = factor * factor
            if C.SCALED:
                square *= tl.exp(tl.load(log_scale + head.to(tl.int64)).to(tl.float32))
                tl.store(along + (block.to(tl.int64) * heads + head), tl.sum(product, 0))
            by = tl.load(gain + ((batch.to(tl.int64) * length + rows) * heads + head), mask=rows < length, other=0.0)
            less = (product * by / (C.WIDTH * square))[:, None]
            one, other = one * by[:, None] - y_one * less, other * by[:, None] - y_other * less
        else:
            one, other = one * factor, other * factor
        if C.TURNED:
            one, other = one * cos + other * sin, other * cos - one * sin
        store_halves(dx, one, other, at, C)
        head += 1
