"""Linear attention: positive features in place of the exponential, so that sums replace the square of scores."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genoattn.attention.base import Attention, ChunkReader, State, TokenLayout
from genoattn.attention.modules.cross_segment import View, cross_segment_attention, other_segment
from genoattn.attention.modules.dispatch import linear_engine
from genoattn.attention.modules.feature_maps import feature_dim
from genoattn.attention.modules.linear_parts import LinearPart, check_features, log_memories, scan_flops
from genoattn.attention.modules.linear_reference import naive_linear_attention
from genoattn.attention.modules.norms import rms_normed
from genoattn.attention.modules.projections import HeadOptions, QKVProjection
from genoattn.attention.modules.rotary import position_ids_of
from genoattn.attention.modules.segment_copies import SegmentCopies, segments_of
from genoattn.attention.modules.short_convolution import Past, no_past
from genoattn.attention.ops import triton as by_triton
from genoattn.attention.ops.chunk_state import CHUNK
from genoattn.attention.ops.chunked_scan import chunk_bounds, chunk_length
from genoattn.attention.ops.linear import (
    LinearOptions,
    LinearState,
    accumulate_state,
    bidirectional_scan,
    causal_scan,
    empty_state,
    linear_attention,
    query_state,
    reverse_states,
)
from genoattn.attention.parallel import Span
from genoattn.attention.parallel.linear import linear_over_shards

ROTATED_BEFORE = frozenset({"taylor", "signed"})
"""Features that are made of rotated queries and keys; the others are rotated themselves."""


@final
class LinearAttention(Attention):
    """Linear attention: y_i = φ(q_i)ᵀ Σ_j φ(k_j) v_jᵀ / φ(q_i)ᵀ Σ_j φ(k_j).

    A token reads the sums of all tokens, or of the tokens up to itself if causal; with `decay` a token at distance d
    weighs exp(-rate·d), with a learned rate for each head. Time is linear in the length and the state has a fixed size.

    Rotary positions rotate the features in the numerator alone, so weights do not sum to 1. Taylor features are
    computed from rotated queries and keys and stay positive, so with them weights do. Signed features are the rotated
    queries and keys themselves; their outputs are scaled to a mean square of 1 instead of divided. Papers:
    Katharopoulos et al. 2020, arXiv:2006.16236; Taylor features: Based, arXiv:2402.18668; signed features with a norm
    of the output: RetNet, arXiv:2307.08621.
    """

    complexity = "linear"

    def __init__(
        self,
        dim: int,
        causal: bool,
        heads: HeadOptions = HeadOptions(),
        features: str = "signed",
        key_dim: int | None = 64,
        decay: bool = True,
        short_conv: int = 0,
        backend: str = "auto",
    ):
        super().__init__()
        self.heads = QKVProjection(dim, heads, key_dim=key_dim, short_conv=short_conv)
        check_features(features, heads.qk_norm, self.heads.key_dim)
        self.causal = causal
        self.features = features
        self.asymmetry = self.heads.asymmetry
        self.features_rotate = self.heads.rotary and features not in ROTATED_BEFORE
        self.weights_sum_to_one = self.heads.averages and features != "signed" and not self.features_rotate
        if decay:
            self.log_rates = nn.Parameter(-log_memories(self.heads.own_heads, self.heads.cross_heads))
        self.decay = decay
        self.engine = linear_engine(backend, feature_dim(self.heads.key_dim, features), self.heads.dim_head)

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        (q, k, v), whole = self._project(x, layout), self._options(x, layout)

        def attend(q: Tensor, k: Tensor, v: Tensor, view: View) -> Tensor:
            fused = q.shape[1] == k.shape[1] and self.engine.uses_triton(q)
            apart = None if view.queries == view.keys else whole.positions
            return (by_triton.linear_attention if fused else linear_attention)(
                q,
                k,
                v,
                causal=view.causal,
                features=self.features,
                padding_mask=view.padding_mask,
                key_mask=view.key_mask,
                positions=None if whole.positions is None else whole.positions[:, view.queries],
                key_positions=None if apart is None else apart[:, view.keys],
                decay=None if whole.decay is None else view.stride * whole.decay[view.heads],
                lead=view.lead / 2 if view.stride == 2 else 0.0,
                rope=self.heads.rope,
            )

        y = cross_segment_attention(
            attend, q, k, v, cross_heads=self.heads.cross_heads, layout=layout, causal=self.causal, fits=self._fits
        )
        return self._combine([y], x, layout)

    def forward_span(
        self, x: Float[Tensor, "batch shard dim"], layout: TokenLayout, span: Span
    ) -> Float[Tensor, "batch shard dim"]:
        qkv, whole = self._project(x, layout, self.heads.past_of_span(x, span)), self._options(x, layout)
        parts = self._parts(segments_of(span.whole))
        inputs = [(*part.inputs(qkv), part.options(whole, layout, x)) for part in parts]
        outputs = zip(parts, linear_over_shards(inputs, self.causal, span), strict=True)
        return self._combine([part.outputs(y, layout, x) for part, y in outputs], x, layout)

    def _fits(self, view: View) -> bool:
        """True if distances within slices give the decay between them."""
        return not self.decay or (view.stride == 2 and view.counts[0] == view.counts[1])

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        q, k, v = self._project(x, layout)
        options, outputs = self._options(x, layout), []
        for part in self._parts((0,)):
            hidden = ~other_segment(layout.segment_ids, x) if part.copies else None
            y = naive_linear_attention(
                *(t[:, :, part.heads] for t in (q, k, v)),
                causal=self.causal,
                features=self.features,
                padding_mask=options.padding_mask,
                positions=options.positions,
                decay=None if options.decay is None else options.decay[part.heads],
                rope=self.heads.rope,
                hidden=hidden,
            )
            outputs.append(y)
        return self._combine(outputs, x, layout)

    def _parts(self, segments: Sequence[int | None]) -> list[LinearPart]:
        """The heads that see all segments, and those that see another one, with a copy for each of `segments`."""
        own = self.heads.own_heads
        parts = [LinearPart(slice(own), None)] if own else []
        return (
            [*parts, LinearPart(slice(own, None), SegmentCopies(tuple(segments)))] if self.heads.cross_heads else parts
        )

    def init_state(self, batch: int) -> State:
        """For the heads of each part the sums and the count of tokens, then the known segments and the next positions.

        The heads that see another segment have sums for each known segment, of the tokens outside it, and the sums for
        a segment that is not known yet, of all tokens.
        """
        if not self.causal:
            return super().init_state(batch)
        states = [tensor for part in self._parts([None]) for tensor in self._empty_state(batch, part)]
        weight, segments = self.heads.out.weight, torch.zeros(0, dtype=torch.long)
        past = no_past(batch, self.heads.out.in_features, weight)
        return *states, *past, segments, torch.zeros(batch, dtype=torch.long, device=weight.device)

    def step(
        self, x: Float[Tensor, "batch length dim"], state: State, layout: TokenLayout = TokenLayout()
    ) -> tuple[Float[Tensor, "batch length dim"], State]:
        *states, past_x, past_segments, segments, position = state
        past = Past(past_x, past_segments)
        on = position[:, None] + torch.arange(x.shape[1], device=x.device)
        positions = on if layout.position_ids is None else layout.position_ids
        layout = replace(layout, position_ids=positions)
        known = segments.tolist()
        new = [segment for segment in segments_of(layout) if segment not in known] if self.heads.cross_heads else []
        known += new
        qkv, options, outputs, after = self._project(x, layout, past), self._options(x, layout), [], []
        for at, part in enumerate(self._parts([*known, None])):
            memory, count = states[2 * at : 2 * at + 2]
            if part.copies and new:  # a new segment has seen what no segment has seen
                unseen = memory[-len(x) :].repeat(len(new), 1, 1, 1), count[-len(x) :].repeat(len(new))
                memory, count = (
                    torch.cat([memory[: -len(x)], unseen[0], memory[-len(x) :]]),
                    torch.cat([count, unseen[1]]),
                )
            y, seen = causal_scan(*part.inputs(qkv), (memory, count), part.options(options, layout, x))
            outputs.append(part.outputs(y, layout, x))
            after += seen
        y = self._combine(outputs, x, layout)
        past = self.heads.past_after(x, layout, past) or past
        return y, (*after, *past, torch.tensor(known, dtype=torch.long), positions[:, -1] + 1)

    def forward_chunked(self, read_chunk: ChunkReader, length: int, chunk: int) -> Iterator[tuple[int, int, Tensor]]:
        """A causal layer reads the tokens once, others twice: first for the sums, or for the state after each chunk."""
        forwards = chunk_bounds(length, chunk)
        batch = len(read_chunk(0, 1)[0])
        if self.causal:
            state = self.init_state(batch)
            for start, stop in forwards:
                x, layout = read_chunk(start, stop)
                y, state = self.step(x, state, layout)
                yield start, stop, y
            return
        segments: set[int] = set()
        if self.heads.cross_heads:
            segments = {segment for at in forwards for segment in segments_of(read_chunk(*at)[1])}
        parts = self._parts(sorted(segments))
        states = [self._empty_state(batch, part) for part in parts]
        ahead: list[list[Tensor]] = []
        for start, stop in reversed(forwards):
            x, layout = read_chunk(start, stop)
            ahead.append([memory for memory, _ in states])
            past = self.heads.past_of(read_chunk, start)
            qkv, whole = self._project(x, layout, past), self._options(x, layout)
            for at, part in enumerate(parts):
                (_, k, v), options = part.inputs(qkv), part.options(whole, layout, x)
                if self.decay:
                    states[at] = reverse_states(k, v, states[at][0], options), states[at][1]
                else:
                    states[at] = accumulate_state(k, v, states[at], options)
        if self.decay:
            states = [self._empty_state(batch, part) for part in parts]
        past = None
        for start, stop in forwards:
            x, layout = read_chunk(start, stop)
            qkv, whole, outputs, border = self._project(x, layout, past), self._options(x, layout), [], ahead.pop()
            past = self.heads.past_after(x, layout, past)
            for at, part in enumerate(parts):
                options = part.options(whole, layout, x)
                if self.decay:
                    y, memory = bidirectional_scan(*part.inputs(qkv), states[at][0], border[at], options)
                    states[at] = memory, states[at][1]
                else:
                    y = query_state(part.inputs(qkv)[0], states[at], options)
                outputs.append(part.outputs(y, layout, x))
            yield start, stop, self._combine(outputs, x, layout)

    def _empty_state(self, batch: int, part: LinearPart) -> LinearState:
        features, copies = feature_dim(self.heads.key_dim, self.features), len(part.copies.ids) if part.copies else 1
        heads = len(range(*part.heads.indices(self.heads.count)))
        return empty_state(copies * batch, heads, features, self.heads.dim_head, self.heads.out.weight)

    def _project(self, x: Tensor, layout: TokenLayout, past: Past | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values; queries and keys are rotated here if features are made of them."""
        project = self.heads.project if self.features_rotate else self.heads.project_and_rotate
        return project(x, layout, past)

    def _combine(self, outputs: list[Tensor], x: Tensor, layout: TokenLayout) -> Tensor:
        """The outputs of all heads; those of signed features have a mean square of 1 in place of a denominator."""
        y = torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0]
        return self.heads.combine(rms_normed(y) if self.features == "signed" else y, x, layout)

    def _options(self, x: Tensor, layout: TokenLayout) -> LinearOptions:
        turns = position_ids_of(x, layout.position_ids) if self.features_rotate else None
        decay = self._decay() if self.decay else None
        return LinearOptions(self.features, layout.padding_mask, turns, decay, rope=self.heads.rope)

    def _decay(self) -> Tensor:
        """Decay rates of the heads in at least float32: half precision rounds distances of more than 256 tokens."""
        return self.log_rates.to(torch.promote_types(self.log_rates.dtype, torch.float32)).exp()

    def describe_backend(self, device: torch.device, dtype: torch.dtype = torch.float32) -> str:
        return self.engine.description(device, dtype, self.heads.key_dim)

    def flops(self, length: int) -> int:
        """Projections and products with the sums; a causal or decaying layer adds the squares inside its chunks.

        Heads that see another segment compute nothing in a sequence of one segment.
        """
        heads, width = self.heads.own_heads, self.heads.dim_head
        features = feature_dim(self.heads.key_dim, self.features)
        apart = self.features_rotate  # numerator and denominator are sums of their own
        if not heads or (not self.causal and not self.decay):
            return self.heads.flops(length) + 4 * length * heads * features * width
        summed = self.features == "signed" or not self.decay  # no products make a denominator
        widths = (width, 1) if apart else (width if summed else width + 1,)
        inside = scan_flops(length, features, widths, 1 if self.causal else 2)
        if not self.causal and length > chunk_length(features, CHUNK):  # states ahead of the segments
            inside += 2 * length * features * (width + 1)
        return self.heads.flops(length) + heads * inside

    def state_bytes(self, length: int) -> int:
        """Sums of φ(k) vᵀ and of φ(k), and the tokens that a short convolution reads; the same at any length.

        Heads that see another segment have them twice in a sequence of one segment, and once more for each further one.
        """
        features = feature_dim(self.heads.key_dim, self.features)
        sums = (self.heads.own_heads + 2 * self.heads.cross_heads) * features * (self.heads.dim_head + 1)
        return 4 * (sums + self.heads.past_tokens(length) * self.heads.out.in_features)
