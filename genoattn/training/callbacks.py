"""Callbacks of training: when it stops, and a line on its progress."""

import math
import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

import rich.progress
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from genoattn.training.processes import highest, place

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
"""Ctrl-C, and the signal of schedulers, of `kill` and of a machine that shuts down."""


@final
class StopCleanly(Callback):
    """Ends training after a whole step: the last one, the first after `seconds`, or the one in which a signal came.

    The first two are validated. A signal adds no validation, so that a resumed run equals one that was never stopped.
    Lightning's Timer would stop between the batches of a step, and its own Ctrl-C within a batch; neither can be
    resumed exactly. Of several processes all end after the same step, whichever of them was told to.
    """

    def __init__(self, seconds: float | None):
        self.seconds = math.inf if seconds is None else seconds
        self.stopped_by: signal.Signals | None = None
        self.timed_out = False
        self._start, self._steps = 0.0, 0
        slurm = ("SIGUSR1", "SIGUSR2") if "SLURM_JOB_ID" in os.environ else ()  # chosen by sbatch --signal
        self._signals = (*STOP_SIGNALS, *(signal.Signals[name] for name in slurm))
        if threading.current_thread() is not threading.main_thread():  # no other thread receives signals
            self._signals = ()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within it the first signal ends training after the step; a second Ctrl-C ends the program at once."""
        before = {number: signal.getsignal(number) for number in self._signals}
        try:
            yield
        except SystemExit:  # Lightning turns KeyboardInterrupt into it
            if self.stopped_by:
                raise KeyboardInterrupt from None
            raise
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def stop(number: int, _: object) -> None:
            if self.stopped_by and number == signal.SIGINT:
                raise KeyboardInterrupt
            self.stopped_by = self.stopped_by or signal.Signals(number)
            if place().world == 1:
                loop = trainer.fit_loop.epoch_loop
                loop.max_steps = min(loop.max_steps, trainer.global_step + 1)

        self._steps, self._stop = trainer.max_steps, stop
        self._listen()

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._start = time.perf_counter()
        self._listen()  # again: Lightning's own handler of SIGTERM, set since, ends training within a step

    def _listen(self) -> None:
        for number in self._signals:
            signal.signal(number, self._stop)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return
        finished = trainer.global_step >= self._steps
        late = time.perf_counter() - self._start >= self.seconds and not self.stopped_by
        if place().world > 1:
            number, late = highest(self.stopped_by or 0, late)
            if number:
                self.stopped_by, late = signal.Signals(number), False
                trainer.fit_loop.epoch_loop.max_steps = trainer.global_step
        self.timed_out = bool(late) and not finished
        trainer.should_stop = bool(late) or finished

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        (number,) = highest(self.stopped_by or 0)  # it may have come after the last step
        self.stopped_by = signal.Signals(number) if number else None


@final
class Progress(Callback):
    """A bar on a terminal, and at each validation a line: step, loss, curriculum, speed and validation metrics.

    Lightning's bars show their metrics only as long as they run; these lines stay on the screen and in log files.
    """

    def __init__(self) -> None:
        console = Console()
        metrics = TextColumn("loss {task.fields[loss]:.4f}  {task.fields[speed]:,.0f} bases/s")
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), metrics)
        self.bar = rich.progress.Progress(
            *columns, console=console, transient=True, refresh_per_second=2, disable=not console.is_terminal
        )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        done = trainer.global_step
        self.task = self.bar.add_task("", total=trainer.max_steps, completed=done, loss=math.nan, speed=math.nan)
        self.bar.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if not self.bar.disable:
            loss, speed = (float(trainer.callback_metrics[name]) for name in ("loss", "bases_per_second"))
            self.bar.update(self.task, completed=trainer.global_step, loss=loss, speed=speed)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        quality = ""
        for title, prefix in (("AUPRC", "validation/auprc_"), ("accuracy", "validation/accuracy_")):
            values = {name.removeprefix(prefix): value for name, value in metrics.items() if prefix in name}
            if values:
                quality += f"  {title} " + "  ".join(_show(name, value) for name, value in values.items())
        self.bar.console.print(
            f"step {trainer.global_step:>6}  loss {metrics.get('loss', 0):.4f}"
            f"  rate {metrics.get('curriculum/rate', 0):.3f}  length {metrics.get('curriculum/length', 0):.0f}"
            f"  {metrics.get('bases_per_second', 0):,.0f} bases/s  validation loss {metrics['validation/loss']:.4f}"
            f"{quality}",
            highlight=False,
            soft_wrap=True,
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.bar.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.bar.stop()


def _show(name: str, value: float) -> str:
    undefined = math.copysign(1, value) < 0  # torchmetrics returns -0.0 where the target has no positive
    return f"{name} {'–' if undefined else f'{value:.3f}'}"
