"""Checks of the cost of a layer, of low precision, and of learning."""

import torch
import torch.nn.functional as F

from genoattn.attention.conformance.check import (
    BFLOAT16_TOLERANCE,
    FLOPS_TOLERANCE,
    GROWTH,
    LEARNED,
    LONG,
    MILLION,
    STEPS,
    Factory,
    Outcome,
    perturbed_layer,
    register,
)
from genoattn.attention.conformance.probes import Stack, bfloat16_error, count_cost, toy_task


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


@register("a layer that is correct and useless")
def learns(factory: Factory, dim: int, causal: bool) -> Outcome:
    """Two blocks with the layer learn to copy the kind of a marked run to all tokens that can see it.

    Sequences of 32 tokens of four letters hold one run of eight equal marks. The label of a token is the kind of the
    marks, one of four, and does not depend on the token's own letter. A causal layer is scored after the run,
    a bidirectional one at every token outside it.
    """
    accuracy, step = 0.0, 0
    model = Stack(factory, dim, causal)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    while step < STEPS and accuracy < LEARNED:
        tokens, labels, scored = toy_task(16, causal)
        logits = model(tokens)[scored]
        optimizer.zero_grad()
        F.cross_entropy(logits, labels[scored]).backward()
        optimizer.step()
        right = (logits.argmax(-1) == labels[scored]).float().mean().item()
        accuracy += 0.2 * (right - accuracy)
        step += 1
    return accuracy >= LEARNED, f"accuracy {accuracy:.2f} after {step} steps"
