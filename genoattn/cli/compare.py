"""Compare attention layers: the same data, seeds and budget for each, a learning rate of its own, and tests."""

import datetime
import platform
import shlex
from collections.abc import Sequence
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from genoattn.cli.console import announce
from genoattn.cli.environment import processor, versions
from genoattn.cli.values import choice, output_folder
from genoattn.comparison import report
from genoattn.comparison.composition import compose_run
from genoattn.comparison.grid import WindowCounts, parse
from genoattn.comparison.launcher import stopped_by_sigterm
from genoattn.comparison.power import spread_of
from genoattn.comparison.record import Comparison, Environment
from genoattn.comparison.report.ladder_text import power_before
from genoattn.comparison.report.tables import all_tables
from genoattn.comparison.results import collect
from genoattn.comparison.run_folders import check_again, locked
from genoattn.comparison.runner import match_sizes, run_comparison
from genoattn.comparison.settings import Budget, ComparisonSettings, Cost, TakeOff
from genoattn.errors import UserError
from genoattn.files import write_text
from genoattn.training.loggers import build_loggers, log_report


def main(config: DictConfig) -> None:
    """Make every run that is not complete, and leave comparison.json, .csv and .html, tables and plots."""
    if config.report:
        folder = Path(config.report)
        report_on(folder, Comparison.read(folder))
        return
    folder = output_folder()
    with stopped_by_sigterm(), locked(folder):
        comparison = compare(config, folder)
        comparison.write(folder)
        report_on(folder, comparison)
        chosen_loggers = [
            instantiate(node, **({"group": config.name} if key == "wandb" else {}))
            for key, node in config.logger.items()
        ]
        loggers = build_loggers(folder, chosen_loggers, {})
        tables = [table.plain for table in all_tables(comparison).values()]
        log_report(loggers, report.metrics(comparison), tables, folder / "plots")
    if comparison.failed:
        failed = report.text.plural(len(comparison.failed), "run")
        log = folder / comparison.failed[0] / "log.txt"
        raise UserError(f"{failed} failed: see {log}; the same command tries again what is missing")


def report_on(folder: Path, comparison: Comparison) -> None:
    """Write the report of a comparison into a folder, and print the results."""
    report.write(folder, comparison)
    report.print_results(comparison)
    announce(f"comparison: {folder / 'comparison.html'}")


def compare(config: DictConfig, folder: Path) -> Comparison:
    """Run a comparison in a folder."""
    settings = settings_of(config)
    again = config.again if isinstance(config.again, bool) else tuple(config.again)
    check_again(again)
    overrides = list(HydraConfig.get().overrides.task)
    grid = parse(settings, overrides, window_counts, config.name if "wandb" in config.logger else None)
    if settings.match_size:
        grid = match_sizes(grid, settings.match_size)
    write_text(folder / "config.yaml", OmegaConf.to_yaml(config))
    plural = report.text.plural
    print(power_before(settings, len(grid.layers)))
    print(f"{plural(len(grid.layers), 'layer')} × {plural(len(grid.lengths), 'length')}: {', '.join(grid.layers)}")
    trained = run_comparison(folder, grid, settings, again)
    environment = describe_environment(overrides, config.trainer.threads or torch.get_num_threads())
    return collect(folder, settings, environment, trained)


def settings_of(config: DictConfig) -> ComparisonSettings:
    """The settings of a comparison from its config."""
    length, ladder = config.data.length, tuple(sorted(set(config.ladder)))
    lengths = (length,) if isinstance(length, int) else tuple(sorted(set(length)))
    return ComparisonSettings(
        name=config.name,
        task=choice("task"),
        layers=tuple(config.layers),
        lengths=ladder[-1:] or lengths,
        learning_rates=tuple(config.learning_rates),
        seeds=tuple(config.seeds),
        budget=Budget(**config.budget),
        sweep=Budget(**config.sweep),
        variants={str(name): tuple(map(str, words)) for name, words in config.variants.items()},
        match_size=config.match_size,
        extrapolate=tuple(config.extrapolate),
        cost_lengths=tuple(config.cost_lengths),
        cost_limit=Cost(**config.cost_limit),
        hypotheses=read_hypotheses(config.hypotheses) if config.hypotheses else None,
        ladder=ladder,
        ladder_ceiling=config.ladder_ceiling,
        take_off=TakeOff(**config.take_off),
        spread=spread_of(Comparison.read(Path(config.former))) if config.former else None,
    )


def window_counts(overrides: Sequence[str]) -> WindowCounts:
    """The counts of windows in the config of a training run."""
    config = compose_run("train", overrides)
    data, test = config.data, config.test
    return WindowCounts(
        *(data.batch, config.trainer.accumulate_batches, data.validation_windows),
        *(test.windows, test.threshold_windows),
    )


def describe_environment(overrides: Sequence[str], threads: int) -> Environment:
    """The command, this machine and the versions of the libraries that results depend on."""
    return Environment(
        command=f"genoattn compare {shlex.join(overrides)}",
        date=datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        processor=processor(),
        system=platform.system(),
        threads=threads,
        versions=versions(),
    )


def read_hypotheses(file: str) -> str:
    """The user's expectations from a text file."""
    try:
        return Path(file).read_text("utf-8")
    except FileNotFoundError:
        raise UserError(f"hypotheses={file} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"hypotheses={file} cannot be read as text ({error})") from None
