"""Softmax attention over a sliding window: exact inside the window, linear in the length."""

from collections.abc import Iterator
from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from genoattn.attention.base import Attention, ChunkReader, State, TokenLayout, zero_padding
from genoattn.attention.modules.cross_segment import (
    View,
    cross_segment_attention,
    reference_cross_segment_attention,
)
from genoattn.attention.modules.dispatch import Backend
from genoattn.attention.modules.kv_cache import KVCache
from genoattn.attention.modules.projections import HeadOptions, QKVProjection
from genoattn.attention.modules.reference import visibility_mask
from genoattn.attention.modules.registers import Registers
from genoattn.attention.modules.rotary import position_ids_of, slopes
from genoattn.attention.modules.streaming import with_positions
from genoattn.attention.ops import flex as by_flex
from genoattn.attention.ops import triton as by_triton
from genoattn.attention.ops.sliding_window import window_attention
from genoattn.attention.ops.sliding_window_blocks import Window, scored_pairs
from genoattn.attention.parallel import Span, fetch, tied
from genoattn.attention.parallel.global_tokens import Seen, attend_from_few, first_tokens, seen_by_first
from genoattn.errors import UserError


@final
class WindowAttention(Attention):
    """Sliding-window softmax attention: y_i = Σ_j softmax_j(q_i·k_j / √d) v_j over j in [i - left, i + right].

    A token sees `left` tokens before and `right` tokens after itself (none after, if causal), counted in indices; with
    `dilation` every dilation-th of them. The first `global_tokens` of a sequence see all tokens and are seen by all.
    Time and memory are linear in the length. Papers: Longformer, arXiv:2004.05150; ALiBi, arXiv:2108.12409.
    """

    complexity = "linear"

    def __init__(
        self,
        dim: int,
        causal: bool,
        heads: HeadOptions = HeadOptions(),
        left: int = 128,
        right: int = 128,
        dilation: int = 1,
        global_tokens: int = 0,
        kv_heads: int | None = None,
        sink: bool = False,
        registers: int = 0,
        backend: str = "auto",
    ):
        super().__init__()
        for name, value in (("left", left), ("right", right), ("global_tokens", global_tokens)):
            if value < 0:
                raise UserError(f"attention.{name} must be 0 or more tokens, got {value}")
        if dilation < 1:
            raise UserError(f"attention.dilation must be 1 or more tokens, got {dilation}")
        if heads.positions == "alibi" and (heads.cross_segment or global_tokens):
            raise UserError(
                "heads.positions=alibi measures the distance between neighbours, which says nothing of another "
                "segment or of global tokens: with heads.cross_segment or attention.global_tokens take rotary or none"
            )
        self.heads = QKVProjection(dim, heads, kv_heads, ("rotary", "alibi", "none"))
        self.registers = Registers(self.heads, registers, sink)
        self.causal = causal
        self.weights_sum_to_one = self.heads.averages and not self.registers.any
        self.left, self.right = left, 0 if causal else right
        self.global_tokens, self.stride = global_tokens, dilation
        if not global_tokens:
            self.receptive_field = (self.left * dilation, self.right * dilation)
        self.alibi = heads.positions == "alibi"
        self.engine = Backend(backend, "flash", flex=True)
        self.asymmetry = self.heads.asymmetry
        if self.asymmetry is None and (left != right or global_tokens):
            self.asymmetry = "left and right are not as wide" if left != right else "global tokens are the first ones"

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        positions = position_ids_of(x, layout.position_ids)
        return self.heads.combine(self._attend(*self.heads.project_and_rotate(x, layout), layout, positions), x, layout)

    def forward_span(
        self, x: Float[Tensor, "batch shard dim"], layout: TokenLayout, span: Span
    ) -> Float[Tensor, "batch shard dim"]:
        """Neighbours and global tokens are fetched; what global tokens read of all shards is summed over processes."""
        if not self.global_tokens:
            return super().forward_span(x, layout, span)
        first = min(self.global_tokens, span.total)
        seen = Seen(span, first, self.left * self.stride, self.right * self.stride)
        came, before = fetch(x, span, seen.others), seen.before
        shard = slice(before, before + span.length)
        wide = torch.cat([came[:, :before], x, came[:, before:]], dim=1)
        keys = span.whole.at(wide, seen.index(x.device))
        q, k, v = self.heads.project_and_rotate(wide, keys)
        q = q[:, shard]
        y = self._attend(q, k, v, keys, position_ids_of(x, layout.position_ids), before)
        if not self.causal:
            few = self._global_outputs(q, k[:, shard], v[:, shard], layout, span)[:, span.start : span.stop]
            y = torch.cat([few, y[:, few.shape[1] :]], dim=1)
        return self.heads.combine(tied(y, came), x, layout)

    def _global_outputs(self, q: Tensor, k: Tensor, v: Tensor, layout: TokenLayout, span: Span) -> Tensor:
        """Outputs of the global tokens of a sequence, which see all shards, from what this shard has."""
        first = min(self.global_tokens, span.total)
        q = first_tokens(q, span, first)
        whole = span.whole.part(q, 0)
        beside = self.registers(q, position_ids_of(q, whole.position_ids), self.heads)
        visible = seen_by_first(span, layout, k, first, (self.heads.own_heads, self.heads.cross_heads))
        return zero_padding(attend_from_few(q, k, v, visible, span, beside), whole.padding_mask)

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, layout: TokenLayout, positions: Tensor, before: int = 0
    ) -> Tensor:
        """Outputs of the queries at these positions, the first of which is token `before` of the keys.

        The layout is that of the keys.
        """
        costs = slopes(self.heads.count, k.device, torch.promote_types(k.dtype, torch.float32)) if self.alibi else None

        beside = self.registers(q, positions, self.heads)

        fused, flex = self.engine.uses_triton(q), self.engine.uses_flex(q)
        by = by_triton.window_attention if fused else by_flex.window_attention if flex else window_attention

        def attend(q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
            first, (left, right) = before if view.stride == 1 else view.first, view.sides(self.left, self.right)
            more: dict[str, Any] = {} if view.segments is None else {"segments": view.segments}
            return (by if k.shape[1] else window_attention)(
                q,
                k,
                v,
                left=left,
                right=right,
                causal=self.causal,
                dilation=self.stride,
                global_tokens=self.global_tokens,
                before=first,
                padding_mask=view.padding_mask,
                key_mask=view.key_mask,
                slopes=costs,
                beside=None if beside is None else beside.part(view.queries, view.heads),
                **more,
            )

        return cross_segment_attention(
            attend,
            q,
            k,
            v,
            cross_heads=self.heads.cross_heads,
            layout=layout,
            causal=self.causal,
            fits=self._fits,
            before=before,
            alone=None if beside is None else beside.value,
            knows_segments=fused or flex,
        )

    def _fits(self, view: View) -> bool:
        """True if the windows of slices are windows too."""
        plain = self.stride == 1 and not self.global_tokens and view.stride == 2
        return plain and min(view.sides(self.left, self.right)) >= 0

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        q, k, v = self.heads.project_and_rotate(x, layout)
        length = x.shape[1]
        index = torch.arange(length, device=x.device)
        ahead = index[None, :] - index[:, None]
        visible = visibility_mask(
            length, self.left * self.stride, self.right * self.stride, layout.padding_mask, x.device
        )
        visible = visible & (ahead % self.stride == 0)
        reals = visibility_mask(length, length, 0 if self.causal else length, layout.padding_mask, x.device)
        first = index < self.global_tokens
        visible = visible | (reals & (first[None, :] | first[:, None]))
        costs = slopes(self.heads.count, x.device, x.dtype)[:, None, None] * ahead.abs() if self.alibi else None
        bias = None if costs is None else -costs
        y = reference_cross_segment_attention(
            q,
            k,
            v,
            visible=visible,
            cross_heads=self.heads.cross_heads,
            segments=layout.segment_ids,
            bias=bias,
            beside=self.registers.columns(
                self.heads.project(x, layout)[0], position_ids_of(x, layout.position_ids), self.heads
            ),
        )
        return self.heads.combine(zero_padding(y, layout.padding_mask), x, layout)

    def _project(self, x: Tensor, layout: TokenLayout) -> tuple[Tensor, KVCache]:
        """Queries of the tokens, and their cache."""
        q, k, v = self.heads.project_and_rotate(x, layout)
        k, v = (t.to(torch.promote_types(t.dtype, torch.float32)) for t in (k, v))
        padding_mask = (
            torch.ones(x.shape[:2], dtype=torch.bool, device=x.device)
            if layout.padding_mask is None
            else layout.padding_mask
        )
        segments = (
            torch.zeros_like(padding_mask, dtype=torch.long) if layout.segment_ids is None else layout.segment_ids
        )
        return q, KVCache(k, v, padding_mask, segments)

    def _outputs(self, q: Tensor, cache: KVCache, before: int, positions: Tensor | None) -> Tensor:
        """Outputs of the queries at these positions, the first of which is token `before` of the cache."""
        k, v, padding_mask, segments = cache
        layout = TokenLayout(None if padding_mask.all() else padding_mask, segment_ids=segments)
        return self._attend(q.to(k.dtype), k, v, layout, position_ids_of(q, positions), before)

    def init_state(self, batch: int) -> State:
        if not self.causal:
            return super().init_state(batch)
        weight = self.heads.key.weight
        wide = torch.promote_types(weight.dtype, torch.float32)
        none = torch.zeros(batch, 0, self.heads.kv_count, self.heads.dim_head, dtype=wide, device=weight.device)
        flags = torch.zeros(batch, 0, dtype=torch.bool, device=weight.device)
        return none, none, flags, flags.long(), torch.zeros((), dtype=torch.long)

    def step(
        self, x: Float[Tensor, "batch length dim"], state: State, layout: TokenLayout = TokenLayout()
    ) -> tuple[Float[Tensor, "batch length dim"], State]:
        if not self.causal:
            return super().step(x, state, layout)
        *tensors, count = state
        layout = with_positions(layout, x, int(count))
        q, new = self._project(x, layout)
        before = tensors[0].shape[1]
        cache = KVCache(*tensors).append(new)
        y = self.heads.combine(self._outputs(q, cache, before, layout.position_ids), x, layout)
        cache = cache.keep_from(cache.k.shape[1] - self.left * self.stride, self.global_tokens)
        return y, (*cache, count + x.shape[1])

    def forward_chunked(self, read_chunk: ChunkReader, length: int, chunk: int) -> Iterator[tuple[int, int, Tensor]]:
        """Chunks with the keys that they see on both sides; each token is projected once."""
        if self.global_tokens and not self.causal:  # the first answer needs the last token
            yield from super().forward_chunked(read_chunk, length, chunk)
            return
        behind, ahead = self.left * self.stride, self.right * self.stride
        q, cache, known, before = None, None, 0, 0
        for start in range(0, length, chunk):
            stop = min(start + chunk, length)
            if min(stop + ahead, length) > known:
                more, new = self._project(*read_chunk(known, min(stop + ahead, length)))
                q = more if q is None else torch.cat([q, more], dim=1)
                cache = new if cache is None else cache.append(new)
                known += more.shape[1]
            assert q is not None and cache is not None
            x, layout = read_chunk(start, stop)
            y = self._outputs(q[:, : stop - start], cache, before, layout.position_ids)
            yield start, stop, self.heads.combine(y, x, layout)
            q, before = q[:, stop - start :], before + stop - start
            drop = before - behind - self.global_tokens
            if drop > 0:
                cache, before = cache.keep_from(self.global_tokens + drop, self.global_tokens), before - drop

    def describe_backend(self, device: torch.device, dtype: torch.dtype = torch.float32) -> str:
        return self.engine.description(device, dtype, self.heads.dim_head)

    def flops(self, length: int) -> int:
        """Projections, and the pairs scored: a block of queries with all keys of its windows, and the global tokens.

        Heads that see another segment compute nothing in a sequence of one segment.
        """
        first = min(self.global_tokens, length)
        near = length - first
        pairs = near * first
        pairs += scored_pairs(near, near, Window(self.left, self.right, self.stride)) if near else 0
        if first:
            pairs += scored_pairs(first, first, Window(first, 0)) if self.causal else first * length
        products = 4 * pairs * self.heads.own_heads * self.heads.dim_head
        return self.heads.flops(length) + self.registers.flops(length) + products

    def state_bytes(self, length: int) -> int:
        """Keys and values inside the window to the left and of the global tokens."""
        tokens = min(length, self.left * self.stride + self.global_tokens)
        return 4 * 2 * tokens * self.heads.kv_count * self.heads.dim_head
