"""The heads of the delta rule that share a scan."""

from typing import NamedTuple

from torch import Tensor

from genoattn.attention.base import TokenLayout
from genoattn.attention.modules.segment_copies import SegmentCopies
from genoattn.attention.ops.delta_rule import DeltaInputs


class DeltaPart(NamedTuple):
    """Heads that are scanned together: with a copy of the batch for each segment, or without (None)."""

    heads: slice
    copies: SegmentCopies | None

    @property
    def count(self) -> int:
        """Number of copies of the batch."""
        return 1 if self.copies is None else len(self.copies.ids)

    def heads_of(self, count: int) -> int:
        """Number of these heads among `count`."""
        return len(range(*self.heads.indices(count)))

    def inputs(self, whole: DeltaInputs, x: Tensor, layout: TokenLayout) -> DeltaInputs:
        """Inputs of these heads and all copies: only the tokens of a copy's segment write and fade."""
        q, k, v, write, log_kept = (t[:, :, self.heads] for t in whole)
        if self.copies is None:
            return q, k, v, write, log_kept
        strangers = ~self.copies.members(layout, x).flatten(0, 1)[..., None]
        q, k, v, write, log_kept = (self.copies.repeat(t) for t in (q, k, v, write, log_kept))
        return q, k, v, write.masked_fill(strangers, 0), log_kept.masked_fill(strangers, 0)

    def outputs(self, y: Tensor, x: Tensor, layout: TokenLayout) -> Tensor:
        """Each token's outputs, from the copies for other segments than its own."""
        return y if self.copies is None else self.copies.select(y, ~self.copies.members(layout, x))
