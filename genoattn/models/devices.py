"""A model on several devices of a machine: a process for each computes batches; answers come back in order."""

import pickle
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import count, cycle
from multiprocessing import get_context
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor

from genoattn.data.batch import Batch
from genoattn.data.example import Example
from genoattn.errors import UserError
from genoattn.models.predictor import Predictor, predict

AHEAD = 2
"""Batches that each device has at hand."""


def local_devices(devices: int | Literal["auto"], gpus: int | None = None) -> list[str]:
    """The devices of this machine that a program computes on, by their names in torch.

    Args:
        devices: Number of devices, or of processes where there is no GPU; "auto": all GPUs, or one process.
        gpus: GPUs that the program may use; None: those that torch sees.

    Raises:
        UserError: There are fewer GPUs.
    """
    gpus = (torch.cuda.device_count() if torch.cuda.is_available() else 0) if gpus is None else gpus
    if not gpus:
        return ["cpu"] * (1 if devices == "auto" else devices)
    if devices != "auto" and devices > gpus:
        raise UserError(f"devices={devices}: this machine shows {gpus} GPUs; expected at most as many, or auto")
    return [f"cuda:{number}" for number in range(gpus if devices == "auto" else devices)]


@final
class DevicePool:
    """A process for each of several devices; each has a queue, and a batch for it goes there whole."""

    def __init__(self, devices: Sequence[str]):
        """Start the processes at their first batch; on the CPU they share the threads of this one."""
        self.devices, context = tuple(devices), get_context("spawn")
        share = max(1, torch.get_num_threads() // len(devices)) if devices[0] == "cpu" else torch.get_num_threads()
        self._processes = [ProcessPoolExecutor(1, context, torch.set_num_threads, (share,)) for _ in devices]
        self._numbers, self._turns = count(), cycle(self._processes)

    def hold(self, predictor: Predictor) -> int:
        """Give every device a copy of a model; the number that it has there."""
        number, content = next(self._numbers), pickle.dumps(predictor)
        for process, device in zip(self._processes, self.devices, strict=True):
            process.submit(_hold, number, content, device)
        return number

    def submit(self, number: int, batch: Batch) -> Future[bytes]:
        """Have the next device answer a batch by one of its models."""
        return next(self._turns).submit(_answer, number, pickle.dumps(batch))

    def close(self) -> None:
        """End the processes."""
        for process in self._processes:
            process.shutdown(wait=False, cancel_futures=True)


@final
@dataclass(frozen=True)
class SpreadPredictor(Predictor):
    """A predictor whose batches are answered by the devices of a pool; they are the same batches, in the same order."""

    pool: DevicePool
    number: int

    @classmethod
    def of(cls, predictor: Predictor, pool: DevicePool) -> "SpreadPredictor":
        """A predictor that the devices of a pool have a copy of."""
        return cls(predictor.tokenizer, predictor.task, predictor.model, pool, pool.hold(predictor))

    def logits(
        self, examples: Sequence[Example], both_strands: bool = False, frame: int = 0
    ) -> Iterator[tuple[Batch, dict[str, Tensor]]]:
        waiting: deque[tuple[Batch, Future[bytes]]] = deque()
        for batch in self.batches(examples, both_strands, frame):
            waiting.append((batch, self.pool.submit(self.number, batch)))
            if len(waiting) > AHEAD * len(self.pool.devices):
                yield self._answered(*waiting.popleft())
        while waiting:
            yield self._answered(*waiting.popleft())

    def _answered(self, batch: Batch, answer: Future[bytes]) -> tuple[Batch, dict[str, Tensor]]:
        try:
            logits: Mapping[str, Float[Tensor, "batch _ _"]] = pickle.loads(answer.result())
        except BrokenProcessPool:
            raise UserError(
                "a process of devices=… ended; is there memory for the model on each? devices=1 needs one process"
            ) from None
        return batch.to(self.device), {name: logit.to(self.device) for name, logit in logits.items()}


_held: dict[int, Predictor] = {}
"""In a process of a device: its models."""


def _hold(number: int, content: bytes, device: str) -> None:
    predictor: Predictor = pickle.loads(content)
    predictor.model.to(device).eval()
    _held[number] = predictor


def _answer(number: int, content: bytes) -> bytes:
    predictor = _held[number]
    batch: Batch = pickle.loads(content)
    with torch.no_grad():
        logits = predict(predictor.model, batch.to(predictor.device), predictor.task.outputs)
    return pickle.dumps({name: logit.cpu() for name, logit in logits.items()})
