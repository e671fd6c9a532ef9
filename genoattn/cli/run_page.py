"""The page of a run: its tables, plots, settings, command, environment, files and log in one file for a browser."""

import datetime
import os
import platform
import shlex
from base64 import b64encode
from collections.abc import Sequence
from glob import escape
from pathlib import Path
from typing import NamedTuple
from urllib.parse import quote

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from genoattn.cli import environment
from genoattn.config.differences import differences
from genoattn.evaluation.page import render
from genoattn.evaluation.report import read_report, visible
from genoattn.files import write_text

PAGE = "run.html"
LONGEST_LOG = 200_000
"""Characters of the end of the log that the page holds."""

PICTURES = {".png": "image/png", ".svg": "image/svg+xml"}


class Picture(NamedTuple):
    """A plot that a run made, as the address of its content."""

    name: str
    address: str
    beside: bool
    """True if it lies beside `out`, not among the plots of the run folder."""


class File(NamedTuple):
    """A file or folder that a run left, for a link."""

    name: str
    address: str
    size: str


def write_run_page(folder: Path, program: str, command: Sequence[str], config: DictConfig, began: float) -> None:
    """Write run.html into a run folder, from what the run left there and beside its `out`.

    Args:
        folder: The run folder.
        program: Name of the program.
        command: The words of the command line.
        config: The config of the run, within the running program.
        began: Time of the start in seconds since 1970.
    """
    start = datetime.datetime.fromtimestamp(began).astimezone()
    seconds = datetime.datetime.now().timestamp() - began
    report, log = folder / "report.md", folder / f"{program}.log"
    tables = read_report(report.read_text("utf-8")) if report.is_file() else []
    beside = outputs(config.get("out"), began)
    changed = differences(program, config, HydraConfig.get())
    text = log.read_text("utf-8", "replace")[-LONGEST_LOG:] if log.is_file() else ""
    shown = pictures(folder, beside)
    sections = {
        "results": "Results" if tables or shown else "",
        "settings": "Settings",
        "command": "Command",
        "environment": "Environment",
        "files": "Files",
        "log": "Log" if text else "",
    }
    page = render(
        "genoattn.cli",
        "templates/run.html.j2",
        {},
        title=f"genoattn {program}: {visible(folder.name)}",
        subtitle=f"{start:%Y-%m-%d %H:%M}, {seconds:,.1f} s",
        sections={name: head for name, head in sections.items() if head},
        tables=tables,
        pictures=shown,
        settings=[[visible(text) for text in difference] for difference in changed],
        command=visible(shlex.join(command)),
        environment=surroundings(config, start),
        files=[*(link(path, folder) for path in left_in(folder)), *(link(path, folder) for path in beside)],
        log=visible(text),
    )
    write_text(folder / PAGE, page)


def outputs(out: object, began: float) -> list[Path]:
    """The files named like `out`, or `out` itself if it is a folder, that were written since the run began."""
    if not isinstance(out, str):
        return []
    path = Path(out).expanduser()
    stem = path.name.removesuffix(".gz").removesuffix(".vcf")
    found = [path] if path.is_dir() else sorted(path.parent.glob(f"{escape(stem)}.*"))
    return [file for file in found if file.stat().st_mtime >= began - 1]


def left_in(folder: Path) -> list[Path]:
    """The files and folders of a run, without hidden ones and the page itself."""
    return sorted(path for path in folder.iterdir() if path.name != PAGE and not path.name.startswith("."))


def pictures(folder: Path, beside: Sequence[Path]) -> list[Picture]:
    """The plots of the run folder, then the pictures beside `out`; one of two that differ in their ending only."""
    plots = sorted((folder / "plots").glob("*")) if (folder / "plots").is_dir() else []
    files = {file.with_suffix(""): file for file in [*plots, *beside] if file.suffix in PICTURES}
    return [
        Picture(
            file.stem.replace("_", " "),
            f"data:{PICTURES[file.suffix]};base64,{b64encode(file.read_bytes()).decode()}",
            file in beside,
        )
        for file in files.values()
    ]


def surroundings(config: DictConfig, start: datetime.datetime) -> list[tuple[str, str]]:
    """Names and values of the environment of a run."""
    threads = environment.threads()
    values = {
        "seed": config.get("seed"),
        "device": environment.device(),
        "machine": f"{platform.node()}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores",
        "threads": threads,
        "started": start.isoformat(timespec="seconds"),
        "working directory": visible(os.getcwd()),
        "python": platform.python_version(),
        **environment.versions(),
        "commit": environment.commit(),
    }
    return [(name, str(value)) for name, value in values.items() if value is not None]


def link(path: Path, folder: Path) -> File:
    """A link to a file, relative to the run folder."""
    relative = Path(os.path.relpath(path, folder)).as_posix()
    name, address = visible(relative), quote(os.fsencode(relative))
    if path.is_dir():
        return File(f"{name}/", f"{address}/", "")
    size = path.stat().st_size
    return File(name, address, f"{size / 1000:,.1f} kB" if size >= 1000 else f"{size} bytes")
