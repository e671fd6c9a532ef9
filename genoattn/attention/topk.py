"""Softmax attention over each query's highest-scoring keys: exact, and every pair is scored, block by block."""

import math
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from genoattn.attention.base import Attention, Layout
from genoattn.attention.modules.cross_segment import attend_by_segment, crossing_heads, extra_channels
from genoattn.attention.modules.projections import Heads
from genoattn.attention.modules.reference import dense_attention, visible_pairs
from genoattn.attention.modules.rotary import ROTARY, check_positions, split_turned
from genoattn.attention.ops.topk import ROWS, topk_attention
from genoattn.errors import UserError


@final
class TopKAttention(Attention):
    """Each token looks at the `k` tokens, or the `fraction` of those it may see, that score highest.

    It costs what full attention costs, for all pairs are scored; what it shows is what forgetting the rest does.
    """

    cost = "quadratic"

    def __init__(
        self,
        dim: int,
        causal: bool,
        heads: int = 4,
        k: int | None = 64,
        fraction: float | None = None,
        longest: int = 16384,
        positions: str = "rotary",
        qk_norm: bool = True,
        sharpness: float = 1.0,
        alike: bool = False,
        cross: float = 0.0,
    ):
        super().__init__()
        if (k is None) == (fraction is None):
            raise UserError(f"give attention.k or attention.fraction, the other null: got {k} and {fraction}")
        if k is not None and k < 1:
            raise UserError(f"attention.k must be 1 or more keys, got {k}")
        if fraction is not None and not 0 < fraction <= 1:
            raise UserError(f"attention.fraction must be above 0 and at most 1, got {fraction}")
        self.heads = Heads(dim, heads, qk_norm, sharpness, alike)
        self.causal = causal
        self.crossing = crossing_heads(cross, heads)
        self.averages = not self.crossing
        self.k, self.fraction, self.longest = k, fraction, longest
        self.rotary = check_positions(positions, self.heads)
        self.sided = ROTARY if self.rotary else None

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: Layout = Layout()
    ) -> Float[Tensor, "batch length dim"]:
        if x.shape[1] > self.longest:
            raise UserError(
                "attention=topk scores every pair of tokens and takes at most attention.longest="
                f"{self.longest} tokens, got {x.shape[1]}"
            )
        q, k, v = self._split(x, layout)
        allowed = self._allowed(x, layout)

        def attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
            return topk_attention(q, k, v, causal=self.causal, allowed=allowed, keep=layout.keep, scale=scale)

        return self.heads.merge(attend_by_segment(attend, q, k, v, crossing=self.crossing, layout=layout))

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: Layout = Layout()
    ) -> Float[Tensor, "batch length dim"]:
        q, k, v = self._split(x, layout)
        length = x.shape[1]
        plain = visible_pairs(length, length, 0 if self.causal else length, layout.keep, x.device)
        segments = torch.zeros_like(x[..., 0]) if layout.segments is None else layout.segments
        another = plain & (segments[:, :, None] != segments[:, None, :])
        answers = []
        for head in range(self.heads.count):
            visible = plain if head < self.heads.count - self.crossing else another
            score = (q[:, :, head] @ k[:, :, head].transpose(1, 2)).masked_fill(~visible, float("-inf"))
            rank = score.argsort(-1, descending=True).argsort(-1)
            chosen = visible & (rank < self._allowed(x, layout)[:, :, None])
            one = slice(head, head + 1)
            answers.append(dense_attention(q[:, :, one], k[:, :, one], v[:, :, one], visible=chosen))
        return self.heads.merge(torch.cat(answers, dim=2))

    def _split(self, x: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
        # Not in half precision, whose rounded scores would choose other keys.
        with torch.autocast(x.device.type, enabled=False):
            return split_turned(self.heads, x.to(self.heads.query.weight.dtype), layout, self.rotary)

    def _allowed(self, x: Tensor, layout: Layout) -> Int[Tensor, "batch length"]:
        """How many keys each query may choose."""
        if self.fraction is None:
            assert self.k is not None
            return torch.full(x.shape[:2], self.k, device=x.device)
        real = torch.ones(x.shape[:2], dtype=torch.long, device=x.device) if layout.keep is None else layout.keep.long()
        seen = real.cumsum(1) if self.causal else real.sum(1, keepdim=True).expand_as(real)
        return (seen * self.fraction).ceil().long().clamp_min(1)

    def flops(self, length: int) -> int:
        """Projections, and scores and sums over every key; a causal layer leaves out blocks of the future."""
        pairs = length**2
        if self.causal:
            blocks = math.ceil(length / ROWS)
            pairs = sum(min(ROWS, length - at * ROWS) * min(length, (at + 1) * ROWS) for at in range(blocks))
        width = self.heads.dim_head
        channels = self.heads.count * width + self.crossing * extra_channels(width, 1)
        return self.heads.flops(length) + 4 * pairs * channels

    def state_bytes(self, length: int) -> int:
        """Every key and value: any may be chosen."""
        return 4 * 2 * length * self.heads.count * self.heads.dim_head
