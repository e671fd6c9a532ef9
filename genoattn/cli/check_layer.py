"""The program `genoattn check-layer`: an attention layer, from any package, against the contract of layers."""

import sys

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from genoattn.attention.base import contract_error
from genoattn.attention.conformance import CheckResult, Factory, check
from genoattn.errors import UserError

WIDTH = 100
"""Columns of a table in a file."""


def main(config: DictConfig) -> None:
    """Apply every check to the layer in both directions and print the results; exit status 1 if one fails."""
    console = Console(width=None if sys.stdout.isatty() else WIDTH)
    built = instantiate(config.attention)
    failed = warnings = 0
    for name, factory in _kinds(built, str(HydraConfig.get().runtime.choices["attention"])).items():
        _require_contract(factory, config.dim)
        with console.status(f"checking {name}"):
            results = check(factory, config.dim)
        console.print(table(name, results))
        failed += sum(not result.holds for result in results)
        warnings += sum(bool(result.warning) for result in results)
    if failed:
        console.print(f"{failed} checks failed")
        raise SystemExit(1)
    console.print(f"every check passed, {warnings} with a warning" if warnings else "every check passed")


def _kinds(built: Factory | list[Factory], name: str) -> dict[str, Factory]:
    """The factories by name: one, or those of a hybrid, each of them once."""
    if not isinstance(built, list):
        return {name: built}
    return {f"{name}, layer {built.index(factory)}": factory for factory in dict.fromkeys(built)}


def _require_contract(factory: Factory, dim: int) -> None:
    """Refuse a layer without the attributes that the checks read."""
    for causal in (False, True):
        try:
            layer = factory(dim=dim, causal=causal)
        except UserError:
            continue  # a layer may refuse a direction; `check` reports it
        if error := contract_error(layer):
            raise UserError(error)


def table(name: str, results: list[CheckResult]) -> Table:
    """A row for each check: the result, the measured numbers, the warning, and of a failed check what it catches."""
    drawn = Table("check", "", "measured", title=name, title_justify="left")
    drawn.columns[0].no_wrap = drawn.columns[1].no_wrap = True
    for result in results:
        mark = "[yellow]warning[/]" if result.warning else "[green]passed[/]"
        parts = [result.detail, *([result.warning] if result.warning else [])]
        if not result.holds:
            mark, parts = "[bold red]FAILED[/]", [*parts, f"catches {result.why}"]
        drawn.add_row(result.name, mark, "; ".join(parts))
    return drawn
