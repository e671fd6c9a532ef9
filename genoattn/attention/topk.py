"""Softmax attention over each query's highest-scoring keys: exact, and every pair is scored, block by block."""

import math
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from genoattn.attention.base import Attention, TokenLayout
from genoattn.attention.modules.cross_segment import View, cross_segment_attention, other_segment
from genoattn.attention.modules.projections import HeadOptions, QKVProjection
from genoattn.attention.modules.reference import reference_attention, visibility_mask
from genoattn.attention.ops.sizes import CPU
from genoattn.attention.ops.topk import topk_attention
from genoattn.attention.parallel import Span, gather_tokens, tied
from genoattn.errors import UserError


@final
class TopKAttention(Attention):
    """Exact top-k attention: y_i = Σ_j softmax_j(q_i·k_j / √d) v_j over the k keys of the highest score.

    A token sees the `k` tokens, or the `fraction` of the visible tokens, that score highest. All pairs are scored, so
    time is quadratic in the length: the layer shows the effect of leaving keys out, it does not save time.
    Paper: Gupta et al. 2021, arXiv:2106.06899.
    """

    complexity = "quadratic"

    def __init__(
        self,
        dim: int,
        causal: bool,
        heads: HeadOptions = HeadOptions(),
        k: int | None = 64,
        fraction: float | None = None,
        max_length: int = 16384,
    ):
        super().__init__()
        if (k is None) == (fraction is None):
            raise UserError(f"give attention.k or attention.fraction, the other null: got {k} and {fraction}")
        if k is not None and k < 1:
            raise UserError(f"attention.k must be 1 or more keys, got {k}")
        if fraction is not None and not 0 < fraction <= 1:
            raise UserError(f"attention.fraction must be above 0 and at most 1, got {fraction}")
        self.heads = QKVProjection(dim, heads)
        self.causal = causal
        self.weights_sum_to_one = self.heads.averages
        self.k, self.fraction, self.max_length = k, fraction, max_length
        self.asymmetry = self.heads.asymmetry

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        return self.heads.combine(self._attend(*self._project(x, layout), layout), x, layout)

    def forward_span(
        self, x: Float[Tensor, "batch shard dim"], layout: TokenLayout, span: Span
    ) -> Float[Tensor, "batch shard dim"]:
        """The queries of the shard over the keys and values of all shards, which are gathered: all pairs are scored."""
        q, k, v = self._project(x, layout)
        keys_values = gather_tokens(torch.cat([k, v], dim=-1), span)
        k, v = keys_values.chunk(2, dim=-1)
        return self.heads.combine(tied(self._attend(q, k, v, span.whole, span.start), keys_values), x, layout)

    def _attend(self, q: Tensor, k: Tensor, v: Tensor, layout: TokenLayout, before: int = 0) -> Tensor:
        """Outputs of queries, the first of which is token `before` of the keys; the layout is that of the keys."""
        if k.shape[1] > self.max_length:
            raise UserError(
                "attention=topk scores every pair of tokens and takes at most attention.max_length="
                f"{self.max_length} tokens, got {k.shape[1]}"
            )
        allowed = self._allowed(k, layout)[:, before : before + q.shape[1]]
        most = self.k or math.ceil((self.fraction or 0) * k.shape[1]) + 1  # rounding may add one

        def attend(q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
            masks = {"padding_mask": view.padding_mask, "key_mask": view.key_mask}
            first, some = before if view.stride == 1 else view.first, allowed[:, view.queries]
            return topk_attention(q, k, v, causal=view.causal, allowed=some, most=most, before=first, **masks)

        words = {"cross_heads": self.heads.cross_heads, "layout": layout, "causal": self.causal, "before": before}
        return cross_segment_attention(attend, q, k, v, **words)

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        q, k, v = self._project(x, layout)
        length = x.shape[1]
        plain = visibility_mask(length, length, 0 if self.causal else length, layout.padding_mask, x.device)
        another = plain & other_segment(layout.segment_ids, x)
        outputs = []
        for head in range(self.heads.count):
            visible = plain if head < self.heads.own_heads else another
            score = (q[:, :, head] @ k[:, :, head].transpose(1, 2)).masked_fill(~visible, float("-inf"))
            rank = score.argsort(-1, descending=True).argsort(-1)
            chosen = visible & (rank < self._allowed(x, layout)[:, :, None])
            only = slice(head, head + 1)
            outputs.append(reference_attention(q[:, :, only], k[:, :, only], v[:, :, only], visible=chosen))
        return self.heads.combine(torch.cat(outputs, dim=2), x, layout)

    def _project(self, x: Tensor, layout: TokenLayout) -> tuple[Tensor, Tensor, Tensor]:
        # Not in half precision, whose rounded scores would choose other keys.
        with torch.autocast(x.device.type, enabled=False):
            return self.heads.project_and_rotate(x.to(self.heads.query.weight.dtype), layout)

    def _allowed(self, x: Tensor, layout: TokenLayout) -> Int[Tensor, "batch length"]:
        """Number of keys of each query."""
        if self.fraction is None:
            assert self.k is not None
            return torch.full(x.shape[:2], self.k, device=x.device)
        real = (
            torch.ones(x.shape[:2], dtype=torch.long, device=x.device)
            if layout.padding_mask is None
            else layout.padding_mask.long()
        )
        seen = real.cumsum(1) if self.causal else real.sum(1, keepdim=True).expand_as(real)
        return (seen * self.fraction).ceil().long().clamp_min(1)

    def flops(self, length: int) -> int:
        """Projections, and scores and sums over every key; a causal layer leaves out blocks of the future.

        Heads that see another segment compute nothing in a sequence of one segment.
        """
        pairs = length**2
        if self.causal:
            rows = CPU.topk_rows
            blocks = math.ceil(length / rows)
            pairs = sum(min(rows, length - at * rows) * min(length, (at + 1) * rows) for at in range(blocks))
        return self.heads.flops(length) + 4 * pairs * self.heads.own_heads * self.heads.dim_head

    def state_bytes(self, length: int) -> int:
        """Every key and value: any may be selected."""
        return 4 * 2 * length * self.heads.count * self.heads.dim_head
