"""Softmax attention over every token: exact, and quadratic in the length."""

from typing import Any, final

import torch
from jaxtyping import Float
from torch import Tensor

from genoattn.attention.base import Attention, TokenLayout, zero_padding
from genoattn.attention.modules.cross_segment import (
    View,
    cross_segment_attention,
    reference_cross_segment_attention,
)
from genoattn.attention.modules.dispatch import Backend
from genoattn.attention.modules.projections import HeadOptions, QKVProjection
from genoattn.attention.modules.reference import visibility_mask
from genoattn.attention.modules.registers import Registers
from genoattn.attention.modules.rotary import position_ids_of
from genoattn.attention.ops import triton as by_triton
from genoattn.attention.ops import varlen as by_varlen
from genoattn.attention.ops.softmax import full_attention
from genoattn.attention.parallel import Span, gather_tokens, tied
from genoattn.errors import UserError


@final
class FullAttention(Attention):
    """Full softmax attention: y_i = Σ_j softmax_j(q_i·k_j / √d) v_j.

    A token sees every token, or every token up to itself if causal. Time is quadratic in the length; memory is linear,
    because a fused kernel computes the softmax. Paper: Vaswani et al. 2017, arXiv:1706.03762.
    """

    complexity = "quadratic"

    def __init__(
        self,
        dim: int,
        causal: bool,
        heads: HeadOptions = HeadOptions(),
        kv_heads: int | None = None,
        sink: bool = False,
        registers: int = 0,
        backend: str = "torch",
    ):
        super().__init__()
        if heads.positions == "alibi":
            raise UserError(
                "heads.positions=alibi would make attention=full hold a square of distances: a fused kernel knows "
                "products of queries and keys alone; attention=window takes it"
            )
        self.heads = QKVProjection(dim, heads, kv_heads)
        self.registers = Registers(self.heads, registers, sink)
        self.causal = causal
        self.weights_sum_to_one = self.heads.averages and not self.registers.any
        self.engine = Backend(backend, "flash", varlen=not self.registers.any)
        self.asymmetry = self.heads.asymmetry

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        q, k, v = self.heads.project_and_rotate(x, layout)
        return self.heads.combine(self._attend(q, k, v, layout, position_ids_of(x, layout.position_ids)), x, layout)

    def forward_span(
        self, x: Float[Tensor, "batch shard dim"], layout: TokenLayout, span: Span
    ) -> Float[Tensor, "batch shard dim"]:
        """The queries of the shard over the keys and values of all shards, which are gathered."""
        q, k, v = self.heads.project_and_rotate(x, layout)
        keys_values = gather_tokens(torch.cat([k, v], dim=-1), span)
        k, v = keys_values.split([k.shape[-1], v.shape[-1]], dim=-1)
        y = self._attend(q, k, v, span.whole, position_ids_of(x, layout.position_ids), span.start)
        return self.heads.combine(tied(y, keys_values), x, layout)

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, layout: TokenLayout, positions: Tensor, before: int = 0
    ) -> Tensor:
        """Outputs of the queries at these positions, the first of which is token `before` of the keys.

        The layout is that of the keys.
        """
        beside = self.registers(q, positions, self.heads)
        whole = q.shape[1] == k.shape[1]  # not a shard of the queries
        fused, packed = whole and self.engine.uses_triton(q), whole and self.engine.uses_varlen(q)

        def attend(q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
            if packed and view.key_mask is None and view.queries == view.keys:  # not those that see other segments
                return by_varlen.full_attention(q, k, v, causal=view.causal, padding_mask=view.padding_mask)
            first = before if view.stride == 1 else view.first
            more: dict[str, Any] = {} if fused else {"before": first}
            if view.segments is not None:
                more["segments"] = view.segments
            more["beside"] = None if beside is None else beside.part(view.queries, view.heads)
            by = by_triton.softmax_attention if fused else full_attention
            return by(q, k, v, causal=view.causal, padding_mask=view.padding_mask, key_mask=view.key_mask, **more)

        return cross_segment_attention(
            attend,
            q,
            k,
            v,
            cross_heads=self.heads.cross_heads,
            layout=layout,
            causal=self.causal,
            before=before,
            alone=None if beside is None else beside.value,
            knows_segments=fused,
        )

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        q, k, v = self.heads.project_and_rotate(x, layout)
        length = x.shape[1]
        visible = visibility_mask(length, length, 0 if self.causal else length, layout.padding_mask, x.device)
        y = reference_cross_segment_attention(
            q,
            k,
            v,
            visible=visible,
            cross_heads=self.heads.cross_heads,
            segments=layout.segment_ids,
            beside=self.registers.columns(
                self.heads.project(x, layout)[0], position_ids_of(x, layout.position_ids), self.heads
            ),
        )
        return self.heads.combine(zero_padding(y, layout.padding_mask), x, layout)

    def describe_backend(self, device: torch.device, dtype: torch.dtype = torch.float32) -> str:
        return self.engine.description(device, dtype, self.heads.dim_head)

    def flops(self, length: int) -> int:
        """FLOPs of the projections and the whole square of scores; a causal kernel may skip up to half of it.

        Heads that see another segment compute nothing in a sequence of one segment. A sink and registers cost
        one more token and channel.
        """
        more = int(self.registers.any)
        square = 4 * (length + more) ** 2 * (self.heads.dim_head + more)
        return self.heads.flops(length) + self.registers.flops(length) + self.heads.own_heads * square

    def state_bytes(self, length: int) -> int:
        """Every key and value up to `length`."""
        return 4 * 2 * length * self.heads.kv_count * self.heads.dim_head
