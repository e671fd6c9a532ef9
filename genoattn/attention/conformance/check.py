"""The registry of checks, the result of a check, and the constants that all checks share."""

from collections.abc import Callable
from functools import wraps
from typing import NamedTuple

import torch

from genoattn.attention.base import Attention

Factory = Callable[..., Attention]


LENGTHS = (1, 7, 64, 100, 131)


LONG = 300
"""Tokens: several blocks or chunks of every layer, and still a small square for `naive`."""


TOLERANCE = 1e-10
"""Largest difference in float64, relative to the largest number compared."""


LEAK = 1e-12
"""Largest gradient by a later token, relative to the largest one: the rounding of a convolution by FFT."""


BFLOAT16_TOLERANCE = 0.03
"""Root mean square error, relative to the root mean square of the outputs."""


MILLION = 2**20


GROWTH = {"linear": 2.1, "n log n": 2.3}
"""Largest factor of FLOPs and of the largest tensor at twice the length, by `complexity`."""


FLOPS_TOLERANCE = 0.02


STATE_TOLERANCE = 0.05


FLOAT32_TOLERANCE = 1e-4
"""Largest root mean square error in float32, relative to the root mean square of the outputs."""


STEPS = 150


LEARNED = 0.9
"""Accuracy on the toy task, where guessing gives 0.25."""


FAR = 512
"""Tokens of the toy task that asks for something far away."""


LEARNED_FAR = 0.7
"""Accuracy on it: well above guessing, because its steps are few."""


class CheckResult(NamedTuple):
    """Result of one check of a layer.

    Attributes:
        name: Name of the check.
        holds: True if the layer passes.
        detail: The numbers that were measured.
        why: The mistakes that the check is there to catch.
        warning: What a user should know although the layer passes; empty if nothing.
    """

    name: str
    holds: bool
    detail: str
    why: str
    warning: str = ""


Outcome = tuple[bool, str] | tuple[bool, str, str]
"""True if the layer passes, the numbers that were measured, and a warning if there is one."""


Check = Callable[[Factory, int, bool], CheckResult]


CHECKS: dict[str, Check] = {}


def register(catches: str) -> Callable[[Callable[[Factory, int, bool], Outcome]], Check]:
    """Add a function to the checks; it runs with random numbers of its own and leaves the caller's as they were."""

    def add(measure: Callable[[Factory, int, bool], Outcome]) -> Check:
        @wraps(measure)
        def seeded(factory: Factory, dim: int, causal: bool) -> CheckResult:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                holds, detail, *warning = measure(factory, dim, causal)
                return CheckResult(measure.__name__.replace("_", " "), holds, detail, catches, *warning)

        CHECKS[measure.__name__] = seeded
        return seeded

    return add


def perturbed_layer(factory: Factory, dim: int, causal: bool) -> Attention:
    """A float64 layer with noise added to every parameter, so that none is 0 or 1 as it may be at the start."""
    layer = factory(dim=dim, causal=causal).double().eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return layer
