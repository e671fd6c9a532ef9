"""Evaluation: a fixed test set per task, the same for every model and baseline, with bootstrap intervals."""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from genoattn.evaluation.run import build_evaluator, evaluate

__all__ = ["build_evaluator", "evaluate"]


def __getattr__(name: str) -> object:
    """Import a public function when it is first used: the check of a config imports `evaluation.settings` alone."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module("genoattn.evaluation.run"), name)
