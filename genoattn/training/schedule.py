"""The schedule of the learning rate."""

import math
from typing import final

from genoattn.errors import UserError


@final
class WarmupCosine:
    """The factor of the learning rate: up in a straight line over `warmup` steps, then down a cosine to `final`."""

    def __init__(self, warmup: int = 50, final: float = 0.02):
        if warmup < 0:
            raise UserError(f"schedule.warmup must be at least 0 steps, got {warmup}")
        if not 0 <= final <= 1:
            raise UserError(f"schedule.final must lie within 0 and 1, got {final}")
        self.warmup, self.final = warmup, final

    def __call__(self, step: int, steps: int) -> float:
        """The factor at `step` (from 0) of `steps`."""
        rise = min(1.0, (step + 1) / (self.warmup + 1))
        progress = min(1.0, max(0, step - self.warmup) / max(1, steps - self.warmup))
        return rise * (self.final + (1 - self.final) * 0.5 * (1 + math.cos(math.pi * progress)))
