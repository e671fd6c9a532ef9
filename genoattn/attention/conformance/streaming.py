"""Laws of long sequences: fed piece by piece, or read in segments that are overwritten, a layer answers the same."""

from collections.abc import Iterator

import torch
from torch import Tensor

from genoattn.attention.base import Attention, Layout, Read
from genoattn.attention.conformance.check import LONG, STATE_TOLERANCE, TOLERANCE, Factory, Verdict, law, moved_layer
from genoattn.attention.conformance.probes import difference
from genoattn.errors import UserError

PIECES = {1: 40, 7: LONG, 64: LONG, 100: LONG}
"""Tokens at once, and of how many."""


@law
def steps(factory: Factory, dim: int, causal: bool) -> Verdict:
    """A causal layer that keeps a state answers the same in pieces of 1, 7, 64 and 100 tokens, and holds what it says.

    What it holds after 300 tokens, at 4 bytes a number, is its `state_bytes`; the numbers are at least float32.
    """
    why = "streaming that differs, states that grow, states in half precision"
    layer = moved_layer(factory, dim, causal)
    try:
        layer.init_state(2)
    except UserError as refusal:
        return Verdict("steps", True, str(refusal), why)
    worst, held = 0.0, 0
    x, keep = torch.randn(2, LONG, dim, dtype=torch.float64), torch.rand(2, LONG) > 0.3
    for layout in (Layout(), Layout(keep=keep)):
        whole = layer(x, layout)
        for piece, length in PIECES.items():
            pieced, held = stepped(layer, x[:, :length], None if layout.keep is None else keep[:, :length], piece)
            worst = max(worst, difference(pieced, whole[:, :length]))
    said = 2 * layer.state_bytes(LONG)
    off = abs(held - said) / max(said, 1)
    narrow = _narrow(layer.float(), dim)
    return Verdict(
        "steps",
        worst <= TOLERANCE and off <= STATE_TOLERANCE and not narrow,
        f"largest difference {worst:.1e} in pieces of {', '.join(map(str, PIECES))}; "
        f"state_bytes() is off by {off:.1%}{'; ' + narrow if narrow else ''}",
        why,
    )


def stepped(layer: Attention, x: Tensor, keep: Tensor | None, piece: int) -> tuple[Tensor, int]:
    """The answers piece by piece, and the bytes held at the end, at 4 a number."""
    state, answers = layer.init_state(len(x)), []
    for start in range(0, x.shape[1], piece):
        part = slice(start, start + piece)
        y, state = layer.step(x[:, part], state, Layout(keep=None if keep is None else keep[:, part]))
        answers.append(y)
    return torch.cat(answers, dim=1), sum(4 * tensor.numel() for tensor in state if tensor.is_floating_point())


def _narrow(layer: Attention, dim: int) -> str:
    """What in the state of a float32 layer under autocast is less than float32."""
    with torch.autocast("cpu", torch.bfloat16):
        _, state = layer.step(torch.randn(1, 9, dim), layer.init_state(1))
    kinds = {str(tensor.dtype) for tensor in state if tensor.is_floating_point() and tensor.dtype != torch.float32}
    return f"a state of {', '.join(sorted(kinds))} under autocast" if kinds else ""


@law
def streams(factory: Factory, dim: int, causal: bool) -> Verdict:
    """Read in segments of 1 to all tokens, what is answered overwritten at once, a layer answers the same."""
    layer, worst = moved_layer(factory, dim, causal), 0.0
    x, keep = torch.randn(2, LONG, dim, dtype=torch.float64), torch.rand(2, LONG) > 0.3
    thirds = torch.randint(3, (2, LONG))
    for layout in (
        Layout(),
        Layout(keep, segments=thirds),
        Layout(positions=3 * torch.arange(LONG).flip(0).expand(2, -1)),
    ):
        whole = layer(x, layout)
        for segment in (37, 64, 128, LONG):
            with torch.no_grad():
                pieces = streamed(layer, x, layout, segment)
                worst = max(worst, difference(torch.cat(list(pieces), dim=1), whole))
    return Verdict(
        "streams", worst <= TOLERANCE, f"largest difference {worst:.1e}", "a halo too short, reads of what has changed"
    )


def streamed(layer: Attention, x: Tensor, layout: Layout, segment: int) -> Iterator[Tensor]:
    """The answers in order; each token becomes NaN when its answer is given."""
    x, done = x.clone(), 0
    for start, stop, y in layer.stream(reader(x, layout), x.shape[1], segment):
        assert start == done and y.shape[1] == stop - start, f"tokens {start} to {stop} after those to {done}"
        yield y
        x[:, start:stop], done = float("nan"), stop
    assert done == x.shape[1], f"answers to {done} of {x.shape[1]} tokens"


def reader(x: Tensor, layout: Layout) -> Read:
    """Reads of a sequence that is all there."""
    positions = torch.arange(x.shape[1])[None].expand(len(x), -1) if layout.positions is None else layout.positions

    def read(start: int, stop: int) -> tuple[Tensor, Layout]:
        assert 0 <= start < stop <= x.shape[1], f"tokens {start} to {stop} of {x.shape[1]} were read"
        keep = None if layout.keep is None else layout.keep[:, start:stop]
        segments = None if layout.segments is None else layout.segments[:, start:stop]
        return x[:, start:stop], Layout(keep, positions[:, start:stop], segments)

    return read
