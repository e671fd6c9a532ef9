"""The stem that compares a sample with a reference: an embedding of both, a dot plot, and a soft local alignment."""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Integer
from torch import Tensor, nn

from genoattn.errors import UserError

NEIGHBOURS = 10
"""Diagonals on each side of the likeliest one that are shown relative to it."""

TILE = 64
"""Rows of the dot plot that are smoothed by one matrix product."""


@final
class AlignmentStem(nn.Module):
    """Embeds sample base i with reference base i and the matches at reference bases i - max_shift … i + max_shift.

    The matches form a dot plot: one row a sample base, one diagonal a shift. Each of `filters` learned filters, which
    are `kernel` bases long and the same on every diagonal, smooths the matches along it. A softmax over the diagonals
    turns the result into a soft alignment: the shift between sample and reference, read from the left of each base
    (even filters) or from its right (odd filters). Dot plot and alignment are shown twice more, relative to
    the diagonals that the first and the second filter find likeliest: there an indel looks the same whatever the shift
    before it. With `filters` 0 only the matches are used.
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
            self.smooth = nn.Parameter(torch.empty(filters, kernel))
            with torch.no_grad():
                self.smooth.copy_(_smoothers(filters, kernel, self.sides[0]))
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
        plots = F.pad(torch.cat([match[:, :, None], weight], 2), (NEIGHBOURS, NEIGHBOURS))
        likeliest = smooth[:, :, :2].argmax(-1)
        frames = [_around_diagonal(plots, likeliest[:, :, side]) for side in (0, 1)]
        return x + self.aligned(weight.flatten(2)) + self.framed(torch.cat(frames, -1))


def smoothed(
    match: Float[Tensor, "batch length shifts"], filters: Float[Tensor, "filters kernel"], sides: tuple[int, int]
) -> Float[Tensor, "batch length filters shifts"]:
    """Every diagonal correlated with every filter, from `sides[0]` rows before to `sides[1]` rows after; 0 outside.

    Computed as products of tiles of rows with a banded matrix: a convolution of one channel uses little of a core.
    """
    batch, length, shifts = match.shape
    count, kernel = filters.shape
    rows = F.pad(match, (0, 0, sides[0], sides[1] + -length % TILE)).unfold(1, TILE + kernel - 1, TILE)
    # Row r of the band is the filter moved r places to the right; for a filter abc and tiles of 4 rows:
    #   abc...      The padded filter abc.... is repeated to abc....abc....abc…, which is cut into rows of one number
    #   .abc..      less than the padded filter, so that the filter stands one place further to the right in each row.
    #   ..abc.
    #   ...abc
    band = F.pad(filters, (0, TILE)).repeat(1, TILE)[:, :-TILE].view(count, TILE, TILE + kernel - 1)
    tiles = band.transpose(0, 1).reshape(TILE * count, -1) @ rows.transpose(-1, -2)
    return tiles.reshape(batch, -1, count, shifts)[:, :length]


def _around_diagonal(
    plots: Float[Tensor, "batch length rows wide"], diagonal: Tensor
) -> Float[Tensor, "batch length values"]:
    """The 2 NEIGHBOURS + 1 diagonals around the given one, of every row."""
    around = diagonal[:, :, None] + torch.arange(2 * NEIGHBOURS + 1, device=plots.device)
    return plots.gather(-1, around[:, :, None].expand(-1, -1, plots.shape[2], -1)).flatten(2)


def _smoothers(filters: int, kernel: int, before: int) -> Float[Tensor, "filters kernel"]:
    """Initial filters: exponentials of several lengths, to the left and (if not causal) to the right in turn."""
    offset = torch.arange(kernel) - before
    rows = []
    for number in range(filters):
        length = (6.0, 3.0, 10.0, 16.0)[number // 2 % 4]
        side = offset < 0 if number % 2 == 0 or before == kernel - 1 else offset > 0
        row = torch.where(side, torch.exp(-offset.abs() / length), 0.0)
        rows.append(12 * row / row.sum())
    return torch.stack(rows)
