"""State space layer of Mamba-2: a memory that fades as each token says, scanned by products of chunks."""

from collections.abc import Iterator
from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genoattn.attention.base import Attention, ChunkReader, State, TokenLayout, zero_padding
from genoattn.attention.modules.projections import HeadOptions
from genoattn.attention.modules.short_convolution import ShortConvolution
from genoattn.attention.ops.chunked_scan import chunk_bounds
from genoattn.attention.ops.state_space import state_space_flops, state_space_scan
from genoattn.errors import UserError

LEFT, RIGHT = 0, 1
"""Where a direction begins; its index among the parameters of both."""


class Inputs(NamedTuple):
    """Inputs of the recurrence in one direction, in its order of tokens."""

    c: Tensor
    b: Tensor
    v: Tensor
    dt: Tensor


@final
class StateSpaceAttention(Attention):
    """State space layer of Mamba-2: S_t = exp(-λ dt_t) S_{t-1} + dt_t b_t v_tᵀ, y_t = S_tᵀ c_t + d v_t.

    Every head has a memory S of `state` x channels, and a decay whose strength dt each token sets. What writes (b) and
    what reads (c) is shared by the heads. v, b and c pass a short convolution and SiLU; outputs are gated and
    normalised. A token sees all tokens up to itself. Looking both ways, a second pass runs from the right: the
    projections are shared, and convolutions, decays and skips are separate, as in Caduceus. Time is linear in the
    length and the state has a fixed size.

    Before training the memories of the heads are spread from 8 to 4,096 tokens and the skips d are 0. Each head is
    normalised by itself, because long memories are written more weakly than short ones. Of the heads' options only
    `count` has an effect. Papers: Dao and Gu 2024, arXiv:2405.21060; Caduceus, arXiv:2403.03234.

    Args:
        dim: Channels of a token.
        causal: See the token itself and those before it alone.
        heads: Options of the heads.
        state: Rows of a head's memory.
        expand: Channels of all heads together, as a multiple of `dim`.
        short: Tokens of the short convolution, which ends at the token itself.

    Raises:
        UserError: A setting is out of its range, or the heads do not divide the channels.
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
    ):
        super().__init__()
        for name, value in (("state", state), ("expand", expand), ("short", short)):
            if value < 1:
                raise UserError(f"attention.{name} must be 1 or more, got {value}")
        self.count, self.state, inner = heads.count, state, expand * dim
        if inner % self.count:
            raise UserError(
                f"heads.count must divide attention.expand times the model's dim, {inner}, got {self.count}"
            )
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
        spans = 2 ** (3 + 9 * (torch.arange(self.count) + 0.5) / self.count)
        many = (len(self.directions), 1)
        self.step_bias = nn.Parameter(torch.expm1(1 / spans).log().repeat(many))  # dt is 1 / span
        self.log_rate = nn.Parameter(torch.zeros(self.count).repeat(many))
        # A long memory is written weakly: beside a skip of 1, as published, what it holds of far tokens would drown.
        self.skip = nn.Parameter(torch.zeros(self.count).repeat(many))
        self.norm = nn.Parameter(torch.ones(inner))
        self.out = nn.Linear(inner, dim, bias=False)

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        return self._outputs(x, layout, {at: self._empty(len(x)) for at in self.directions})[0]

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        mixed, step_size = self._projected(x, layout)
        ahead = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        total = x.new_zeros(())
        for at in self.directions:
            convolved = self._convolution(at).naive(_turned(mixed, at)) + self.convolution_bias[at]
            c, b, v, dt = self._inputs(convolved, _turned(step_size, at) + self.step_bias[at])
            c, b, v = (t.to(dt.dtype) for t in (c, b, v))
            faded = (-dt * self.log_rate[at].exp()).cumsum(1).transpose(1, 2)
            kept = (faded[..., :, None] - faded[..., None, :]).masked_fill(ahead, float("-inf")).exp()
            weights = torch.einsum("btn,bsn->bts", c, b)[:, None] * kept
            y = torch.einsum("bhts,bshp->bthp", weights, dt[..., None] * v) + self.skip[at][:, None] * v
            total = total + _turned(y, at)
        return self._gated(total, x, layout)

    def _convolution(self, at: int) -> ShortConvolution:
        convolution = self.convolutions[at]
        assert isinstance(convolution, ShortConvolution)
        return convolution

    def _projected(self, x: Tensor, layout: TokenLayout) -> tuple[Tensor, Tensor]:
        """Values, b and c before their convolution, and the strength of each token's step, -inf at padding."""
        x = zero_padding(x, layout.padding_mask)
        step_size = self.step_size(x)
        if layout.padding_mask is not None:  # softplus makes 0 of it: nothing is written there, and nothing fades
            step_size = step_size.masked_fill(~layout.padding_mask[..., None], float("-inf"))
        return self.mixed(x), step_size

    def _inputs(self, convolved: Tensor, step_size: Tensor) -> Inputs:
        v, b, c = F.silu(convolved).split([len(self.norm), self.state, self.state], dim=-1)
        wide = step_size.to(torch.promote_types(step_size.dtype, torch.float32))
        return Inputs(c, b, v.unflatten(-1, (self.count, -1)), F.softplus(wide))

    def _gated(self, y: Tensor, x: Tensor, layout: TokenLayout) -> Tensor:
        """Outputs of the heads, gated by the token itself, normalised and projected back."""
        x = zero_padding(x, layout.padding_mask)
        y = y * F.silu(self.gate(x)).to(y.dtype).unflatten(-1, (self.count, -1))
        y = F.rms_norm(y, y.shape[-1:], eps=1e-8).flatten(2) * self.norm
        return self.out(zero_padding(y.to(x.dtype), layout.padding_mask))

    def _scanned(self, x: Tensor, layout: TokenLayout, states: dict[int, State]) -> tuple[Tensor, dict[int, State]]:
        """Sum over directions of the heads' outputs, from the state before each, and the states after."""
        mixed, step_size = self._projected(x, layout)
        outputs, after = [], {}
        for at, (memory, tail) in states.items():
            turned, convolution = _turned(mixed, at), self._convolution(at)
            convolved = convolution(turned, tail) + self.convolution_bias[at]
            c, b, v, dt = self._inputs(convolved, _turned(step_size, at) + self.step_bias[at])
            v = v.to(dt.dtype)
            y, memory = state_space_scan(c, b, v * dt[..., None], -dt * self.log_rate[at].exp(), memory)
            outputs.append(_turned(torch.addcmul(y, self.skip[at][:, None], v), at))
            after[at] = memory, convolution.last(turned, tail)
        return sum(outputs[1:], outputs[0]), after

    def _outputs(self, x: Tensor, layout: TokenLayout, states: dict[int, State]) -> tuple[Tensor, dict[int, State]]:
        y, states = self._scanned(x, layout, states)
        return self._gated(y, x, layout), states

    def _empty(self, batch: int) -> State:
        """Memory and the last inputs of the convolution before the first token of a direction."""
        weight, inner = self.out.weight, self.out.in_features
        wide, left = torch.promote_types(weight.dtype, torch.float32), self._convolution(LEFT).left
        memory = torch.zeros(batch, self.count, self.state, inner // self.count, dtype=wide, device=weight.device)
        return memory, torch.zeros(batch, left, inner + 2 * self.state, dtype=wide, device=weight.device)

    def init_state(self, batch: int) -> State:
        return self._empty(batch) if self.causal else super().init_state(batch)

    def step(
        self, x: Float[Tensor, "batch length dim"], state: State, layout: TokenLayout = TokenLayout()
    ) -> tuple[Float[Tensor, "batch length dim"], State]:
        y, states = self._outputs(x, layout, {LEFT: state})
        return y, states[LEFT]

    def forward_chunked(self, read_chunk: ChunkReader, length: int, chunk: int) -> Iterator[tuple[int, int, Tensor]]:
        """A layer that looks both ways first scans from the right and keeps the state after each chunk."""
        states = {at: self._empty(len(read_chunk(0, 1)[0])) for at in self.directions}
        borders = []
        if not self.causal:
            ahead = {RIGHT: states[RIGHT]}
            for start, stop in chunk_bounds(length, chunk, backwards=True):
                borders.append(ahead)
                ahead = self._scanned(*read_chunk(start, stop), ahead)[1]
        for start, stop in chunk_bounds(length, chunk):
            y, states = self._outputs(*read_chunk(start, stop), states | (borders.pop() if borders else {}))
            yield start, stop, y

    def flops(self, length: int) -> int:
        """Projections, and the recurrence of each direction."""
        dim, inner = self.out.out_features, self.out.in_features
        projections = 2 * length * dim * (3 * inner + 2 * self.state + self.count)
        scanned = state_space_flops(length, self.count, self.state, inner // self.count)
        return projections + len(self.directions) * scanned

    def state_bytes(self, length: int) -> int:
        """The memories of the heads and the last inputs of the convolution, the same at any length."""
        inner = self.out.in_features
        return 4 * (self.state * inner + (inner + 2 * self.state) * self._convolution(LEFT).left)


def _turned(x: Tensor, at: int) -> Tensor:
    """The tokens in the order of a direction."""
    return x.flip(1) if at == RIGHT else x
