"""State space layer of Mamba-2: a memory that fades as each token says, scanned by products of chunks."""

from collections.abc import Iterator, Sequence
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genoattn.attention.base import Attention, ChunkReader, State, TokenLayout, zero_padding
from genoattn.attention.modules.dispatch import linear_engine
from genoattn.attention.modules.head_options import HeadOptions
from genoattn.attention.modules.rotary import VALUE_ROPE, position_ids_of, rotate
from genoattn.attention.modules.segment_copies import SegmentCopies, segments_of
from genoattn.attention.modules.short_convolution import Past, ShortConvolution, no_past
from genoattn.attention.modules.state_space_parts import LEFT, RIGHT, ScanInputs, StateSpacePart, turned_to
from genoattn.attention.modules.state_space_settings import check_widths, step_biases
from genoattn.attention.modules.streaming import with_positions
from genoattn.attention.ops.chunked_scan import chunk_bounds
from genoattn.attention.ops.state_space import state_space_flops, state_space_scan
from genoattn.attention.parallel import Span, halo
from genoattn.attention.parallel.state_space import state_space_over_shards


@final
class StateSpaceAttention(Attention):
    """State space layer of Mamba-2: S_t = exp(-λ dt_t) S_{t-1} + dt_t b_t v_tᵀ, y_t = S_tᵀ c_t + d v_t.

    Every head has a memory S of `state` x channels, and a decay whose strength dt each token sets. What writes (b) and
    what reads (c) is shared by the heads. v, b and c pass a short convolution over the tokens of a segment and SiLU;
    outputs are gated and normalised. A token sees all tokens up to itself. Looking both ways, a second pass runs from
    the right: the projections are shared, and convolutions, decays and skips are separate, as in Caduceus. Time is
    linear in the length and the state has a fixed size.

    A head with `cross_segment` has a memory for each segment, which the tokens of that segment alone write and fade,
    and reads those of the others; it has no skip. `rotate_values` turns v by its position and outputs back.

    Before training the memories of the heads of each kind are spread from 8 to 4,096 tokens and the skips d are 0. Each
    head is normalised by itself, because long memories are written more weakly than short ones. Of the heads' options
    `count`, `cross_segment` and `rotate_values` have an effect. Papers: Dao and Gu 2024, arXiv:2405.21060; Caduceus,
    arXiv:2403.03234.

    Args:
        dim: Channels of a token.
        causal: See the token itself and those before it alone.
        heads: Options of the heads.
        state: Rows of a head's memory.
        expand: Channels of all heads together, as a multiple of `dim`.
        short: Tokens of the short convolution, which ends at the token itself.
        backend: The operators that scan whole sequences: "auto", "torch" or "triton".

    Raises:
        UserError: A setting is out of its range, the heads do not divide the channels, or rotated values are no pairs.
    """

    complexity = "linear"

    def __init__(
        self,
        dim: int,
        causal: bool,
        heads: HeadOptions = HeadOptions(),
        state: int = 64,
        expand: int = 2,
        short: int = 4,
        backend: str = "auto",
    ):
        super().__init__()
        self.count, self.state, inner = heads.count, state, expand * dim
        check_widths(heads, inner, state=state, expand=expand, short=short)
        self.cross_heads, self.rotate_values = heads.cross_segment_count, heads.rotate_values
        self.own_heads = self.count - self.cross_heads
        self.engine = linear_engine(backend, self.state, inner // self.count)
        self.causal = causal
        self.weights_sum_to_one = False
        self.asymmetry = "each direction has a convolution and decays of its own"
        self.directions = (LEFT,) if causal else (LEFT, RIGHT)
        # No biases: zeros at padding stay zeros through the projections.
        self.gate = nn.Linear(dim, inner, bias=False)
        self.mixed = nn.Linear(dim, inner + 2 * state, bias=False)
        self.step_size = nn.Linear(dim, self.count, bias=False)
        self.convolutions = nn.ModuleList(ShortConvolution(inner + 2 * state, short - 1) for _ in self.directions)
        # What writes and what reads begin with a part in common, so that an untrained memory is read as a fading mean.
        biases = torch.cat([torch.zeros(inner), torch.full((2 * state,), 0.5)])
        self.convolution_bias = nn.Parameter(biases.repeat(len(self.directions), 1))
        many = (len(self.directions), 1)
        self.step_bias = nn.Parameter(step_biases(self.own_heads, self.cross_heads).repeat(many))
        self.log_rate = nn.Parameter(torch.zeros(self.count).repeat(many))
        # A long memory is written weakly: beside a skip of 1, as published, what it holds of far tokens would drown.
        self.skip = nn.Parameter(torch.zeros(self.own_heads).repeat(many))
        self.norm = nn.Parameter(torch.ones(inner))
        self.out = nn.Linear(inner, dim, bias=False)

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        mixed, step_size = self._projected(x, layout)
        sides = []
        for at in self.directions:
            turned = layout.turned if at == RIGHT else layout
            v, whole = self._inputs(self._convolution(at)(turned_to(mixed, at), turned), step_size, layout, at)
            outputs = [self._parts(())[0].read(whole, turned, self.engine)] if self.own_heads else []
            if self.cross_heads:
                outputs.append(self._across(whole, turned))
            sides.append(turned_to(self._joined(outputs, v, at), at))
        return self._gated(sides, x, layout)

    def forward_span(
        self, x: Float[Tensor, "batch shard dim"], layout: TokenLayout, span: Span
    ) -> Float[Tensor, "batch shard dim"]:
        """The convolutions read the neighbours of the shard; processes exchange what each shard writes and keeps."""
        reach, parts = self._convolution(LEFT).reach[0], self._parts(segments_of(span.whole))
        wide = halo(x, span, reach, 0 if self.causal else reach)
        mixed, step_size = self._projected(wide.x, wide.layout)
        values, inputs, layouts = [], [], (layout, layout.turned)
        for at in self.directions:
            convolved = self._convolution(at)(*wide.from_one_side(mixed, at == RIGHT))
            v, whole = self._inputs(convolved, wide.inner(step_size), layout, at)
            values.append(v)
            inputs += [(part.inputs(whole, layouts[at]), at == RIGHT) for part in parts]
        scanned, sides = iter(state_space_over_shards(inputs, span)), []
        for at, v in enumerate(values):
            outputs = [part.outputs(next(scanned), v, layouts[at]) for part in parts]
            sides.append(turned_to(self._joined(outputs, v, at), at))
        return self._gated(sides, x, layout)

    def _across(self, whole: ScanInputs, layout: TokenLayout) -> Tensor:
        """Outputs of the heads that see another segment, for a whole sequence."""
        if len(layout.segments) < 2:
            return torch.zeros_like(whole.written[:, :, self.own_heads :])
        part = self._parts(layout.segments)[-1]
        return part.read_turns(whole, self.engine) if layout.alternating else part.read(whole, layout, self.engine)

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        mixed, step_size = self._projected(x, layout)
        sides = []
        for at in self.directions:
            turned, outputs = layout.turned if at == RIGHT else layout, []
            v, whole = self._inputs(self._convolution(at).naive(turned_to(mixed, at), turned), step_size, layout, at)
            for part in self._parts(segments_of(layout)):
                outputs.append(part.read_naively(whole, turned))
            sides.append(turned_to(self._joined(outputs, v, at), at))
        return self._gated(sides, x, layout)

    def _convolution(self, at: int) -> ShortConvolution:
        convolution = self.convolutions[at]
        assert isinstance(convolution, ShortConvolution)
        return convolution

    def _parts(self, segments: Sequence[int]) -> list[StateSpacePart]:
        """The heads that see all segments, and those that see another one, with a copy for each of `segments`."""
        parts = [StateSpacePart(slice(0, self.own_heads), None)] if self.own_heads else []
        if self.cross_heads:
            parts.append(StateSpacePart(slice(self.own_heads, self.count), SegmentCopies(tuple(segments))))
        return parts

    def _projected(self, x: Tensor, layout: TokenLayout) -> tuple[Tensor, Tensor]:
        """Values, b and c before their convolution, and the strength of each token's step, -inf at padding."""
        x = zero_padding(x, layout.padding_mask)
        step_size = self.step_size(x)
        if layout.padding_mask is not None:  # softplus makes 0 of it: nothing is written there, and nothing fades
            step_size = step_size.masked_fill(~layout.padding_mask[..., None], float("-inf"))
        return self.mixed(x), step_size

    def _inputs(self, convolved: Tensor, step_size: Tensor, layout: TokenLayout, at: int) -> tuple[Tensor, ScanInputs]:
        """Values by head, rotated if so set, and the inputs of the recurrence, all in the order of a direction.

        `convolved` is in that order already, the other arguments are not.
        """
        v, b, c = F.silu(convolved + self.convolution_bias[at]).split([len(self.norm), self.state, self.state], dim=-1)
        step_size = turned_to(step_size, at) + self.step_bias[at]
        dt = F.softplus(step_size.to(torch.promote_types(step_size.dtype, torch.float32)))
        v = v.unflatten(-1, (self.count, -1)).to(dt.dtype)
        if self.rotate_values:
            v = rotate(v, turned_to(position_ids_of(v, layout.position_ids), at), VALUE_ROPE)
        return v, ScanInputs(c, b, v * dt[..., None], -dt * self.log_rate[at].exp())

    def _scan(
        self, part: StateSpacePart, whole: ScanInputs, layout: TokenLayout, memory: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Outputs of the heads of a part from the memory before the first token, and the memory after."""
        y, memory = state_space_scan(*part.inputs(whole, layout), memory)
        return part.outputs(y, whole.c, layout), memory

    def _joined(self, outputs: list[Tensor], v: Tensor, at: int) -> Tensor:
        """Outputs of all heads; those that see their own segment pass the token itself by the skip."""
        skip = F.pad(self.skip[at], (0, self.cross_heads))[:, None]
        return torch.addcmul(torch.cat(outputs, dim=2) if len(outputs) > 1 else outputs[0], skip, v)

    def _gated(self, outputs: list[Tensor], x: Tensor, layout: TokenLayout) -> Tensor:
        """Sum over directions, rotated back if so set, gated by the token itself, normalised and projected back."""
        y = sum(outputs[1:], outputs[0])
        if self.rotate_values:
            y = rotate(y, -position_ids_of(x, layout.position_ids), VALUE_ROPE)
        x = zero_padding(x, layout.padding_mask)
        y = y * F.silu(self.gate(x)).to(y.dtype).unflatten(-1, (self.count, -1))
        y = F.rms_norm(y, y.shape[-1:], eps=1e-8).flatten(2) * self.norm
        return self.out(zero_padding(y.to(x.dtype), layout.padding_mask))

    def _scanned(
        self, x: Tensor, layout: TokenLayout, states: dict[int, State], segments: Sequence[int]
    ) -> tuple[list[Tensor], dict[int, State]]:
        """Outputs of the heads in each direction, from the state before it, and the states after.

        The heads that see another segment have a memory for each of `segments`.
        """
        mixed, step_size = self._projected(x, layout)
        sides, after = [], {}
        for at, (*memories, past_x, past_segments) in states.items():
            past, convolution = Past(past_x, past_segments), self._convolution(at)
            turned = layout.turned if at == RIGHT else layout
            tokens = past.before(turned_to(mixed, at), turned)
            convolved = convolution(tokens.x.to(mixed.dtype), past.layout_before(turned), past.x.shape[1])
            v, whole = self._inputs(convolved, step_size, layout, at)
            parts = zip(self._parts(segments), memories, strict=True)
            scanned = [self._scan(part, whole, turned, memory) for part, memory in parts]
            sides.append(turned_to(self._joined([y for y, _ in scanned], v, at), at))
            after[at] = *(memory for _, memory in scanned), *tokens.last(convolution.reach[0])
        return sides, after

    def _memory(self, batch: int, heads: int) -> Tensor:
        weight, channels = self.out.weight, self.out.in_features // self.count
        wide = torch.promote_types(weight.dtype, torch.float32)
        return torch.zeros(batch, heads, self.state, channels, dtype=wide, device=weight.device)

    def _empty(self, batch: int, segments: Sequence[int]) -> State:
        """Memories of the parts and the last inputs of the convolution before the first token of a direction."""
        memories = [self._memory(*part.memories(batch)) for part in self._parts(segments)]
        return *memories, *no_past(batch, self.mixed.out_features, self.out.weight)

    def init_state(self, batch: int) -> State:
        """The memory of each part and the last inputs of the convolution, then the segments and the number of tokens.

        The heads that see another segment have a memory for each known segment, of the tokens in it.
        """
        if not self.causal:
            return super().init_state(batch)
        return *self._empty(batch, ()), torch.zeros(0, dtype=torch.long), torch.zeros((), dtype=torch.long)

    def step(
        self, x: Float[Tensor, "batch length dim"], state: State, layout: TokenLayout = TokenLayout()
    ) -> tuple[Float[Tensor, "batch length dim"], State]:
        *direction, segments, count = state
        layout, known = with_positions(layout, x, int(count)), segments.tolist()
        if self.cross_heads:
            new = [segment for segment in segments_of(layout) if segment not in known]
            at, known = self.own_heads > 0, known + new
            direction[at] = torch.cat([direction[at], self._memory(len(new) * len(x), self.cross_heads)])
        y, states = self._scanned(x, layout, {LEFT: tuple(direction)}, known)
        known = torch.tensor(known, dtype=torch.long)
        return self._gated(y, x, layout), (*states[LEFT], known, count + x.shape[1])

    def forward_chunked(self, read_chunk: ChunkReader, length: int, chunk: int) -> Iterator[tuple[int, int, Tensor]]:
        """A layer that looks both ways first scans from the right and keeps the state after each chunk."""
        forwards, segments = chunk_bounds(length, chunk), set[int]()
        if self.cross_heads:
            segments = {segment for at in forwards for segment in segments_of(read_chunk(*at)[1])}
        known, batch = sorted(segments), len(read_chunk(0, 1)[0])
        states = {at: self._empty(batch, known) for at in self.directions}
        borders = []
        if not self.causal:
            ahead = {RIGHT: states[RIGHT]}
            for start, stop in reversed(forwards):
                borders.append(ahead)
                ahead = self._scanned(*read_chunk(start, stop), ahead, known)[1]
        for start, stop in forwards:
            x, layout = read_chunk(start, stop)
            y, states = self._scanned(x, layout, states | (borders.pop() if borders else {}), known)
            yield start, stop, self._gated(y, x, layout)

    def describe_backend(self, device: torch.device, dtype: torch.dtype = torch.float32) -> str:
        return self.engine.description(device, dtype, self.state)

    def flops(self, length: int) -> int:
        """Projections, and the recurrence of each direction.

        Heads that see another segment read nothing in a sequence of one segment, and at most as much as the others in
        one whose two segments take turns.
        """
        dim, inner = self.out.out_features, self.out.in_features
        projections = 2 * length * dim * (3 * inner + 2 * self.state + self.count)
        if not self.own_heads:
            return projections
        scanned = state_space_flops(length, self.own_heads, self.state, inner // self.count)
        return projections + len(self.directions) * scanned

    def state_bytes(self, length: int) -> int:
        """The memories of the heads and the last inputs of the convolution, the same at any length.

        Heads that see another segment have a memory for each segment.
        """
        past = min(length, self._convolution(LEFT).reach[0]) * self.mixed.out_features
        return 4 * (self.state * self.out.in_features + past)
