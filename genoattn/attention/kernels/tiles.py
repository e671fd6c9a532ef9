"""What the softmax kernels share: reading tiles, which tiles are within reach, one step of a running softmax.

Legend: rows are tokens and columns channels; DIM is the width of a tile, a power of two, and WIDTH ≤ DIM the channels
that are real. Offsets of rows are int64 before they meet a stride: a tensor may hold more than 2^31 numbers.
"""

import triton
import triton.language as tl


@triton.jit
def load_tile(
    source, batch, first, head, strides, length, keep,
    ROWS: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr,
    MASKED: tl.constexpr, KEEP: tl.constexpr, DESCRIPTORS: tl.constexpr,
):  # fmt: skip
    """ROWS rows [ROWS, DIM] of one head from row `first` on; rows past the end are 0 with MASKED, padding with KEEP.

    `source` is a pointer, or with DESCRIPTORS a descriptor of [batch, length, heads, WIDTH], which fills with 0.
    Padding is not read at all, so that a NaN in it goes nowhere. `keep` points at this sequence's row of flags.
    """
    if DESCRIPTORS:
        tile = source.load([batch, first, head, 0]).reshape(ROWS, DIM)
    else:
        rows = first + tl.arange(0, ROWS)
        columns = tl.arange(0, DIM)
        offsets = rows.to(tl.int64)[:, None] * strides[1] + columns[None, :]
        pointers = source + batch.to(tl.int64) * strides[0] + head.to(tl.int64) * strides[2] + offsets
        if KEEP:
            real = load_keep(keep, first, length, ROWS)
            tile = tl.load(pointers, mask=real[:, None] & (columns < WIDTH)[None, :], other=0.0)
        elif MASKED:
            tile = tl.load(pointers, mask=(rows < length)[:, None] & (columns < WIDTH)[None, :], other=0.0)
        elif WIDTH < DIM:
            tile = tl.load(pointers, mask=(columns < WIDTH)[None, :], other=0.0)
        else:
            tile = tl.load(pointers)
    return tile


@triton.jit
def load_keep(keep, first, length, ROWS: tl.constexpr):
    """Which of ROWS rows are real tokens: [ROWS], false past the end."""
    rows = first + tl.arange(0, ROWS)
    return tl.load(keep + rows.to(tl.int64), mask=rows < length, other=0) != 0


@triton.jit
def store_tile(
    target, tile, batch, first, head, strides, length,
    ROWS: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr,
):  # fmt: skip
    """Write a tile [ROWS, DIM] back to rows `first` and on, real rows and channels alone, in the target's dtype."""
    rows = first + tl.arange(0, ROWS)
    columns = tl.arange(0, DIM)
    offsets = rows.to(tl.int64)[:, None] * strides[1] + columns[None, :]
    pointers = target + batch.to(tl.int64) * strides[0] + head.to(tl.int64) * strides[2] + offsets
    inside = (rows < length)[:, None] & (columns < WIDTH)[None, :]
    tl.store(pointers, tile.to(target.dtype.element_ty), mask=inside)


@triton.jit
def reach(first, last, left, right, length, BLOCK: tl.constexpr, LEFT_EDGE: tl.constexpr, KEEP: tl.constexpr):
    """Where the tiles that rows `first` to `last` see begin, become full, cease to be full, and end.

    A row i sees i - left to i + right. All but the end are multiples of BLOCK. In full tiles each of the rows sees
    each column, so they need no mask; where padding is possible there are none.
    """
    start = tl.maximum(first - left, 0) // BLOCK * BLOCK
    stop = tl.minimum(last + right + 1, length)
    if KEEP:
        return start, stop, stop, stop
    bound = tl.cdiv(stop, BLOCK) * BLOCK
    full = tl.minimum(tl.cdiv(tl.maximum(last - left, 0), BLOCK) * BLOCK, bound) if LEFT_EDGE else start
    ragged = tl.maximum(tl.minimum(first + right + 1, length) // BLOCK * BLOCK, full)
    return start, full, ragged, stop


@triton.jit
def softmax_step(scores, values, mixed, total, peak, scale, MASKED: tl.constexpr, PRECISION: tl.constexpr):
    """One tile of keys into a running softmax: what is mixed [rows, DIM], the weights' total, the peak score.

    `scale` holds log2(e), so that exp2(score * scale - peak) is one fused multiply-add and one instruction. A row that
    has seen nothing yet has a peak of -inf, which is taken for 0 so that -inf - -inf never happens.
    """
    new_peak = tl.maximum(peak, tl.max(scores, 1) * scale)
    safe = tl.where(new_peak == float("-inf"), 0.0, new_peak) if MASKED else new_peak
    weights = tl.exp2(scores * scale - safe[:, None])
    shrink = tl.exp2(peak - safe)
    total = total * shrink + tl.sum(weights, 1)
    mixed = tl.dot(weights.to(values.dtype), values, mixed * shrink[:, None], input_precision=PRECISION)
    return mixed, total, new_peak


@triton.jit
def finish_softmax(mixed, total, peak):
    """The answer [rows, DIM] and the natural log of the weights' sum [rows]; 0 and -inf where nothing was seen."""
    blind = total == 0.0
    out = mixed / tl.where(blind, 1.0, total)[:, None]
    lse = tl.where(blind, float("-inf"), (peak + tl.log2(tl.where(blind, 1.0, total))) * 0.6931471805599453)
    return out, lse


@triton.jit
def score_gradient(scores, value_products, lse, delta, visible, scale, MASKED: tl.constexpr):
    """Weights and the gradient of the scores [rows, columns] from scores, dO·V, lse and delta (that broadcast).

    `lse` is natural and meets the base-2 scores here. What is not visible has weight 0 even where lse is -inf.
    """
    exponents = scores * scale - lse * 1.4426950408889634
    if MASKED:  # before the power: a hidden score may be far above all that are seen
        exponents = tl.where(visible, exponents, float("-inf"))
    weights = tl.exp2(exponents)
    return weights, weights * (value_products - delta)
