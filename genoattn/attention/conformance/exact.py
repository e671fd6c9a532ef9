"""Checks of the outputs of a layer in float64."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.autograd.gradcheck import GradcheckError, gradcheck

from genoattn.attention.base import TokenLayout
from genoattn.attention.conformance.check import (
    LEAK,
    LENGTHS,
    LONG,
    TOLERANCE,
    Factory,
    Outcome,
    perturbed_layer,
    register,
)
from genoattn.attention.conformance.probes import difference, output_and_gradients
from genoattn.attention.modules.projections import QKVProjection

SLOPE = 1e-5
"""Largest relative difference of a directional derivative from the difference of outputs 2e-6 apart."""


SECOND_SLOPE = 1e-4
"""Largest relative difference of a second derivative from the difference of gradients 2e-5 apart."""


EVEN = 256
"""Tokens, so that blocks of any power of two up to it begin at the same places from either end."""


@register("shortcuts in reshaping")
def any_length(factory: Factory, dim: int, causal: bool) -> Outcome:
    """Lengths 1, 7, 64, 100 and 131 keep their shape and dtype, with and without a padding mask."""
    layer, wrong = perturbed_layer(factory, dim, causal), []
    for dtype in (torch.float64, torch.float32):
        for length in LENGTHS:
            x = torch.randn(2, length, dim, dtype=dtype)
            for layout in (TokenLayout(), TokenLayout(padding_mask=torch.ones(2, length, dtype=torch.bool))):
                y = layer.to(dtype)(x, layout)
                if y.shape != x.shape or y.dtype != x.dtype or not y.isfinite().all():
                    wrong.append(f"{list(x.shape)} {x.dtype} became {list(y.shape)} {y.dtype}")
    return not wrong, "; ".join(wrong) or f"lengths {', '.join(map(str, LENGTHS))} in float32 and float64"


@register("a wrong algorithm, a wrong backward")
def matches_naive(factory: Factory, dim: int, causal: bool) -> Outcome:
    """`forward` and `naive` agree in the outputs and in the gradients of the input and of every parameter."""
    layer, worst, identical = perturbed_layer(factory, dim, causal), 0.0, True
    for batch, length, layout in _layouts():
        x = torch.randn(batch, length, dim, dtype=torch.float64)
        fast, slow = output_and_gradients(layer, x, layout), output_and_gradients(layer, x, layout, naive=True)
        worst = max(worst, *(difference(a, b) for a, b in zip(fast, slow, strict=True)))
        identical = identical and torch.equal(fast[0], slow[0])
    warning = "forward and naive are equal bit for bit, so the check compares nothing: is naive another computation?"
    return worst <= TOLERANCE, f"largest difference {worst:.1e}", warning if identical else ""


def _layouts() -> Iterator[tuple[int, int, TokenLayout]]:
    """Batch, length and layout: all real, random padding, positions with gaps, segments in several orders."""
    for length in (1, 7, 100, LONG):
        mask = torch.rand(2, length) > 0.3
        positions = torch.randint(1000, (2, 1)) + 3 * torch.arange(length)
        halves = torch.arange(length).ge(length // 2).long().expand(2, -1)
        thirds = torch.randint(3, (2, length))
        yield 2, length, TokenLayout()
        yield 2, length, TokenLayout(padding_mask=mask)
        yield 2, length, TokenLayout(padding_mask=mask, position_ids=positions)
        yield 2, length, TokenLayout(segment_ids=halves)
        yield 2, length, TokenLayout(padding_mask=mask, segment_ids=thirds)
    yield 9, 40, TokenLayout(padding_mask=torch.arange(40) >= torch.arange(9)[:, None])
    pairs, turns = torch.arange(100).div(2, rounding_mode="floor").expand(2, -1), (torch.arange(100) % 2).expand(2, -1)
    yield 2, 100, TokenLayout(position_ids=pairs, segment_ids=turns)
    yield 2, 99, TokenLayout(torch.rand(2, 99) > 0.3, segment_ids=1 - turns[:, :99])
    yield 2, 96, TokenLayout(torch.rand(2, 96) > 0.3, pairs[:, :96], turns[:, :96])


@register("an ignored padding mask, a row of padding that is NaN")
def padding_invariance(factory: Factory, dim: int, causal: bool) -> Outcome:
    """Values of 1e6 or NaN at padding change no output at real tokens and no gradient; padding returns 0."""
    layer, worst = perturbed_layer(factory, dim, causal), 0.0
    for length in (40, LONG):
        x = torch.randn(4, length, dim, dtype=torch.float64)
        index = torch.arange(length)
        mask = torch.stack([index < length // 2, index >= length // 3, torch.rand(length) > 0.5, index < 0])
        layout = TokenLayout(padding_mask=mask, segment_ids=torch.randint(2, mask.shape))
        clean = output_and_gradients(layer, x.masked_fill(~mask[..., None], 0), layout)
        worst = max(worst, *(difference(t[~mask], torch.zeros(())) for t in clean[:2]))
        for poison in (1e6, float("nan")):
            dirty = output_and_gradients(layer, x.masked_fill(~mask[..., None], poison), layout)
            worst = max(worst, *(difference(a, b) for a, b in zip(dirty, clean, strict=True)))
    detail = f"largest change {worst:.1e}; padding on the right, on the left, scattered and everywhere"
    return worst <= TOLERANCE, detail


@register("leaks through pooling, upsampling, chunks")
def causality(factory: Factory, dim: int, causal: bool) -> Outcome:
    """In a causal layer an output has no gradient by later tokens, and other tokens in their place do not change it.

    The second part is for layers that select keys: a selection has no gradient. The first allows for the rounding of
    a convolution by FFT.
    """
    if not causal:
        return True, "bidirectional by choice"
    layer, leaks = perturbed_layer(factory, dim, causal), []
    for length, mask in ((40, None), (LONG, None), (LONG, torch.rand(1, LONG) > 0.2)):
        x = torch.randn(1, length, dim, dtype=torch.float64, requires_grad=True)
        layout = TokenLayout(padding_mask=mask, segment_ids=torch.arange(length)[None] % 2)
        y = layer(x, layout)
        for at in {0, 5, 31, 63, 64, 127, 128, 200, length - 2} & set(range(length - 1)):
            (gradient,) = torch.autograd.grad(y[0, at].sum(), x, retain_graph=True)
            sizes = gradient[0].abs().amax(-1)
            later = sizes[at + 1 :] > LEAK * sizes.max()
            if later.any():
                leaks.append(f"token {at} of {length} sees token {at + 1 + int(later.int().argmax())}")
        if length == LONG:
            for at in (5, 63, 64, 127, 200):
                other = torch.where(torch.arange(LONG)[:, None] > at, torch.randn_like(x), x)
                change = difference(layer(other, layout)[:, : at + 1], y[:, : at + 1])
                if change > TOLERANCE:
                    leaks.append(f"other tokens after {at} change the outputs up to it by {change:.1e}")
    return not leaks, "; ".join(leaks[:3]) or "later tokens have no gradient and change nothing"


@register("state shared between sequences, denominators that count padding")
def batch_invariance(factory: Factory, dim: int, causal: bool) -> Outcome:
    """A sequence alone has the outputs that it has in a batch with others, of its length or longer."""
    layer, worst = perturbed_layer(factory, dim, causal), 0.0
    for lengths in ((100, 100, 100), (LONG, 37, 1)):
        x = torch.randn(len(lengths), max(lengths), dim, dtype=torch.float64)
        mask = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        together = layer(x, TokenLayout(padding_mask=mask))
        for row, length in enumerate(lengths):
            worst = max(worst, difference(together[row, :length], layer(x[row : row + 1, :length])[0]))
    return worst <= TOLERANCE, f"largest change {worst:.1e}"


@register("normalisers that do not normalise")
def weights_sum_to_one(factory: Factory, dim: int, causal: bool) -> Outcome:
    """In a layer that declares `weights_sum_to_one`, values of 1 everywhere give 1 everywhere."""
    layer = perturbed_layer(factory, dim, causal)
    if not layer.weights_sum_to_one:
        return True, "the layer declares weights_sum_to_one=False"
    projections = [module for module in layer.modules() if isinstance(module, QKVProjection)]
    if not projections:
        return False, "the layer declares weights_sum_to_one and has no QKVProjection whose values could be set to 1"
    x = torch.randn(2, LONG, dim, dtype=torch.float64)
    x[..., 0] = 1
    with torch.no_grad():
        for heads in projections:
            heads.value.weight.zero_()
            heads.value.weight[:, 0] = 1
            heads.out.weight.copy_(torch.eye(dim))
        mask = torch.rand(2, LONG) > 0.3
        outputs = torch.cat([layer(x).flatten(), layer(x, TokenLayout(padding_mask=mask))[mask].flatten()])
    worst = difference(outputs, torch.ones(()))
    hint = "" if worst <= TOLERANCE else "; an approximation must declare weights_sum_to_one=False"
    return worst <= TOLERANCE, f"values of 1 give 1 within {worst:.1e}{hint}"


@register("windows that are off by one")
def receptive_field(factory: Factory, dim: int, causal: bool) -> Outcome:
    """In a layer that declares a receptive field, exactly the tokens in it, ends included, have a gradient."""
    layer = perturbed_layer(factory, dim, causal)
    if layer.receptive_field is None:
        return True, "the layer declares no receptive field"
    left, right = layer.receptive_field
    length = 2 * (left + right) + 9
    x = torch.randn(1, length, dim, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    wrong = []
    for at in (0, left, left + right // 2 + 4, length - 1):
        (gradient,) = torch.autograd.grad(y[0, at].sum(), x, retain_graph=True)
        visible = gradient[0].any(-1).nonzero().flatten().tolist()
        within = range(max(0, at - left), min(length, at + right + 1))
        expected = [index for index in within if (index - at) % layer.stride == 0]
        if visible != expected:
            wrong.append(f"token {at} sees {len(visible)} tokens and should see {len(expected)}")
    return not wrong, "; ".join(wrong) or f"{left} + 1 + {right} tokens"


@register("a layer that reads the two strands differently")
def reversal_equivariance(factory: Factory, dim: int, causal: bool) -> Outcome:
    """Reversing the input reverses the output of a bidirectional layer, unless it declares an `asymmetry`."""
    if causal:
        return True, "causal by choice"
    layer = perturbed_layer(factory, dim, causal)
    x = torch.randn(2, EVEN, dim, dtype=torch.float64)
    change = difference(layer(x.flip(1)).flip(1), layer(x))
    if layer.asymmetry is not None:
        return change > TOLERANCE, f"differs by {change:.1e}, as declared: {layer.asymmetry}"
    hint = "; a layer that cannot be symmetric gives the reason in `asymmetry`" if change > TOLERANCE else ""
    return change <= TOLERANCE, f"reversed it differs by {change:.1e}{hint}"


@register("a wrong backward")
def gradient_check(factory: Factory, dim: int, causal: bool) -> Outcome:
    """Gradients of the input and of every parameter agree with differences of outputs in float64.

    A single random direction comes first, because torch's gradcheck takes minutes to report a failure.
    """
    layer = perturbed_layer(factory, dim, causal)
    x = torch.randn(2, 70, dim, dtype=torch.float64, requires_grad=True)
    mask, segments = torch.rand(2, 70) > 0.2, (torch.arange(70) >= 30).long().expand(2, -1)
    inputs = [x, *(parameter for parameter in layer.parameters() if parameter.requires_grad)]

    def output(x: Tensor, *_: Tensor) -> Tensor:
        return layer(x, TokenLayout(padding_mask=mask, segment_ids=segments))

    off = _slope_error(output, inputs, [torch.randn_like(tensor) for tensor in inputs])
    if off > SLOPE:
        return False, f"off by {off:.1e} along a random direction"
    try:
        gradcheck(output, inputs, fast_mode=True)
    except GradcheckError as error:
        return False, " ".join(str(error).split())[:200]
    return True, "input and every parameter"


def _slope_error(output: Callable[..., Tensor], inputs: list[Tensor], directions: list[Tensor]) -> float:
    """Relative difference of a directional derivative of a random sum of the outputs from a difference quotient."""
    weights = torch.randn_like(output(*inputs))
    gradients = torch.autograd.grad(output(*inputs), inputs, weights, allow_unused=True, materialize_grads=True)
    slope = sum((gradient * along).sum().item() for gradient, along in zip(gradients, directions, strict=True))
    ends = []
    for step in (1e-6, -1e-6):
        with torch.no_grad():
            for tensor, direction in zip(inputs, directions, strict=True):
                tensor += step * direction
            ends.append((output(*inputs) * weights).sum().item())
            for tensor, direction in zip(inputs, directions, strict=True):
                tensor -= step * direction
    quotient = (ends[0] - ends[1]) / 2e-6
    return abs(quotient - slope) / max(1.0, abs(quotient), abs(slope))


@register("a second derivative with terms missing")
def second_derivatives(factory: Factory, dim: int, causal: bool) -> Outcome:
    """The derivative of |gradient|² along a direction agrees with differences, or is refused.

    A layer refuses by an error that names a derivative, as `first_order_only` raises it.
    """
    layer = perturbed_layer(factory, dim, causal)
    x = torch.randn(1, 40, dim, dtype=torch.float64)
    direction, layout = torch.randn_like(x), TokenLayout(segment_ids=(torch.arange(40) // 20)[None])

    def penalty(x: Tensor, create_graph: bool) -> Tensor:
        (gradient,) = torch.autograd.grad(layer(x, layout).square().sum(), x, create_graph=create_graph)
        return gradient.square().sum()

    x.requires_grad_()
    try:
        (second,) = torch.autograd.grad(penalty(x, True), x)
    except RuntimeError as refusal:  # NotImplementedError is one
        if "derivative" not in str(refusal):
            raise
        return True, f"the layer has first derivatives only: {refusal}"
    ends = [penalty((x + step * direction).detach().requires_grad_(), False).item() for step in (1e-5, -1e-5)]
    slope, quotient = (second * direction).sum().item(), (ends[0] - ends[1]) / 2e-5
    off = abs(slope - quotient) / max(abs(quotient), 1e-9)
    return off <= SECOND_SLOPE, f"off by {off:.1e} along a random direction"
