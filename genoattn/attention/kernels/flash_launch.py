"""Launches of the kernels of flash attention: tiles, constants, strides and outputs of each pass."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from genoattn.attention.kernels import launch
from genoattn.attention.kernels.configurations import NARROW, Tiles, flash_tiles, power_of_two
from genoattn.attention.kernels.flash_backward import delta_kernel, dkv_kernel, dq_kernel
from genoattn.attention.kernels.flash_forward import FlashConstants, forward_kernel
from genoattn.attention.kernels.tiles import span_kernel

LOG2E = 1.4426950408889634


class _Masks(NamedTuple):
    """Masks beside the window: a byte for each query and each key (None: all are seen), and costs of distance."""

    q_marks: Tensor | None
    k_marks: Tensor | None
    costs: Tensor | None
    segments: bool

    def phases(self, batch: int) -> int:
        """Groups of heads with marks of their own."""
        marks = self.k_marks if self.q_marks is None else self.q_marks
        return 1 if marks is None else marks.shape[0] // batch

    def pointers(self, spans: Tensor | None, stand_in: Tensor) -> list[Tensor]:
        """Arguments of a kernel; `stand_in` in the place of those that it does not read."""
        given = (self.q_marks, self.k_marks, spans, self.costs)
        return [stand_in if tensor is None else tensor for tensor in given]


class _Setup(NamedTuple):
    """Tiles of one kernel, the constants that it is compiled for, its inputs as pointers or descriptors."""

    tiles: Tiles
    constants: dict[str, Any]
    sources: Sequence[Tensor | TensorDescriptor]


def _setup(
    kernel: str, by_query: Sequence[Tensor], by_key: Sequence[Tensor], masks: _Masks, reach: int, edge: bool
) -> _Setup:
    """Setup of a kernel that reads the tensors of `by_query` in query tiles and those of `by_key` in key tiles.

    `reach` is the number of keys that a window holds beside the query's own, and `edge` is true if it is bounded on its
    far side, so that the tiles there need a mask.
    """
    tensors = [*by_query, *by_key]
    width, family = tensors[0].shape[-1], launch.family(tensors[0].device)
    dim = power_of_two(width)
    marked = masks.q_marks is not None, masks.k_marks is not None
    narrow = reach < NARROW < by_key[0].shape[1]
    mode = "narrow" if narrow else "marked" if any(marked) else "plain"
    tiles = flash_tiles(kernel, family, dim, tensors[0].element_size(), mode, launch.INTERPRETED)
    # Padding must not be read, and a descriptor reads whole tiles.
    descriptors = not any(marked) and launch.has_descriptors(family) and launch.can_describe(tensors)
    fixed = FlashConstants(
        BLOCK_Q=tiles.queries,
        BLOCK_K=tiles.keys,
        DIM=dim,
        WIDTH=width,
        EDGE=edge or marked[0 if kernel == "dkv" else 1],
        FULL=not masks.segments and not narrow,
        Q_MARKS=marked[0],
        K_MARKS=marked[1],
        SEGMENTS=masks.segments,
        ALIBI=masks.costs is not None,
        DESCRIPTORS=descriptors,
        PRECISION=launch.precision(tensors[0].dtype, family),
    )
    constants = {"C": fixed, "num_warps": tiles.warps, "num_stages": tiles.stages}
    if not descriptors:
        return _Setup(tiles, constants, tensors)
    queries = [launch.described(tensor, tiles.queries, dim) for tensor in by_query]
    return _Setup(tiles, constants, queries + [launch.described(tensor, tiles.keys, dim) for tensor in by_key])


def _spans(marks: Tensor | None) -> Tensor | None:
    """First real token, end of the real tokens that follow it, and end of all real tokens, of each row of marks."""
    if marks is None:
        return None
    spans = torch.empty(marks.shape[0], 3, dtype=torch.int32, device=marks.device)
    launch.launch(span_kernel, marks.shape[0], [marks, spans, marks.shape[1]], {"BLOCK": launch.ROWS_OF_SPAN})
    return spans


def _same(a: Tensor | None, b: Tensor | None) -> bool:
    """True if both are the same numbers in memory, as the marks of queries and keys are where their masks are."""
    return a is not None and b is not None and a.data_ptr() == b.data_ptr() and a.shape == b.shape


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_marks: Tensor | None,
    k_marks: Tensor | None,
    costs: Tensor | None,
    segments: bool,
    left: int,
    right: int,
    before: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Outputs [batch, length, heads, dim_head] and natural log-sum-exps [batch, heads, length], these in float32."""
    batch, length, heads, _ = q.shape
    masks = _Masks(q_marks, k_marks, costs, segments)
    dtype, (q, k, v) = q.dtype, (launch.readable(tensor) for tensor in (q, k, v))
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(batch, heads, length, dtype=torch.float32, device=q.device)
    setup = _setup("forward", [q], [k, v], masks, left + right, left < length + before)
    strides = (*map(launch.strides_of, (q, k, v, out)),)
    sizes = (length, k.shape[1], heads, heads // k.shape[2], masks.phases(batch))
    programs = -(-length // setup.tiles.queries) * heads * batch
    arguments = [*setup.sources, *masks.pointers(_spans(k_marks), lse), out, lse]
    launch.launch(
        forward_kernel,
        programs,
        [*arguments, strides, sizes, left, right, before, scale * LOG2E],
        setup.constants,
    )
    return out.to(dtype), lse


def row_deltas(out: Tensor, dout: Tensor, dlse: Tensor, marks: Tensor | None) -> Tensor:
    """delta = rowsum(dO ∘ O) - dlse [batch, heads, length], which the gradients of the scores need."""
    batch, length, heads, width = out.shape
    delta = torch.empty(dlse.shape, dtype=dlse.dtype, device=dlse.device)
    phases = 1 if marks is None else marks.shape[0] // batch
    rows = launch.ROWS_OF_DELTA
    constants = {"BLOCK": rows, "DIM": power_of_two(width), "WIDTH": width, "PADDED": marks is not None}
    strides = launch.strides_of(out), launch.strides_of(dout)
    arguments = [out, dout, dlse, dlse if marks is None else marks, delta, strides, (length, heads, phases)]
    launch.launch(delta_kernel, -(-length // rows) * heads * batch, arguments, constants)
    return delta


def backward(
    dout: Tensor,
    dlse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    q_marks: Tensor | None,
    k_marks: Tensor | None,
    costs: Tensor | None,
    out: Tensor,
    lse: Tensor,
    segments: bool,
    left: int,
    right: int,
    before: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, each in its own shape and dtype, contiguous."""
    batch, length, heads, _ = q.shape
    keys, kv_heads, dtype = k.shape[1], k.shape[2], q.dtype
    masks = _Masks(q_marks, k_marks, costs, segments)
    q, k, v, out, dout = (launch.readable(tensor) for tensor in (q, k, v, out, dout))
    dlse, lse = dlse.contiguous(), lse.contiguous()
    delta = row_deltas(out, dout, dlse, q_marks)
    dq, dk, dv = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q, k, v))
    strides = [launch.strides_of(tensor) for tensor in (q, k, v, dout)]
    group, phases = heads // kv_heads, masks.phases(batch)
    window = (left, right, before, scale * LOG2E)
    spans = _spans(k_marks)
    setup = _setup("dq", [q, dout], [k, v], masks, left + right, left < length + before)
    q_source, dout_source, k_source, v_source = setup.sources
    arguments = [q_source, k_source, v_source, *masks.pointers(spans, lse), dout_source, lse, delta, dq]
    arguments += [(*strides, launch.strides_of(dq)), (length, keys, heads, group, phases), *window]
    launch.launch(dq_kernel, -(-length // setup.tiles.queries) * heads * batch, arguments, setup.constants)
    spans = spans if _same(q_marks, k_marks) else _spans(q_marks)
    setup = _setup("dkv", [q, dout], [k, v], masks, left + right, right < keys - before)
    q_source, dout_source, k_source, v_source = setup.sources
    arguments = [q_source, k_source, v_source, *masks.pointers(spans, lse), dout_source, lse, delta, dk, dv]
    arguments += [(*strides, launch.strides_of(dk), launch.strides_of(dv)), (length, keys, kv_heads, group, phases)]
    launch.launch(dkv_kernel, -(-keys // setup.tiles.keys) * kv_heads * batch, [*arguments, *window], setup.constants)
    return dq.to(dtype), dk.to(dtype), dv.to(dtype)
