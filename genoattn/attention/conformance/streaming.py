"""Checks of long sequences: computed step by step or chunk by chunk, a layer has the same outputs."""

from collections.abc import Iterator

import torch
from torch import Tensor

from genoattn.attention.base import Attention, ChunkReader, TokenLayout
from genoattn.attention.conformance.check import (
    LONG,
    STATE_TOLERANCE,
    TOLERANCE,
    Factory,
    Outcome,
    perturbed_layer,
    register,
)
from genoattn.attention.conformance.probes import difference
from genoattn.errors import UserError

STEP_SIZES = {1: 40, 7: LONG, 64: LONG, 100: LONG}
"""Tokens of a step, and of the sequence."""


@register("steps that differ from forward, states that grow, states in half precision")
def step_by_step(factory: Factory, dim: int, causal: bool) -> Outcome:
    """A causal layer with a state has the same outputs in steps of 1, 7, 64 and 100 tokens.

    After 300 tokens its state is as large as `state_bytes` says, at 4 bytes a number, and at least float32.
    """
    layer = perturbed_layer(factory, dim, causal)
    try:
        layer.init_state(2)
    except UserError as refusal:
        return True, str(refusal)
    worst, size = 0.0, 0
    x, mask = torch.randn(2, LONG, dim, dtype=torch.float64), torch.rand(2, LONG) > 0.3
    thirds = torch.randint(3, (2, LONG))
    for padding_mask, segments in ((mask, thirds), (None, None)):
        whole = layer(x, TokenLayout(padding_mask, segment_ids=segments))
        for step, length in STEP_SIZES.items():
            some, ids = (None if t is None else t[:, :length] for t in (padding_mask, segments))
            stepped, size = in_steps(layer, x[:, :length], some, ids, step)
            worst = max(worst, difference(stepped, whole[:, :length]))
    declared = 2 * layer.state_bytes(LONG)
    off = abs(size - declared) / max(declared, 1)
    narrow = _dtypes_below_float32(layer.float(), dim)
    detail = (
        f"largest difference {worst:.1e} in steps of {', '.join(map(str, STEP_SIZES))} tokens; state_bytes() is off by"
        f" {off:.1%}"
    )
    if narrow:
        detail += f"; a state of {narrow} under autocast"
    return worst <= TOLERANCE and off <= STATE_TOLERANCE and not narrow, detail


def in_steps(
    layer: Attention, x: Tensor, padding_mask: Tensor | None, segments: Tensor | None, size: int
) -> tuple[Tensor, int]:
    """The outputs computed in steps of `size` tokens, and the bytes of the last state at 4 a number."""
    state, outputs = layer.init_state(len(x)), []
    for start in range(0, x.shape[1], size):
        tokens = slice(start, start + size)
        mask, ids = (None if t is None else t[:, tokens] for t in (padding_mask, segments))
        layout = TokenLayout(mask, segment_ids=ids)
        y, state = layer.step(x[:, tokens], state, layout)
        outputs.append(y)
    return torch.cat(outputs, dim=1), sum(4 * tensor.numel() for tensor in state if tensor.is_floating_point())


def _dtypes_below_float32(layer: Attention, dim: int) -> str:
    """Dtypes narrower than float32 in the state of a float32 layer under autocast."""
    with torch.autocast("cpu", torch.bfloat16):
        _, state = layer.step(torch.randn(1, 9, dim), layer.init_state(1))
    dtypes = {str(tensor.dtype) for tensor in state if tensor.is_floating_point() and tensor.dtype != torch.float32}
    return ", ".join(sorted(dtypes))


@register("an overlap of chunks that is too short, reads of tokens that were overwritten")
def chunk_by_chunk(factory: Factory, dim: int, causal: bool) -> Outcome:
    """`forward_chunked` has the outputs of `forward`, although tokens are overwritten as soon as they are answered."""
    layer, worst = perturbed_layer(factory, dim, causal), 0.0
    x, mask = torch.randn(2, LONG, dim, dtype=torch.float64), torch.rand(2, LONG) > 0.3
    thirds, turns = torch.randint(3, (2, LONG)), (torch.arange(LONG) % 2).expand(2, -1)
    for layout in (
        TokenLayout(),
        TokenLayout(mask, segment_ids=thirds),
        TokenLayout(position_ids=3 * torch.arange(LONG).flip(0).expand(2, -1), segment_ids=turns),
    ):
        whole = layer(x, layout)
        for size in (37, 64, 128, LONG):
            with torch.no_grad():
                worst = max(worst, difference(torch.cat(list(in_chunks(layer, x, layout, size)), dim=1), whole))
    return worst <= TOLERANCE, f"largest difference {worst:.1e}"


def in_chunks(layer: Attention, x: Tensor, layout: TokenLayout, size: int) -> Iterator[Tensor]:
    """The outputs in order; each token becomes NaN as soon as its output is there."""
    x, done = x.clone(), 0
    for start, stop, y in layer.forward_chunked(reader(x, layout), x.shape[1], size):
        assert start == done and y.shape[1] == stop - start, f"tokens {start} to {stop} after those to {done}"
        yield y
        x[:, start:stop], done = float("nan"), stop
    assert done == x.shape[1], f"outputs to {done} of {x.shape[1]} tokens"


def reader(x: Tensor, layout: TokenLayout) -> ChunkReader:
    """A reader of a sequence that is in memory."""
    positions = (
        torch.arange(x.shape[1])[None].expand(len(x), -1) if layout.position_ids is None else layout.position_ids
    )

    def read(start: int, stop: int) -> tuple[Tensor, TokenLayout]:
        assert 0 <= start < stop <= x.shape[1], f"tokens {start} to {stop} of {x.shape[1]} were read"
        mask = None if layout.padding_mask is None else layout.padding_mask[:, start:stop]
        segments = None if layout.segment_ids is None else layout.segment_ids[:, start:stop]
        return x[:, start:stop], TokenLayout(mask, positions[:, start:stop], segments)

    return read
