"""Checks of the contract of an attention layer; each takes a layer's factory and returns a result.

All but `matches_naive` are independent of the layer's own reference, because they must catch a mistake made in both.
"""

from genoattn.attention.conformance import (  # noqa: F401  (each registers its checks)
    cost,
    exact,
    learning,
    parallel,
    streaming,
)
from genoattn.attention.conformance.check import CHECKS, CheckResult, Factory
from genoattn.errors import UserError

__all__ = ["CHECKS", "CheckResult", "Factory", "check"]


def check(factory: Factory, dim: int = 32) -> list[CheckResult]:
    """Run every check on a layer, bidirectional and then causal.

    Args:
        factory: Builds the layer: `factory(dim=…, causal=…)`.
        dim: Channels of a token.

    Returns:
        A result for each check and direction. A direction that the layer refuses with a UserError is one result that
        holds, with the layer's sentence as its detail.
    """
    results = []
    for causal in (False, True):
        direction = "causal" if causal else "bidirectional"
        try:
            factory(dim=dim, causal=causal)
        except UserError as refusal:
            results.append(CheckResult(f"refuses ({direction})", True, str(refusal), "a layer may refuse in words"))
            continue
        for name, run in CHECKS.items():
            try:
                result = run(factory, dim, causal)
            except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
                message = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
                result = CheckResult(name.replace("_", " "), False, message, "layers that fail")
            results.append(result._replace(name=f"{result.name} ({direction})"))
    return results
