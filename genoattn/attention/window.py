"""Softmax attention over a sliding window: exact within its reach, blind beyond, linear in the length."""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from genoattn.attention.base import Attention, Layout, blank
from genoattn.attention.heads import Heads, check_positions, positions_of, rotate, visible_pairs
from genoattn.attention.segments import HIDDEN, attend_by_segment, crossing_heads, dense_by_segment, extra_channels
from genoattn.errors import UserError


def window_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    *,
    left: int,
    right: int,
    keep: Bool[Tensor, "batch length"] | None = None,
    scale: float | None = None,
) -> Float[Tensor, "batch length heads dim_head"]:
    """Softmax attention of token i over tokens i - left to i + right, both ends included, in blocks of queries.

    A block of queries reads one overlapping view of the keys, and one band mask serves all blocks, so nothing grows
    faster than the length. Scores are multiplied by `scale` (None: divided by sqrt(dim_head)). 0 at padding, where q,
    k and v may hold anything finite.
    """
    batch, length, heads, dim_head = q.shape
    factor: float = dim_head**-0.5 if scale is None else scale
    left, right, block, blocks = plan(length, left, right)
    span = left + block + right
    tail = blocks * block - length
    extra = extra_channels(dim_head, 1)
    q = F.pad(q, (0, extra, 0, 0, 0, tail))
    k = F.pad(k, (0, extra, 0, 0, left, right + tail))
    v = F.pad(v, (0, extra, 0, 0, left, right + tail))
    real = torch.ones(batch, length, dtype=torch.bool, device=q.device) if keep is None else keep
    # Keys at padding and beyond the ends are hidden through a channel of their own: as a mask they would take
    # span numbers for every token. A real token sees itself, so no row is left without a key.
    q[..., dim_head] = 1 / factor
    k[..., dim_head] = torch.where(F.pad(real, (left, right + tail)), 0.0, HIDDEN)[..., None].to(k.dtype)
    # Blocks stand where the kernel expects the batch: the overlapping view then needs no copy.
    q = q.transpose(1, 2).reshape(batch * heads, blocks, block, -1).transpose(0, 1)
    k = k.transpose(1, 2).flatten(0, 1).unfold(1, span, block).permute(1, 0, 3, 2)
    v = v.transpose(1, 2).flatten(0, 1).unfold(1, span, block).permute(1, 0, 3, 2)
    ahead = torch.arange(span, device=q.device) - torch.arange(block, device=q.device)[:, None]
    band = (ahead >= 0) & (ahead <= left + right)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=band[None, None], scale=factor)
    y = y[..., :dim_head].transpose(0, 1).reshape(batch, heads, blocks * block, dim_head)[:, :, :length]
    return blank(y.transpose(1, 2), keep)


def plan(length: int, left: int, right: int) -> tuple[int, int, int, int]:
    """The reach that matters at this length (left, right), the queries of a block and the number of blocks.

    A block is about half a window, from 64 to 256: shorter ones hold more copies of each key's gradient, longer ones
    score more pairs beyond the reach.
    """
    left, right = min(left, length - 1), min(right, length - 1)
    half = (left + right + 1) // 2
    block = min(256 if half >= 256 else 128 if half >= 128 else 64, length)
    return left, right, block, -(-length // block)


@final
class WindowAttention(Attention):
    """Each token looks `left` tokens back and `right` tokens ahead (a causal one not ahead), counted in indices."""

    cost = "linear"

    def __init__(
        self,
        dim: int,
        causal: bool,
        heads: int = 4,
        left: int = 128,
        right: int = 128,
        positions: str = "rotary",
        qk_norm: bool = True,
        sharpness: float = 1.0,
        cross: float = 0.0,
    ):
        super().__init__()
        for name, value in (("left", left), ("right", right)):
            if value < 0:
                raise UserError(f"attention.{name} must be 0 or more tokens, got {value}")
        self.heads = Heads(dim, heads, qk_norm, sharpness)
        self.causal = causal
        self.crossing = crossing_heads(cross, heads)
        self.averages = not self.crossing
        self.left, self.right = self.reach = (left, 0 if causal else right)
        self.rotary = check_positions(positions, self.heads)

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: Layout = Layout()
    ) -> Float[Tensor, "batch length dim"]:
        def attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
            return window_attention(q, k, v, left=self.left, right=self.right, keep=layout.keep, scale=scale)

        q, k, v = self._split(x, layout)
        y = attend_by_segment(attend, q, k, v, crossing=self.crossing, layout=layout, left=self.left, right=self.right)
        return self.heads.merge(y)

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: Layout = Layout()
    ) -> Float[Tensor, "batch length dim"]:
        q, k, v = self._split(x, layout)
        visible = visible_pairs(x.shape[1], self.left, self.right, layout.keep, x.device)
        y = dense_by_segment(q, k, v, visible=visible, crossing=self.crossing, segments=layout.segments)
        return self.heads.merge(y)

    def _split(self, x: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.heads.split(blank(x, layout.keep))
        if self.rotary:
            positions = positions_of(x, layout.positions)
            q, k = rotate(q, positions), rotate(k, positions)
        return q, k, v

    def flops(self, length: int) -> int:
        """Projections and the scored band: each query of a block meets left + block + right keys."""
        left, right, block, blocks = plan(length, self.left, self.right)
        pairs = blocks * block * (left + block + right)
        width = self.heads.dim_head + extra_channels(self.heads.dim_head, 1)
        wide = width + extra_channels(width, 1)  # a crossing head has the channels of its segments too
        own = self.heads.count - self.crossing
        return self.heads.flops(length) + 4 * pairs * (own * width + self.crossing * wide)

    def state_bytes(self, length: int) -> int:
        """The keys and values within reach to the left."""
        return 4 * 2 * min(length, self.left) * self.heads.count * self.heads.dim_head
