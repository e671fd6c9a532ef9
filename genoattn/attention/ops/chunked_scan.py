"""A walk along a sequence, segment by segment, that keeps for its backward its inputs and the states at the borders."""

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor

from genoattn.attention.modules.autograd import first_order_only

State: TypeAlias = tuple[Tensor, ...]


Inputs: TypeAlias = tuple[Any, ...]
"""Tensors, or None where nothing is given."""


Step: TypeAlias = Callable[[State, Inputs, Inputs], tuple[Tensor | None, State]]
"""`step(state, pieces, shared)`: the answer at a segment's tokens (None where none is asked) and the state after it."""


CACHE_ELEMENTS = 2**19
"""How many numbers of a tensor a segment holds: few enough to stay in a cache, many enough to hide the calls."""


def chunk_length(numbers: int, chunk: int) -> int:
    """The tokens of a segment, a multiple of the chunk, where the largest tensor holds so many numbers a token."""
    return max(CACHE_ELEMENTS // numbers // chunk, 1) * chunk


def chunk_bounds(length: int, segment: int, backwards: bool = False) -> list[tuple[int, int]]:
    """Where the segments [start, stop) lie, in the order of the walk."""
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
    """The answers side by side along dimension 1 (None where steps give none), and the state after the last segment.

    Inputs are [batch, length, …] or, with one entry for each segment, [batch, segments, …]; so are the answers, which
    are one for each segment if `sparse`. What is `shared` goes whole to each step. Gradients flow to the state, the
    inputs and what is shared, and to nothing else that the step might hold. No autocast reaches a step.
    """
    learns = torch.is_grad_enabled() and any(t.requires_grad for t in (*state, *inputs, *shared) if t is not None)
    plan = _Plan(step, segment, backwards, sparse, learns, len(state), len(inputs))
    with torch.autocast(_device(inputs), enabled=False):
        y, *after = _Scan.apply(plan, *state, *inputs, *shared)  # pyright: ignore
    return y, tuple(after)


class _Plan(NamedTuple):
    """How a scan goes, and which of its tensors are what."""

    step: Step
    segment: int
    backwards: bool
    sparse: bool
    learns: bool
    states: int
    inputs: int

    def split(self, tensors: Inputs) -> tuple[Inputs, Inputs, Inputs]:
        """What concerns the state, the inputs and what is shared."""
        last = self.states + self.inputs
        return tensors[: self.states], tensors[self.states : last], tensors[last:]

    def pieces(self, length: int) -> list[tuple[slice, slice]]:
        """For each segment its tokens and its place among the segments, in the order of the walk."""
        walk = chunk_bounds(length, self.segment, self.backwards)
        return [(slice(start, stop), slice(at := start // self.segment, at + 1)) for start, stop in walk]


def _length(inputs: Inputs) -> int:
    return max(t.shape[1] for t in inputs if t is not None)


def _device(inputs: Inputs) -> str:
    return next(t.device.type for t in inputs if t is not None)


def _parts(inputs: Inputs, piece: tuple[slice, slice], length: int) -> Inputs:
    """A segment's share of what has one entry for each token or one for each segment."""
    return tuple(None if t is None else t[:, piece[0] if t.shape[1] == length else piece[1]] for t in inputs)


def _leaves(tensors: Inputs, wanted: tuple[bool, ...]) -> Inputs:
    """The same numbers, at which gradients stop; those wanted gather one."""
    return tuple(
        None if t is None else t.detach().requires_grad_(want) for t, want in zip(tensors, wanted, strict=True)
    )


class _Scan(torch.autograd.Function):
    """Backward walks the other way, and takes each segment's step again to learn its gradients."""

    @staticmethod
    def forward(ctx: Any, plan: _Plan, *tensors: Tensor | None) -> tuple[Tensor | None, ...]:
        state, inputs, shared = plan.split(tensors)
        length, borders, y = _length(inputs), [], None
        pieces = plan.pieces(length)
        for piece in pieces:
            if plan.learns:
                borders.extend(state)
            answer, state = plan.step(state, _parts(inputs, piece, length), shared)
            if answer is None or len(pieces) == 1:
                y = answer
                continue
            if y is None:
                y = answer.new_empty(len(answer), len(pieces) if plan.sparse else length, *answer.shape[2:])
            y[:, piece[plan.sparse]] = answer
        ctx.plan = plan
        if plan.learns:
            ctx.save_for_backward(*inputs, *shared, *borders)
        ctx.mark_non_differentiable(*(t for t in state if not t.is_floating_point()))
        return y, *state

    @staticmethod
    @first_order_only
    def backward(ctx: Any, dy: Tensor | None, *dstate: Tensor | None) -> tuple[Tensor | None, ...]:
        plan: _Plan = ctx.plan
        want_state, want_inputs, want_shared = plan.split(ctx.needs_input_grad[1:])
        saved, last = ctx.saved_tensors, plan.inputs + len(want_shared)  # read once, or checkpoints refuse
        inputs, borders = saved[: plan.inputs], saved[last:]
        shared = _leaves(saved[plan.inputs : last], want_shared)
        dinputs = tuple(torch.empty_like(t) if want else None for t, want in zip(inputs, want_inputs, strict=True))
        dshared = tuple(torch.zeros_like(t) if want else None for t, want in zip(shared, want_shared, strict=True))
        length = _length(inputs)
        for at, piece in reversed(list(enumerate(plan.pieces(length)))):
            before = borders[at * plan.states : (at + 1) * plan.states]
            state = _leaves(before, tuple(t.is_floating_point() and (at > 0 or any(want_state)) for t in before))
            parts = _leaves(_parts(inputs, piece, length), want_inputs)
            with torch.enable_grad(), torch.autocast(_device(inputs), enabled=False):
                y, after = plan.step(state, parts, shared)
            part = None if dy is None else dy[:, piece[plan.sparse]]
            gradients = _vector_jacobian_product((y, *after), (part, *dstate), (*state, *parts, *shared))
            dstate, dparts, dmore = plan.split(gradients)
            for whole, d in zip(_parts(dinputs, piece, length), dparts, strict=True):
                if whole is not None:
                    whole.copy_(d) if d is not None else whole.zero_()
            for whole, d in zip(dshared, dmore, strict=True):
                if whole is not None and d is not None:
                    whole += d
        return None, *(d if want else None for d, want in zip(dstate, want_state, strict=True)), *dinputs, *dshared


def _vector_jacobian_product(outputs: Inputs, upstream: Inputs, wanted: Inputs) -> Inputs:
    """The gradient of each tensor that wants one; None where there is none."""
    pairs = [(t, d) for t, d in zip(outputs, upstream, strict=True) if t is not None and t.requires_grad]
    some = [t for t in wanted if t is not None and t.requires_grad]
    found = iter(torch.autograd.grad([t for t, _ in pairs], some, [d for _, d in pairs], allow_unused=True))
    return tuple(next(found) if t is not None and t.requires_grad else None for t in wanted)
