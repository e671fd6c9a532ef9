"""Laws of what a layer costs, of low precision, and of what it is good for."""

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
    CheckResult,
    Factory,
    perturbed_layer,
    register,
)
from genoattn.attention.conformance.probes import Stack, bfloat16_error, counted, planted


@register
def survives_bfloat16(factory: Factory, dim: int, causal: bool) -> CheckResult:
    """Under bfloat16 autocast answers are finite and near float32's; for unbounded linear layers at 2^20 tokens too."""
    layer = perturbed_layer(factory, dim, causal).float()
    errors = {LONG: bfloat16_error(layer, torch.randn(2, LONG, dim))}
    if layer.complexity == "linear" and layer.receptive_field is None:
        # As many channels as one head of 16, and a mean that is not 0, or the sums would not grow.
        errors[MILLION] = bfloat16_error(perturbed_layer(factory, 16, causal).float(), torch.randn(1, MILLION, 16) + 1)
    return CheckResult(
        "survives bfloat16",
        all(error <= BFLOAT16_TOLERANCE for error in errors.values()),
        ", ".join(f"off by {error:.1e} at {length} tokens" for length, error in errors.items()),
        "overflow, and sums kept in half precision",
    )


@register
def costs_what_it_says(factory: Factory, dim: int, causal: bool) -> CheckResult:
    """FLOPs and the largest tensor, backward included, grow as `cost` says, and `flops` agrees with a count."""
    layer = perturbed_layer(factory, dim, causal).float()
    (once, small, forward), (twice, large, _) = (counted(layer, dim, length) for length in (1024, 2048))
    bound = GROWTH.get(layer.complexity, float("inf"))
    off = abs(layer.flops(1024) / forward - 1)
    return CheckResult(
        "costs what it says",
        max(twice / once, large / small) <= bound and off <= FLOPS_TOLERANCE,
        f"{layer.complexity}: at twice the length {twice / once:.2f}x the FLOPs and "
        f"{large / small:.2f}x the largest tensor; flops() is off by {off:.1%}",
        "a window that builds the square, a cost that is not the layer's",
    )


@register
def learns(factory: Factory, dim: int, causal: bool) -> CheckResult:
    """Two blocks with the layer learn to repeat, at every token that can see it, the letter of a run planted in noise.

    Sequences of 32 of four letters hold one run of eight equal marks; each token's label is the mark's kind, one of
    four, which a token's own letter says nothing about. Causal layers answer after the run, others everywhere outside.
    """
    accuracy, step = 0.0, 0
    model = Stack(factory, dim, causal)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    while step < STEPS and accuracy < LEARNED:
        tokens, labels, asked = planted(16, causal)
        logits = model(tokens)[asked]
        optimizer.zero_grad()
        F.cross_entropy(logits, labels[asked]).backward()
        optimizer.step()
        right = (logits.argmax(-1) == labels[asked]).float().mean().item()
        accuracy += 0.2 * (right - accuracy)
        step += 1
    return CheckResult(
        "learns",
        accuracy >= LEARNED,
        f"accuracy {accuracy:.2f} after {step} steps",
        "a layer that is correct and useless",
    )
