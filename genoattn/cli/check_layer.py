"""Which laws an attention layer keeps, which it breaks and why that matters; a layer of your own package included."""

from hydra.utils import instantiate
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from genoattn.attention.conformance import CheckResult, Factory, check


def main(config: DictConfig) -> None:
    """Put every law to the layer in both directions and print the verdicts; exit status 1 if one is broken."""
    console = Console()
    built = instantiate(config.attention)
    broken = 0
    for name, factory in _kinds(built, str(config.attention._target_)).items():
        with console.status(f"putting the laws to {name}"):
            verdicts = check(factory, config.dim)
        console.print(table(name, verdicts))
        broken += sum(not verdict.holds for verdict in verdicts)
    if broken:
        console.print(f"{broken} broken")
        raise SystemExit(1)
    console.print("every law holds")


def _kinds(built: Factory | list[Factory], target: str) -> dict[str, Factory]:
    """The layers by name: one, or those of a hybrid, each of them once."""
    if not isinstance(built, list):
        return {target: built}
    distinct = list(dict.fromkeys(built))
    return {f"{target}, layer {built.index(one)}": one for one in distinct}


def table(name: str, verdicts: list[CheckResult]) -> Table:
    """A row for each law: whether it holds, the numbers that say so and, of a broken one, what it is there to catch."""
    drawn = Table("law", "", "measured", "why it matters", title=name, title_justify="left")
    for verdict in verdicts:
        mark = "[green]holds[/]" if verdict.holds else "[bold red]broken[/]"
        drawn.add_row(verdict.name, mark, verdict.detail, "" if verdict.holds else f"catches {verdict.why}")
    return drawn
