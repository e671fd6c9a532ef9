"""Options that all layers with heads share."""

from dataclasses import dataclass
from typing import Literal

from genoattn.attention.modules.rotary import Rope
from genoattn.errors import UserError


@dataclass(frozen=True)
class HeadOptions:
    """Options of the heads of an attention layer; the config group `heads`, one choice for all layers of a run.

    Args:
        count: Number of heads; it must divide the model's dim.
        positions: "rotary", "none" or, in a sliding window, "alibi".
        qk_norm: Normalise queries and keys to a mean square of `logit_scale`, which each head then learns.
        logit_scale: Scale of the scores of every head before training. Above 1 the softmax starts sharper.
        tie_qk_init: Start with equal projections of queries and keys, so that similar tokens attract each other.
        cross_segment: Share of the heads that see only the tokens of another segment of the context. Layers without
            heads ignore it, and so do the pooled levels of "pyramid".
        rotate_values: Rotate values by the positions of their tokens and outputs back by those of the queries. What a
            token receives then depends on its distance. Layers without heads ignore it, and so do the pooled levels of
            "pyramid" and the compressed branch of "nsa".
        gate: A sigmoid gate, computed from the token, of each head or channel of the outputs before their projection:
            "none", "head" or "channel" (arXiv:2505.06708).
        rope_base: Base of the wavelengths of rotary positions, 2π to 2π · rope_base tokens.
        rope_scaling: Stretch of the wavelengths for sequences longer than those of the training: "none", "linear"
            (position interpolation), "ntk" or "yarn".
        rope_factor: How many times longer the sequences are.
        rope_trained_length: Tokens of a sequence of the training; "yarn" needs it.

    Raises:
        UserError: A value is out of its range, or a setting has no effect without another.
    """

    count: int = 4
    positions: Literal["rotary", "none", "alibi"] = "rotary"
    qk_norm: bool = True
    logit_scale: float = 1.0
    tie_qk_init: bool = False
    cross_segment: float = 0.0
    rotate_values: bool = False
    gate: Literal["none", "head", "channel"] = "none"
    rope_base: float = 10000.0
    rope_scaling: Literal["none", "linear", "ntk", "yarn"] = "none"
    rope_factor: float = 1.0
    rope_trained_length: int | None = None

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"heads.count must be 1 or more, got {self.count}")
        if not self.logit_scale > 0:
            raise UserError(f"heads.logit_scale must be more than 0, got {self.logit_scale}")
        if self.logit_scale != 1 and not self.qk_norm:
            raise UserError(f"heads.logit_scale needs heads.qk_norm=true, which it belongs to, got {self.logit_scale}")
        if not 0 <= self.cross_segment <= 1:
            raise UserError(f"heads.cross_segment is a share of the heads, from 0 to 1, got {self.cross_segment}")
        if self.cross_segment and not self.cross_segment_count:
            raise UserError(
                f"heads.cross_segment of {self.cross_segment} of {self.count} heads is less than half a head; give 0 or"
                " more heads"
            )
        self._check_rope()

    def _check_rope(self) -> None:
        """Raises UserError if a setting of rotary positions is out of its range or has no effect."""
        scaling = self.rope_scaling
        if not self.rope_base > 1:
            raise UserError(f"heads.rope_base must be more than 1, got {self.rope_base}")
        if self.positions != "rotary" and (self.rope_base != HeadOptions.rope_base or scaling != "none"):
            raise UserError(
                f"heads.rope_base and heads.rope_scaling need heads.positions=rotary, got positions {self.positions}"
            )
        if scaling == "none" and self.rope_factor != 1:
            raise UserError(
                f"heads.rope_factor needs heads.rope_scaling=linear, ntk or yarn, got {self.rope_factor} with none"
            )
        if scaling != "none" and not self.rope_factor > 1:
            raise UserError(f"heads.rope_scaling={scaling} needs heads.rope_factor above 1, got {self.rope_factor}")
        if scaling == "yarn" and (self.rope_trained_length is None or self.rope_trained_length < 1):
            raise UserError(
                "heads.rope_scaling=yarn needs heads.rope_trained_length of 1 or more tokens, got "
                f"{self.rope_trained_length}"
            )
        if scaling != "yarn" and self.rope_trained_length is not None:
            given = f"{self.rope_trained_length} with {scaling}"
            raise UserError(f"heads.rope_trained_length belongs to heads.rope_scaling=yarn, got {given}")

    @property
    def rope(self) -> Rope:
        """The frequencies of rotary positions."""
        return Rope(self.rope_base, self.rope_scaling, self.rope_factor, self.rope_trained_length or 0)

    @property
    def cross_segment_count(self) -> int:
        """Number of heads that see only another segment: the last ones."""
        return round(self.cross_segment * self.count)


WITHOUT_POSITIONS = {
    "positions": "none",
    "rope_base": HeadOptions.rope_base,
    "rope_scaling": "none",
    "rope_factor": 1.0,
    "rope_trained_length": None,
}
"""Settings of heads without positions, for layers whose order is in their state."""
