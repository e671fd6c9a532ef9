"""Kernel attention: positive features in place of the exponential, so that sums stand for the square of scores."""

from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.base import Attention, Layout, blank
from genoattn.attention.heads import Heads, check_positions, positions_of, rotate, visible_pairs
from genoattn.errors import UserError

FEATURES = ("elu", "relu")
CHUNK = 64
EPSILON = 1e-6
"""The least denominator for each visible token: it weighs the same against the sum at any length."""


def feature(x: Float[Tensor, "*shape"], name: str) -> Float[Tensor, "*shape"]:
    """φ: elu(x) + 1, or relu(x) + 0.01; both positive, so that no denominator can cross 0."""
    return F.elu(x) + 1 if name == "elu" else F.relu(x) + 0.01


def linear_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_value"],
    *,
    causal: bool,
    features: str = "elu",
    keep: Bool[Tensor, "batch length"] | None = None,
    positions: Int[Tensor, "#batch length"] | None = None,
) -> Float[Tensor, "batch length heads dim_value"]:
    """y_i = sum_j φ(q_i)·φ(k_j) v_j / sum_j φ(q_i)·φ(k_j), by sums of φ(k) vᵀ and φ(k); 0 at padding.

    With `positions` the features are turned in the numerator alone: turned in the denominator too they could make it
    0 or negative. The sums are at least float32 under any autocast: bfloat16 has lost them at a million tokens. At
    padding q, k and v may hold anything finite.
    """
    with torch.autocast(q.device.type, enabled=False):
        wide = torch.promote_types(q.dtype, torch.float32)
        phi_q, phi_k = feature(q.to(wide), features), blank(feature(k.to(wide), features), keep)
        turned_q, turned_k = phi_q, phi_k
        if positions is not None:
            turned_q, turned_k = rotate(phi_q, positions), rotate(phi_k, positions)
        if causal:
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


def causal_sums(
    q: Float[Tensor, "batch length heads features"],
    k: Float[Tensor, "batch length heads features"],
    v: Float[Tensor, "batch length heads dim_value"],
) -> Float[Tensor, "batch length heads dim_value"]:
    """sum over j ≤ i of (q_i·k_j) v_j: squares inside chunks, and the sum of k vᵀ carried from chunk to chunk."""
    length = q.shape[1]
    tail = -length % CHUNK
    q, k, v = (F.pad(t, (0, 0, 0, 0, 0, tail)).unflatten(1, (-1, CHUNK)) for t in (q, k, v))
    weights = torch.einsum("bnqhm,bnkhm->bnhqk", q, k).tril_()
    inside = torch.einsum("bnhqk,bnkhd->bnqhd", weights, v)
    states = torch.einsum("bnkhm,bnkhd->bnhmd", k, v)
    # Shifted by a chunk, where subtracting a chunk from the sum that holds it would leave its rounding behind.
    before = F.pad(states.cumsum(1)[:, :-1], (0, 0, 0, 0, 0, 0, 1, 0))
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
) -> Float[Tensor, "batch length heads dim_value"]:
    """The same answer from the whole square of weights."""
    length = q.shape[1]
    visible = visible_pairs(length, length, 0 if causal else length, keep, q.device)[:, None]
    phi_q, phi_k = feature(q, features), feature(k, features)
    weights = torch.einsum("bqhm,bkhm->bhqk", phi_q, phi_k).masked_fill(~visible, 0)
    least = EPSILON * visible.sum(-1, keepdim=True).clamp_min(1)
    denominator = torch.maximum(weights.sum(-1, keepdim=True), least)
    if positions is not None:
        turned = torch.einsum("bqhm,bkhm->bhqk", rotate(phi_q, positions), rotate(phi_k, positions))
        weights = turned.masked_fill(~visible, 0)
    return torch.einsum("bhqk,bkhd->bqhd", weights / denominator, v)


@final
class LinearAttention(Attention):
    """Each token reads the sums that all tokens, or those before it and itself, have written.

    With rotary positions it does not average: values of 1 mix to weights that the turns have made less than 1.
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
    ):
        super().__init__()
        if features not in FEATURES:
            raise UserError(f"attention.features must be one of {', '.join(FEATURES)}, got {features}")
        self.heads = Heads(dim, heads, qk_norm)
        self.causal = causal
        self.features = features
        self.rotary = check_positions(positions, self.heads)
        self.averages = not self.rotary

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: Layout = Layout()
    ) -> Float[Tensor, "batch length dim"]:
        q, k, v = self.heads.split(blank(x, layout.keep))
        turns = positions_of(x, layout.positions) if self.rotary else None
        y = linear_attention(q, k, v, causal=self.causal, features=self.features, keep=layout.keep, positions=turns)
        return self.heads.merge(y)

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: Layout = Layout()
    ) -> Float[Tensor, "batch length dim"]:
        q, k, v = self.heads.split(blank(x, layout.keep))
        turns = positions_of(x, layout.positions) if self.rotary else None
        y = naive_linear_attention(
            q, k, v, causal=self.causal, features=self.features, keep=layout.keep, positions=turns
        )
        return self.heads.merge(y)

    def flops(self, length: int) -> int:
        """Projections and the products with the state; a causal layer adds the squares inside its chunks."""
        heads, width = self.heads.count, self.heads.dim_head
        if not self.causal:
            return self.heads.flops(length) + 4 * length * heads * width**2
        padded = -(-length // CHUNK) * CHUNK
        return self.heads.flops(length) + 4 * padded * heads * width * (width + CHUNK)

    def state_bytes(self, length: int) -> int:
        """The sums of φ(k) vᵀ and of φ(k), and the count; the same at any length."""
        return 4 * (self.heads.count * self.heads.dim_head * (self.heads.dim_head + 1) + 1)
