"""Reference beside sample as vectors: which base stands where, what matches near by, and a soft local alignment."""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from genoattn.errors import UserError

NEIGHBOURS = 10
"""How many diagonals to both sides of the likely one are shown as seen from it."""


TILE = 64
"""Rows of the dot plot that are smoothed by one matrix product."""


@final
class AlignmentStem(nn.Module):
    """Embeds sample base i with reference base i, and with its matches at reference bases i - reach … i + reach.

    The matches form a dot plot: one row a sample base, one diagonal a shift. Each of `filters` learned filters,
    `kernel` bases long and the same on every diagonal, smooths it along them, and a softmax over the diagonals turns
    that into a soft alignment: where the sample has drifted to, seen from the left of each base (even filters) or from
    its right (odd ones). All of it is shown twice more as seen from the diagonal that the first filter, and the second,
    finds likeliest: there an indel looks the same whatever the drift before it. With `filters` 0 the bare matches are
    all there is.
    """

    def __init__(self, dim: int, vocabulary_size: int, max_shift: int, filters: int, kernel: int, causal: bool):
        super().__init__()
        if filters < 0 or filters == 1:
            raise UserError(
                f"model.alignment_filters must be 0 (no alignment) or at least 2 (left and right), got {filters}"
            )
        if kernel < 3 or kernel % 2 == 0:
            raise UserError(
                f"model.alignment_kernel must be odd, so that it has a centre, and at least 3, got {kernel}"
            )
        self.max_shift, self.filters = max_shift, filters
        self.sides = (kernel - 1, 0) if causal else (kernel // 2, kernel // 2)
        shifts, near = 2 * max_shift + 1, 2 * NEIGHBOURS + 1
        self.reference = nn.Embedding(vocabulary_size, dim)
        self.matches = nn.Linear(shifts, dim, bias=False)
        if filters:
            self.smooth = nn.Parameter(_smoothers(filters, kernel, self.sides[0]))
            self.aligned = nn.Linear(filters * shifts, dim, bias=False)
            self.framed = nn.Linear(2 * (1 + filters) * near, dim, bias=False)

    def forward(
        self,
        ids: Integer[Tensor, "batch length"],
        reference_window: Integer[Tensor, "batch wide"],
        padding_mask: Bool[Tensor, "batch length"] | None,
    ) -> Float[Tensor, "batch length dim"]:
        length = ids.shape[1]
        reference = reference_window[:, self.max_shift : self.max_shift + length]
        match = (
            reference_window[:, : length + 2 * self.max_shift].unfold(1, 2 * self.max_shift + 1, 1) == ids[..., None]
        )
        if padding_mask is not None:
            match = match & padding_mask[..., None]
        match = match.to(self.matches.weight.dtype)
        x = self.reference(reference.int()) + self.matches(match)
        if not self.filters:
            return x
        smooth = smoothed(match, self.smooth, self.sides)
        weight = smooth.softmax(-1)
        shown = F.pad(torch.cat([match[:, :, None], weight], 2), (NEIGHBOURS, NEIGHBOURS))
        likely = smooth[:, :, :2].argmax(-1)
        frames = [_seen_from(shown, likely[:, :, which]) for which in (0, 1)]
        return x + self.aligned(weight.flatten(2)) + self.framed(torch.cat(frames, -1))


def smoothed(
    match: Float[Tensor, "batch length shifts"], filters: Float[Tensor, "filters kernel"], sides: tuple[int, int]
) -> Float[Tensor, "batch length filters shifts"]:
    """Every diagonal correlated with every filter, `sides` rows before and after its own; zeros beyond the ends.

    As products of tiles of rows with a banded matrix: a convolution of one channel leaves most of a core idle.
    """
    batch, length, shifts = match.shape
    count, kernel = filters.shape
    rows = F.pad(match, (0, 0, sides[0], sides[1] + -length % TILE)).unfold(1, TILE + kernel - 1, TILE)
    # Rows of kernel + TILE numbers read in steps of one less: each begins one place further to the right.
    band = F.pad(filters, (0, TILE)).repeat(1, TILE)[:, :-TILE].view(count, TILE, TILE + kernel - 1)
    tiles = band.transpose(0, 1).reshape(TILE * count, -1) @ rows.transpose(-1, -2)
    return tiles.reshape(batch, -1, count, shifts)[:, :length]


def _seen_from(shown: Float[Tensor, "batch length rows wide"], likely: Tensor) -> Float[Tensor, "batch length seen"]:
    """The 2 NEIGHBOURS + 1 diagonals around the likely one, of every row."""
    around = likely[:, :, None] + torch.arange(2 * NEIGHBOURS + 1, device=shown.device)
    return shown.gather(-1, around[:, :, None].expand(-1, -1, shown.shape[2], -1)).flatten(2)


def _smoothers(filters: int, kernel: int, before: int) -> Float[Tensor, "filters kernel"]:
    """Filters to start from: exponentials of several lengths, looking left and (where they can) right in turn."""
    offset = torch.arange(kernel) - before
    rows = []
    for number in range(filters):
        length = (6.0, 3.0, 10.0, 16.0)[number // 2 % 4]
        side = offset < 0 if number % 2 == 0 or before == kernel - 1 else offset > 0
        row = torch.where(side, torch.exp(-offset.abs() / length), 0.0)
        rows.append(12 * row / row.sum())
    return torch.stack(rows)
