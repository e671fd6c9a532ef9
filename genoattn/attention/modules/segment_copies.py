"""Copies of a batch, one for each segment of the context, for layers whose state does not tell segments apart."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from genoattn.attention.base import TokenLayout


class SegmentCopies(NamedTuple):
    """A copy of the batch for each of these segments; None stands for a segment that no token belongs to yet."""

    ids: tuple[int | None, ...]

    def repeat(self, x: Tensor) -> Tensor:
        """The copies of a tensor one after another along its batch."""
        return x.repeat(len(self.ids), *(1,) * (x.dim() - 1))

    def members(self, layout: TokenLayout, x: Float[Tensor, "batch length ..."]) -> Bool[Tensor, "copies batch length"]:
        """True at the tokens of the segment of a copy; without segment ids all tokens are of segment 0."""
        if layout.segment_ids is None:
            ids = torch.zeros(x.shape[:2], dtype=torch.long, device=x.device)
        else:
            ids = layout.segment_ids
        return torch.stack([ids == (-1 if segment is None else segment) for segment in self.ids])

    def select(
        self, y: Float[Tensor, "copied length heads channels"], chosen: Bool[Tensor, "copies batch length"]
    ) -> Float[Tensor, "batch length heads channels"]:
        """The sum of the outputs of all copies at the tokens that are chosen from them."""
        return y.unflatten(0, (len(self.ids), -1)).masked_fill(~chosen[..., None, None], 0).sum(0)


class HeadPart(NamedTuple):
    """Heads that are scanned together: with a copy of the batch for each segment, or without (None)."""

    heads: slice
    copies: SegmentCopies | None

    def memories(self, batch: int) -> tuple[int, int]:
        """Number of copies of all sequences of a batch, and of these heads: each has a memory."""
        return batch * (1 if self.copies is None else len(self.copies.ids)), self.heads.stop - self.heads.start

    def outputs(
        self,
        y: Float[Tensor, "copied length heads channels"],
        x: Float[Tensor, "batch length ..."],
        layout: TokenLayout,
    ) -> Float[Tensor, "batch length heads channels"]:
        """The outputs of each of the tokens x, from the copies for other segments than its own."""
        return y if self.copies is None else self.copies.select(y, ~self.copies.members(layout, x))


def segments_of(layout: TokenLayout) -> tuple[int, ...]:
    """The segments of a layout; segment 0 if it names none."""
    return layout.segments or (0,)
