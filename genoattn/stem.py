"""Reference beside sample as vectors: which base stands where, what matches near by, and a soft local alignment."""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, UInt8
from torch import Tensor, nn

from genoattn.errors import UserError


@final
class PairStem(nn.Module):
    """Embeds sample base i with reference base i, and with its matches at reference bases i - reach … i + reach.

    The matches form a dot plot: one row a sample base, one diagonal a shift. Each of `filters` learned filters,
    `kernel` bases long and the same on every diagonal, smooths it along them; a softmax over the diagonals then says
    where the sample has drifted to, seen from the left or from the right of each base. With `filters` 0 the bare
    matches are all there is.
    """

    def __init__(self, dim: int, vocabulary: int, reach: int, filters: int, kernel: int, causal: bool):
        super().__init__()
        if filters < 0:
            raise UserError(f"model.filters must be at least 0, got {filters}")
        if kernel < 1 or kernel % 2 == 0:
            raise UserError(f"model.kernel must be odd, so that it has a centre, got {kernel}")
        self.reach, self.causal, self.kernel = reach, causal, kernel
        shifts = 2 * reach + 1
        self.reference = nn.Embedding(vocabulary, dim)
        self.matches = nn.Linear(shifts, dim, bias=False)
        self.smooth = nn.Parameter(_smoothers(filters, kernel)) if filters else None
        if filters:
            self.aligned = nn.Linear(filters * (shifts + 1), dim, bias=False)

    def forward(
        self,
        ids: UInt8[Tensor, "batch length"],
        beside: UInt8[Tensor, "batch wide"],
        keep: Bool[Tensor, "batch length"] | None,
    ) -> Float[Tensor, "batch length dim"]:
        length = ids.shape[1]
        reference = beside[:, self.reach : self.reach + length]
        match = beside[:, : length + 2 * self.reach].unfold(1, 2 * self.reach + 1, 1) == ids[..., None]
        if keep is not None:
            match = match & keep[..., None]
        match = match.to(self.matches.weight.dtype)
        x = self.reference(reference.int()) + self.matches(match)
        return x if self.smooth is None else x + self.aligned(self._alignment(match, self.smooth))

    def _alignment(
        self, match: Float[Tensor, "batch length shifts"], filters: Float[Tensor, "filters kernel"]
    ) -> Float[Tensor, "batch length features"]:
        """For each filter the weight of every diagonal, and the match expected where these weights point."""
        sides = (self.kernel - 1, 0) if self.causal else (self.kernel // 2, self.kernel // 2)
        rows = F.pad(match, (0, 0, *sides))[:, None]
        weight = F.conv2d(rows, filters[:, None, :, None]).softmax(-1)  # [batch, filters, length, shifts]
        expected = (weight * match[:, None]).sum(-1, keepdim=True)
        return torch.cat([weight, expected], -1).transpose(1, 2).flatten(2)


def _smoothers(filters: int, kernel: int) -> Float[Tensor, "filters kernel"]:
    """Filters to start from: exponentials of several lengths, looking left and right in turn."""
    offset = torch.arange(kernel) - kernel // 2
    rows = []
    for number in range(filters):
        length = (3.0, 6.0, 10.0, 16.0)[number // 2 % 4]
        side = offset < 0 if number % 2 == 0 else offset > 0
        row = torch.where(side, torch.exp(-offset.abs() / length), 0.0)
        rows.append(12 * row / row.sum())
    return torch.stack(rows)
