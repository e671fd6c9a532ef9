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
from genoattn.attention.ops.softmax import full_attention
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
        self.engine = Backend(backend, "flash")
        self.asymmetry = self.heads.asymmetry

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        q, k, v = self.heads.project_and_rotate(x, layout)
        beside = self.registers(q, position_ids_of(x, layout.position_ids), self.heads)

        fused = self.engine.uses_triton(q)

        def attend(q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
            by = by_triton.softmax_attention if fused else full_attention
            more: dict[str, Any] = {} if view.segments is None else {"segments": view.segments}
            more["beside"] = None if beside is None else beside.part(view.queries, view.heads)
            return by(q, k, v, causal=view.causal, padding_mask=view.padding_mask, key_mask=view.key_mask, **more)

        cross_heads = self.heads.cross_heads
        alone = None if beside is None else beside.value
        y = cross_segment_attention(
            attend,
            q,
            k,
            v,
            cross_heads=cross_heads,
            layout=layout,
            causal=self.causal,
            alone=alone,
            knows_segments=fused,
        )
        return self.heads.combine(y, x, layout)

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
