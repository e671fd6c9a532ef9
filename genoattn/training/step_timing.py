"""Times a few steps of a run on this machine, and measures the most memory that they hold."""

import statistics
import time
from collections.abc import Callable, Mapping
from itertools import count
from typing import NamedTuple

import torch
from lightning.pytorch import Trainer
from torch.nn.utils import clip_grad_norm_

from genoattn.data.batch import Batch
from genoattn.data.datamodule import GenomeDataModule
from genoattn.models import cost
from genoattn.training.loss import loss
from genoattn.training.module import SequenceModule

POINTS = (0.1, 0.3, 0.5, 0.7, 0.9)
"""Shares of the training at which its steps are timed."""

REPEATS = 3
"""Steps that are timed at each length, after one that is not."""

SECONDS = 16.0
"""Budget of all training steps; predictions have a quarter of it in addition."""


class MeasuredCost(NamedTuple):
    """Measured costs of a run.

    Attributes:
        seconds_per_step: Mean over five points of the curriculum.
        training_bases_per_second: Bases of all contexts, in training.
        training_peak_bytes: Peak memory of training: of this process on a CPU, of tensors on a GPU.
        forward_bases_per_second: Bases of all contexts, in prediction at the full length.
        forward_peak_bytes: Peak memory of prediction.
        process_bytes: Memory before the first batch.
    """

    seconds_per_step: float
    training_bases_per_second: float
    training_peak_bytes: int
    forward_bases_per_second: float
    forward_peak_bytes: int
    process_bytes: int


class Throughput(NamedTuple):
    """Bases that were processed, and the seconds that it took."""

    bases: float
    seconds: float


class StepTimer:
    """Makes the steps of a training as Lightning would, on the device and in the precision of a trainer.

    The moments of the optimiser exist from the start, as in every step but the first.
    """

    def __init__(self, module: SequenceModule, datamodule: GenomeDataModule, trainer: Trainer):
        self.module, self.data, self.clip = module, datamodule, trainer.gradient_clip_val
        self.device, self.precision = trainer.strategy.root_device, trainer.precision_plugin
        self.precision.convert_module(module).to(self.device)
        self.optimizer = module.configure_optimizers()["optimizer"]
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()

    def batch(self, number: int) -> Batch:
        """Batch `number` of the training, as one process makes it, on its device."""
        return self.data.make(number).to(self.device)

    def train(self, first: int, turn: int) -> Throughput:
        """Time one step at a learning rate of 0, on the batches from number `first` on; each turn takes others.

        Drawing the examples counts, except if other processes draw them (`data.workers` above 0).
        """
        start = self._clock()
        numbers = range(first + turn * self.data.accumulate, first + (turn + 1) * self.data.accumulate)
        batches = [self.batch(number) for number in numbers]
        if self.data.workers:
            start = self._clock()
        self.module.train()
        for position, batch in enumerate(batches):
            with self.precision.train_step_context():
                total = loss(self.module(batch), batch.targets, self.module.outputs).total / len(batches)
            if position == 0:
                self.optimizer.zero_grad()
            total.backward()
        if self.clip:
            clip_grad_norm_(self.module.model.parameters(), self.clip)
        self.optimizer.step()
        return Throughput(sum(batch.bases for batch in batches), self._clock() - start)

    def predict(self, batch: Batch) -> Throughput:
        """Time the prediction of a batch."""
        start = self._clock()
        self.module.eval()
        with torch.no_grad(), self.precision.val_step_context():
            self.module(batch)
        return Throughput(batch.bases, self._clock() - start)

    def _clock(self) -> float:
        """Seconds, once the device has done its work."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def time_steps(module: SequenceModule, datamodule: GenomeDataModule, trainer: Trainer) -> MeasuredCost:
    """Measure speed and peak memory of training, and of predicting one batch at the full length.

    A step is one of the optimiser (`trainer.accumulate_batches` batches); validation does not count. Takes about 20 s;
    much slower steps are made once.
    """
    timer = StepTimer(module, datamodule, trainer)
    device, before = timer.device, cost.current_bytes(timer.device)
    last = trainer.max_steps * datamodule.accumulate  # the first batch after the curriculum
    batch = timer.batch(last)

    cost.reset_peak(device)
    forward = _mean(lambda _: timer.predict(batch), SECONDS / 4)
    forward_peak = cost.peak_bytes(device)
    del batch

    cost.reset_peak(device)
    lengths = _batches_by_length(datamodule, last)
    measured: dict[int, Throughput] = {}
    start = time.perf_counter()
    for length in sorted(lengths, reverse=True):  # the longest is measured whatever it takes
        spent = time.perf_counter() - start
        if measured and spent > SECONDS:  # taken to be as fast as the shortest that was measured
            measured[length] = measured[min(measured)]
            continue
        share = (SECONDS - spent) / (len(lengths) - len(measured))
        measured[length] = _mean(lambda turn, first=lengths[length][0]: timer.train(first, turn), share)
    points = [measured[length] for length, numbers in lengths.items() for number in numbers if number < last]
    training = Throughput(*map(statistics.fmean, zip(*points, strict=True)))
    return MeasuredCost(
        seconds_per_step=training.seconds,
        training_bases_per_second=training.bases / training.seconds,
        training_peak_bytes=cost.peak_bytes(device),
        forward_bases_per_second=forward.bases / forward.seconds,
        forward_peak_bytes=forward_peak,
        process_bytes=before,
    )


def _batches_by_length(datamodule: GenomeDataModule, last: int) -> Mapping[int, list[int]]:
    """Numbers of the batches at the five points and at the end, by the length of their windows in bases."""
    numbers: dict[int, list[int]] = {}
    for number in [*(round(point * last) for point in POINTS), last]:
        numbers.setdefault(datamodule.training.stage(number * datamodule.batch).length, []).append(number)
    return numbers


def _mean(measure: Callable[[int], Throughput], seconds: float) -> Throughput:
    """The mean of three calls after a first one, or of as many as the seconds allow; of the first if no other."""
    until, runs = time.perf_counter() + seconds, list[Throughput]()
    for turn in count():
        runs.append(measure(turn))
        if turn == REPEATS or time.perf_counter() + runs[-1].seconds > until:
            break
    return Throughput(*map(statistics.fmean, zip(*(runs[1:] or runs), strict=True)))
