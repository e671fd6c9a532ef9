"""A small network that turns the tokens of a cell into one."""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor, nn


@final
class Compression(nn.Module):
    """Mean of the real tokens of each cell, plus a network of all of them and their places; 0 if none is real.

    What is not real is 0 in `x`, which holds the tokens at these places of a cell.
    """

    def __init__(self, size: int, width: int):
        super().__init__()
        self.places = nn.Parameter(0.02 * torch.randn(size, 1, width))
        self.hidden = nn.Linear(size * width, 2 * width, bias=False)
        self.out = nn.Linear(2 * width, width, bias=False)
        self.weights = self.hidden.weight.numel() + self.out.weight.numel()

    def forward(
        self,
        x: Float[Tensor, "batch cells size heads dim_head"],
        real: Bool[Tensor, "batch cells size"],
        places: slice = slice(None),
    ) -> Float[Tensor, "batch cells heads dim_head"]:
        tokens = (x + self.places[places]).masked_fill(~real[..., None, None], 0).transpose(2, 3).flatten(3)
        mean = x.sum(2) / real.sum(2).clamp_min(1)[..., None, None]
        weight = self.hidden.weight.unflatten(1, (len(self.places), -1))[:, places].flatten(1)
        return mean + self.out(F.gelu(F.linear(tokens, weight)))
