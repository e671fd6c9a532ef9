"""Laws of what a layer answers: exact ones, in float64."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError, gradcheck

from genoattn.attention.base import TokenLayout
from genoattn.attention.conformance.check import (
    LENGTHS,
    LONG,
    TOLERANCE,
    CheckResult,
    Factory,
    perturbed_layer,
    register,
)
from genoattn.attention.conformance.probes import answer_and_gradients, difference
from genoattn.attention.modules.projections import QKVProjection

SLOPE = 1e-5  # relative difference of a slope in float64 from that of answers a millionth apart


EVEN = 256  # tokens, so that cells of any size to all of them begin at the same places from either end


MIRRORS = "a layer that reads one strand otherwise than the other"


@register
def any_length(factory: Factory, dim: int, causal: bool) -> CheckResult:
    """Lengths 1, 7, 64, 100 and 131 come back in the shape and dtype they had, padded or not."""
    layer, wrong = perturbed_layer(factory, dim, causal), []
    for dtype in (torch.float64, torch.float32):
        for length in LENGTHS:
            x = torch.randn(2, length, dim, dtype=dtype)
            for layout in (TokenLayout(), TokenLayout(padding_mask=torch.ones(2, length, dtype=torch.bool))):
                y = layer.to(dtype)(x, layout)
                if y.shape != x.shape or y.dtype != x.dtype or not y.isfinite().all():
                    wrong.append(f"{list(x.shape)} {x.dtype} became {list(y.shape)} {y.dtype}")
    detail = "; ".join(wrong) or f"lengths {', '.join(map(str, LENGTHS))} in float32 and float64"
    return CheckResult("any length", not wrong, detail, "reshaping shortcuts")


@register
def matches_naive(factory: Factory, dim: int, causal: bool) -> CheckResult:
    """`forward` and `naive` agree in the answer and in the gradients of the input and of every parameter."""
    layer, worst = perturbed_layer(factory, dim, causal), 0.0
    for length in (1, 7, 100, LONG):
        x = torch.randn(2, length, dim, dtype=torch.float64)
        keep = torch.rand(2, length) > 0.3
        positions = torch.randint(1000, (2, 1)) + 3 * torch.arange(length)
        halves = torch.arange(length).ge(length // 2).long().expand(2, -1)
        thirds = torch.randint(3, (2, length))
        for layout in (
            TokenLayout(),
            TokenLayout(padding_mask=keep),
            TokenLayout(padding_mask=keep, position_ids=positions),
            TokenLayout(segment_ids=halves),
            TokenLayout(padding_mask=keep, segment_ids=thirds),
        ):
            fast, slow = answer_and_gradients(layer, x, layout), answer_and_gradients(layer, x, layout, naive=True)
            worst = max(worst, *(difference(a, b) for a, b in zip(fast, slow, strict=True)))
    return CheckResult(
        "matches naive", worst <= TOLERANCE, f"largest difference {worst:.1e}", "wrong algorithm, wrong backward"
    )


@register
def ignores_padding(factory: Factory, dim: int, causal: bool) -> CheckResult:
    """What padding holds, 1e6 or NaN, changes nothing kept, forward or backward; padding answers 0."""
    layer, worst = perturbed_layer(factory, dim, causal), 0.0
    for length in (40, LONG):
        x = torch.randn(4, length, dim, dtype=torch.float64)
        index = torch.arange(length)
        keep = torch.stack([index < length // 2, index >= length // 3, torch.rand(length) > 0.5, index < 0])
        layout = TokenLayout(padding_mask=keep, segment_ids=torch.randint(2, keep.shape))
        clean = answer_and_gradients(layer, x.masked_fill(~keep[..., None], 0), layout)
        worst = max(worst, *(difference(t[~keep], torch.zeros(())) for t in clean[:2]))
        for poison in (1e6, float("nan")):
            dirty = answer_and_gradients(layer, x.masked_fill(~keep[..., None], poison), layout)
            worst = max(worst, *(difference(a, b) for a, b in zip(dirty, clean, strict=True)))
    return CheckResult(
        "ignores padding",
        worst <= TOLERANCE,
        f"largest change {worst:.1e}; padding right, left, scattered and everywhere",
        "an ignored keep, a row of padding that is NaN",
    )


@register
def hides_the_future(factory: Factory, dim: int, causal: bool) -> CheckResult:
    """In a causal layer the gradient of an answer is exactly zero at every later token, and what stands there is idle.

    A choice of keys has no gradient: only other tokens in their place show that later ones had a say in it.
    """
    why = "leaks through pooling, upsampling, chunks"
    if not causal:
        return CheckResult("hides the future", True, "looks both ways by choice", why)
    layer, leaks = perturbed_layer(factory, dim, causal), []
    for length, keep in ((40, None), (LONG, None), (LONG, torch.rand(1, LONG) > 0.2)):
        x = torch.randn(1, length, dim, dtype=torch.float64, requires_grad=True)
        y = layer(x, TokenLayout(padding_mask=keep, segment_ids=torch.arange(length)[None] % 2))
        for at in {0, 5, 31, 63, 64, 127, 128, 200, length - 2} & set(range(length - 1)):
            (gradient,) = torch.autograd.grad(y[0, at].sum(), x, retain_graph=True)
            if gradient[0, at + 1 :].any():
                leaks.append(
                    f"token {at} of {length} sees token {at + 1 + int(gradient[0, at + 1 :].any(-1).int().argmax())}"
                )
    x, y = x.detach(), y.detach()
    for at in (5, 63, 64, 127, 200):
        other = torch.where(torch.arange(LONG)[:, None] > at, torch.randn_like(x), x)
        off = difference(
            layer(other, TokenLayout(segment_ids=torch.arange(LONG)[None] % 2, padding_mask=keep))[:, : at + 1],
            y[:, : at + 1],
        )
        if off > TOLERANCE:
            leaks.append(f"other tokens after {at} change answers up to it by {off:.1e}")
    return CheckResult(
        "hides the future", not leaks, "; ".join(leaks[:3]) or "later tokens have neither gradient nor say", why
    )


@register
def batch_invariance(factory: Factory, dim: int, causal: bool) -> CheckResult:
    """A sequence alone gives what it gives beside others, be they as long or longer."""
    layer, worst = perturbed_layer(factory, dim, causal), 0.0
    for lengths in ((100, 100, 100), (LONG, 37, 1)):
        x = torch.randn(len(lengths), max(lengths), dim, dtype=torch.float64)
        keep = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        together = layer(x, TokenLayout(padding_mask=keep))
        for row, length in enumerate(lengths):
            worst = max(worst, difference(together[row, :length], layer(x[row : row + 1, :length])[0]))
    return CheckResult(
        "stands alone",
        worst <= TOLERANCE,
        f"largest change {worst:.1e}",
        "state shared across sequences, denominators that count padding",
    )


@register
def weights_sum_to_one(factory: Factory, dim: int, causal: bool) -> CheckResult:
    """In a layer that declares that it averages, values of 1 everywhere give 1 everywhere."""
    why = "normalisers that do not normalise"
    layer = perturbed_layer(factory, dim, causal)
    if not layer.weights_sum_to_one:
        return CheckResult("averages", True, "declares no average", why)
    held = [module for module in layer.modules() if isinstance(module, QKVProjection)]
    if not held:
        return CheckResult(
            "averages", False, "declares an average and holds no Heads whose values could be set to 1", why
        )
    x = torch.randn(2, LONG, dim, dtype=torch.float64)
    x[..., 0] = 1
    with torch.no_grad():
        for heads in held:
            heads.value.weight.zero_()
            heads.value.weight[:, 0] = 1
            heads.out.weight.copy_(torch.eye(dim))
        keep = torch.rand(2, LONG) > 0.3
        answers = torch.cat([layer(x).flatten(), layer(x, TokenLayout(padding_mask=keep))[keep].flatten()])
    worst = difference(answers, torch.ones(()))
    return CheckResult("averages", worst <= TOLERANCE, f"values of 1 give 1 within {worst:.1e}", why)


@register
def receptive_field(factory: Factory, dim: int, causal: bool) -> CheckResult:
    """In a layer that declares a reach, exactly the tokens within it, ends included, have a gradient."""
    why = "windows that are off by one"
    layer = perturbed_layer(factory, dim, causal)
    if layer.receptive_field is None:
        return CheckResult("keeps its reach", True, "declares no bound", why)
    left, right = layer.receptive_field
    length = 2 * (left + right) + 9
    x = torch.randn(1, length, dim, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    wrong = []
    for at in (0, left, left + right // 2 + 4, length - 1):
        (gradient,) = torch.autograd.grad(y[0, at].sum(), x, retain_graph=True)
        seen = gradient[0].any(-1).nonzero().flatten().tolist()
        within = range(max(0, at - left), min(length, at + right + 1))
        expected = [index for index in within if (index - at) % layer.stride == 0]
        if seen != expected:
            wrong.append(f"token {at} sees {len(seen)} tokens and should see {len(expected)}")
    return CheckResult("keeps its reach", not wrong, "; ".join(wrong) or f"{left} + 1 + {right} tokens", why)


@register
def reversal_equivariance(factory: Factory, dim: int, causal: bool) -> CheckResult:
    """A sequence turned round is answered turned round, or the layer declares why not (`sided`) and does differ."""
    layer = perturbed_layer(factory, dim, causal)
    if causal:
        return CheckResult("mirrors", True, "looks left by choice", MIRRORS)
    x = torch.randn(2, EVEN, dim, dtype=torch.float64)
    off = difference(layer(x.flip(1)).flip(1), layer(x))
    if layer.asymmetry is None:
        told = "; a layer that cannot be says why in `sided`" if off > TOLERANCE else ""
        return CheckResult("mirrors", off <= TOLERANCE, f"turned round it differs by {off:.1e}{told}", MIRRORS)
    return CheckResult("mirrors", off > TOLERANCE, f"differs by {off:.1e}, as declared: {layer.asymmetry}", MIRRORS)


@register
def passes_gradcheck(factory: Factory, dim: int, causal: bool) -> CheckResult:
    """Gradients of the input and of every parameter agree with differences of answers, in float64.

    At first along one direction of all of them, because torch's own check takes minutes to say that it failed.
    """
    layer = perturbed_layer(factory, dim, causal)
    x = torch.randn(2, 70, dim, dtype=torch.float64, requires_grad=True)
    keep, segments = torch.rand(2, 70) > 0.2, (torch.arange(70) >= 30).long().expand(2, -1)
    wanted = [parameter for parameter in layer.parameters() if parameter.requires_grad]

    def answer(x: Tensor, *_: Tensor) -> Tensor:
        return layer(x, TokenLayout(padding_mask=keep, segment_ids=segments))

    along = [torch.randn_like(one) for one in (x, *wanted)]
    off = _off_along(answer, [x, *wanted], along)
    if off > SLOPE:
        return CheckResult("passes gradcheck", False, f"off by {off:.1e} along a random direction", "a wrong backward")
    try:
        gradcheck(answer, (x, *wanted), fast_mode=True)
    except GradcheckError as error:
        return CheckResult("passes gradcheck", False, " ".join(str(error).split())[:200], "a wrong backward")
    return CheckResult("passes gradcheck", True, "input and every parameter", "a wrong backward")


def _off_along(answer: Callable[..., Tensor], inputs: list[Tensor], along: list[Tensor]) -> float:
    """How far the slope of a random sum of the answers is from what their gradients say it is."""
    pull = torch.randn_like(answer(*inputs))
    gradients = torch.autograd.grad(answer(*inputs), inputs, pull, allow_unused=True, materialize_grads=True)
    said = sum((gradient * one).sum().item() for gradient, one in zip(gradients, along, strict=True))
    ends = []
    for step in (1e-6, -1e-6):
        with torch.no_grad():
            for one, direction in zip(inputs, along, strict=True):
                one += step * direction
            ends.append((answer(*inputs) * pull).sum().item())
            for one, direction in zip(inputs, along, strict=True):
                one -= step * direction
    found = (ends[0] - ends[1]) / 2e-6
    return abs(found - said) / max(1.0, abs(found), abs(said))
