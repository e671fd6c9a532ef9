"""The heads of the delta rule that share a scan."""

from torch import Tensor

from genoattn.attention.base import TokenLayout
from genoattn.attention.modules.segment_copies import HeadPart
from genoattn.attention.ops.delta_rule import DeltaInputs


class DeltaPart(HeadPart):
    """Heads of the delta rule that share a scan."""

    def inputs(self, whole: DeltaInputs, x: Tensor, layout: TokenLayout) -> DeltaInputs:
        """Inputs of these heads and all copies: only the tokens of a copy's segment write and fade."""
        q, k, v, write, log_kept = (t[:, :, self.heads] for t in whole)
        if self.copies is None:
            return q, k, v, write, log_kept
        strangers = ~self.copies.members(layout, x).flatten(0, 1)[..., None]
        q, k, v, write, log_kept = (self.copies.repeat(t) for t in (q, k, v, write, log_kept))
        return q, k, v, write.masked_fill(strangers, 0), log_kept.masked_fill(strangers, 0)
