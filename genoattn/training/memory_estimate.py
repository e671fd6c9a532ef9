"""Predicts the memory of a training run from a few of its steps on short windows, before anything long runs."""

import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import psutil
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from genoattn.data.batch import Batch, collate
from genoattn.data.curriculum import CurriculumStage
from genoattn.data.datamodule import GenomeDataModule
from genoattn.errors import UserError
from genoattn.models import cost
from genoattn.models.block import ActivationCheckpointing, Block
from genoattn.models.predictor import CHUNKED_ABOVE, token_layout
from genoattn.training.loss import loss
from genoattn.training.module import SequenceModule

SHARES = (0.25, 0.5, 1.0)
"""Of the longest window that is tried, the lengths of all that are."""


MAX_PROBE = 4096
"""Bases of the longest window that is tried, in training; longer ones are predicted from it."""


ALLOCATOR_OVERHEAD = 1.1
"""Resident memory over live tensors: what the allocator holds beside them, as measured by benchmarks/memory.py."""


MAX_LENGTH = 2**27
"""Bases beyond which no length is looked for."""


CGROUP = Path("/sys/fs/cgroup")


HOLDS_LESS: tuple[ActivationCheckpointing, ...] = ("none", "mlp", "block")
"""What model.activation_checkpointing may be, each of which holds less than those before it."""


@final
class _LiveTensors(TorchDispatchMode):
    """Counts the bytes of all storages that operators make while it is entered, and the most that lived at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._seen: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:  # type: ignore[override]
        made = func(*args, **(kwargs or {}))
        for one in tree_leaves(made):
            if isinstance(one, Tensor):
                self._add(one.untyped_storage())
        return made

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage in self._seen:
            return
        size = storage.nbytes()
        self._seen[storage] = True
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._lost, size)

    def _lost(self, size: int) -> None:
        self.now -= size


@dataclass(frozen=True)
class MemoryCurve:
    """Bytes as they grow with the length of a window in bases: constant + linear · n + square · n²."""

    constant: float
    linear: float
    square: float

    def __call__(self, length: int) -> float:
        return self.constant + self.linear * length + self.square * length**2

    def longest(self, most: int | float) -> int:
        """The longest window that takes at most so many bytes; 0 where none does."""
        low, high = 0, MAX_LENGTH
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self(middle) <= most else (low, middle - 1)
        return low


@dataclass(frozen=True)
class MemoryEstimate:
    """What a run is predicted to hold at its peak, in bytes: of this whole process, or of tensors on a GPU."""

    training: MemoryCurve
    """For the batch of the run."""
    forward: MemoryCurve
    length: int

    def figures(self) -> dict[str, int | float]:
        """Flat, as plan.json has them."""
        return {
            "training_peak_bytes": self.training(self.length),
            "forward_peak_bytes": self.forward(self.length),
        }


def estimate_memory(learner: SequenceModule, data: GenomeDataModule, gpu: bool = False) -> MemoryEstimate:
    """The peaks of training and of answering, from steps on windows of at most `TRIED` bases.

    Live tensors are counted operator by operator; what a kernel needs inside itself is not seen. Growth is taken to be
    a constant, a part even in the length and one even in its square, none of them negative. The steps are made on the
    CPU and in single precision also where a GPU is to train: there a run in mixed precision holds less, and no
    prediction was ever compared with what a GPU held. Weights, modes and random numbers are left as they were.
    """
    examples = data.training
    longest = min(examples.length, MAX_PROBE)
    lengths = sorted({max(1, round(share * longest)) for share in SHARES})
    batches = {longest: _batch(data, longest)}
    for length in lengths[:-1]:
        with suppress(UserError):  # too short for what the task shows
            batches[length] = _batch(data, length)
    lengths = sorted(batches)
    parameters = sum(one.numel() * one.element_size() for one in learner.model.parameters())
    size = data.batch
    with _undisturbed(learner):
        trained = {length: _trained(learner, batch) for length, batch in batches.items()}
        streamed = examples.length * _tokens_a_base(batches[lengths[-1]]) >= CHUNKED_ABOVE
        answered = {length: _answered(learner, batch, streamed) for length, batch in batches.items()}
    # Of this process now that every kernel has been loaded once; weights are in it, and alone on a GPU.
    held = parameters if gpu else cost.held_bytes(torch.device("cpu"))
    fixed = held + 3 * parameters  # gradients and the two moments of AdamW
    return MemoryEstimate(
        _law(lengths, [ALLOCATOR_OVERHEAD * size * trained[one] for one in lengths], fixed),
        _law(lengths, [ALLOCATOR_OVERHEAD * size * answered[one] for one in lengths], held),
        examples.length,
    )


def check_memory(learner: SequenceModule, data: GenomeDataModule, accelerator: str) -> None:
    """Raises UserError where a run is predicted to need more memory than there is, and says what would fit.

    Nothing is tried where a generous bound says that the run takes less than half of it.
    """
    gpu = on_gpu(accelerator)
    most = available(gpu)
    if _bound(learner, data) < most / 2:
        return
    found, size = estimate_memory(learner, data, gpu), data.batch
    needed = found.training(found.length)
    if needed <= most:
        return
    apiece = (needed - found.training(0)) / size
    fits = []
    if (shorter := found.training.longest(most)) > 0:
        fits.append(f"data.length={shorter} at this batch")
    if (fewer := int((most - found.training(0)) / apiece)) > 0:
        fits.append(f"data.batch={fewer} at this length")
    if way := _recomputing(learner, data, gpu, most):
        fits.append(f"model.activation_checkpointing={way}")
    raise UserError(
        f"data.length={found.length} with data.batch={size} is predicted to need {needed / 2**30:.1f} GiB, and"
        f" {most / 2**30:.1f} GiB are free; {' or '.join(fits) or 'no shorter window'} would fit"
        ", and trainer.memory_check=false tries it all the same"
    )


def _recomputing(
    learner: SequenceModule, data: GenomeDataModule, gpu: bool, most: int | float
) -> ActivationCheckpointing | None:
    """The first value of model.activation_checkpointing beyond the run's own under which it would fit."""
    blocks = [block for block in learner.model.blocks if isinstance(block, Block)]
    own = blocks[0].activation_checkpointing
    try:
        for way in HOLDS_LESS[HOLDS_LESS.index(own) + 1 :]:
            for block in blocks:
                block.activation_checkpointing = way
            if estimate_memory(learner, data, gpu).training(data.training.length) <= most:
                return way
    finally:
        for block in blocks:
            block.activation_checkpointing = own
    return None


def _bound(learner: SequenceModule, data: GenomeDataModule) -> int:
    """Bytes that a step takes at most, for all that is known of the layers: 256 numbers a token, block and channel.

    To these come weights with gradients and moments, and eight numbers for each that is answered.
    """
    model, length = learner.model, data.training.length
    tokens = _batch(data, length).ids.shape[1]
    blocks = [block for block in model.blocks if isinstance(block, Block)]
    even = 256 * 4 * model.embed.embedding_dim * tokens * len(blocks)
    asked = 8 * 4 * tokens * sum(model.token_heads.values())
    square = sum(128 * tokens**2 for block in blocks if block.attention.complexity == "quadratic")
    weights = 4 * 4 * sum(one.numel() for one in model.parameters())
    return data.batch * (even + asked + square) + weights


def on_gpu(accelerator: str) -> bool:
    """Whether a run with this `trainer.accelerator` takes a GPU's memory here."""
    return accelerator != "cpu" and torch.cuda.is_available()


def available(gpu: bool) -> int | float:
    """Bytes that a run may take here: on a GPU what is free, else that and what this process holds already."""
    if gpu:
        return torch.cuda.mem_get_info()[0]
    own = psutil.Process().memory_info().rss
    return own + min(psutil.virtual_memory().available, _cgroup())


def parse(size: str) -> int:
    """Bytes of a size such as 8GiB, 500MB or 1e9; raises UserError where it is none."""
    number = size.rstrip("iBbKkMmGgTt ")
    unit = size[len(number) :].strip().lower().removesuffix("b")
    try:
        found = float(number) * (1024 if unit.endswith("i") else 1000) ** " kmgt".index(unit[:1] or " ")
    except ValueError:
        found = math.nan
    if not (math.isfinite(found) and found > 0):
        raise UserError(f"available_memory={size}: expected a size such as 8GiB, 500MB or 1e9 (bytes)")
    return int(found)


def _cgroup() -> int | float:
    """What is left of the share of the machine that this process's group was given, its file cache for free."""
    old = CGROUP / "memory"
    for most, used in (
        (CGROUP / "memory.max", CGROUP / "memory.current"),
        (old / "memory.limit_in_bytes", old / "memory.usage_in_bytes"),
    ):
        try:
            left = int(most.read_text()) - int(used.read_text())
            lines = used.with_name("memory.stat").read_text().splitlines()
        except (OSError, ValueError):  # not Linux, or "max"
            continue
        return left + sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))
    return math.inf


def _batch(data: GenomeDataModule, length: int) -> Batch:
    """One window of so many bases, as the training ends with them."""
    examples = data.training
    stage = CurriculumStage(examples.task.rates, length)
    made = [examples.example(0, stage)]
    return collate(made, data.tokenizer, stage, examples.task.context_format, both_strands=data.both_strands)


def _tokens_a_base(batch: Batch) -> float:
    assert batch.stage is not None
    return batch.ids.shape[1] / batch.stage.length


@contextmanager
def _undisturbed(learner: SequenceModule) -> Iterator[None]:
    """Puts back what steps change: Lightning trains in the mode that it finds, and a dropout draws random numbers."""
    training = learner.training
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        learner.train(training)


def _trained(learner: SequenceModule, batch: Batch) -> int:
    """The most bytes alive at once in a step, parameters and gradients left out."""
    learner.train()
    with _LiveTensors() as live:
        loss(learner(batch), batch.targets, learner.outputs).total.backward()
    own = sum(one.grad.untyped_storage().nbytes() for one in learner.model.parameters() if one.grad is not None)
    learner.model.zero_grad()
    return max(live.peak - own, 0)


def _answered(learner: SequenceModule, batch: Batch, streamed: bool) -> int:
    """The most bytes alive at once while a batch is answered."""
    learner.eval()
    with torch.no_grad(), _LiveTensors() as live:
        if streamed:
            learner.model.forward_chunked(batch.ids, batch.reference_window, token_layout(batch), batch.pooling_weights)
        else:
            learner(batch)
    return live.peak


def _law(lengths: Sequence[int], sizes: Sequence[float], fixed: int) -> MemoryCurve:
    """The law through what was seen, its parts not negative."""
    x = np.array(lengths, np.float64)
    columns = np.stack([np.ones_like(x), x, x * x], 1)
    scale = columns.max(0)
    for kept in ([0, 1, 2], [1, 2], [0, 1], [1]):
        found = np.zeros(3)
        found[kept] = np.linalg.lstsq(columns[:, kept] / scale[kept], np.array(sizes), rcond=None)[0] / scale[kept]
        if (found >= -1e-9).all():
            break
    constant, linear, square = np.maximum(found, 0).tolist()
    return MemoryCurve(constant + fixed, linear, square)
