"""Softmax attention over every token: exact, and quadratic in the length."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from genoattn.attention.base import Attention, Layout
from genoattn.attention.modules.cross_segment import attend_by_segment, crossing_heads, dense_by_segment, extra_channels
from genoattn.attention.modules.dispatch import Backend
from genoattn.attention.modules.projections import Heads
from genoattn.attention.modules.reference import visible_pairs
from genoattn.attention.modules.rotary import ROTARY, check_positions, split_turned
from genoattn.attention.ops import triton as by_triton
from genoattn.attention.ops.softmax import full_attention
from genoattn.errors import UserError


@final
class FullAttention(Attention):
    """Each token looks at every token, or at every token before it and itself."""

    cost = "quadratic"

    def __init__(
        self,
        dim: int,
        causal: bool,
        heads: int = 4,
        kv_heads: int | None = None,
        positions: str = "rotary",
        qk_norm: bool = True,
        sharpness: float = 1.0,
        alike: bool = False,
        cross: float = 0.0,
        backend: str = "torch",
    ):
        super().__init__()
        if positions == "alibi":
            raise UserError(
                "attention.positions=alibi would make attention=full hold a square of distances: a fused kernel knows "
                "products of queries and keys alone; attention=window takes it"
            )
        self.heads = Heads(dim, heads, qk_norm, sharpness, alike, kv_heads)
        self.causal = causal
        self.crossing = crossing_heads(cross, heads)
        self.averages = not self.crossing
        self.engine = Backend(backend, "flash")
        self.rotary = check_positions(positions, self.heads)
        self.sided = ROTARY if self.rotary else None

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: Layout = Layout()
    ) -> Float[Tensor, "batch length dim"]:
        def attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
            by = by_triton.softmax_attention if self.engine.triton(q) else full_attention
            return by(q, k, v, causal=self.causal, keep=layout.keep, scale=scale)

        q, k, v = split_turned(self.heads, x, layout, self.rotary)
        return self.heads.merge(attend_by_segment(attend, q, k, v, crossing=self.crossing, layout=layout))

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: Layout = Layout()
    ) -> Float[Tensor, "batch length dim"]:
        q, k, v = split_turned(self.heads, x, layout, self.rotary)
        length = x.shape[1]
        visible = visible_pairs(length, length, 0 if self.causal else length, layout.keep, x.device)
        y = dense_by_segment(q, k, v, visible=visible, crossing=self.crossing, segments=layout.segments)
        return self.heads.merge(y)

    def backend(self, device: torch.device) -> str:
        return self.engine.said(device)

    def flops(self, length: int) -> int:
        """Projections and the whole square of scores; a causal kernel may skip up to half of that square."""
        own, width = self.heads.count - self.crossing, self.heads.dim_head
        channels = own * width + self.crossing * (width + extra_channels(width, 1))
        return self.heads.flops(length) + 4 * length**2 * channels

    def state_bytes(self, length: int) -> int:
        """Every key and value."""
        return 4 * 2 * length * self.heads.kv_count * self.heads.dim_head
