"""Softmax attention over every token: exact, and quadratic in the length."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from genoattn.attention.base import Attention, TokenLayout
from genoattn.attention.modules.cross_segment import (
    cross_segment_attention,
    cross_segment_heads,
    reference_cross_segment_attention,
    segment_channels,
)
from genoattn.attention.modules.dispatch import Backend
from genoattn.attention.modules.projections import QKVProjection
from genoattn.attention.modules.reference import visibility_mask
from genoattn.attention.modules.rotary import ROTARY, check_positions, project_and_rotate
from genoattn.attention.ops import triton as by_triton
from genoattn.attention.ops.softmax import full_attention
from genoattn.errors import UserError


@final
class FullAttention(Attention):
    """Each token looks at every token, or at every token before it and itself."""

    complexity = "quadratic"

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
        self.heads = QKVProjection(dim, heads, qk_norm, sharpness, alike, kv_heads)
        self.causal = causal
        self.crossing = cross_segment_heads(cross, heads)
        self.weights_sum_to_one = not self.crossing
        self.engine = Backend(backend, "flash")
        self.rotary = check_positions(positions, self.heads)
        self.asymmetry = ROTARY if self.rotary else None

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        def attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
            by = by_triton.softmax_attention if self.engine.uses_triton(q) else full_attention
            return by(q, k, v, causal=self.causal, keep=layout.padding_mask, scale=scale)

        q, k, v = project_and_rotate(self.heads, x, layout, self.rotary)
        return self.heads.combine(cross_segment_attention(attend, q, k, v, crossing=self.crossing, layout=layout))

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        q, k, v = project_and_rotate(self.heads, x, layout, self.rotary)
        length = x.shape[1]
        visible = visibility_mask(length, length, 0 if self.causal else length, layout.padding_mask, x.device)
        y = reference_cross_segment_attention(
            q, k, v, visible=visible, crossing=self.crossing, segments=layout.segment_ids
        )
        return self.heads.combine(y)

    def describe_backend(self, device: torch.device) -> str:
        return self.engine.description(device)

    def flops(self, length: int) -> int:
        """Projections and the whole square of scores; a causal kernel may skip up to half of that square."""
        own, width = self.heads.count - self.crossing, self.heads.dim_head
        channels = own * width + self.crossing * (width + segment_channels(width, 1))
        return self.heads.flops(length) + 4 * length**2 * channels

    def state_bytes(self, length: int) -> int:
        """Every key and value."""
        return 4 * 2 * length * self.heads.kv_count * self.heads.dim_head
