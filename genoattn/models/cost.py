"""Costs of a model: parameters, FLOPs and state as predicted; memory as measured."""

import contextlib
import copy
import resource
import sys
from pathlib import Path
from typing import NamedTuple, final

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from genoattn.attention.base import TokenLayout
from genoattn.models.block import Block
from genoattn.models.sequence_model import SequenceModel


class PredictedCost(NamedTuple):
    """Costs known before anything runs: parameters of the model; FLOPs and state of all its attention layers.

    FLOPs are those of one forward pass over one window; the state is the cache of a causal layer in bytes.
    """

    parameters: int
    attention_flops: int
    attention_state_bytes: int


def predicted_cost(model: SequenceModel, length: int) -> PredictedCost:
    """The cost of a model at windows of `length` tokens."""
    layers = [block.attention for block in blocks(model)]
    return PredictedCost(
        parameters=sum(parameter.numel() for parameter in model.parameters()),
        attention_flops=sum(layer.flops(length) for layer in layers),
        attention_state_bytes=sum(layer.state_bytes(length) for layer in layers),
    )


def blocks(model: SequenceModel) -> list[Block]:
    """The blocks of a backbone, with their type."""
    return [block for block in model.blocks if isinstance(block, Block)]


def model_flops(model: SequenceModel, tokens: int) -> int:
    """FLOPs of a whole model forward on one context of `tokens` tokens; a multiply-add counts as 2.

    Attention layers count themselves, because torch's counter cannot look into kernels. The products of matrices and
    the convolutions of the rest are counted by torch on tensors without data.
    """
    rest = copy.deepcopy(model).to("meta")
    for block in blocks(rest):
        block.attention = _NoAttention()  # type: ignore[assignment]
    ids = torch.zeros(1, tokens, dtype=torch.int32, device="meta")
    shift = None if rest.alignment_stem is None else rest.alignment_stem.max_shift
    window = None if shift is None else torch.zeros(1, tokens + 2 * shift, dtype=torch.int32, device="meta")
    weights = torch.zeros(1, rest.sites, tokens, device="meta") if rest.sites else None
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        rest(ids, window, pooling_weights=weights)
    return counter.get_total_flops() + predicted_cost(model, tokens).attention_flops


@final
class _NoAttention(nn.Module):
    def forward(self, x: Tensor, layout: TokenLayout) -> Tensor:
        return x


def reset_peak(device: torch.device) -> None:
    """Let `peak_bytes` start again from the present; without effect where the system offers no means."""
    if device.type == "cuda":
        torch.cuda.init()  # a device that was not used yet has no statistics
        torch.cuda.reset_peak_memory_stats(device)
    else:
        with contextlib.suppress(OSError):  # Linux, and not in every container
            Path("/proc/self/clear_refs").write_text("5")


def current_bytes(device: torch.device) -> int:
    """Memory in use now: of tensors on a GPU, else resident memory of this whole process."""
    if device.type == "cuda":
        return torch.cuda.memory_allocated(device)
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return peak_bytes(device)
    return pages * resource.getpagesize()


def peak_bytes(device: torch.device) -> int:
    """The most memory in use so far: of tensors on a GPU, else resident memory of this whole process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return used if sys.platform == "darwin" else used * 1024  # macOS counts bytes, Linux kibibytes
