"""What a run costs: parameters, FLOPs and state of the attention layers as predicted, memory and speed as measured."""

import resource
import sys

import torch

from genoattn.model import Block, SequenceModel


def predicted(model: SequenceModel, length: int) -> dict[str, int]:
    """Parameters of the model, and FLOPs (forward, one window) and state of all its attention layers."""
    # Of the blocks alone: a layer may hold others, and counts them.
    layers = [block.mix for block in model.blocks if isinstance(block, Block)]
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "attention_flops": sum(layer.flops(length) for layer in layers),
        "attention_state_bytes": sum(layer.state_bytes(length) for layer in layers),
    }


def peak_bytes(device: torch.device) -> int:
    """The most memory held so far: of the GPU where there is one, else resident memory of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024  # macOS counts bytes, Linux kibibytes
