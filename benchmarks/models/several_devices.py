"""Memory of a process and time of a step at 1, 2 and 4 processes, for each strategy of several devices.

    python -m benchmarks.models.several_devices

The batch is that of all processes together. Every case is measured several times, the cases in turn; a case is the
median of its repeats, and times are told as ratios to one process. On a CPU processes share the cores, so that a ratio
below 1 cannot be expected beyond their number.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
from lightning import seed_everything
from lightning.pytorch import Callback, LightningModule, Trainer

from benchmarks.common.measure import machine, today, versions
from genoattn.cli.values import model_of, recipe_of, value_of
from genoattn.config.compose import compose
from genoattn.data.source import open_data_source
from genoattn.evaluation.report import Table
from genoattn.models.build import train_tokenizer
from genoattn.training.processes import joined, place
from genoattn.training.trainer import build_trainer, build_training

CASES = (("auto", 1), ("ddp", 2), ("fsdp", 2), ("ddp", 4), ("fsdp", 4))
"""Strategies and processes."""

WORDS = ("experiment=pretrain", "control=null", "trainer.threads=1", "trainer.accelerator=cpu", "trainer.max_steps=8")


class Watch(Callback):
    """Seconds of every step after the first two."""

    def __init__(self) -> None:
        self.seconds, self._last = list[float](), 0.0

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        now = time.perf_counter()
        if batch_idx >= 2:
            self.seconds.append(now - self._last)
        self._last = now


def train(words: Sequence[str], folder: Path) -> None:
    """Train in this process, one of a run, and leave its figures in the folder."""
    with joined():
        config = compose("train", words)
        recipe, task = recipe_of(config), value_of(config.task)
        source = open_data_source(recipe.data, task, recipe.seed)
        seed_everything(recipe.seed, verbose=False)
        tokenizer = train_tokenizer(value_of(config.tokenizer), source, recipe.seed)
        before = psutil.Process().memory_info().rss
        predictor = model_of(config, "attention", task, tokenizer)
        module, datamodule = build_training(predictor, source, recipe)
        watch = Watch()
        trainer = build_trainer(recipe.trainer, folder, [], [watch])
        trainer.limit_val_batches = 0
        trainer.fit(module, datamodule)
        figures = {
            "seconds": statistics.median(watch.seconds),
            "bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before,
        }
        (folder / f"{place().rank}.json").write_text(json.dumps(figures))


def measured(strategy: str, processes: int, words: Sequence[str]) -> dict[str, float]:
    """The mean time of a step, and the most memory of a process above that before it built its model."""
    with tempfile.TemporaryDirectory() as folder:
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
        own = [*WORDS, *words, f"trainer.strategy={strategy}", f"trainer.devices={processes}"]
        command = [sys.executable, *start, "-m", "benchmarks.models.several_devices", "--train", folder, *own]
        ended = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        if ended.returncode:
            raise SystemExit(f"{' '.join(command)} ended with {ended.returncode}:\n{ended.stderr}")
        figures = [json.loads(file.read_text()) for file in Path(folder).glob("*.json")]
    return {
        "seconds": statistics.fmean(each["seconds"] for each in figures),
        "bytes": max(each["bytes"] for each in figures),
    }


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """A row for each case."""
    alone = next(row for row in rows if row["processes"] == 1)
    lines = [
        [
            row["strategy"],
            str(row["processes"]),
            f"{row['bytes'] / 2**20:,.0f}",
            f"{row['bytes'] / alone['bytes']:.2f}",
            f"{row['seconds'] / alone['seconds']:.2f}",
        ]
        for row in rows
    ]
    return Table("", ["strategy", "processes", "MiB a process", "of one process", "time of a step"], lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure all cases in turn, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", type=Path, help="where the measurements are saved")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("words", nargs="*", help="overrides of the training, such as data.length=8192")
    chosen = parser.parse_args(arguments)
    if chosen.train:
        train(chosen.words, chosen.train)
        return
    found: dict[tuple[str, int], list[dict[str, float]]] = {case: [] for case in CASES}
    for _ in range(chosen.repeats):
        for case in CASES:
            found[case].append(measured(*case, chosen.words))
    rows = [
        {"strategy": strategy, "processes": processes}
        | {key: statistics.median(each[key] for each in repeats) for key in ("seconds", "bytes")}
        for (strategy, processes), repeats in found.items()
    ]
    if chosen.json:
        about = {"machine": machine(), "date": today(), "versions": versions(["torch", "lightning"])}
        chosen.json.write_text(json.dumps({"rows": rows, **about}, indent=1))
    table(rows).print()


if __name__ == "__main__":
    main()
