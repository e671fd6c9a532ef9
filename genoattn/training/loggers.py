"""The loggers of a run: metrics.csv always, Weights & Biases and TensorBoard by choice."""

import csv
import netrc
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias, final
from urllib.parse import urlsplit

from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from genoattn.errors import UserError
from genoattn.files import cannot_write, replace_when_done, save_figure

Rows: TypeAlias = tuple[Sequence[str], Sequence[Sequence[object]]]
"""The columns and the rows of a table."""


def build_loggers(folder: Path, chosen: Iterable[Logger], config: Mapping[str, object]) -> list[Logger]:
    """A logger that writes metrics.csv in the run folder, and the chosen ones, which get the config."""
    chosen = list(chosen)
    for logger in chosen:
        logger.log_hyperparams(dict(config))
    return [MetricsFile(folder), *chosen]


@final
class MetricsFile(Logger):
    """metrics.csv: a row for each logged step, on the disk at once; a resumed run goes on below the rows before it.

    Lightning's CSVLogger removes the file of a run that goes on in its folder.
    """

    def __init__(self, folder: Path):
        super().__init__()
        self.file = folder / "metrics.csv"
        self._columns: list[str] = []

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, params: object, *args: object, **kwargs: object) -> None:
        """Settings are in config.yaml."""

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        row = metrics | {"step": step}
        if row.keys() <= set(self._columns):
            try:
                with self.file.open("a", newline="", encoding="utf-8") as lines:
                    csv.DictWriter(lines, self._columns).writerow(row)
            except OSError as error:
                raise cannot_write(self.file, error) from error
        else:
            rows = self._rows() if self._columns else []
            self._columns = sorted({*self._columns, *row})
            self._write([*rows, row])

    def keep_until(self, step: int) -> None:
        """Keep the rows of the steps before `step`, which are not made again; the next rows follow them."""
        whole = [row for row in self._rows() if None not in row and (row.get("step") or "").isdigit()]
        rows = [row for row in whole if int(row["step"]) < step]
        self._columns = list(rows[0]) if rows else []
        self._write(rows)

    def _rows(self) -> list[dict[str, Any]]:
        if not self.file.is_file():
            return []
        with self.file.open(newline="", encoding="utf-8") as lines:
            return list(csv.DictReader(lines))

    def _write(self, rows: Sequence[Mapping[str, object]]) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        with replace_when_done(self.file) as temporary, temporary.open("w", newline="", encoding="utf-8") as lines:
            writer = csv.DictWriter(lines, self._columns)
            writer.writeheader()
            writer.writerows(rows)


def wandb_logger(
    project: str = "genoattn",
    name: str | None = None,
    group: str | None = None,
    save_dir: str = ".",
    offline: bool = False,
) -> WandbLogger:
    """A logger to Weights & Biases. $WANDB_MODE, if it is set, decides instead of `offline`.

    Without an API key the run is logged offline, because W&B would ask for one or end the run with a traceback.
    """
    if "WANDB_MODE" not in os.environ and not offline and not _has_wandb_key():
        offline = True
        print(
            "wandb: no key was found (wandb login, or WANDB_API_KEY), so this run is logged offline; send it later with"
            f" `wandb sync {save_dir}/wandb/…`"
        )
    # Lightning's own `offline` would set $WANDB_MODE for all that runs later in this process.
    mode = "offline" if offline and "WANDB_MODE" not in os.environ else None
    return WandbLogger(project=project, name=name, group=group, save_dir=save_dir, mode=mode)


def _has_wandb_key() -> bool:
    host = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai").hostname or ""
    try:
        saved = netrc.netrc(os.environ.get("NETRC")).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        saved = None
    return bool(os.environ.get("WANDB_API_KEY") or saved)


def tensorboard_logger(save_dir: str = ".") -> TensorBoardLogger:
    """A logger for TensorBoard, in the folder tensorboard/ of the run."""
    try:
        return TensorBoardLogger(save_dir, name="tensorboard", version="")
    except ModuleNotFoundError:
        raise UserError("logger=tensorboard needs the package tensorboard: pip install tensorboard") from None


def log_report(
    loggers: Sequence[Logger], metrics: Mapping[str, int | float], tables: Sequence[Rows], plots: Path
) -> None:
    """Send the metrics of a report to every chosen logger, its tables and plots to Weights & Biases, and end them."""
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            for number, (columns, rows) in enumerate(tables):
                plain = [column.replace("\n", " ") for column in columns]
                logger.log_table(f"report{number or ''}", plain, [list(row) for row in rows])
            for plot in sorted(plots.glob("*.png")):
                logger.log_image(f"plots/{plot.stem}", [str(plot)])
            logger.experiment.summary.update(dict(metrics))
            logger.experiment.finish()
        elif not isinstance(logger, MetricsFile):  # metrics.json is beside metrics.csv
            logger.log_metrics(dict(metrics))
            logger.finalize("success")


def plot_training(metrics: Path, file: Path) -> None:
    """Plot loss and curriculum against the bases seen, from metrics.csv of a run."""
    from matplotlib.figure import Figure  # late: training itself does not need it

    with metrics.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    figure = Figure(figsize=(7, 6), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)
    bases = 0.0
    points: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        bases = float(row.get("bases_seen") or bases)
        for name in ("loss", "validation/loss", "curriculum/rate", "curriculum/length"):
            if row.get(name):
                points.setdefault(name, []).append((bases, float(row[name])))
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
        right = below.twinx()
        right.plot(*zip(*points["curriculum/length"], strict=True), "C1--", label="length")
        right.set_ylabel("window (bases)", color="C1")
    save_figure(figure, file)
