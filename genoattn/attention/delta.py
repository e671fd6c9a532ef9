"""The gated delta rule: a decaying memory in which each token replaces the value of its key."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genoattn.attention import kernels
from genoattn.attention.base import Attention, ChunkReader, State, TokenLayout, zero_padding
from genoattn.attention.modules.cross_segment import slices
from genoattn.attention.modules.delta_parts import DeltaPart
from genoattn.attention.modules.dispatch import Backend
from genoattn.attention.modules.gate import Gate
from genoattn.attention.modules.head_options import WITHOUT_POSITIONS, HeadOptions
from genoattn.attention.modules.norms import rms_normed
from genoattn.attention.modules.projections import QKVProjection
from genoattn.attention.modules.segment_copies import SegmentCopies, segments_of
from genoattn.attention.modules.short_convolution import Past, no_past
from genoattn.attention.modules.streaming import with_positions
from genoattn.attention.ops import triton as by_triton
from genoattn.attention.ops.chunked_scan import chunk_bounds
from genoattn.attention.ops.delta_rule import DeltaInputs, chunk_size, delta_rule, inverse_flops
from genoattn.attention.parallel import Span
from genoattn.attention.parallel.delta import delta_over_shards

MEMORIES = (16.0, 1024.0)
"""Tokens that the memory of the first and of the last head fades in by a factor e, before training."""


def naive_delta_rule(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    write: Float[Tensor, "batch length heads"],
    log_kept: Float[Tensor, "batch length heads"],
    ahead: bool = False,
) -> Float[Tensor, "batch length heads dim_head"]:
    """`delta_rule` from an empty memory, token by token."""
    if ahead:
        return _from_the_left(*(t.flip(1) for t in (q, k, v, write, log_kept)), own=False).flip(1)
    return _from_the_left(q, k, v, write, log_kept, own=True)


def _from_the_left(q: Tensor, k: Tensor, v: Tensor, write: Tensor, log_kept: Tensor, own: bool) -> Tensor:
    state = q.new_zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3])
    outputs = []
    for at in range(q.shape[1]):
        before = state
        kept = state * log_kept[:, at, :, None, None].exp()
        stored = torch.einsum("bhmd,bhm->bhd", kept, k[:, at])
        change = (v[:, at] - stored) * write[:, at, :, None]
        state = kept + torch.einsum("bhm,bhd->bhmd", k[:, at], change)
        outputs.append(torch.einsum("bhmd,bhm->bhd", state if own else before, q[:, at]))
    return torch.stack(outputs, dim=1)


@final
class DeltaAttention(Attention):
    """Gated delta rule: S_t = a_t (I - b_t k_t k_tᵀ) S_{t-1} + b_t k_t v_tᵀ, y_t = norm(S_tᵀ q_t) ∘ silu(W x_t).

    A token reads a memory of all tokens before it and itself, in which each token replaces the value of its key. Its
    decay a_t and its strength of writing b_t are computed from the token; the decays of the heads begin far apart.
    Short convolutions with SiLU come first, and queries and keys have length 1. A bidirectional layer adds a second
    memory of all tokens after it. Time is linear in the length and the state has a fixed size.

    A head with `cross_segment` has a memory for each segment and reads those of the others. Positions and the logit
    scale have no effect; `heads.gate` takes the place of the gate. Paper: Gated DeltaNet, arXiv:2412.06464.
    """

    complexity = "linear"

    def __init__(
        self,
        dim: int,
        causal: bool,
        heads: HeadOptions = HeadOptions(),
        short_conv: int = 4,
        output_gate: bool = True,
        backend: str = "auto",
    ):
        super().__init__()
        heads = replace(heads, qk_norm=False, logit_scale=1.0, **WITHOUT_POSITIONS)
        self.heads = QKVProjection(dim, heads, short_conv=short_conv, activation=True)
        if output_gate and self.heads.gate is None:
            self.heads.gate = Gate(dim, dim, swish=True)
        self.write = nn.Linear(dim, heads.count)
        self.kept = nn.Linear(dim, heads.count)
        nn.init.constant_(self.kept.bias, math.log(math.e - 1))  # softplus gives 1
        shortest, longest = map(math.log, MEMORIES)
        self.log_rates = nn.Parameter(-torch.linspace(shortest, longest, heads.count))
        widest, most = self.heads.dim_head, kernels.WIDEST["delta"]
        self.engine = Backend(
            backend, "delta", f"the kernel knows no heads of {widest} channels" if widest > most else None
        )
        self.causal = causal
        self.weights_sum_to_one = False
        self.asymmetry = "a token's own writing is read in the pass from the left alone"

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        inputs, own = self._split(x, layout), self.heads.own_heads
        outputs = [self._read(DeltaPart(slice(0, own), None), inputs, x, layout)] if own else []
        if self.heads.cross_heads:
            outputs.append(self._across(inputs, x, layout))
        return self._combine(outputs, x, layout)

    def forward_span(
        self, x: Float[Tensor, "batch shard dim"], layout: TokenLayout, span: Span
    ) -> Float[Tensor, "batch shard dim"]:
        """Each shard turns a memory S into M S + A; processes exchange M and A of both directions."""
        inputs = self._split(x, layout, self.heads.past_of_span(x, span))
        parts = self._parts(segments_of(span.whole))
        pieces = [part.inputs(inputs, x, layout) for part in parts]
        ways = (False,) if self.causal else (False, True)
        outputs = delta_over_shards(pieces, ways, span)
        return self._combine([part.outputs(y, x, layout) for part, y in zip(parts, outputs, strict=True)], x, layout)

    def _across(self, inputs: DeltaInputs, x: Tensor, layout: TokenLayout) -> Tensor:
        """Outputs of the heads that see another segment."""
        q, k, v, write, log_kept = (t[:, :, self.heads.own_heads :] for t in inputs)
        y = torch.zeros_like(q)
        if len(layout.segments) < 2:
            return y
        views = slices(layout, x.shape[1], self.causal, shift=False)
        if not views or any(view.stride != 2 or view.counts[0] != view.counts[1] for view in views):
            return self._read(self._parts(layout.segments)[-1], inputs, x, layout)
        for view in views:  # a query reads what is written before it in one pass, and after it in the other
            at, by = view.keys, view.queries
            pieces = q[:, by], k[:, at], v[:, at], write[:, at], log_kept[:, at]
            some = self._whole(pieces, own=view.lead > 0)
            if not self.causal:
                some = some + self._whole(pieces, ahead=True, own=view.lead < 0)
            y[:, by] = some.to(y.dtype)
        return y

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        inputs, outputs = self._split(x, layout), []
        for part in self._parts(segments_of(layout)):
            pieces = part.inputs(inputs, x, layout)
            y = naive_delta_rule(*pieces)
            if not self.causal:
                y = y + naive_delta_rule(*pieces, ahead=True)
            outputs.append(part.outputs(y, x, layout))
        return self._combine(outputs, x, layout)

    def _parts(self, segments: Sequence[int]) -> list[DeltaPart]:
        """The heads that see all segments, and those that see another one, with a copy for each of `segments`."""
        own = self.heads.own_heads
        parts = [DeltaPart(slice(0, own), None)] if own else []
        if self.heads.cross_heads:
            parts.append(DeltaPart(slice(own, self.heads.count), SegmentCopies(tuple(segments))))
        return parts

    def _read(self, part: DeltaPart, inputs: DeltaInputs, x: Tensor, layout: TokenLayout) -> Tensor:
        """Outputs of the heads of a part for a whole sequence."""
        pieces = part.inputs(inputs, x, layout)
        y = self._whole(pieces)
        if not self.causal:
            y = y + self._whole(pieces, ahead=True)
        return part.outputs(y, x, layout)

    def _whole(self, pieces: DeltaInputs, ahead: bool = False, own: bool | None = None) -> Tensor:
        """Outputs of the rule from an empty memory."""
        q = pieces[0]
        if self.engine.uses_triton(q):
            return by_triton.delta_rule(*pieces, ahead, own)
        return delta_rule(*pieces, self._memory(len(q), q.shape[2]), ahead, own)[0]

    def _combine(self, outputs: list[Tensor], x: Tensor, layout: TokenLayout) -> Tensor:
        y = torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0]
        y = rms_normed(zero_padding(y, layout.padding_mask)).to(self.heads.out.weight.dtype)
        return self.heads.combine(y, x, layout)

    def init_state(self, batch: int) -> State:
        """The memory of each part, then the known segments and the number of tokens.

        The heads that see another segment have a memory for each known segment, of the tokens in it.
        """
        if not self.causal:
            return super().init_state(batch)
        memories = [self._memory(*part.memories(batch)) for part in self._parts(())]
        past = no_past(batch, self.heads.out.in_features, self.heads.out.weight)
        return *memories, *past, torch.zeros(0, dtype=torch.long), torch.zeros((), dtype=torch.long)

    def step(
        self, x: Float[Tensor, "batch length dim"], state: State, layout: TokenLayout = TokenLayout()
    ) -> tuple[Float[Tensor, "batch length dim"], State]:
        *memories, past_x, past_segments, segments, count = state
        past = Past(past_x, past_segments)
        layout = with_positions(layout, x, int(count))
        known = segments.tolist()
        new = [segment for segment in segments_of(layout) if segment not in known] if self.heads.cross_heads else []
        known += new
        inputs, outputs, after = self._split(x, layout, past), [], []
        for part, memory in zip(self._parts(known), memories, strict=True):
            if part.copies and new:
                memory = torch.cat([memory, self._memory(len(new) * len(x), memory.shape[1])])
            y, memory = delta_rule(*part.inputs(inputs, x, layout), memory)
            outputs.append(part.outputs(y, x, layout))
            after.append(memory)
        segments = torch.tensor(known, dtype=torch.long)
        past = self.heads.past_after(x, layout, past) or past
        return self._combine(outputs, x, layout), (*after, *past, segments, count + x.shape[1])

    def forward_chunked(self, read_chunk: ChunkReader, length: int, chunk: int) -> Iterator[tuple[int, int, Tensor]]:
        """A bidirectional layer first scans from the right and keeps the memory after each chunk."""
        forwards = chunk_bounds(length, chunk)
        segments: set[int] = set()
        if self.heads.cross_heads:
            segments = {segment for at in forwards for segment in segments_of(read_chunk(*at)[1])}
        parts, batch = self._parts(sorted(segments)), len(read_chunk(0, 1)[0])
        memories = [self._memory(*part.memories(batch)) for part in parts]
        ahead, borders = list(memories), []
        for start, stop in [] if self.causal else reversed(forwards):
            borders.append(list(ahead))
            x, layout = read_chunk(start, stop)
            inputs = self._split(x, layout, self.heads.past_of(read_chunk, start))
            for at, part in enumerate(parts):
                ahead[at] = delta_rule(*part.inputs(inputs, x, layout), ahead[at], ahead=True)[1]
        past = None
        for start, stop in forwards:
            x, layout = read_chunk(start, stop)
            inputs, outputs = self._split(x, layout, past), []
            past = self.heads.past_after(x, layout, past)
            border = None if self.causal else borders.pop()
            for at, part in enumerate(parts):
                pieces = part.inputs(inputs, x, layout)
                y, memories[at] = delta_rule(*pieces, memories[at])
                if border is not None:
                    y = y + delta_rule(*pieces, border[at], ahead=True)[0]
                outputs.append(part.outputs(y, x, layout))
            yield start, stop, self._combine(outputs, x, layout)

    def _memory(self, batch: int, heads: int) -> Tensor:
        weight, width = self.heads.out.weight, self.heads.dim_head
        dtype = torch.promote_types(weight.dtype, torch.float32)
        return torch.zeros(batch, heads, width, width, dtype=dtype, device=weight.device)

    def _split(self, x: Tensor, layout: TokenLayout, past: Past | None = None) -> DeltaInputs:
        q, k, v = self.heads.project(x, layout, past)
        x = zero_padding(x, layout.padding_mask)
        # Padding writes nothing, and nothing fades there. (eps keeps the gradient of a key of zeros finite.)
        write = zero_padding(self.write(x).sigmoid(), layout.padding_mask)
        log_kept = zero_padding(-self.log_rates.exp() * F.softplus(self.kept(x)), layout.padding_mask)
        return F.normalize(q, dim=-1, eps=1e-6), F.normalize(k, dim=-1, eps=1e-6), v, write, log_kept

    def describe_backend(self, device: torch.device, dtype: torch.dtype = torch.float32) -> str:
        return self.engine.description(device, dtype, self.heads.dim_head)

    def flops(self, length: int) -> int:
        """FLOPs of the projections and of the products of every chunk.

        Heads that see another segment read nothing in a sequence of one segment, and this for each of several.
        """
        heads, width, size = self.heads.own_heads, self.heads.dim_head, min(chunk_size(self.heads.dim_head), length)
        padded = -(-length // size) * size
        gates = 4 * length * self.heads.count**2 * width
        inside = heads * (2 * padded * (5 * size * width + 3 * width**2) + padded // size * inverse_flops(size))
        return self.heads.flops(length) + gates + inside * (1 if self.causal else 2)

    def state_bytes(self, length: int) -> int:
        """The memory, and the tokens that the short convolutions read; the same at any length.

        Heads that see another segment have a memory for each segment.
        """
        past = self.heads.past_tokens(length) * self.heads.out.in_features
        return 4 * (self.heads.count * self.heads.dim_head**2 + past)
