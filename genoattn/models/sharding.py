"""The memory of each device when several train one model: weights, their training state, and activations."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import nn

from genoattn.models.cost import blocks
from genoattn.models.sequence_model import SequenceModel


class DeviceMemory(NamedTuple):
    """The memory of one of several devices in bytes."""

    way: str
    """ddp, fsdp, or one of them with sequence_parallel."""
    devices: int
    state: int
    """Weights, gradients and the two moments of AdamW that it holds."""
    gathered: int
    """Weights of others that it holds for a while: what stands outside the blocks, and the largest block."""
    activations: int

    @property
    def total(self) -> int:
        """All of it, without buffers of the communication (of ddp up to the size of the gradients)."""
        return self.state + self.gathered + self.activations


def device_memory(model: SequenceModel, activations: int | float, batch: int, devices: int) -> list[DeviceMemory]:
    """The memory of each device by the way in which several share a step, with W bytes of weights and A of activations.

    - `ddp`: every device holds 4 W, and A / N for its part of the batch.
    - `fsdp`: 4 W / N, the gathered weights besides (Zhao et al. 2023, arXiv:2304.11277), and A / N.
    - with `sequence_parallel`: the same weights, and A / N for its part of every window; what a layer gathers from the
      other parts is not counted.

    Args:
        model: The model.
        activations: Bytes that a step of the whole batch takes on one device beside the weights and their state.
        batch: Windows of a step; ddp and fsdp are left out if the devices cannot share them.
        devices: Number of devices.
    """

    def size(part: nn.Module) -> int:
        return sum(weight.numel() * weight.element_size() for weight in part.parameters())

    whole, parts, share = size(model), [size(block) for block in blocks(model)], round(activations / devices)
    held = {"ddp": (4 * whole, 0), "fsdp": (4 * whole // devices, whole - sum(parts) + max(parts, default=0))}
    names = ["", " with sequence_parallel"] if batch % devices == 0 else [" with sequence_parallel"]
    return [
        DeviceMemory(f"{strategy}{name}", devices, *bytes_held, share)
        for name in names
        for strategy, bytes_held in held.items()
    ]


def memory_rows(memory: Sequence[DeviceMemory]) -> list[list[str]]:
    """The rows of a table: way, devices, and MiB of each part and of all."""

    def cells(one: DeviceMemory) -> list[str]:
        numbers = (one.state, one.gathered, one.activations, one.total)
        return [one.way, str(one.devices), *(f"{number / 2**20:,.1f}" for number in numbers)]

    return [cells(one) for one in memory]
