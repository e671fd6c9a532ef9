"""The loggers of a run: metrics.csv always, Weights & Biases by choice, offline where it cannot be reached."""

import csv
import netrc
import os
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

import matplotlib.pyplot as plt
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger

from genoattn.files import save_figure

Rows: TypeAlias = tuple[Sequence[str], Sequence[Sequence[object]]]
"""The columns and the rows of a table."""


def plot_training(metrics: Path, file: Path) -> None:
    """Loss and curriculum against bases seen, from the run's metrics.csv."""
    with metrics.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    figure, (above, below) = plt.subplots(2, 1, figsize=(7, 6), sharex=True, layout="constrained")
    seen = 0.0
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        seen = float(row.get("bases_seen") or seen)
        for name in ("loss", "validation/loss", "curriculum/rate", "curriculum/length"):
            if row.get(name):
                points.setdefault(name, []).append((seen, float(row[name])))
    for name, style in (("loss", "-"), ("validation/loss", "o-")):
        if name in points:
            above.semilogy(*zip(*points[name], strict=True), style, label=name, lw=1)
    above.set_ylabel("loss (nats a base)")
    above.legend()
    if "curriculum/rate" in points:
        below.plot(*zip(*points["curriculum/rate"], strict=True), label="mutations a base")
    below.set_xlabel("bases seen")
    below.set_ylabel("mutations a base", color="C0")
    if "curriculum/length" in points:
        beside = below.twinx()
        beside.plot(*zip(*points["curriculum/length"], strict=True), "C1--", label="length")
        beside.set_ylabel("window (bases)", color="C1")
    save_figure(figure, file)


def build_loggers(folder: Path, choice: Logger | None, config: Mapping) -> list[Logger]:
    """metrics.csv in the run folder, and the logger of choice, which is told the config."""
    loggers: list[Logger] = [CSVLogger(folder, name="", version="")]
    if choice is not None:
        choice.log_hyperparams(dict(config))
        loggers.append(choice)
    return loggers


def wandb_logger(
    project: str = "genoattn", name: str | None = None, group: str | None = None, save_dir: str = "."
) -> WandbLogger:
    """Logs to Weights & Biases; offline, and saying so, where there is no key or no network.

    $WANDB_MODE, where it is set, decides instead.
    """
    reason = "" if "WANDB_MODE" in os.environ else _unreachable()
    if reason:
        print(f"wandb: {reason}, so this run is logged offline; send it later with `wandb sync {save_dir}/wandb/…`")
    mode = "offline" if reason else None
    return WandbLogger(project=project, name=name, group=group, save_dir=save_dir, mode=mode)


def _unreachable() -> str:
    """Why nothing can be sent now; empty where it can."""
    address = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai")
    host, port = address.hostname or "", address.port or (80 if address.scheme == "http" else 443)
    try:
        known = netrc.netrc(os.environ.get("NETRC")).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        known = None
    if not (os.environ.get("WANDB_API_KEY") or known):
        return "no key was found (wandb login, or WANDB_API_KEY)"
    try:
        socket.create_connection((host, port), timeout=3).close()
    except OSError:
        return f"{host} cannot be reached"
    return ""


def log_report(
    loggers: Sequence[Logger], metrics: Mapping[str, int | float], tables: Sequence[Rows], plots: Path
) -> None:
    """Send metrics, tables and plots to Weights & Biases, where it is among the loggers, and end its run."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            for number, (columns, rows) in enumerate(tables):
                plain = [column.replace("\n", " ") for column in columns]
                logger.log_table(f"report{number or ''}", plain, [list(row) for row in rows])
            for plot in sorted(plots.glob("*.png")):
                logger.log_image(f"plots/{plot.stem}", [str(plot)])
            logger.experiment.summary.update(dict(metrics))
            logger.experiment.finish()
