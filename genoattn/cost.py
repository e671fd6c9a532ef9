"""What a run costs: parameters, FLOPs and state of the attention layers as predicted, memory and speed as measured."""

import contextlib
import resource
import sys
from pathlib import Path

import torch

from genoattn.block import Block
from genoattn.model import SequenceModel


def predicted(model: SequenceModel, length: int) -> dict[str, int]:
    """Parameters of the model, and FLOPs (forward, one window) and state of all its attention layers."""
    # Of the blocks alone: a layer may hold others, and counts them.
    layers = [block.mix for block in model.blocks if isinstance(block, Block)]
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "attention_flops": sum(layer.flops(length) for layer in layers),
        "attention_state_bytes": sum(layer.state_bytes(length) for layer in layers),
    }


def forget_peak(device: torch.device) -> None:
    """Have `peak_bytes` begin at what is held now; where the system has no means to, it goes on from all that was."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):  # Linux, and not in every container
            Path("/proc/self/clear_refs").write_text("5")


def held_bytes(device: torch.device) -> int:
    """The memory held now: by tensors on a GPU where there is one, else resident memory of this whole process."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_bytes(device)
    return pages * resource.getpagesize()


def peak_bytes(device: torch.device) -> int:
    """The most memory held so far: of the GPU where there is one, else resident memory of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024  # macOS counts bytes, Linux kibibytes
