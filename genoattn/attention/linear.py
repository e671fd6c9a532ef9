"""Kernel attention: positive features in place of the exponential, so that sums stand for the square of scores."""

import math
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from genoattn.attention.base import Attention, Layout, blank
from genoattn.attention.features import FEATURES, feature, feature_count
from genoattn.attention.heads import ROTARY, Heads, check_positions, positions_of, rotate, visible_pairs
from genoattn.errors import UserError

CHUNK = 64
WIDEST = 32
EPSILON = 1e-6
"""The least denominator for each visible token: it weighs the same against the sum at any length."""


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
    with torch.autocast(q.device.type, enabled=False):
        wide = torch.promote_types(q.dtype, torch.float32)
        phi_q, phi_k = feature(q.to(wide), features), blank(feature(k.to(wide), features), keep)
        turned_q, turned_k = phi_q, phi_k
        if positions is not None:
            turned_q, turned_k = rotate(phi_q, positions), rotate(phi_k, positions)
        if rates is not None:
            y = _fading(phi_q, phi_k, turned_q, turned_k, v.to(wide), rates.to(wide), causal)
        elif causal:
            y = _past(phi_q, phi_k, turned_q, turned_k, v.to(wide), keep)
        else:
            y = _everything(phi_q, phi_k, turned_q, turned_k, v.to(wide), keep)
        return blank(y, keep).to(v.dtype)


def _everything(phi_q: Tensor, phi_k: Tensor, turned_q: Tensor, turned_k: Tensor, v: Tensor, keep: Tensor | None):
    seen = phi_q.shape[1] if keep is None else keep.sum(1).clamp_min(1)[:, None, None, None]
    # Divided by the count before the sum and not after, so that the state is no larger for a longer sequence.
    state = torch.einsum("bkhm,bkhd->bhmd", turned_k / seen, v)
    total = (phi_k / seen).sum(1, keepdim=True)
    denominator = (phi_q * total).sum(-1, keepdim=True)
    return torch.einsum("bqhm,bhmd->bqhd", turned_q, state) / denominator.clamp_min(EPSILON)


def _past(phi_q: Tensor, phi_k: Tensor, turned_q: Tensor, turned_k: Tensor, v: Tensor, keep: Tensor | None):
    length = phi_q.shape[1]
    seen = torch.arange(1, length + 1, device=v.device)[None] if keep is None else keep.cumsum(1).clamp_min(1)
    denominator = (phi_q * phi_k.cumsum(1)).sum(-1, keepdim=True)
    return causal_sums(turned_q, turned_k, v) / torch.maximum(denominator, EPSILON * seen[:, :, None, None])


def _fading(phi_q: Tensor, phi_k: Tensor, turned_q: Tensor, turned_k: Tensor, v: Tensor, rates: Tensor, causal: bool):
    def everyone(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        past = causal_sums(q, k, v, rates)
        if causal:
            return past
        # What lies ahead is the past of the sequence turned round, its own token left out: that is in the past already.
        return past + causal_sums(q.flip(1), k.flip(1), v.flip(1), rates, own=False).flip(1)

    denominator = everyone(phi_q, phi_k, torch.ones_like(v[..., :1]))
    return everyone(turned_q, turned_k, v) / denominator.clamp_min(EPSILON)


def causal_sums(
    q: Float[Tensor, "batch length heads features"],
    k: Float[Tensor, "batch length heads features"],
    v: Float[Tensor, "batch length heads dim_value"],
    rates: Float[Tensor, "heads"] | None = None,
    own: bool = True,
) -> Float[Tensor, "batch length heads dim_value"]:
    """sum over j ≤ i of exp(-rate (i - j)) (q_i·k_j) v_j (j < i without its `own`); rates of None fade nothing.

    Squares inside chunks, and the sum of k vᵀ carried from chunk to chunk.
    """
    length = q.shape[1]
    tail = -length % CHUNK
    q, k, v = (F.pad(t, (0, 0, 0, 0, 0, tail)).unflatten(1, (-1, CHUNK)) for t in (q, k, v))
    weights = torch.einsum("bnqhm,bnkhm->bnhqk", q, k).tril_(0 if own else -1)
    if rates is not None:
        index = torch.arange(CHUNK, device=q.device, dtype=q.dtype)
        faded = -rates[:, None, None] * (index[:, None] - index).clamp_min(0)
        weights = weights * faded.exp()
        # Never a power above 1: keys fade to their chunk's end, queries from the end of the chunk before.
        q = q * (-rates * (index[:, None] + 1)).exp()[..., None]
        k = k * (-rates * (CHUNK - 1 - index[:, None])).exp()[..., None]
    inside = torch.einsum("bnhqk,bnkhd->bnqhd", weights, v)
    states = torch.einsum("bnkhm,bnkhd->bnhmd", k, v)
    if rates is None:
        # Shifted by a chunk, where subtracting a chunk from the sum that holds it would leave its rounding behind.
        before = F.pad(states.cumsum(1)[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))
    else:
        fade = (-rates * CHUNK).exp()[:, None, None]
        carried = [torch.zeros_like(states[:, 0])]
        for state in states.unbind(1)[:-1]:
            carried.append(carried[-1] * fade + state)
        before = torch.stack(carried, dim=1)
    return (inside + torch.einsum("bnqhm,bnhmd->bnqhd", q, before)).flatten(1, 2)[:, :length]


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
