"""What a head may attend to beside tokens: nothing."""

from typing import NamedTuple, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genoattn.attention.ops.beside import Beside


class Columns(NamedTuple):
    """Keys that belong to no token, one by one: their scores, and their values."""

    scores: Float[Tensor, "batch heads queries few"]
    values: Float[Tensor, "few heads dim_head"]

    def of(self, heads: slice) -> "Columns":
        """The columns of some heads."""
        return Columns(self.scores[:, heads], self.values[:, heads])


@final
class Registers(nn.Module):
    """A sink: one more, empty key in the softmax of each head, with a learned score; its value is 0.

    A head that finds nothing then answers little, where weights that sum to 1 must go to some token. The score is 0
    before training. Papers: Xiao et al. 2023, arXiv:2309.17453; gpt-oss, arXiv:2508.10925.

    Args:
        heads: Number of heads of queries.
    """

    def __init__(self, heads: int):
        super().__init__()
        self.sink = nn.Parameter(torch.zeros(heads))

    def forward(self, q: Float[Tensor, "batch queries heads dim_head"]) -> Beside:
        """The sink as the key beside the tokens of each query."""
        return Beside(self.sink.expand(q.shape[:3]))

    def columns(self, q: Float[Tensor, "batch queries heads dim_head"]) -> Columns:
        """The sink as a column of the matrix of scores, for `naive`."""
        scores = self.sink[:, None, None].expand(len(q), -1, q.shape[1], 1)
        return Columns(scores, q.new_zeros(1, *q.shape[2:]))
