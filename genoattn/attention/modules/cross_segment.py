"""Heads that see only the tokens of another segment, by slices of the sequence or by a mask of the keys.

A context of two segments, A (reference) and B (sample), has tokens a1 a2 b1 b2, or a1 b1 a2 b2 if it is interleaved.
These heads must see

             a1   a2   b1   b2                       a1   b1   a2   b2
        a1    .    .    x    x                  a1    .    x    .    x
        a2    .    .    x    x                  b1    x    .    x    .     x: seen
        b1    x    x    .    .                  a2    .    x    .    x     .: hidden
        b2    x    x    .    .                  b2    x    .    x    .

The queries of one segment with the keys of the other are two slices of the sequence, at a quarter of the cost of the
square each. A layer's operator computes them like any other queries and keys. Where segments lie in another order, or
where the operator has no equivalent on slices, it computes each segment's queries over all tokens with a mask of the
keys. A query without another segment to see has the output 0.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.base import TokenLayout, zero_padding
from genoattn.attention.layout import Span
from genoattn.attention.modules.pieces import join, split
from genoattn.attention.modules.reference import Columns, reference_attention

IDS = 128
"""Segments that `attend` can tell apart in one call, if it knows segments at all: ids from 0 to 127."""


class View(NamedTuple):
    """The tokens of one call of a layer's operator: some queries of a sequence and the keys that they may see."""

    causal: bool
    """True if query s sees the keys up to s only, both counted in their slices."""
    padding_mask: Tensor | None = None
    """True for the queries to answer (None: all); the output is 0 elsewhere."""
    key_mask: Tensor | None = None
    """True for the keys to read (None: those of `padding_mask`)."""
    queries: slice = slice(None)
    keys: slice = slice(None)
    lead: int = 0
    """Index in the sequence of the first query, less that of the first key."""
    stride: int = 1
    """Distance in the sequence of neighbours in a slice."""
    counts: tuple[int, int] = (0, 0)
    """Number of queries and of keys, if they are slices."""
    heads: slice = slice(None)
    """The heads of the layer that are computed."""
    segments: tuple[Tensor, Tensor] | None = None
    """Segments of the queries and of the keys, of which a query sees those of other segments only."""

    def sides(self, left: int, right: int) -> tuple[int, int]:
        """The sides of a window of the sequence, counted in the slices; below 0 where no window of them is the same."""
        if self.stride == 1:
            return left, right
        # Query i stands 2 (i - j) + lead tokens after key j. The first key of slot -1 moves to slot 0.
        ahead = self.lead - 2 * self.first
        return (left - ahead) // 2, (right + ahead) // 2

    @property
    def first(self) -> int:
        """Keys before the first query, in slices of every other token."""
        return max(0, (self.lead - 1) // 2)


Attend: TypeAlias = Callable[[Tensor, Tensor, Tensor, View], Tensor]
"""A layer's operator: outputs of queries q over keys k and values v `[batch, tokens, heads, channels]` of a view."""


def cross_segment_attention(
    attend: Attend,
    q: Float[Tensor, "batch queries heads dim_head"],
    k: Float[Tensor, "batch keys kv_heads dim_head"],
    v: Float[Tensor, "batch keys kv_heads dim_value"],
    *,
    cross_heads: int,
    layout: TokenLayout,
    causal: bool,
    fits: Callable[[View], bool] = lambda _: True,
    before: int = 0,
    alone: Float[Tensor, "batch queries heads dim_value"] | None = None,
    knows_segments: bool = False,
) -> Float[Tensor, "batch queries heads dim_value"]:
    """Apply `attend`, with the last `cross_heads` heads limited to keys of other segments.

    Args:
        attend: The layer's operator.
        q: Queries.
        k: Keys.
        v: Values.
        cross_heads: Number of heads that see other segments only.
        layout: Layout of the keys.
        causal: Hide later tokens.
        fits: True for the slices that `attend` can compute; else it gets all tokens, with a mask of the keys.
        before: Tokens before the first query.
        alone: Outputs of queries that see no token (None: 0).
        knows_segments: True if `attend` computes views with `segments`; it then gets them in one call.
    """
    mask, own = layout.padding_mask, q.shape[2] - cross_heads
    plain = View(causal, _queries_of(mask, before, q), None if q.shape[1] == k.shape[1] else mask, heads=slice(own))
    if not cross_heads:
        return attend(q, k, v, plain)
    if own % (each := q.shape[2] // k.shape[2]):  # heads of both kinds share a key
        k, v, each = k.repeat_interleave(each, dim=2), v.repeat_interleave(each, dim=2), 1
    heads, own_keys = slice(-cross_heads, None), own // each
    views = slices(layout, q.shape[1], causal, before) if len(layout.segments) > 1 else []
    if not views or not all(fits(view) for view in views):
        if len(layout.segments) > 1 or alone is None:
            masked = _by_ids if knows_segments and set(layout.segments) <= set(range(IDS)) else _masked
            y = masked(attend, q[:, :, own:], k[:, :, own_keys:], v[:, :, own_keys:], layout, causal, before)
        else:
            y = zero_padding(alone[:, :, own:], _queries_of(mask, before, q))
        if not own:
            return y
        return torch.cat([attend(q[:, :, :own], k[:, :, :own_keys], v[:, :, :own_keys], plain), y], dim=2)
    views = [*([plain] if own else []), *(view._replace(heads=heads) for view in views)]
    asked = [(view.queries, view.heads) for view in views]
    shown = [(view.keys, slice(own_keys) if view is plain else slice(own_keys, None)) for view in views]
    parts = [attend(*qkv) for qkv in zip(split(q, asked), split(k, shown), split(v, shown), views, strict=True)]
    y = join(parts, asked, v.shape[:1] + q.shape[1:3] + v.shape[3:])
    answered = torch.zeros(q.shape[1], dtype=torch.bool)
    for queries, _ in asked[own > 0 :]:
        answered[queries] = True
    if alone is None or answered.all():
        return y
    some = zero_padding(alone[:, :, own:], _queries_of(mask, before, q))
    crossing = torch.where(answered.to(q.device)[:, None, None], y[:, :, own:], some.to(y.dtype))
    return torch.cat([y[:, :, :own], crossing], dim=2)


def _masked(attend: Attend, q: Tensor, k: Tensor, v: Tensor, layout: TokenLayout, causal: bool, before: int) -> Tensor:
    """Attention of all heads to other segments only, by a mask of the keys for the queries of each segment."""
    y, heads = v.new_zeros(*q.shape[:3], v.shape[3]), slice(-q.shape[2], None)
    if len(layout.segments) < 2:
        return y
    for view in _by_segment(layout, causal):
        y = y + attend(q, k, v, view._replace(padding_mask=_queries_of(view.padding_mask, before, q), heads=heads))
    return y


def attend_over_shards(
    attend: Callable[[View], Tensor],
    v: Float[Tensor, "batch shard heads dim_value"],
    *,
    cross_heads: int,
    span: Span,
    causal: bool,
) -> Float[Tensor, "batch shard heads dim_value"]:
    """`cross_segment_attention` of a shard of a sequence, always by masks, which are those of the whole sequence.

    Args:
        attend: Outputs of the queries of the shard, for the heads of a view, 0 at tokens that its mask leaves out.
        v: Values of the shard.
        cross_heads: Number of heads that see other segments only.
        span: The shard.
        causal: Hide later tokens.
    """
    whole, own = span.whole, v.shape[2] - cross_heads
    parts = [attend(View(causal, whole.padding_mask, heads=slice(own)))] if own else []
    if cross_heads:
        y, heads = torch.zeros_like(v[:, :, own:]), slice(own, None)
        if len(whole.segments) > 1:
            y = sum((attend(view._replace(heads=heads)) for view in _by_segment(whole, causal)), y)
        parts.append(y)
    return torch.cat(parts, dim=2)


def _by_segment(layout: TokenLayout, causal: bool) -> Iterator[View]:
    """The queries of each segment with the keys of all others, by masks."""
    assert layout.segment_ids is not None
    for segment in layout.segments:
        own = layout.segment_ids == segment
        others = ~own
        if layout.padding_mask is not None:
            own, others = own & layout.padding_mask, others & layout.padding_mask
        yield View(causal, own, others)


def _by_ids(attend: Attend, q: Tensor, k: Tensor, v: Tensor, layout: TokenLayout, causal: bool, before: int) -> Tensor:
    """`_masked` in one call, by the segments of queries and keys."""
    if len(layout.segments) < 2:
        return v.new_zeros(*q.shape[:3], v.shape[3])
    mask, ids, heads = layout.padding_mask, layout.segment_ids, slice(-q.shape[2], None)
    assert ids is not None
    segments = ids[:, before : before + q.shape[1]], ids
    return attend(q, k, v, View(causal, _queries_of(mask, before, q), mask, heads=heads, segments=segments))


def slices(layout: TokenLayout, queries: int, causal: bool, before: int = 0, shift: bool = True) -> list[View]:
    """The queries of each segment with the keys of the other, if the layout has two segments in such an order.

    With `shift`, a causal query s sees the keys up to s of its slice: if the first token of a slice of queries stands
    before the first key, it sees nothing and is left out.
    """
    length = 0 if layout.segment_ids is None else layout.segment_ids.shape[1]
    views = []
    if layout.alternating:
        for parity in (0, 1):
            start, first = (parity - before) % 2, 1 - parity
            if causal and shift and before + start < first:
                start += 2
            count, lead = len(range(start, queries, 2)), before + start - first
            # Causal queries and keys are as many, but for the keys before the first query.
            stop = min(length, first + 2 * ((lead - 1) // 2 + count)) if causal and shift else length
            views.append(_view(layout, slice(start, queries, 2), slice(first, stop, 2), causal, lead, before))
    elif layout.boundary is not None:
        boundary, first = layout.boundary, min(max(layout.boundary - before, 0), queries)  # queries of each segment
        early, late = slice(0, boundary), slice(boundary, length)
        views.append(_view(layout, slice(first, queries), early, False, before + first, before))
        if not causal:
            views.append(_view(layout, slice(0, first), late, False, before - boundary, before))
    return [view for view in views if all(view.counts)]


def _view(layout: TokenLayout, queries: slice, keys: slice, causal: bool, lead: int, before: int) -> View:
    mask = layout.padding_mask
    counts = (
        len(range(queries.start, queries.stop, queries.step or 1)),
        len(range(keys.start, keys.stop, keys.step or 1)),
    )
    return View(
        causal,
        None if mask is None else mask[:, before:][:, queries],
        None if mask is None else mask[:, keys],
        queries,
        keys,
        lead,
        queries.step or 1,
        counts,
    )


def _queries_of(mask: Tensor | None, before: int, q: Tensor) -> Tensor | None:
    return None if mask is None else mask[:, before : before + q.shape[1]]


def reference_cross_segment_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length kv_heads dim_head"],
    v: Float[Tensor, "batch length kv_heads dim_head"],
    *,
    visible: Bool[Tensor, "#batch length length"],
    cross_heads: int,
    segments: Int[Tensor, "batch length"] | None,
    bias: Float[Tensor, "heads length length"] | None = None,
    beside: Columns | None = None,
) -> Float[Tensor, "batch length heads dim_head"]:
    """`cross_segment_attention` over the full score matrix, for `naive`."""
    k, v = (t.repeat_interleave(q.shape[2] // t.shape[2], dim=2) for t in (k, v))
    if not cross_heads:
        return reference_attention(q, k, v, visible=visible, bias=bias, beside=beside)
    own = q.shape[2] - cross_heads
    parts = []
    for heads, seen in ((slice(own), visible), (slice(own, None), visible & other_segment(segments, q))):
        some = (t[:, :, heads] for t in (q, k, v))
        parts.append(reference_attention(*some, visible=seen, beside=None if beside is None else beside.of(heads)))
    return torch.cat(parts, dim=2)


def reference_masks(
    layout: TokenLayout, x: Float[Tensor, "batch length ..."], across: bool
) -> list[tuple[Bool[Tensor, "batch length"], Bool[Tensor, "batch length"]]]:
    """The real queries and keys; `across`, those of each segment with those of all others. For `naive`."""
    real, ids = layout.padding_mask, layout.segment_ids
    if real is None:
        real = torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
    if not across:
        return [(real, real)]
    if ids is None:
        ids = torch.zeros(x.shape[:2], dtype=torch.long, device=x.device)
    return [(real & (ids == segment), real & (ids != segment)) for segment in ids.unique()]


def other_segment(
    segments: Int[Tensor, "batch length"] | None, x: Float[Tensor, "batch length ..."]
) -> Bool[Tensor, "batch length length"]:
    """True for the pairs [batch, query, key] of different segments."""
    if segments is None:
        return torch.zeros(len(x), x.shape[1], x.shape[1], dtype=torch.bool, device=x.device)
    return segments[:, :, None] != segments[:, None, :]
