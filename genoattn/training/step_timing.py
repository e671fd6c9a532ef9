"""What the steps of a run take on this machine, and the most memory they hold: a few of them made, and its answers."""

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


TIMED = 3
"""Steps that are timed at each length, after one that is not."""


SECONDS = 16.0
"""For all steps; answers have a quarter of that beside it."""


class Throughput(NamedTuple):
    """Bases that went through, and the seconds it took."""

    bases: float
    seconds: float


class StepTimer:
    """Makes the steps of a training as Lightning would, without it, on the device and in the precision of a trainer.

    The optimiser's moments are there from the start, as in every step but the very first.
    """

    def __init__(self, learner: SequenceModule, data: GenomeDataModule, trainer: Trainer):
        self.learner, self.data, self.clip = learner, data, trainer.gradient_clip_val
        self.device, self.precision = trainer.strategy.root_device, trainer.precision_plugin
        self.precision.convert_module(learner).to(self.device)
        self.optimizer = learner.configure_optimizers()["optimizer"]
        for group in self.optimizer.param_groups:
            group["lr"] = 0.0
            for parameter in group["params"]:
                parameter.grad = torch.zeros_like(parameter)
        self.optimizer.step()

    def draw(self, number: int) -> Batch:
        """Batch `number` of the training, on its device."""
        data = self.data
        return data.training.batch(number, data.batch, data.tokenizer, data.both_strands).to(self.device)

    def learn(self, batches: list[Batch]) -> None:
        """One step of the optimiser over batches whose gradients are added up, at a learning rate of 0."""
        self.learner.train()
        for turn, batch in enumerate(batches):
            with self.precision.train_step_context():
                lost = loss(self.learner(batch), batch.targets, self.learner.outputs).total / len(batches)
            if not turn:
                self.optimizer.zero_grad()
            lost.backward()
        if self.clip:
            clip_grad_norm_(self.learner.model.parameters(), self.clip)
        self.optimizer.step()

    def answer(self, batch: Batch) -> None:
        """The answers to a batch, as a model gives them that learns nothing."""
        self.learner.eval()
        with torch.no_grad(), self.precision.val_step_context():
            self.learner(batch)

    def settle(self) -> float:
        """The clock, once the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()


def time_steps(learner: SequenceModule, data: GenomeDataModule, trainer: Trainer) -> dict[str, int | float]:
    """Seconds a step, bases a second and peak memory of training, and of answers to one batch at the full length.

    A step is one of the optimiser's (`trainer.accumulate_batches` batches), and its time the mean over five points of
    the curriculum; drawing the examples counts where no other process does (`data.workers=0`), validation does not.
    Bases are those of all contexts. Peaks are, on a CPU, the resident memory of this whole process (`process_bytes`
    were there before a batch was drawn), and on a GPU what tensors held. About 20 s; much slower steps are made once.
    """
    rehearsal = StepTimer(learner, data, trainer)
    device, before = rehearsal.device, cost.held_bytes(rehearsal.device)
    last = trainer.max_steps * data.accumulate  # the first batch after the end: everything is as the task has it
    batch = rehearsal.draw(last)

    cost.reset_peak(device)
    forward = _paced(rehearsal, lambda _: _answered(rehearsal, batch), SECONDS / 4)
    forward_peak = cost.peak_bytes(device)
    del batch

    cost.reset_peak(device)
    lengths = _lengths(data, last)
    paces: dict[int, Throughput] = {}
    started = time.perf_counter()
    for length in sorted(lengths, reverse=True):  # the longest first, which is measured whatever it takes
        spent = time.perf_counter() - started
        if paces and spent > SECONDS:  # as fast as the shortest that was measured
            paces[length] = paces[min(paces)]
            continue
        share = (SECONDS - spent) / (len(lengths) - len(paces))
        paces[length] = _paced(rehearsal, lambda turn, at=lengths[length][0]: _learned(rehearsal, at, turn), share)
    points = [paces[length] for length, numbers in lengths.items() for number in numbers if number < last]
    training = Throughput(*map(statistics.fmean, zip(*points, strict=True)))
    return {
        "seconds_per_step": training.seconds,
        "training_bases_per_second": training.bases / training.seconds,
        "training_peak_bytes": cost.peak_bytes(device),
        "forward_bases_per_second": forward.bases / forward.seconds,
        "forward_peak_bytes": forward_peak,
        "process_bytes": before,
    }


def _lengths(data: GenomeDataModule, last: int) -> Mapping[int, list[int]]:
    """The batches at the five points and at the end, by the length of their windows in bases."""
    found: dict[int, list[int]] = {}
    for number in [*(round(point * last) for point in POINTS), last]:
        found.setdefault(data.training.stage(number * data.batch).length, []).append(number)
    return found


def _answered(rehearsal: StepTimer, batch: Batch) -> Throughput:
    began = rehearsal.settle()
    rehearsal.answer(batch)
    return Throughput(batch.bases, rehearsal.settle() - began)


def _learned(rehearsal: StepTimer, first: int, turn: int) -> Throughput:
    """A step on the batches from number `first` on, other ones at each turn."""
    data = rehearsal.data
    began = rehearsal.settle()
    batches = [rehearsal.draw(first + turn * data.accumulate + one) for one in range(data.accumulate)]
    if data.workers:
        began = rehearsal.settle()
    rehearsal.learn(batches)
    return Throughput(sum(batch.bases for batch in batches), rehearsal.settle() - began)


def _paced(rehearsal: StepTimer, act: Callable[[int], Throughput], seconds: float) -> Throughput:
    """The mean of three calls after a first one, or of as many as the seconds allow, the first if no other."""
    until, taken = time.perf_counter() + seconds, list[Throughput]()
    for turn in count():
        taken.append(act(turn))
        if turn == TIMED or time.perf_counter() + taken[-1].seconds > until:
            break
    return Throughput(*map(statistics.fmean, zip(*(taken[1:] or taken), strict=True)))
