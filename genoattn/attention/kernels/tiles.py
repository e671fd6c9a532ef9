"""Helpers that the kernels share: reading and writing of tiles, the range of visible tiles, the running softmax.

Legend: rows are tokens and columns channels; DIM is the width of a tile, a power of two, and WIDTH ≤ DIM the channels
that are real. Offsets of rows are int64 before they meet a stride: a tensor may hold more than 2^31 numbers.
"""

# pyright does not know that a tl.constexpr has the attributes of its value.
# pyright: reportAttributeAccessIssue=false

import triton
import triton.language as tl

NO_DESCRIPTORS: tl.constexpr = tl.constexpr(False)


REAL: tl.constexpr = tl.constexpr(1)
"""Bit of the byte of a token in a mask that is set for real tokens; the bits above it hold the token's segment."""


@triton.jit
def load_tile(
    source,
    batch,
    first,
    head,
    strides,
    length,
    padding_mask,
    ROWS: tl.constexpr,
    DIM: tl.constexpr,
    WIDTH: tl.constexpr,
    MASKED: tl.constexpr,
    PADDED: tl.constexpr,
    DESCRIPTORS: tl.constexpr = NO_DESCRIPTORS,
):
    """Read a tile [ROWS, DIM] of one head from row `first` on; 0 for rows past the end (MASKED) and padding (PADDED).

    `source` is a pointer, or with DESCRIPTORS a descriptor of [batch, length, heads, WIDTH], which fills with 0.
    Padding is not read, so that a NaN in it has no effect. `padding_mask` points at the row of this sequence.
    """
    if DESCRIPTORS:
        tile = source.load([batch, first, head, 0]).reshape(ROWS, DIM)
    else:
        rows = first + tl.arange(0, ROWS)
        columns = tl.arange(0, DIM)
        offsets = rows.to(tl.int64)[:, None] * strides[1] + columns[None, :]
        pointers = source + batch.to(tl.int64) * strides[0] + head.to(tl.int64) * strides[2] + offsets
        if PADDED:
            real = load_padding_mask(padding_mask, first, length, ROWS)
            tile = tl.load(pointers, mask=real[:, None] & (columns < WIDTH)[None, :], other=0.0)
        elif MASKED:
            tile = tl.load(pointers, mask=(rows < length)[:, None] & (columns < WIDTH)[None, :], other=0.0)
        elif WIDTH < DIM:
            tile = tl.load(pointers, mask=(columns < WIDTH)[None, :], other=0.0)
        else:
            tile = tl.load(pointers)
    return tile


@triton.jit
def load_padding_mask(padding_mask, first, length, ROWS: tl.constexpr):
    """Read the padding mask [ROWS] from row `first` on: true for real tokens, false past the end."""
    return (load_marks(padding_mask, first, length, ROWS) & REAL) != 0


@triton.jit
def load_marks(marks, first, length, ROWS: tl.constexpr):
    """Read the bytes of a mask [ROWS] from row `first` on; 0 past the end."""
    rows = first + tl.arange(0, ROWS)
    return tl.load(marks + rows.to(tl.int64), mask=rows < length, other=0)


@triton.jit
def store_tile(
    target, tile, batch, first, head, strides, length, ROWS: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr
):
    """Write a tile [ROWS, DIM] to the rows from `first` on, only rows < length and channels < WIDTH."""
    rows = first + tl.arange(0, ROWS)
    columns = tl.arange(0, DIM)
    offsets = rows.to(tl.int64)[:, None] * strides[1] + columns[None, :]
    pointers = target + batch.to(tl.int64) * strides[0] + head.to(tl.int64) * strides[2] + offsets
    inside = (rows < length)[:, None] & (columns < WIDTH)[None, :]
    tl.store(pointers, tile.to(target.dtype.element_ty), mask=inside)


@triton.jit
def visible_range(first, last, left, right, span, BLOCK: tl.constexpr, EDGE: tl.constexpr):
    """Bounds (start, full, ragged, stop) of the columns that rows `first` to `last` attend to.

    Row i attends to columns i - left to i + right. Of the columns those before `begin` and from `end` on are hidden,
    and those from `begin` to `solid` are all real; `span` holds the three. Tiles from `full` to `ragged` are attended
    by every row and need no mask. Without EDGE neither `left` nor `begin` hides a column. All bounds but `stop` are
    multiples of BLOCK.
    """
    begin, solid, end = span
    start = tl.maximum(first - left, begin) // BLOCK * BLOCK
    stop = tl.maximum(tl.minimum(last + right + 1, end), start)
    bound = tl.cdiv(stop, BLOCK) * BLOCK
    full = tl.minimum(tl.cdiv(tl.maximum(last - left, begin), BLOCK) * BLOCK, bound) if EDGE else start
    ragged = tl.maximum(tl.maximum(tl.minimum(first + right + 1, solid), 0) // BLOCK * BLOCK, full)
    return start, full, ragged, stop


@triton.jit
def load_span(spans, row, length, MARKED: tl.constexpr):
    """First real token, end of the real tokens that follow it, and end of all real tokens of a row of marks.

    Without marks all tokens are real.
    """
    begin, solid, end = 0, length, length
    if MARKED:
        at = row.to(tl.int64) * 3
        begin = tl.load(spans + at)
        solid = tl.load(spans + (at + 1))
        end = tl.load(spans + (at + 2))
    return begin, solid, end


@triton.jit(do_not_specialize=["length"])
def span_kernel(marks, spans, length, BLOCK: tl.constexpr):
    """The three numbers of `load_span` of one row of marks [rows, length]; 0, 0 and 0 for a row of padding."""
    row = tl.program_id(0)
    marks += row.to(tl.int64) * length
    begin, end = length, 0
    for first in range(0, length, BLOCK):
        index = first + tl.arange(0, BLOCK)
        real = load_padding_mask(marks, first, length, BLOCK)
        begin = tl.minimum(begin, tl.min(tl.where(real, index, length)))
        end = tl.maximum(end, tl.max(tl.where(real, index + 1, 0)))
    begin = tl.minimum(begin, end)
    solid = end
    for first in range(begin // BLOCK * BLOCK, end, BLOCK):
        index = first + tl.arange(0, BLOCK)
        real = load_padding_mask(marks, first, length, BLOCK)
        solid = tl.minimum(solid, tl.min(tl.where(real | (index < begin), end, index)))
    at = row.to(tl.int64) * 3
    tl.store(spans + at, begin)
    tl.store(spans + (at + 1), solid)
    tl.store(spans + (at + 2), end)


@triton.jit
def softmax_step(scores, values, mixed, total, peak, scale, MASKED: tl.constexpr, C: tl.constexpr):
    """Add one tile of keys to a running softmax: weighted sum [rows, DIM], sum of the weights, largest score.

    `scale` holds log2(e), so that exp2(score * scale - peak) is one fused multiply-add and one instruction. Before a
    row has a visible key its peak is -inf, which is replaced by 0 so that -inf - -inf never happens. `C` has the
    PRECISION of products; triton 3.6.0 passes no text as a constant of its own.
    """
    new_peak = tl.maximum(peak, tl.max(scores, 1) * scale)
    safe = tl.where(new_peak == float("-inf"), 0.0, new_peak) if MASKED else new_peak
    weights = tl.exp2(scores * scale - safe[:, None])
    shrink = tl.exp2(peak - safe)
    total = total * shrink + tl.sum(weights, 1)
    mixed = tl.dot(weights.to(values.dtype), values, mixed * shrink[:, None], input_precision=C.PRECISION)
    return mixed, total, new_peak


@triton.jit
def finish_softmax(mixed, total, peak):
    """Output [rows, DIM] and natural log-sum-exp [rows] of a running softmax; 0 and -inf for rows without a key."""
    empty = total == 0.0
    out = mixed / tl.where(empty, 1.0, total)[:, None]
    lse = tl.where(empty, float("-inf"), (peak + tl.log2(tl.where(empty, 1.0, total))) * 0.6931471805599453)
    return out, lse


@triton.jit
def score_gradient(scores, value_products, lse, delta, visible, scale, MASKED: tl.constexpr):
    """Weights and the gradient of the scores [rows, columns] from scores, dO·V, lse and delta (that broadcast).

    `lse` is a natural logarithm and is converted to base 2 here. Pairs that are not visible have weight 0.
    """
    exponents = scores * scale - lse * 1.4426950408889634
    if MASKED:  # before exp2: a hidden score may be far above all visible scores
        exponents = tl.where(visible, exponents, float("-inf"))
    weights = tl.exp2(exponents)
    return weights, weights * (value_products - delta)


@triton.jit
def load_numbers(numbers, batch, head, first, heads, length, ROWS: tl.constexpr):
    """One number for each row from [batch, length, heads], contiguous; 0 past the end."""
    rows = first + tl.arange(0, ROWS)
    offsets = (batch.to(tl.int64) * length + rows.to(tl.int64)) * heads + head
    return tl.load(numbers + offsets, mask=rows < length, other=0.0)
