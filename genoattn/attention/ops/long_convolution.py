"""Convolution of a sequence with a filter as long as itself, by fast Fourier transforms."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

TRANSFORMS = 3
"""Real transforms of each channel: of the sequence, of its filter, and back."""


def long_convolution(
    x: Float[Tensor, "batch channels length"], taps: Float[Tensor, "channels offsets"], zero: int
) -> Float[Tensor, "batch channels length"]:
    """y_i = Σ_j taps[zero + i - j] x_j, computed and returned in at least float32.

    The rounding error of a channel is relative to the largest numbers in that channel of the sequence.

    Args:
        x: A sequence for each channel.
        taps: A filter for each channel, of at most `length` offsets on each side.
        zero: Index of offset 0 in the filter: 0 if it looks to the left alone.
    """
    length, size = x.shape[-1], transform_length(x.shape[-1])
    wide = torch.promote_types(x.dtype, torch.float32)
    spectrum = torch.fft.rfft(x.to(wide), n=size) * torch.fft.rfft(taps.to(wide), n=size)
    # What wraps around lands before the first of these outputs.
    return torch.fft.irfft(spectrum, n=size)[..., zero : zero + length]


def transform_length(length: int) -> int:
    """The least size of 1, 1.25 or 1.5 times a power of two at which no output of `length` tokens is overwritten."""
    power = 1 << max(2 * length - 2, 3).bit_length()
    return next(size for size in (power // 2, power * 5 // 8, power * 3 // 4, power) if size >= 2 * length - 1)


def transform_flops(size: int) -> float:
    """FLOPs of one real transform of `size` numbers: half of the 5 n log2 n of complex ones."""
    return 2.5 * size * math.log2(size)


def convolution_flops(length: int, channels: int) -> int:
    """FLOPs of the transforms of `long_convolution` for one sequence."""
    return round(TRANSFORMS * channels * transform_flops(transform_length(length)))
