"""Kernel attention: positive features in place of the exponential, so that sums stand for the square of scores."""

import math
from functools import partial
from typing import final

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from genoattn.attention.base import Attention, Layout, blank
from genoattn.attention.chunks import CHUNK
from genoattn.attention.features import FEATURES, feature, feature_count
from genoattn.attention.heads import ROTARY, Heads, check_positions, positions_of, rotate, visible_pairs
from genoattn.attention.scan import scan, segment_of
from genoattn.attention.sums import EPSILON, read_all, read_both, read_past, write_ahead, write_all
from genoattn.errors import UserError

WIDEST = 32


def linear_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_value"],
    *,
    causal: bool,
    features: str = "elu",
    keep: Bool[Tensor, "batch length"] | None = None,
    positions: Int[Tensor, "#batch length"] | None = None,
    rates: Float[Tensor, "heads"] | None = None,
) -> Float[Tensor, "batch length heads dim_value"]:
    """y_i = sum_j φ(q_i)·φ(k_j) v_j / sum_j φ(q_i)·φ(k_j), by sums of φ(k) vᵀ and φ(k); 0 at padding.

    With `positions` the features are turned in the numerator alone: turned in the denominator too they could make it
    0 or negative. With `rates` a token at distance d weighs exp(-rate d) times less, on both sides. The sums are at
    least float32 under any autocast: bfloat16 has lost them at a million tokens. At padding q, k and v may hold
    anything finite.
    """
    count = feature_count(q.shape[-1], features)
    segment = segment_of(len(q) * q.shape[2] * max(count, v.shape[-1] + 1), CHUNK)
    walk = partial(scan, segment=segment)
    with torch.autocast(q.device.type, enabled=False):
        memory = v.new_zeros(
            len(v), v.shape[2], count, v.shape[3] + 1, dtype=torch.promote_types(v.dtype, torch.float32)
        )
        seen = torch.zeros(len(v), dtype=torch.long, device=v.device)
        if causal:
            step = partial(read_past, features=features)
            return walk(step, (memory, seen), (q, k, v, keep, positions), (rates,))[0]
        if rates is not None:
            back, step = partial(write_ahead, features=features), partial(read_both, features=features)
            ahead, _ = walk(back, (memory,), (k, v, keep, positions), (rates,), backwards=True, sparse=True)
            return walk(step, (memory,), (q, k, v, keep, positions, ahead), (rates,))[0]
        _, state = walk(partial(write_all, features=features), (memory, seen), (k, v, keep, positions))
        return walk(partial(read_all, features=features), (), (q, keep, positions), state)[0]


def naive_linear_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_value"],
    *,
    causal: bool,
    features: str = "elu",
    keep: Bool[Tensor, "batch length"] | None = None,
    positions: Int[Tensor, "#batch length"] | None = None,
    rates: Float[Tensor, "heads"] | None = None,
) -> Float[Tensor, "batch length heads dim_value"]:
    """The same answer from the whole square of weights."""
    length = q.shape[1]
    visible = visible_pairs(length, length, 0 if causal else length, keep, q.device)[:, None]
    phi_q, phi_k = feature(q, features), feature(k, features)
    weights = torch.einsum("bqhm,bkhm->bhqk", phi_q, phi_k).masked_fill(~visible, 0)
    least = EPSILON * visible.sum(-1, keepdim=True).clamp_min(1)
    index = torch.arange(length, device=q.device)
    faded = None if rates is None else (-rates[:, None, None] * (index[:, None] - index).abs()).exp()
    if faded is not None:
        weights, least = weights * faded, least.clamp_max(EPSILON)
    denominator = torch.maximum(weights.sum(-1, keepdim=True), least)
    if positions is not None:
        turned = torch.einsum("bqhm,bkhm->bhqk", rotate(phi_q, positions), rotate(phi_k, positions))
        weights = turned.masked_fill(~visible, 0) * (1 if faded is None else faded)
    return torch.einsum("bhqk,bkhd->bqhd", weights / denominator, v)


@final
class LinearAttention(Attention):
    """Each token reads the sums that all tokens, or those before it and itself, have written.

    With rotary positions it does not average: values of 1 mix to weights that the turns have made less than 1. Taylor
    features are made of turned queries and keys instead, which leaves them positive, so with them it does.
    """

    cost = "linear"

    def __init__(
        self,
        dim: int,
        causal: bool,
        heads: int = 4,
        features: str = "elu",
        positions: str = "rotary",
        qk_norm: bool = True,
        decay: bool = False,
    ):
        super().__init__()
        if features not in FEATURES:
            raise UserError(f"attention.features must be one of {', '.join(FEATURES)}, got {features}")
        if features == "exp" and not qk_norm:
            raise UserError("attention.features=exp overflows without attention.qk_norm=true, got qk_norm false")
        self.heads = Heads(dim, heads, qk_norm)
        if features == "taylor" and self.heads.dim_head > WIDEST:
            raise UserError(
                f"attention.features=taylor squares the channels of a head, at most {WIDEST}, got "
                f"{self.heads.dim_head}: give attention.heads={-(-dim // WIDEST)} or more"
            )
        self.causal = causal
        self.features = features
        self.rotary = check_positions(positions, self.heads)
        self.sided = ROTARY if self.rotary else None
        self.averages = not self.rotary or features == "taylor"
        if decay:
            # Heads at first remember 8, 32, 128, … tokens; beyond 5 the last ones differ little from no decay.
            self.log_rates = nn.Parameter(-math.log(4) * torch.arange(heads) - math.log(8))
        self.decay = decay

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: Layout = Layout()
    ) -> Float[Tensor, "batch length dim"]:
        q, k, v, turns, rates = self._split(x, layout)
        y = linear_attention(
            q, k, v, causal=self.causal, features=self.features, keep=layout.keep, positions=turns, rates=rates
        )
        return self.heads.merge(y)

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: Layout = Layout()
    ) -> Float[Tensor, "batch length dim"]:
        q, k, v, turns, rates = self._split(x, layout)
        y = naive_linear_attention(
            q, k, v, causal=self.causal, features=self.features, keep=layout.keep, positions=turns, rates=rates
        )
        return self.heads.merge(y)

    def _split(self, x: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor, Tensor | None, Tensor | None]:
        q, k, v = self.heads.split(blank(x, layout.keep))
        rates = self.log_rates.exp() if self.decay else None
        turns = positions_of(x, layout.positions) if self.rotary else None
        if turns is not None and self.features == "taylor":
            q, k, turns = rotate(q, turns), rotate(k, turns), None
        return q, k, v, turns, rates

    def flops(self, length: int) -> int:
        """Projections and the products with the state; a causal layer adds the squares inside its chunks."""
        heads, width = self.heads.count, self.heads.dim_head
        features = feature_count(width, self.features)
        padded = -(-length // CHUNK) * CHUNK
        if self.decay:  # numerator and denominator each, and each way
            ways = 1 if self.causal else 2
            scores = 2 * 2 * padded * heads * CHUNK * features
            return self.heads.flops(length) + ways * (
                scores + 2 * padded * heads * (width + 1) * (CHUNK + 2 * features)
            )
        if not self.causal:
            return self.heads.flops(length) + 4 * length * heads * features * width
        return self.heads.flops(length) + 2 * padded * heads * (2 * features * width + CHUNK * (features + width))

    def state_bytes(self, length: int) -> int:
        """The sums of φ(k) vᵀ and of φ(k), and the count; the same at any length."""
        features = feature_count(self.heads.dim_head, self.features)
        return 4 * (self.heads.count * features * (self.heads.dim_head + 1) + 1)
