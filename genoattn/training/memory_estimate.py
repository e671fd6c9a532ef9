"""Estimates the memory of a training run from a few of its steps on short windows, before anything long runs."""

import math
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, final

import numpy as np
import psutil
import torch
from pydantic import ByteSize, TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from genoattn.data.batch import Batch, collate
from genoattn.data.curriculum import CurriculumStage
from genoattn.data.datamodule import GenomeDataModule
from genoattn.errors import UserError
from genoattn.models import cost
from genoattn.models.predictor import CHUNKED_ABOVE, token_layout
from genoattn.training.loss import loss
from genoattn.training.module import SequenceModule
from genoattn.training.processes import place

SHARES = (0.25, 0.5, 1.0)
"""Lengths of the probes as shares of the longest probe."""

MAX_PROBE = 4096
"""Bases of the longest window of which a step is made; the memory of longer windows is extrapolated."""

ALLOCATOR_OVERHEAD = 1.1
"""Resident memory over live tensors, as measured by benchmarks/models/memory_estimate.py."""

MAX_LENGTH = 2**27
"""Bases of the longest window that is looked for."""

CGROUP = Path("/sys/fs/cgroup")


@final
class _LiveTensors(TorchDispatchMode):
    """Counts the bytes of all storages that operators create while it is entered, and the most alive at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._counted: WeakIdKeyDictionary = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Callable, types: object, args: tuple = (), kwargs: dict | None = None) -> object:  # type: ignore[override]
        output = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(output):
            if isinstance(leaf, Tensor):
                self._add(leaf.untyped_storage())
        return output

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage in self._counted:
            return
        size = storage.nbytes()
        self._counted[storage] = True
        self.now += size
        self.peak = max(self.peak, self.now)
        weakref.finalize(storage, self._remove, size)

    def _remove(self, size: int) -> None:
        self.now -= size


class MemoryCurve(NamedTuple):
    """Bytes as a function of the length of a window in bases: constant + linear · n + square · n²."""

    constant: float
    linear: float
    square: float

    def at(self, length: int) -> float:
        """Bytes at windows of `length` bases."""
        return self.constant + self.linear * length + self.square * length**2

    def longest(self, limit: int | float) -> int:
        """The longest window in bases that takes at most `limit` bytes; 0 if none does."""
        low, high = 0, MAX_LENGTH
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.at(middle) <= limit else (low, middle - 1)
        return low


class MemoryEstimate(NamedTuple):
    """Estimated peak memory of a run with its batch: of this whole process, or of tensors on a GPU.

    `length` is the length of the run's windows in bases.
    """

    training: MemoryCurve
    forward: MemoryCurve
    length: int


def estimate_memory(
    module: SequenceModule, datamodule: GenomeDataModule, gpu: bool = False, shards: int = 1
) -> MemoryEstimate:
    """Estimate the peaks of a process, in training and in predicting, from windows of at most `MAX_PROBE` bases.

    Live tensors are counted operator by operator; memory inside a kernel is not seen. The steps run on the CPU, in
    single precision and with torch's operators, also if the run trains on a GPU: in mixed precision and with Triton's
    kernels it takes less. No estimate was ever compared with the memory of a GPU. Weights, modes and random numbers
    stay as they were.

    Args:
        module: The model and its optimiser.
        datamodule: The examples of the run.
        gpu: True to leave out the memory of this process, which is not on the GPU.
        shards: Parts that the weights are shared out in.
    """
    dataset, size = datamodule.training, datamodule.rows
    longest = min(dataset.length, MAX_PROBE)
    batches = {longest: _probe(datamodule, longest)}
    for length in {max(1, round(share * longest)) for share in SHARES} - {longest}:
        with suppress(UserError):  # too short for the task
            batches[length] = _probe(datamodule, length)
    chunked = dataset.length * batches[longest].ids.shape[1] / longest >= CHUNKED_ABOVE
    parameters = sum(weight.numel() * weight.element_size() for weight in module.model.parameters())
    with _undisturbed(module):
        training = {length: _training_bytes(module, batch) for length, batch in batches.items()}
        forward = {length: _forward_bytes(module, batch, chunked) for length, batch in batches.items()}
    # The process is measured after the probes, which loaded every kernel once; it includes the weights.
    before = parameters if gpu else cost.current_bytes(torch.device("cpu"))
    lengths, scale = sorted(batches), ALLOCATOR_OVERHEAD * size
    return MemoryEstimate(
        _fit_curve(
            lengths,
            [scale * training[length] for length in lengths],
            before - parameters + _state_bytes(module, shards),
        ),
        _fit_curve(lengths, [scale * forward[length] for length in lengths], before),
        dataset.length,
    )


def _state_bytes(module: SequenceModule, shards: int) -> int:
    """Weights, gradients and the two moments of AdamW; of shards also the weights that are gathered at a time."""

    def size(part: nn.Module) -> int:
        return sum(weight.numel() * weight.element_size() for weight in part.parameters())

    whole, blocks = size(module.model), [size(block) for block in cost.blocks(module.model)]
    return 4 * whole if shards == 1 else 4 * whole // shards + whole - sum(blocks) + max(blocks)


def check_memory(
    module: SequenceModule, datamodule: GenomeDataModule, accelerator: str, shards: int = 1, weight_shards: int = 1
) -> None:
    """Raises UserError if a run is estimated to need more memory than there is, and says what would fit.

    A process that computes one of several `shards` of a sequence needs about that share of its memory, and keeps one of
    `weight_shards` parts of the weights.
    """
    gpu = uses_gpu(accelerator)
    limit = available_bytes(gpu, place().local_world)
    (curve, _, length), size = estimate_memory(module, datamodule, gpu, weight_shards), datamodule.rows
    needed = curve.at(-(-length // shards))
    if needed <= limit:
        return
    window = (needed - curve.constant) / size
    fits = []
    if (shorter := curve.longest(limit)) > 0:
        fits.append(f"data.length={shorter * shards} at this batch")
    if (fewer := int((limit - curve.constant) / window)) > 0:
        fits.append(f"data.batch={fewer * place().world // shards} at this length")
    raise UserError(
        f"data.length={length} with data.batch={datamodule.batch} is estimated to need {needed / 2**30:.1f} GiB, and"
        f" {limit / 2**30:.1f} GiB are free; {' or '.join(fits) or 'no shorter window'} would fit;"
        " model.activation_checkpointing=mlp or block needs less, and trainer.memory_check=false tries it all the same"
    )


def uses_gpu(accelerator: str) -> bool:
    """True if a run with this `trainer.accelerator` takes the memory of a GPU here."""
    return accelerator != "cpu" and torch.cuda.is_available()


def available_bytes(gpu: bool, processes: int = 1) -> int | float:
    """Bytes that a process may take here: free memory of its GPU, or its own and its part of what the machine has."""
    if gpu:
        return torch.cuda.mem_get_info()[0]
    own = psutil.Process().memory_info().rss
    return own + min(psutil.virtual_memory().available, _cgroup_bytes()) / processes


def parse_size(size: str) -> int:
    """Bytes of a size such as 8GiB or 500MB; raises UserError if it is none."""
    try:
        number = int(TypeAdapter(ByteSize).validate_python(size))
    except ValidationError:
        number = 0
    if number <= 0:
        raise UserError(f"available_memory={size}: expected a size such as 8GiB or 500MB")
    return number


def _cgroup_bytes() -> int | float:
    """Free memory of the control group of this process (cgroup v2); its file cache counts as free."""
    try:
        free = int((CGROUP / "memory.max").read_text()) - int((CGROUP / "memory.current").read_text())
        lines = (CGROUP / "memory.stat").read_text().splitlines()
    except (OSError, ValueError):  # not Linux, or no limit
        return math.inf
    return free + sum(int(line.split()[1]) for line in lines if line.startswith("inactive_file "))


def _probe(datamodule: GenomeDataModule, length: int) -> Batch:
    """One window of `length` bases, at the rates with which training ends."""
    dataset = datamodule.training
    stage = CurriculumStage(dataset.task.rates, length)
    examples = [dataset.example(0, stage)]
    return collate(
        examples, datamodule.tokenizer, stage, dataset.task.context_format, both_strands=datamodule.both_strands
    )


@contextmanager
def _undisturbed(module: SequenceModule) -> Iterator[None]:
    """Restores the training mode, which Lightning leaves as it is, and the random numbers, which a dropout uses."""
    training = module.training
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        module.train(training)


def _training_bytes(module: SequenceModule, batch: Batch) -> int:
    """The most bytes alive at once in a step, without parameters and gradients."""
    module.train()
    with _LiveTensors() as live:
        loss(module(batch), batch.targets, module.outputs).total.backward()
    gradients = [weight.grad for weight in module.model.parameters() if weight.grad is not None]
    own = sum(gradient.untyped_storage().nbytes() for gradient in gradients)
    module.model.zero_grad()
    return max(live.peak - own, 0)


def _forward_bytes(module: SequenceModule, batch: Batch, chunked: bool) -> int:
    """The most bytes alive at once while a batch is predicted."""
    module.eval()
    with torch.no_grad(), _LiveTensors() as live:
        if chunked:
            module.model.forward_chunked(batch.ids, batch.reference_window, token_layout(batch), batch.pooling_weights)
        else:
            module(batch)
    return live.peak


def _fit_curve(lengths: Sequence[int], sizes: Sequence[float], fixed: int) -> MemoryCurve:
    """The curve through the probes by least squares, without negative coefficients, and `fixed` bytes more."""
    n = np.array(lengths, np.float64)
    columns = np.stack([np.ones_like(n), n, n * n], 1)
    scale = columns.max(0)
    coefficients = np.zeros(3)
    for used in ([0, 1, 2], [1, 2], [0, 1], [1]):
        coefficients = np.zeros(3)
        solution = np.linalg.lstsq(columns[:, used] / scale[used], np.array(sizes), rcond=None)[0]
        coefficients[used] = solution / scale[used]
        if (coefficients >= -1e-9).all():
            break
    constant, linear, square = np.maximum(coefficients, 0).tolist()
    return MemoryCurve(constant + fixed, linear, square)
