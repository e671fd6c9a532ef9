"""Checks of the cost of a layer and of its precision."""

import torch

from genoattn.attention.base import TokenLayout
from genoattn.attention.conformance.check import (
    BFLOAT16_TOLERANCE,
    FLOAT32_TOLERANCE,
    FLOPS_TOLERANCE,
    GROWTH,
    LONG,
    MILLION,
    Factory,
    Outcome,
    perturbed_layer,
    register,
)
from genoattn.attention.conformance.probes import bfloat16_error, count_cost

LONG_IN_FLOAT32 = 4096
"""Tokens of the check of float32 for layers that cost less than a square."""


@register("overflow, and sums accumulated in half precision")
def bfloat16_precision(factory: Factory, dim: int, causal: bool) -> Outcome:
    """Under bfloat16 autocast the outputs are finite and near those of float32.

    A linear layer without a bound on its receptive field is checked at 2^20 tokens too.
    """
    layer = perturbed_layer(factory, dim, causal).float()
    errors = {LONG: bfloat16_error(layer, torch.randn(2, LONG, dim))}
    if layer.complexity == "linear" and layer.receptive_field is None:
        # As many channels as one head of 16, and a mean that is not 0, or the sums would not grow.
        errors[MILLION] = bfloat16_error(perturbed_layer(factory, 16, causal).float(), torch.randn(1, MILLION, 16) + 1)
    detail = ", ".join(f"off by {error:.1e} at {length} tokens" for length, error in errors.items())
    return all(error <= BFLOAT16_TOLERANCE for error in errors.values()), detail


@register("transforms, sums and phases that float32 does not hold")
def float32_precision(factory: Factory, dim: int, causal: bool) -> Outcome:
    """Outputs in float32 are those of float64, although the first token is a thousand times as large as the others.

    A layer whose cost is below a square is checked at 4,096 tokens too.
    """
    layer, errors = perturbed_layer(factory, dim, causal), {}
    for length in (LONG, *([LONG_IN_FLOAT32] if layer.complexity != "quadratic" else [])):
        x = torch.randn(1, length, dim)
        x[:, 0] *= 1000
        layout = TokenLayout(segment_ids=(torch.arange(length) % 2)[None])
        with torch.no_grad():
            exact, rounded = layer.double()(x.double(), layout)[:, 1:], layer.float()(x, layout)[:, 1:]
        errors[length] = ((rounded - exact).square().mean() / exact.square().mean()).sqrt().item()
    detail = ", ".join(f"off by {error:.1e} at {length} tokens" for length, error in errors.items())
    return all(error <= FLOAT32_TOLERANCE for error in errors.values()), detail


@register("a window that builds the square of scores, a cost that is not the layer's")
def declared_cost(factory: Factory, dim: int, causal: bool) -> Outcome:
    """FLOPs and the largest tensor, with backward, grow as `complexity` says, and `flops` agrees with torch's count."""
    layer = perturbed_layer(factory, dim, causal).float()
    once, twice = (count_cost(layer, dim, length) for length in (1024, 2048))
    flops, memory = twice.flops / once.flops, twice.largest_tensor / once.largest_tensor
    counted, declared = sum(once.forward.values()), layer.flops(1024)
    off = abs(declared / counted - 1)
    operators = ", ".join(f"{name} {number:,}" for name, number in sorted(once.forward.items()))
    detail = (
        f"{layer.complexity}: at twice the length {flops:.2f}x the FLOPs and {memory:.2f}x the largest tensor; flops()"
        f" is off by {off:.1%}: at 1,024 tokens it declares {declared:,} and torch counts {counted:,} ({operators})"
    )
    return max(flops, memory) <= GROWTH.get(layer.complexity, float("inf")) and off <= FLOPS_TOLERANCE, detail
