"""Registers and a sink: learned keys and values beside the tokens, and the choice to attend to nothing."""

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from genoattn.attention.modules.projections import QKVProjection
from genoattn.attention.modules.reference import Columns
from genoattn.attention.modules.rotary import VALUE_ROPE, rotate
from genoattn.attention.ops.beside import Beside
from genoattn.errors import UserError


@final
class Registers(nn.Module):
    """Learned keys and values of each head that every query sees, and a sink: an empty key with a learned score.

    They belong to no token and have no position: queries meet the keys of registers as they are before rotation. A head
    that finds nothing can answer what it learned, or little, where weights that sum to 1 must go to some token. Before
    training the values of registers are 0, so that they begin as sinks, and the score of the sink is 0. Papers:
    persistent memory, Sukhbaatar et al. 2019, arXiv:1907.01470; sinks, Xiao et al. 2023, arXiv:2309.17453, and gpt-oss,
    arXiv:2508.10925.

    Args:
        heads: The projections of the layer.
        count: Number of registers.
        sink: Add a sink.

    Raises:
        UserError: The count is negative.
    """

    def __init__(self, heads: QKVProjection, count: int, sink: bool):
        super().__init__()
        if count < 0:
            raise UserError(f"attention.registers must be 0 or more, got {count}")
        self.count, self.any = count, bool(count or sink)
        if count:
            self.keys = nn.Parameter(torch.randn(count, heads.count, heads.dim_head))
            self.values = nn.Parameter(torch.zeros(count, heads.count, heads.dim_head))
        self.sink = nn.Parameter(torch.zeros(heads.count)) if sink else None

    def forward(
        self,
        q: Float[Tensor, "batch queries heads dim_head"],
        positions: Int[Tensor, "#batch queries"],
        heads: QKVProjection,
    ) -> Beside | None:
        """Registers and sink as one key of each query, whose score is their log-sum-exp; None if there are none.

        Args:
            q: Queries, rotated if positions are rotary.
            positions: Their positions.
            heads: The projections of the layer.
        """
        if not self.count:
            return None if self.sink is None else Beside(self.sink.expand(q.shape[:3]))
        scores = self._scores(rotate(q, -positions, heads.rope) if heads.rotary else q, heads)
        weights = scores.softmax(-1)[..., : self.count].to(q.dtype)
        value = torch.einsum("bhqr,rhd->bqhd", weights, self.values.to(q.dtype))
        # The layer turns outputs back by the positions of their queries.
        value = rotate(value, positions, VALUE_ROPE) if heads.rotate_values else value
        return Beside(scores.logsumexp(-1).transpose(1, 2), value)

    def _scores(self, q: Tensor, heads: QKVProjection) -> Float[Tensor, "batch heads queries few"]:
        """The scores of registers, then that of the sink, for queries that are not rotated."""
        scores = []
        if self.count:
            keys = heads.normed(self.keys).to(q.dtype)
            scores.append(torch.einsum("bqhd,rhd->bhqr", q, keys) * q.shape[-1] ** -0.5)
        if self.sink is not None:
            scores.append(self.sink[:, None, None].expand(len(q), -1, q.shape[1], 1))
        return torch.cat(scores, dim=-1)

    def columns(self, q: Tensor, positions: Tensor, heads: QKVProjection) -> Columns | None:
        """`forward` one by one, for `naive`; the queries are not rotated."""
        if not self.any:
            return None
        scores = self._scores(q, heads)
        values = q.new_zeros(*q.shape[:2], scores.shape[-1], *q.shape[2:])
        for at in range(self.count):
            alike = self.values[at].expand(q.shape)
            values[:, :, at] = rotate(alike, positions, VALUE_ROPE) if heads.rotate_values else alike
        return Columns(scores, values)

    def flops(self, length: int) -> int:
        """FLOPs of the scores and values of registers for the queries of one sequence."""
        return 4 * length * self.keys.numel() if self.count else 0
