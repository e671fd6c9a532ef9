"""Progress bars with the time that is left, for everything above: they are drawn on a terminal only, and disappear."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


@contextmanager
def progress(doing: str, total: float) -> Iterator[Callable[[int], object]]:
    """A progress bar; gives what moves it.

    Args:
        doing: Subject and verb, such as "the model scores".
        total: Number of windows, rows or bases.
    """
    from rich.console import Console  # late: most of what imports this module draws nothing
    from rich.markup import escape
    from rich.progress import MofNCompleteColumn, Progress

    console = Console()
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(f"  {escape(doing)}", total=total)
        yield lambda steps: bar.advance(task, steps)


def tracked(items: Iterable[Item], doing: str, total: int) -> Iterator[Item]:
    """Items behind a progress bar."""
    with progress(doing, total) as advance:
        for item in items:
            yield item
            advance(1)
