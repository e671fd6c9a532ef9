"""The laws an attention layer is held to, each a function that tries a layer's factory and returns a verdict.

All but `matches_naive` are independent of the layer's own reference, because a mistake made in both would be invisible
to it. `check` applies them all.
"""

from collections.abc import Callable
from functools import wraps
from typing import NamedTuple

import torch
import torch.nn.functional as F

from genoattn.attention.base import Attention, Layout
from genoattn.attention.heads import Heads
from genoattn.errors import UserError
from genoattn.probes import Stack, answer_and_gradients, bfloat16_error, counted, difference, planted

Factory = Callable[..., Attention]

LENGTHS = (1, 7, 64, 100, 131)
LONG = 300  # several blocks or chunks of every variant, and still a small square for `naive`
TOLERANCE = 1e-10  # of the largest number compared, in float64
BFLOAT16_TOLERANCE = 0.03  # root mean square error, of the answer's own root mean square
MILLION = 2**20
GROWTH = {"linear": 2.1, "n log n": 2.3}  # of FLOPs and of the largest tensor, at twice the length
FLOPS_TOLERANCE = 0.02
STEPS = 150
LEARNED = 0.9  # accuracy on the planted task, where guessing gives 0.25


class Verdict(NamedTuple):
    """Whether a law holds, the numbers that say so, and what the law is there to catch."""

    name: str
    holds: bool
    detail: str
    why: str


Law = Callable[[Factory, int, bool], Verdict]
LAWS: dict[str, Law] = {}


def law(trial: Law) -> Law:
    """Enter a trial among the laws, with its own random numbers and the caller's left as they were."""

    @wraps(trial)
    def seeded(factory: Factory, dim: int, causal: bool) -> Verdict:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return trial(factory, dim, causal)

    LAWS[trial.__name__] = seeded
    return seeded


@law
def any_length(factory: Factory, dim: int, causal: bool) -> Verdict:
    """Lengths 1, 7, 64, 100 and 131 come back in the shape and dtype they had, padded or not."""
    layer, wrong = _layer(factory, dim, causal), []
    for dtype in (torch.float64, torch.float32):
        for length in LENGTHS:
            x = torch.randn(2, length, dim, dtype=dtype)
            for layout in (Layout(), Layout(keep=torch.ones(2, length, dtype=torch.bool))):
                y = layer.to(dtype)(x, layout)
                if y.shape != x.shape or y.dtype != x.dtype or not y.isfinite().all():
                    wrong.append(f"{list(x.shape)} {x.dtype} became {list(y.shape)} {y.dtype}")
    detail = "; ".join(wrong) or f"lengths {', '.join(map(str, LENGTHS))} in float32 and float64"
    return Verdict("any length", not wrong, detail, "reshaping shortcuts")


@law
def matches_naive(factory: Factory, dim: int, causal: bool) -> Verdict:
    """`forward` and `naive` agree in the answer and in the gradients of the input and of every parameter."""
    layer, worst = _layer(factory, dim, causal), 0.0
    for length in (1, 7, 100, LONG):
        x = torch.randn(2, length, dim, dtype=torch.float64)
        keep = torch.rand(2, length) > 0.3
        positions = torch.randint(1000, (2, 1)) + 3 * torch.arange(length)
        halves = torch.arange(length).ge(length // 2).long().expand(2, -1)
        thirds = torch.randint(3, (2, length))
        for layout in (
            Layout(),
            Layout(keep=keep),
            Layout(keep=keep, positions=positions),
            Layout(segments=halves),
            Layout(keep=keep, segments=thirds),
        ):
            fast, slow = answer_and_gradients(layer, x, layout), answer_and_gradients(layer, x, layout, naive=True)
            worst = max(worst, *(difference(a, b) for a, b in zip(fast, slow, strict=True)))
    return Verdict(
        "matches naive", worst <= TOLERANCE, f"largest difference {worst:.1e}", "wrong algorithm, wrong backward"
    )


@law
def ignores_padding(factory: Factory, dim: int, causal: bool) -> Verdict:
    """What padding holds, 1e6 or NaN, changes nothing kept, forward or backward; padding answers 0."""
    layer, worst = _layer(factory, dim, causal), 0.0
    for length in (40, LONG):
        x = torch.randn(4, length, dim, dtype=torch.float64)
        index = torch.arange(length)
        keep = torch.stack([index < length // 2, index >= length // 3, torch.rand(length) > 0.5, index < 0])
        layout = Layout(keep=keep, segments=torch.randint(2, keep.shape))
        clean = answer_and_gradients(layer, x.masked_fill(~keep[..., None], 0), layout)
        worst = max(worst, *(difference(t[~keep], torch.zeros(())) for t in clean[:2]))
        for poison in (1e6, float("nan")):
            dirty = answer_and_gradients(layer, x.masked_fill(~keep[..., None], poison), layout)
            worst = max(worst, *(difference(a, b) for a, b in zip(dirty, clean, strict=True)))
    return Verdict(
        "ignores padding",
        worst <= TOLERANCE,
        f"largest change {worst:.1e}; padding right, left, scattered and everywhere",
        "an ignored keep, a row of padding that is NaN",
    )


@law
def hides_the_future(factory: Factory, dim: int, causal: bool) -> Verdict:
    """In a causal layer the gradient of an answer is exactly zero at every later token."""
    why = "leaks through pooling, upsampling, chunks"
    if not causal:
        return Verdict("hides the future", True, "looks both ways by choice", why)
    layer, leaks = _layer(factory, dim, causal), []
    for length, keep in ((40, None), (LONG, None), (LONG, torch.rand(1, LONG) > 0.2)):
        x = torch.randn(1, length, dim, dtype=torch.float64, requires_grad=True)
        y = layer(x, Layout(keep=keep, segments=torch.arange(length)[None] % 2))
        for at in {0, 5, 31, 63, 64, 127, 128, 200, length - 2} & set(range(length - 1)):
            (gradient,) = torch.autograd.grad(y[0, at].sum(), x, retain_graph=True)
            if gradient[0, at + 1 :].any():
                leaks.append(
                    f"token {at} of {length} sees token {at + 1 + int(gradient[0, at + 1 :].any(-1).int().argmax())}"
                )
    return Verdict("hides the future", not leaks, "; ".join(leaks[:3]) or "no gradient from later tokens", why)


@law
def stands_alone(factory: Factory, dim: int, causal: bool) -> Verdict:
    """A sequence alone gives what it gives beside others, be they as long or longer."""
    layer, worst = _layer(factory, dim, causal), 0.0
    for lengths in ((100, 100, 100), (LONG, 37, 1)):
        x = torch.randn(len(lengths), max(lengths), dim, dtype=torch.float64)
        keep = torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]
        together = layer(x, Layout(keep=keep))
        for row, length in enumerate(lengths):
            worst = max(worst, difference(together[row, :length], layer(x[row : row + 1, :length])[0]))
    return Verdict(
        "stands alone",
        worst <= TOLERANCE,
        f"largest change {worst:.1e}",
        "state shared across sequences, denominators that count padding",
    )


@law
def averages(factory: Factory, dim: int, causal: bool) -> Verdict:
    """In a layer that declares that it averages, values of 1 everywhere give 1 everywhere."""
    why = "normalisers that do not normalise"
    layer = _layer(factory, dim, causal)
    if not layer.averages:
        return Verdict("averages", True, "declares no average", why)
    held = [module for module in layer.modules() if isinstance(module, Heads)]
    if not held:
        return Verdict("averages", False, "declares an average and holds no Heads whose values could be set to 1", why)
    x = torch.randn(2, LONG, dim, dtype=torch.float64)
    x[..., 0] = 1
    with torch.no_grad():
        for heads in held:
            heads.value.weight.zero_()
            heads.value.weight[:, 0] = 1
            heads.out.weight.copy_(torch.eye(dim))
        keep = torch.rand(2, LONG) > 0.3
        answers = torch.cat([layer(x).flatten(), layer(x, Layout(keep=keep))[keep].flatten()])
    worst = difference(answers, torch.ones(()))
    return Verdict("averages", worst <= TOLERANCE, f"values of 1 give 1 within {worst:.1e}", why)


@law
def survives_bfloat16(factory: Factory, dim: int, causal: bool) -> Verdict:
    """Under bfloat16 autocast answers are finite and near float32's; for unbounded linear layers at 2^20 tokens too."""
    layer = _layer(factory, dim, causal).float()
    errors = {LONG: bfloat16_error(layer, torch.randn(2, LONG, dim))}
    if layer.cost == "linear" and layer.reach is None:
        # As many channels as one head of 16, and a mean that is not 0, or the sums would not grow.
        errors[MILLION] = bfloat16_error(_layer(factory, 16, causal).float(), torch.randn(1, MILLION, 16) + 1)
    return Verdict(
        "survives bfloat16",
        all(error <= BFLOAT16_TOLERANCE for error in errors.values()),
        ", ".join(f"off by {error:.1e} at {length} tokens" for length, error in errors.items()),
        "overflow, and sums kept in half precision",
    )


@law
def costs_what_it_says(factory: Factory, dim: int, causal: bool) -> Verdict:
    """FLOPs and the largest tensor, backward included, grow as `cost` says, and `flops` agrees with a count."""
    layer = _layer(factory, dim, causal).float()
    (once, small, forward), (twice, large, _) = (counted(layer, dim, length) for length in (1024, 2048))
    bound = GROWTH.get(layer.cost, float("inf"))
    off = abs(layer.flops(1024) / forward - 1)
    return Verdict(
        "costs what it says",
        max(twice / once, large / small) <= bound and off <= FLOPS_TOLERANCE,
        f"{layer.cost}: at twice the length {twice / once:.2f}x the FLOPs and {large / small:.2f}x the largest tensor; "
        f"flops() is off by {off:.1%}",
        "a window that builds the square, a cost that is not the layer's",
    )


@law
def keeps_its_reach(factory: Factory, dim: int, causal: bool) -> Verdict:
    """In a layer that declares a reach, exactly the tokens within it, ends included, have a gradient."""
    why = "windows that are off by one"
    layer = _layer(factory, dim, causal)
    if layer.reach is None:
        return Verdict("keeps its reach", True, "declares no bound", why)
    left, right = layer.reach
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
    return Verdict("keeps its reach", not wrong, "; ".join(wrong) or f"{left} + 1 + {right} tokens", why)


@law
def learns(factory: Factory, dim: int, causal: bool) -> Verdict:
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
    return Verdict(
        "learns",
        accuracy >= LEARNED,
        f"accuracy {accuracy:.2f} after {step} steps",
        "a layer that is correct and useless",
    )


def check(factory: Factory, dim: int = 32) -> list[Verdict]:
    """Every law on the layer that `factory(dim=…, causal=…)` builds, bidirectional and then causal.

    A direction that the layer refuses with a UserError is one verdict that says so.
    """
    verdicts = []
    for causal in (False, True):
        direction = "causal" if causal else "bidirectional"
        try:
            factory(dim=dim, causal=causal)
        except UserError as refusal:
            verdicts.append(Verdict(f"refuses ({direction})", True, str(refusal), "a layer may refuse in words"))
            continue
        for name, trial in LAWS.items():
            try:
                verdict = trial(factory, dim, causal)
            except (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
                said = " ".join(str(error).split())[:200]
                verdict = Verdict(name.replace("_", " "), False, f"{type(error).__name__}: {said}", "layers that fail")
            verdicts.append(verdict._replace(name=f"{verdict.name} ({direction})"))
    return verdicts


def _layer(factory: Factory, dim: int, causal: bool) -> Attention:
    """A float64 layer whose every parameter, those that start at 0 or 1 included, has been moved."""
    layer = factory(dim=dim, causal=causal).double().eval()
    with torch.no_grad():
        for parameter in layer.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return layer
