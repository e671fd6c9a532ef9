"""Layers that are right on one process and wrong on several, in a module that other processes can import."""

import torch
from torch import nn

from genoattn.attention.base import Attention, TokenLayout
from genoattn.attention.parallel import halo


class MeanOfThree(Attention):
    """The mean of a token and its neighbours, projected; without neighbours at the ends of a sequence."""

    complexity = "linear"
    weights_sum_to_one = False

    def __init__(self, dim, causal):
        super().__init__()
        self.causal, self.receptive_field = causal, (1, 0 if causal else 1)
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(self, x, layout=TokenLayout()):
        x = self.out(x if layout.padding_mask is None else x.masked_fill(~layout.padding_mask[..., None], 0))
        left, right = nn.functional.pad(x, (0, 0, 1, 0))[:, :-1], nn.functional.pad(x, (0, 0, 0, 1))[:, 1:]
        y = x + left + (0 if self.causal else right)
        return y if layout.padding_mask is None else y.masked_fill(~layout.padding_mask[..., None], 0)

    def naive(self, x, layout=TokenLayout()):
        return self(x, layout)

    def flops(self, length):
        return 2 * length * self.out.weight.numel()

    def state_bytes(self, length):
        return 0


class ShardsAlone(MeanOfThree):
    """A shard that does not see its neighbours."""

    def forward_span(self, x, layout, span):
        return self(x, layout)


class DetachedNeighbours(MeanOfThree):
    """Neighbours without a gradient."""

    def forward_span(self, x, layout, span):
        wide = halo(x.detach(), span, *self.receptive_field)
        some = torch.cat([wide.x[:, : wide.before], x, wide.x[:, wide.before + span.length :]], dim=1)
        return wide.inner(self(some, wide.layout))
