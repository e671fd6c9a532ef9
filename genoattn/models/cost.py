"""What a run costs: parameters, FLOPs and state of the attention layers as predicted, memory and speed as measured."""

import contextlib
import resource
import sys
from pathlib import Path

import torch
from torch import nn

from genoattn.models.block import Block
from genoattn.models.pair_stem import TILE, AlignmentStem
from genoattn.models.sequence_model import SequenceModel


def predicted_cost(model: SequenceModel, length: int) -> dict[str, int]:
    """Parameters of the model, and FLOPs (forward, one window) and state of all its attention layers."""
    # Of the blocks alone: a layer may hold others, and counts them.
    layers = [block.attention for block in model.blocks if isinstance(block, Block)]
    return {
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "attention_flops": sum(layer.flops(length) for layer in layers),
        "attention_state_bytes": sum(layer.state_bytes(length) for layer in layers),
    }


def reset_peak(device: torch.device) -> None:
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


def model_flops(model: SequenceModel, tokens: int) -> int:
    """FLOPs of a whole model forward on one context of `tokens` tokens; a multiply-add counts as 2.

    The products with matrices and the convolutions are counted, as by torch.utils.flop_counter; what is done number by
    number (norms, activations, softmax) and looking up embeddings are not.
    """
    dim = model.embed.embedding_dim
    total = sum(_block_flops(block, tokens) for block in _blocks(model))
    if model.stem_conv is not None:
        total += 2 * tokens * model.stem_conv.weight.weight.numel()
    if model.stem is not None:
        total += _stem_flops(model.stem, tokens)
    if model.token_head is not None:
        total += 2 * tokens * model.token_head.weight.numel()
    if model.sequence_head is not None:  # both sites are weighted sums of all tokens
        total += 4 * tokens * dim + 2 * model.sequence_head.weight.numel()
    return total


def _blocks(model: SequenceModel) -> list[Block]:
    return [block for block in model.blocks if isinstance(block, Block)]


def _block_flops(block: Block, tokens: int) -> int:
    weights = [one.weight.numel() for one in block.mlp if isinstance(one, nn.Linear)]
    weights += [] if block.conv is None else [block.conv.weight.weight.numel()]
    return block.attention.flops(tokens) + 2 * tokens * sum(weights)


def _stem_flops(stem: AlignmentStem, tokens: int) -> int:
    """The dot plot as a vector, the products of tiles that smooth it, and the alignment and both frames as vectors."""
    total = 2 * tokens * stem.matches.weight.numel()
    if stem.filters:
        shifts, kernel = 2 * stem.max_shift + 1, stem.smooth.shape[1]
        tiles = -(-tokens // TILE)
        total += 2 * tiles * TILE * stem.filters * (TILE + kernel - 1) * shifts
        total += 2 * tokens * (stem.aligned.weight.numel() + stem.framed.weight.numel())
    return total
