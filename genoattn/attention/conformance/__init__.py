"""The laws an attention layer is held to, each a function that tries a layer's factory and returns a verdict.

All but `matches_naive` are independent of the layer's own reference, because a mistake made in both would be invisible
to it. `check` applies them all.
"""

from genoattn.attention.conformance import cost, exact, streaming  # noqa: F401  (each registers its checks)
from genoattn.attention.conformance.check import CHECKS, CheckResult, Factory
from genoattn.errors import UserError

__all__ = ["CHECKS", "CheckResult", "Factory", "check"]


def check(factory: Factory, dim: int = 32) -> list[CheckResult]:
    """Every law on the layer that `factory(dim=…, causal=…)` builds, bidirectional and then causal.

    A direction that the layer refuses with a UserError is one verdict that says so.
    """
    verdicts = []
    for causal in (False, True):
        direction = "causal" if causal else "bidirectional"
        try:
            factory(dim=dim, causal=causal)
        except UserError as refusal:
            verdicts.append(CheckResult(f"refuses ({direction})", True, str(refusal), "a layer may refuse in words"))
            continue
        for name, trial in CHECKS.items():
            try:
                verdict = trial(factory, dim, causal)
            except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
                said = " ".join(str(error).split())[:200]
                verdict = CheckResult(
                    name.replace("_", " "), False, f"{type(error).__name__}: {said}", "layers that fail"
                )
            verdicts.append(verdict._replace(name=f"{verdict.name} ({direction})"))
    return verdicts
