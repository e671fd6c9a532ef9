"""What a law is: a trial of a layer's factory that returns a verdict; and the constants that all trials share."""

from collections.abc import Callable
from functools import wraps
from typing import NamedTuple

import torch

from genoattn.attention.base import Attention

Factory = Callable[..., Attention]


LENGTHS = (1, 7, 64, 100, 131)


LONG = 300  # several blocks or chunks of every variant, and still a small square for `naive`


TOLERANCE = 1e-10  # of the largest number compared, in float64


BFLOAT16_TOLERANCE = 0.03  # root mean square error, of the answer's own root mean square


MILLION = 2**20


GROWTH = {"linear": 2.1, "n log n": 2.3}  # of FLOPs and of the largest tensor, at twice the length


FLOPS_TOLERANCE = 0.02


STATE_TOLERANCE = 0.05


STEPS = 150


LEARNED = 0.9  # accuracy on the planted task, where guessing gives 0.25


class CheckResult(NamedTuple):
    """Whether a law holds, the numbers that say so, and what the law is there to catch."""

    name: str
    holds: bool
    detail: str
    why: str


Check = Callable[[Factory, int, bool], CheckResult]


CHECKS: dict[str, Check] = {}


def register(trial: Check) -> Check:
    """Enter a trial among the laws, with its own random numbers and the caller's left as they were."""

    @wraps(trial)
    def seeded(factory: Factory, dim: int, causal: bool) -> CheckResult:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return trial(factory, dim, causal)

    CHECKS[trial.__name__] = seeded
    return seeded


def perturbed_layer(factory: Factory, dim: int, causal: bool) -> Attention:
    """A float64 layer whose every parameter, those that start at 0 or 1 included, has been moved."""
    layer = factory(dim=dim, causal=causal).double().eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return layer
