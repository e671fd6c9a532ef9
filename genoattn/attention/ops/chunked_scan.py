"""Scan along a sequence, segment by segment, that saves only its inputs and the states between segments."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from genoattn.attention.modules.autograd import first_order_only
from genoattn.attention.ops.sizes import CPU, Sizes

State: TypeAlias = tuple[Tensor, ...]


Inputs: TypeAlias = tuple[Any, ...]
"""Tensors, or None for an input that is not given."""


Step: TypeAlias = Callable[[State, Inputs, Inputs], tuple[Tensor | None, State]]
"""`step(state, pieces, shared)`: the outputs of a segment's tokens, or None, and the state after it."""


def chunk_length(numbers: int, chunk: int, by: Sizes = CPU) -> int:
    """Tokens of a segment, a multiple of the chunk, if the largest tensor has `numbers` elements for each token."""
    return max(by.segment // numbers // chunk, 1) * chunk


def chunk_bounds(length: int, segment: int, backwards: bool = False) -> list[tuple[int, int]]:
    """Bounds [start, stop) of the segments, in the order of the scan."""
    forwards = [(start, min(start + segment, length)) for start in range(0, length, segment)]
    return forwards[::-1] if backwards else forwards


def scan(
    step: Step,
    state: State,
    inputs: Inputs,
    shared: Inputs = (),
    *,
    segment: int,
    backwards: bool = False,
    sparse: bool = False,
) -> tuple[Any, State]:
    """Apply `step` to each segment in turn; gradients flow to the state, the inputs and the shared tensors only.

    Args:
        step: Gives the outputs of a segment and the state after it; autocast is off inside.
        state: State before the first segment.
        inputs: Tensors [batch, length, …], or [batch, segments, …] with one entry for each segment.
        shared: Tensors that each step gets whole.
        segment: Tokens of a segment.
        backwards: Scan from the right.
        sparse: Outputs have one entry for each segment, not for each token.

    Returns:
        The outputs joined along dimension 1 (None if steps give none), and the state after the last segment.
    """
    if _length(inputs) <= segment:  # nothing to save
        with torch.autocast(_device(inputs), enabled=False):
            return step(state, inputs, shared)
    learns = torch.is_grad_enabled() and any(t.requires_grad for t in (*state, *inputs, *shared) if t is not None)
    settings = _Settings(step, segment, backwards, sparse, learns, len(state), len(inputs))
    with torch.autocast(_device(inputs), enabled=False):
        if torch.compiler.is_compiling():  # which traces no gradient inside a backward pass, and plans its own memory
            y, after, _ = _walk(settings, state, inputs, shared)
            return y, after
        y, *after = _Scan.apply(settings, *state, *inputs, *shared)  # pyright: ignore
    return y, tuple(after)


class _Settings(NamedTuple):
    """Settings of a scan, and how many of its tensors are states and inputs."""

    step: Step
    segment: int
    backwards: bool
    sparse: bool
    learns: bool
    states: int
    inputs: int

    def split(self, tensors: Inputs) -> tuple[Inputs, Inputs, Inputs]:
        """Split into the tensors of the state, the inputs and the shared tensors."""
        last = self.states + self.inputs
        return tensors[: self.states], tensors[self.states : last], tensors[last:]

    def pieces(self, length: int) -> list[tuple[slice, slice]]:
        """Tokens of each segment and its number among the segments, in the order of the scan."""
        walk = chunk_bounds(length, self.segment, self.backwards)
        return [(slice(start, stop), slice(start // self.segment, start // self.segment + 1)) for start, stop in walk]


def _length(inputs: Inputs) -> int:
    return max(t.shape[1] for t in inputs if t is not None)


def _device(inputs: Inputs) -> str:
    return next(t.device.type for t in inputs if t is not None)


def _parts(inputs: Inputs, piece: tuple[slice, slice], length: int) -> Inputs:
    """Inputs of one segment, of tensors with one entry for each token or for each segment."""
    return tuple(None if t is None else t[:, piece[0] if t.shape[1] == length else piece[1]] for t in inputs)


def _leaves(tensors: Inputs, wanted: tuple[bool, ...]) -> Inputs:
    """Detached tensors; those in `wanted` require a gradient."""
    return tuple(
        None if t is None else t.detach().requires_grad_(want) for t, want in zip(tensors, wanted, strict=True)
    )


def _walk(settings: _Settings, state: State, inputs: Inputs, shared: Inputs) -> tuple[Tensor | None, State, Inputs]:
    """The outputs of all segments, the state after the last, and the states before each if a backward pass follows."""
    length, borders, y = _length(inputs), [], None
    pieces = settings.pieces(length)
    for piece in pieces:
        if settings.learns:
            borders.extend(state)
        output, state = settings.step(state, _parts(inputs, piece, length), shared)
        if output is None or len(pieces) == 1:
            y = output
            continue
        if y is None:
            y = output.new_empty(len(output), len(pieces) if settings.sparse else length, *output.shape[2:])
        y[:, piece[settings.sparse]] = output
    return y, state, tuple(borders)


class _Scan(torch.autograd.Function):
    """The backward pass scans in the other direction and repeats the step of each segment for its gradients."""

    @staticmethod
    def forward(ctx: Any, settings: _Settings, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        state, inputs, shared = settings.split(tensors)
        y, state, borders = _walk(settings, state, inputs, shared)
        ctx.settings = settings
        if settings.learns:
            ctx.save_for_backward(*inputs, *shared, *borders)
        ctx.mark_non_differentiable(*(t for t in state if not t.is_floating_point()))
        return y, *state

    @staticmethod
    @first_order_only
    def backward(ctx: Any, dy: Tensor | None, *dstate: Tensor | None) -> tuple[Tensor | None, ...]:
        settings: _Settings = ctx.settings
        want_state, want_inputs, want_shared = settings.split(ctx.needs_input_grad[1:])
        saved, last = ctx.saved_tensors, settings.inputs + len(want_shared)  # read once, or checkpoints refuse
        inputs, borders = saved[: settings.inputs], saved[last:]
        shared = _leaves(saved[settings.inputs : last], want_shared)
        dinputs = tuple(torch.empty_like(t) if want else None for t, want in zip(inputs, want_inputs, strict=True))
        dshared = tuple(torch.zeros_like(t) if want else None for t, want in zip(shared, want_shared, strict=True))
        length = _length(inputs)
        for at, piece in reversed(list(enumerate(settings.pieces(length)))):
            before = borders[at * settings.states : (at + 1) * settings.states]
            state = _leaves(before, tuple(t.is_floating_point() and (at > 0 or any(want_state)) for t in before))
            parts = _leaves(_parts(inputs, piece, length), want_inputs)
            with torch.enable_grad(), torch.autocast(_device(inputs), enabled=False):
                y, after = settings.step(state, parts, shared)
            part = None if dy is None else dy[:, piece[settings.sparse]]
            gradients = _vector_jacobian_product((y, *after), (part, *dstate), (*state, *parts, *shared))
            dstate, dparts, dmore = settings.split(gradients)
            for whole, d in zip(_parts(dinputs, piece, length), dparts, strict=True):
                if whole is not None:
                    whole.copy_(d) if d is not None else whole.zero_()
            for whole, d in zip(dshared, dmore, strict=True):
                if whole is not None and d is not None:
                    whole += d
        return None, *(d if want else None for d, want in zip(dstate, want_state, strict=True)), *dinputs, *dshared


def _vector_jacobian_product(outputs: Inputs, upstream: Inputs, wanted: Inputs) -> Inputs:
    """Gradient of each tensor that requires one, else None."""
    pairs = [(t, d) for t, d in zip(outputs, upstream, strict=True) if t is not None and t.requires_grad]
    some = [t for t in wanted if t is not None and t.requires_grad]
    found = iter(torch.autograd.grad([t for t, _ in pairs], some, [d for _, d in pairs], allow_unused=True))
    return tuple(next(found) if t is not None and t.requires_grad else None for t in wanted)
