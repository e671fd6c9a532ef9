"""Softmax attention over every token: exact, and quadratic in the length."""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from genoattn.attention import by_triton
from genoattn.attention.backends import Backend
from genoattn.attention.base import Attention, Layout, blank
from genoattn.attention.heads import ROTARY, Heads, check_positions, split_turned, visible_pairs
from genoattn.attention.segments import attend_by_segment, crossing_heads, dense_by_segment, extra_channels
from genoattn.errors import UserError


def full_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    *,
    causal: bool,
    keep: Bool[Tensor, "batch length"] | None = None,
    scale: float | None = None,
) -> Float[Tensor, "batch length heads dim_head"]:
    """Softmax attention without a stored square, scores times `scale` (None: over sqrt(dim_head)).

    0 at padding, where q, k and v may hold anything finite.
    """
    if keep is None:
        return _attend(q, k, v, scale, causal=causal)
    if not causal:
        # A sequence of nothing but padding sees all of it, so that no kernel is asked for a row without keys.
        visible = keep | ~keep.any(1, keepdim=True)
        return blank(_attend(q, k, v, scale, visible=visible[:, None, None, :]), keep)
    # Fused kernels take causality or a mask, not both. With the real tokens moved to the front in their order, the
    # causal rule alone hides all padding from them.
    order = (~keep).to(torch.uint8).argsort(dim=1, stable=True)[:, :, None, None].expand_as(q)
    y = _attend(q.gather(1, order), k.gather(1, order), v.gather(1, order), scale, causal=True)
    return blank(torch.zeros_like(y).scatter(1, order, y), keep)


def _attend(
    q: Tensor, k: Tensor, v: Tensor, scale: float | None, visible: Tensor | None = None, causal: bool = False
) -> Tensor:
    q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=visible, is_causal=causal, scale=scale)
    return y.transpose(1, 2)


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
