"""Tokens that a model computes together outside of training: what fits a CPU's caches, or a GPU's memory."""

from typing import NamedTuple

import torch

from genoattn.models.sequence_model import CHUNK

CHANNEL_BYTES = 128
"""Memory that a channel of a token takes while a block computes: its stream, the MLP and the layer, as for float32."""

SHARE = 4
"""A segment takes at most this part of a GPU's memory: layers differ in what they need."""

LONGEST = 2**20
GPU_BATCH = 2**17
"""Bases of a batch on a GPU, at most."""


class Segments(NamedTuple):
    """Tokens from which a model computes layer by layer in segments, tokens of a segment, and bases of a batch."""

    above: int
    tokens: int
    batch: int


def segments(device: torch.device, dim: int, above: int, batch: int) -> Segments:
    """The segments of a device for a model of `dim` channels.

    Args:
        device: Where the model computes.
        dim: Channels of the residual stream.
        above: On a CPU, tokens from which it computes in segments; on a GPU the least number of them.
        batch: Bases of a batch on a CPU; on a GPU the least number of them.
    """
    if device.type != "cuda":
        return Segments(above, CHUNK, batch)
    cached = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    fits = (torch.cuda.mem_get_info(device)[0] + cached) // (SHARE * CHANNEL_BYTES * dim)
    tokens = min(LONGEST, max(CHUNK, 1 << max(fits.bit_length() - 1, 0)))
    return Segments(max(above, tokens), tokens, min(GPU_BATCH, max(batch, tokens)))
