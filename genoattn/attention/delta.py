"""The gated delta rule: a decaying memory in which each token replaces the value of its key."""

from collections.abc import Iterator
from dataclasses import replace
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genoattn.attention.base import Attention, ChunkReader, State, TokenLayout, zero_padding
from genoattn.attention.modules.projections import HeadOptions, QKVProjection
from genoattn.attention.modules.streaming import with_positions
from genoattn.attention.ops.chunked_scan import chunk_bounds
from genoattn.attention.ops.delta_rule import CHUNK, DeltaInputs, delta_rule

KEEP_BIAS = 4.0
"""Bias of the decay before training: sigmoid(4) = 0.98 of the memory remains after a token."""


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
    """Gated delta rule: S_t = a_t (I - b_t k_t k_tᵀ) S_{t-1} + b_t k_t v_tᵀ, y_t = S_tᵀ q_t.

    A token reads a memory of all tokens before it and itself, in which each token replaces the value of its key. A
    bidirectional layer adds a second memory of all tokens after it. Time is linear in the length and the state has a
    fixed size. Positions, the logit scale and cross-segment heads have no effect. Paper: Gated DeltaNet,
    arXiv:2412.06464.
    """

    complexity = "linear"

    def __init__(self, dim: int, causal: bool, heads: HeadOptions = HeadOptions()):
        super().__init__()
        self.heads = QKVProjection(
            dim, replace(heads, positions="none", qk_norm=False, logit_scale=1.0, cross_segment=0.0)
        )
        self.write = nn.Linear(dim, heads.count)
        self.kept = nn.Linear(dim, heads.count)
        nn.init.constant_(self.kept.bias, KEEP_BIAS)
        self.causal = causal
        self.weights_sum_to_one = False
        self.asymmetry = "a token's own writing is read in the pass from the left alone"

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        empty = self._empty(len(x))
        return self._outputs(x, layout, self._split(x, layout), empty, None if self.causal else empty)[0]

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        pieces = self._split(x, layout)
        y = naive_delta_rule(*pieces)
        if not self.causal:
            y = y + naive_delta_rule(*pieces, ahead=True)
        return self.heads.combine(zero_padding(y, layout.padding_mask), x, layout)

    def init_state(self, batch: int) -> State:
        if not self.causal:
            return super().init_state(batch)
        return self._empty(batch), torch.zeros((), dtype=torch.long)

    def step(
        self, x: Float[Tensor, "batch length dim"], state: State, layout: TokenLayout = TokenLayout()
    ) -> tuple[Float[Tensor, "batch length dim"], State]:
        memory, count = state
        layout = with_positions(layout, x, int(count))
        y, memory = self._outputs(x, layout, self._split(x, layout), memory, None)
        return y, (memory, count + x.shape[1])

    def forward_chunked(self, read_chunk: ChunkReader, length: int, chunk: int) -> Iterator[tuple[int, int, Tensor]]:
        """A bidirectional layer first scans from the right and keeps the memory after each chunk."""
        memory = ahead = self._empty(len(read_chunk(0, 1)[0]))
        borders = []
        for start, stop in [] if self.causal else chunk_bounds(length, chunk, backwards=True):
            borders.append(ahead)
            ahead = delta_rule(*self._split(*read_chunk(start, stop)), ahead, ahead=True)[1]
        for start, stop in chunk_bounds(length, chunk):
            x, layout = read_chunk(start, stop)
            border = None if self.causal else borders.pop()
            y, memory = self._outputs(x, layout, self._split(x, layout), memory, border)
            yield start, stop, y

    def _empty(self, batch: int) -> Tensor:
        weight, width = self.heads.out.weight, self.heads.dim_head
        dtype = torch.promote_types(weight.dtype, torch.float32)
        return torch.zeros(batch, self.heads.count, width, width, dtype=dtype, device=weight.device)

    def _outputs(
        self, x: Tensor, layout: TokenLayout, pieces: DeltaInputs, memory: Tensor, ahead: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Outputs of both directions (`ahead` None: of the left alone), and the memory after these tokens."""
        y, memory = delta_rule(*pieces, memory)
        if ahead is not None:
            y = y + delta_rule(*pieces, ahead, ahead=True)[0]
        return self.heads.combine(zero_padding(y, layout.padding_mask).to(pieces[2].dtype), x, layout), memory

    def _split(self, x: Tensor, layout: TokenLayout) -> DeltaInputs:
        q, k, v = self.heads.project(x, layout)
        x = zero_padding(x, layout.padding_mask)
        # Padding writes nothing, and nothing fades there. (eps keeps the gradient of a key of zeros finite.)
        write = zero_padding(self.write(x).sigmoid(), layout.padding_mask)
        log_kept = zero_padding(F.logsigmoid(self.kept(x)), layout.padding_mask)
        return F.normalize(q, dim=-1, eps=1e-6), F.normalize(k, dim=-1, eps=1e-6), v, write, log_kept

    def flops(self, length: int) -> int:
        """FLOPs of the projections and of the products of every chunk, without its triangular system."""
        heads, width, size = self.heads.count, self.heads.dim_head, min(CHUNK, length)
        padded = -(-length // size) * size
        gates = 4 * length * heads * width * heads
        inside = 2 * padded * heads * (3 * size * width + 4 * width * width) + 2 * padded // size * heads * width**3
        return self.heads.flops(length) + gates + inside * (1 if self.causal else 2)

    def state_bytes(self, length: int) -> int:
        """Size of the memory, the same at any length."""
        return 4 * self.heads.count * self.heads.dim_head**2
