"""What happens while Lightning trains: where it ends, what it keeps, and a line on how it goes."""

import math
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, final

import rich.progress
from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn


@final
class StopCleanly(Callback):
    """Ends training after the step at hand: the last one, the first after `seconds`, or the one in which Ctrl-C fell.

    The first two are validated. Ctrl-C adds no validation: the run goes on as if it had never been stopped.
    """

    def __init__(self, seconds: float | None):
        self.seconds = math.inf if seconds is None else seconds
        self.interrupted, self._began, self._steps = False, 0.0, 0

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within it Ctrl-C is ours; a second one ends the program at once."""
        before = signal.getsignal(signal.SIGINT)
        try:
            yield
        except SystemExit:  # so Lightning ends on a KeyboardInterrupt
            if self.interrupted:
                raise KeyboardInterrupt from None
            raise
        finally:
            signal.signal(signal.SIGINT, before or signal.default_int_handler)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        def interrupt(*_: object) -> None:
            if self.interrupted:
                raise KeyboardInterrupt
            self.interrupted = True
            loop = trainer.fit_loop.epoch_loop
            loop.max_steps = min(loop.max_steps, trainer.global_step + 1)

        self._steps = trainer.max_steps
        signal.signal(signal.SIGINT, interrupt)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._began = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: object, batch: object, batch_idx: int
    ) -> None:
        if (batch_idx + 1) % trainer.accumulate_grad_batches:
            return  # half a step could not be resumed
        late = time.perf_counter() - self._began >= self.seconds and not self.interrupted
        ends = late or trainer.global_step >= self._steps
        trainer.should_stop = trainer.strategy.reduce_boolean_decision(ends, all=False)


@final
class Checkpoints(Callback):
    """Leaves best.ckpt, of the lowest validation loss so far, and last.ckpt, of the latest validation or the end.

    Lightning's own would forget, in the folder of a resumed run, how low the loss has been.
    """

    def __init__(self, folder: Path):
        self.best, self.last, self.lowest = folder / "best.ckpt", folder / "last.ckpt", math.inf
        self._saved = -1  # at which step

    def state_dict(self) -> dict[str, Any]:
        return {"lowest": self.lowest}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.lowest = state_dict["lowest"]

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        found = float(trainer.callback_metrics["validation/loss"])
        if found < self.lowest:
            self.lowest = found
            _save(trainer, self.best)
        _save(trainer, self.last)
        self._saved = trainer.global_step

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # After a validation that file is there; Lightning, resumed from one made here, would count its step twice.
        if self._saved != trainer.global_step:
            _save(trainer, self.last)


def _save(trainer: Trainer, file: Path) -> None:
    half = file.with_name(f".{file.name}.part")
    trainer.save_checkpoint(half, weights_only=False)
    if trainer.is_global_zero:
        os.replace(half, file)


@final
class Progress(Callback):
    """A bar where there is a terminal, and a line at each validation: how far, loss, quality, curriculum and speed."""

    def __init__(self) -> None:
        console = Console()
        figures = TextColumn("loss {task.fields[loss]:.4f}  {task.fields[speed]:,.0f} bases/s")
        columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn(), figures)
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
        figures = {name: float(value) for name, value in trainer.callback_metrics.items()}
        quality = "".join(
            f"  {measure} "
            + "  ".join(_told(name.removeprefix(prefix), value) for name, value in figures.items() if prefix in name)
            for measure, prefix in (("AUPRC", "validation/auprc_"), ("accuracy", "validation/accuracy_"))
            if any(prefix in name for name in figures)
        )
        self.bar.console.print(
            f"step {trainer.global_step:>6}  loss {figures.get('loss', 0):.4f}"
            f"  rate {figures.get('curriculum/rate', 0):.3f}  length {figures.get('curriculum/length', 0):.0f}"
            f"  {figures.get('bases_per_second', 0):,.0f} bases/s  validation loss {figures['validation/loss']:.4f}"
            f"{quality}",
            highlight=False,
            soft_wrap=True,
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.bar.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.bar.stop()


def _told(name: str, value: float) -> str:
    nothing = math.copysign(1, value) < 0  # so torchmetrics says that there was nothing to find
    return f"{name} {'–' if nothing else f'{value:.3f}'}"
