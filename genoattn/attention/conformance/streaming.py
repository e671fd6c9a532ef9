"""Laws of long sequences: fed piece by piece, or read in segments that are overwritten, a layer answers the same."""

from collections.abc import Iterator

import torch
from torch import Tensor

from genoattn.attention.base import Attention, ChunkReader, TokenLayout
from genoattn.attention.conformance.check import (
    LONG,
    STATE_TOLERANCE,
    TOLERANCE,
    CheckResult,
    Factory,
    perturbed_layer,
    register,
)
from genoattn.attention.conformance.probes import difference
from genoattn.errors import UserError

PIECES = {1: 40, 7: LONG, 64: LONG, 100: LONG}
"""Tokens at once, and of how many."""


@register
def steps(factory: Factory, dim: int, causal: bool) -> CheckResult:
    """A causal layer that keeps a state answers the same in pieces of 1, 7, 64 and 100 tokens, and holds what it says.

    What it holds after 300 tokens, at 4 bytes a number, is its `state_bytes`; the numbers are at least float32.
    """
    why = "streaming that differs, states that grow, states in half precision"
    layer = perturbed_layer(factory, dim, causal)
    try:
        layer.init_state(2)
    except UserError as refusal:
        return CheckResult("steps", True, str(refusal), why)
    worst, held = 0.0, 0
    x, keep = torch.randn(2, LONG, dim, dtype=torch.float64), torch.rand(2, LONG) > 0.3
    for layout in (TokenLayout(), TokenLayout(padding_mask=keep)):
        whole = layer(x, layout)
        for piece, length in PIECES.items():
            pieced, held = stepped(
                layer, x[:, :length], None if layout.padding_mask is None else keep[:, :length], piece
            )
            worst = max(worst, difference(pieced, whole[:, :length]))
    said = 2 * layer.state_bytes(LONG)
    off = abs(held - said) / max(said, 1)
    narrow = _narrow(layer.float(), dim)
    return CheckResult(
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
        y, state = layer.step(x[:, part], state, TokenLayout(padding_mask=None if keep is None else keep[:, part]))
        answers.append(y)
    return torch.cat(answers, dim=1), sum(4 * tensor.numel() for tensor in state if tensor.is_floating_point())


def _narrow(layer: Attention, dim: int) -> str:
    """What in the state of a float32 layer under autocast is less than float32."""
    with torch.autocast("cpu", torch.bfloat16):
        _, state = layer.step(torch.randn(1, 9, dim), layer.init_state(1))
    kinds = {str(tensor.dtype) for tensor in state if tensor.is_floating_point() and tensor.dtype != torch.float32}
    return f"a state of {', '.join(sorted(kinds))} under autocast" if kinds else ""


@register
def streams(factory: Factory, dim: int, causal: bool) -> CheckResult:
    """Read in segments of 1 to all tokens, what is answered overwritten at once, a layer answers the same."""
    layer, worst = perturbed_layer(factory, dim, causal), 0.0
    x, keep = torch.randn(2, LONG, dim, dtype=torch.float64), torch.rand(2, LONG) > 0.3
    thirds = torch.randint(3, (2, LONG))
    for layout in (
        TokenLayout(),
        TokenLayout(keep, segment_ids=thirds),
        TokenLayout(position_ids=3 * torch.arange(LONG).flip(0).expand(2, -1)),
    ):
        whole = layer(x, layout)
        for segment in (37, 64, 128, LONG):
            with torch.no_grad():
                pieces = streamed(layer, x, layout, segment)
                worst = max(worst, difference(torch.cat(list(pieces), dim=1), whole))
    return CheckResult(
        "streams", worst <= TOLERANCE, f"largest difference {worst:.1e}", "a halo too short, reads of what has changed"
    )


def streamed(layer: Attention, x: Tensor, layout: TokenLayout, segment: int) -> Iterator[Tensor]:
    """The answers in order; each token becomes NaN when its answer is given."""
    x, done = x.clone(), 0
    for start, stop, y in layer.forward_chunked(reader(x, layout), x.shape[1], segment):
        assert start == done and y.shape[1] == stop - start, f"tokens {start} to {stop} after those to {done}"
        yield y
        x[:, start:stop], done = float("nan"), stop
    assert done == x.shape[1], f"answers to {done} of {x.shape[1]} tokens"


def reader(x: Tensor, layout: TokenLayout) -> ChunkReader:
    """Reads of a sequence that is all there."""
    positions = (
        torch.arange(x.shape[1])[None].expand(len(x), -1) if layout.position_ids is None else layout.position_ids
    )

    def read(start: int, stop: int) -> tuple[Tensor, TokenLayout]:
        assert 0 <= start < stop <= x.shape[1], f"tokens {start} to {stop} of {x.shape[1]} were read"
        keep = None if layout.padding_mask is None else layout.padding_mask[:, start:stop]
        segments = None if layout.segment_ids is None else layout.segment_ids[:, start:stop]
        return x[:, start:stop], TokenLayout(keep, positions[:, start:stop], segments)

    return read
