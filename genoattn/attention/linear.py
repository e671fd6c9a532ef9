"""Linear attention: positive features in place of the exponential, so that sums replace the square of scores."""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from genoattn.attention.base import Attention, ChunkReader, State, TokenLayout, zero_padding
from genoattn.attention.modules.dispatch import Backend
from genoattn.attention.modules.feature_maps import FEATURES, feature_dim, feature_map
from genoattn.attention.modules.projections import HeadOptions, QKVProjection
from genoattn.attention.modules.reference import visibility_mask
from genoattn.attention.modules.rotary import position_ids_of, rotate
from genoattn.attention.ops import triton as by_triton
from genoattn.attention.ops.chunk_state import CHUNK, chunk_flops
from genoattn.attention.ops.chunked_scan import chunk_bounds, chunk_length
from genoattn.attention.ops.linear import (
    EPSILON,
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
from genoattn.errors import UserError

MAX_TAYLOR_CHANNELS = 32


def naive_linear_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_value"],
    *,
    causal: bool,
    features: str = "elu",
    padding_mask: Bool[Tensor, "batch length"] | None = None,
    positions: Int[Tensor, "#batch length"] | None = None,
    decay: Float[Tensor, "heads"] | None = None,
) -> Float[Tensor, "batch length heads dim_value"]:
    """`linear_attention` from the whole square of weights."""
    length = q.shape[1]
    visible = visibility_mask(length, length, 0 if causal else length, padding_mask, q.device)[:, None]
    phi_q, phi_k = feature_map(q, features), feature_map(k, features)
    weights = torch.einsum("bqhm,bkhm->bhqk", phi_q, phi_k).masked_fill(~visible, 0)
    least = EPSILON * visible.sum(-1, keepdim=True).clamp_min(1)
    index = torch.arange(length, device=q.device)
    factors = None if decay is None else (-decay[:, None, None] * (index[:, None] - index).abs()).exp()
    if factors is not None:
        weights, least = weights * factors, least.clamp_max(EPSILON)
    denominator = torch.maximum(weights.sum(-1, keepdim=True), least)
    if positions is not None:
        turned = torch.einsum("bqhm,bkhm->bhqk", rotate(phi_q, positions), rotate(phi_k, positions))
        weights = turned.masked_fill(~visible, 0) * (1 if factors is None else factors)
    return torch.einsum("bhqk,bkhd->bqhd", (weights / denominator).to(v.dtype), v)


@final
class LinearAttention(Attention):
    """Linear attention: y_i = φ(q_i)ᵀ Σ_j φ(k_j) v_jᵀ / φ(q_i)ᵀ Σ_j φ(k_j).

    A token reads the sums of all tokens, or of the tokens up to itself if causal; with `decay` a token at distance d
    weighs exp(-rate·d), with a learned rate for each head. Time is linear in the length and the state has a fixed size.

    Rotary positions rotate the features in the numerator alone, so weights do not sum to 1. Taylor features are
    computed from rotated queries and keys and stay positive, so with them weights do. `heads.cross_segment` has no
    effect. Papers: Katharopoulos et al. 2020, arXiv:2006.16236; Taylor features: Based, arXiv:2402.18668.
    """

    complexity = "linear"

    def __init__(
        self,
        dim: int,
        causal: bool,
        heads: HeadOptions = HeadOptions(),
        features: str = "elu",
        decay: bool = False,
        backend: str = "auto",
    ):
        super().__init__()
        if features not in FEATURES:
            raise UserError(f"attention.features must be one of {', '.join(FEATURES)}, got {features}")
        if features == "exp" and not heads.qk_norm:
            raise UserError("attention.features=exp overflows without heads.qk_norm=true, got qk_norm false")
        self.heads = QKVProjection(dim, heads)
        if features == "taylor" and self.heads.dim_head > MAX_TAYLOR_CHANNELS:
            raise UserError(
                f"attention.features=taylor squares the channels of a head, at most {MAX_TAYLOR_CHANNELS}, got "
                f"{self.heads.dim_head}: give heads.count={-(-dim // MAX_TAYLOR_CHANNELS)} or more"
            )
        self.causal = causal
        self.features = features
        self.asymmetry = self.heads.asymmetry
        self.weights_sum_to_one = self.heads.averages and (not self.heads.rotary or features == "taylor")
        if decay:
            # Heads at first remember 8, 32, 128, … tokens; beyond 5 the last ones differ little from no decay.
            self.log_rates = nn.Parameter(-math.log(4) * torch.arange(heads.count) - math.log(8))
        self.decay = decay
        plain = not decay and features != "taylor"
        self.engine = Backend(backend, "linear", None if plain else "the kernel knows no learned decay and no taylor")

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        return self._outputs(None, x, layout)

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        return self._outputs(naive_linear_attention, x, layout)

    def _outputs(self, attend: Callable[..., Tensor] | None, x: Tensor, layout: TokenLayout) -> Tensor:
        features, padding_mask, positions, decay = self._options(x, layout)
        q, k, v = self.heads.project(x, layout)
        q, k = self._rotated_early(q, layout), self._rotated_early(k, layout)
        if attend is None:
            attend = by_triton.linear_attention if self.engine.uses_triton(q) else linear_attention
        y = attend(
            q, k, v, causal=self.causal, features=features, padding_mask=padding_mask, positions=positions, decay=decay
        )
        return self.heads.combine(y, x, layout)

    def init_state(self, batch: int) -> State:
        if not self.causal:
            return super().init_state(batch)
        return *self._empty_state(batch), torch.zeros(batch, dtype=torch.long, device=self.heads.out.weight.device)

    def step(
        self, x: Float[Tensor, "batch length dim"], state: State, layout: TokenLayout = TokenLayout()
    ) -> tuple[Float[Tensor, "batch length dim"], State]:
        memory, count, position = state
        on = position[:, None] + torch.arange(x.shape[1], device=x.device)
        positions = on if layout.position_ids is None else layout.position_ids
        layout = replace(layout, position_ids=positions)
        options, q, (k, v) = self._options(x, layout), self._queries(x, layout), self._keys_values(x, layout)
        y, seen = causal_scan(q, k, v, (memory, count), options)
        return self.heads.combine(y, x, layout), (*seen, positions[:, -1] + 1)

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
        (memory, count), ahead = self._empty_state(batch), []
        for start, stop in reversed(forwards):
            x, layout = read_chunk(start, stop)
            (k, v), options = self._keys_values(x, layout), self._options(x, layout)
            if self.decay:
                ahead.append(memory)
                memory = reverse_states(k, v, memory, options)
            else:
                memory, count = accumulate_state(k, v, (memory, count), options)
        memory = torch.zeros_like(memory) if self.decay else memory
        for start, stop in forwards:
            x, layout = read_chunk(start, stop)
            q, options = self._queries(x, layout), self._options(x, layout)
            if self.decay:
                y, memory = bidirectional_scan(q, *self._keys_values(x, layout), memory, ahead.pop(), options)
            else:
                y = query_state(q, (memory, count), options)
            yield start, stop, self.heads.combine(y, x, layout)

    def _empty_state(self, batch: int) -> LinearState:
        features = feature_dim(self.heads.dim_head, self.features)
        return empty_state(batch, self.heads.count, features, self.heads.dim_head, self.heads.out.weight)

    def _queries(self, x: Tensor, layout: TokenLayout) -> Tensor:
        return self._rotated_early(self.heads.queries(zero_padding(x, layout.padding_mask)), layout)

    def _keys_values(self, x: Tensor, layout: TokenLayout) -> tuple[Tensor, Tensor]:
        k, v = self.heads.keys_values(x, layout)
        return self._rotated_early(k, layout), v

    def _rotated_early(self, x: Tensor, layout: TokenLayout) -> Tensor:
        """`x`, rotated if the features are made of rotated channels (Taylor); others are rotated themselves."""
        turned = self.heads.rotary and self.features == "taylor"
        return rotate(x, position_ids_of(x, layout.position_ids)) if turned else x

    def _options(self, x: Tensor, layout: TokenLayout) -> LinearOptions:
        late = self.heads.rotary and self.features != "taylor"
        turns = position_ids_of(x, layout.position_ids) if late else None
        return LinearOptions(self.features, layout.padding_mask, turns, self._decay() if self.decay else None)

    def _decay(self) -> Tensor:
        """Decay rates of the heads in at least float32: half precision rounds distances of more than 256 tokens."""
        return self.log_rates.to(torch.promote_types(self.log_rates.dtype, torch.float32)).exp()

    def describe_backend(self, device: torch.device, dtype: torch.dtype = torch.float32) -> str:
        return self.engine.description(device, dtype, [self.heads.dim_head])

    def flops(self, length: int) -> int:
        """Projections and products with the sums; a causal or decaying layer adds the squares inside its chunks."""
        heads, width = self.heads.count, self.heads.dim_head
        features = feature_dim(width, self.features)
        apart = self.heads.rotary and self.features != "taylor"  # numerator and denominator are sums of their own
        if not self.causal and not self.decay:
            return self.heads.flops(length) + 2 * length * heads * features * (2 * width + (0 if apart else 1))
        inside = sum(
            chunk_flops(stop - start, features, channels, 1 if self.causal else 2)
            for start, stop in chunk_bounds(length, chunk_length(heads * features, CHUNK))
            for channels in ((width, 1) if apart else (width + 1,))
        )
        return self.heads.flops(length) + heads * inside

    def state_bytes(self, length: int) -> int:
        """Sums of φ(k) vᵀ and of φ(k), and the count; the same at any length."""
        features = feature_dim(self.heads.dim_head, self.features)
        return 4 * (self.heads.count * features * (self.heads.dim_head + 1) + 1)
