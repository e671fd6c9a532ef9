"""Projections to queries, keys and values by head, and the options that all layers with heads share."""

import math
from dataclasses import dataclass
from typing import Literal, final

import torch
from jaxtyping import Float
from torch import Tensor, nn

from genoattn.attention.base import TokenLayout, zero_padding
from genoattn.attention.modules.autograd import first_order_only
from genoattn.attention.modules.gate import Gate
from genoattn.attention.modules.rotary import ROTARY, VALUE_BASE, VALUES_ROTARY, position_ids_of, rotate
from genoattn.errors import UserError


@dataclass(frozen=True)
class HeadOptions:
    """Options of the heads of an attention layer; the config group `heads`, one choice for all layers of a run.

    Args:
        count: Number of heads; it must divide the model's dim.
        positions: "rotary", "none" or, in a sliding window, "alibi".
        qk_norm: Normalise queries and keys to a mean square of `logit_scale`, which each head then learns.
        logit_scale: Scale of the scores of every head before training. Above 1 the softmax starts sharper.
        tie_qk_init: Start with equal projections of queries and keys, so that similar tokens attract each other.
        cross_segment: Share of the heads that see only the tokens of another segment of the context. Layers without
            heads and "pyramid" ignore it.
        rotate_values: Rotate values by the positions of their tokens and outputs back by those of the queries. What a
            token receives then depends on its distance. Layers without heads and "pyramid" ignore it.
        gate: A sigmoid gate, computed from the token, of each head or channel of the outputs before their projection:
            "none", "head" or "channel" (arXiv:2505.06708).

    Raises:
        UserError: A value is out of its range, or `logit_scale` is set without `qk_norm`.
    """

    count: int = 4
    positions: Literal["rotary", "none", "alibi"] = "rotary"
    qk_norm: bool = True
    logit_scale: float = 1.0
    tie_qk_init: bool = False
    cross_segment: float = 0.0
    rotate_values: bool = False
    gate: Literal["none", "head", "channel"] = "none"

    def __post_init__(self) -> None:
        if self.count < 1:
            raise UserError(f"heads.count must be 1 or more, got {self.count}")
        if not self.logit_scale > 0:
            raise UserError(f"heads.logit_scale must be more than 0, got {self.logit_scale}")
        if self.logit_scale != 1 and not self.qk_norm:
            raise UserError(f"heads.logit_scale needs heads.qk_norm=true, which it belongs to, got {self.logit_scale}")
        if not 0 <= self.cross_segment <= 1:
            raise UserError(f"heads.cross_segment is a share of the heads, from 0 to 1, got {self.cross_segment}")
        if self.cross_segment and not self.cross_segment_count:
            raise UserError(
                f"heads.cross_segment of {self.cross_segment} of {self.count} heads is less than half a head; give 0 or"
                " more heads"
            )

    @property
    def cross_segment_count(self) -> int:
        """Number of heads that see only another segment: the last ones."""
        return round(self.cross_segment * self.count)


@final
class QKVProjection(nn.Module):
    """Projections of a sequence to queries, keys and values by head, and of the heads' outputs back to the sequence.

    Args:
        dim: Channels of a token.
        heads: Options of the heads.
        kv_heads: Number of heads of keys and values, each shared by several heads of queries (None: `heads.count`).
        positions: The values of `heads.positions` that the layer knows.

    Raises:
        UserError: The heads do not fit the channels or each other, or the layer does not know these positions.
    """

    def __init__(
        self,
        dim: int,
        heads: HeadOptions = HeadOptions(),
        kv_heads: int | None = None,
        positions: tuple[str, ...] = ("rotary", "none"),
    ):
        super().__init__()
        count = heads.count
        if dim % count:
            raise UserError(f"heads.count must divide the model's dim of {dim}, got {count}")
        if kv_heads is not None and (kv_heads < 1 or count % kv_heads):
            raise UserError(f"attention.kv_heads must divide the {count} heads, got {kv_heads}")
        if heads.positions not in positions:
            raise UserError(f"heads.positions must be one of {', '.join(positions)}, got {heads.positions}")
        self.count, self.kv_count, self.dim_head = count, kv_heads or count, dim // count
        self.cross_heads = heads.cross_segment_count
        self.qk_norm, self.rotary = heads.qk_norm, heads.positions == "rotary"
        self.rotate_values = heads.rotate_values
        if (self.rotary or self.rotate_values) and self.dim_head % 2:
            raise UserError(
                f"{'rotary positions' if self.rotary else 'heads.rotate_values=true'} turns pairs of channels, so a "
                f"head needs an even number of them, got {self.dim_head}"
            )
        # No biases: zeros at padding stay zeros through every projection.
        self.query = nn.Linear(dim, dim, bias=False)
        self.key = nn.Linear(dim, self.kv_count * self.dim_head, bias=False)
        self.value = nn.Linear(dim, self.kv_count * self.dim_head, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        if heads.tie_qk_init:
            group = (self.kv_count, -1, self.dim_head, dim)  # the queries of one key begin equal too
            self.key.weight.data.copy_(self.query.weight.data.view(group)[:, 0].flatten(0, 1))
            self.query.weight.data.copy_(
                self.key.weight.data.view(group).expand(group[0], count // group[0], *group[2:]).flatten(0, 2)
            )
        if self.qk_norm:
            self.log_logit_scale = nn.Parameter(torch.full((count,), math.log(heads.logit_scale)))
        self.gate = None if heads.gate == "none" else Gate(dim, dim if heads.gate == "channel" else count)

    @property
    def own_heads(self) -> int:
        """Number of heads that see all segments: the first ones."""
        return self.count - self.cross_heads

    @property
    def averages(self) -> bool:
        """True if a layer whose weights sum to 1 gives back values of 1 that all tokens share."""
        return not self.cross_heads and not self.rotate_values and self.gate is None

    @property
    def asymmetry(self) -> str | None:
        """Reason why reversing a sequence changes more than the order of the outputs; None if there is none."""
        return ROTARY if self.rotary else VALUES_ROTARY if self.rotate_values else None

    def project(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the real tokens, each `[batch, length, heads, dim_head]`.

        With `rotate_values` the values are rotated by their positions. With `qk_norm` queries and keys have a mean
        square of the head's learned logit scale, so that both sides share it equally: a softmax sees only their
        product, a feature map sees each.
        """
        return self.queries(zero_padding(x, layout.padding_mask)), *self.keys_values(x, layout)

    def project_and_rotate(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`project`, with queries and keys rotated by their positions if positions are rotary."""
        q, k, v = self.project(x, layout)
        if self.rotary:
            positions = position_ids_of(x, layout.position_ids)
            q, k = rotate(q, positions), rotate(k, positions)
        return q, k, v

    def queries(self, x: Float[Tensor, "*tokens dim"]) -> Float[Tensor, "*tokens heads dim_head"]:
        """The queries of `project`."""
        return self._normed(self.query(x).unflatten(-1, (-1, self.dim_head)))

    def keys_values(self, x: Float[Tensor, "batch length dim"], layout: TokenLayout) -> tuple[Tensor, Tensor]:
        """The keys and values of `project`."""
        x = zero_padding(x, layout.padding_mask)
        k, v = (project(x).unflatten(-1, (-1, self.dim_head)) for project in (self.key, self.value))
        if self.rotate_values:
            v = rotate(v, position_ids_of(x, layout.position_ids), VALUE_BASE)
        if self.kv_count < self.count:  # each key and value serves several queries
            k, v = (t.repeat_interleave(self.count // self.kv_count, dim=-2) for t in (k, v))
        return self._normed(k), v

    def _normed(self, x: Tensor) -> Tensor:
        return _Normed.apply(x, self.log_logit_scale) if self.qk_norm else x  # type: ignore[return-value]

    def combine(
        self,
        y: Float[Tensor, "batch length heads dim_head"],
        x: Float[Tensor, "batch length dim"],
        layout: TokenLayout,
    ) -> Float[Tensor, "batch length dim"]:
        """The heads' outputs, rotated back and gated if so set, projected back to the channels of a token.

        Args:
            y: Outputs of the heads at the tokens of `x`, 0 at padding.
            x: Tokens that the layer was given.
            layout: Their layout.
        """
        if self.rotate_values:
            y = rotate(y, -position_ids_of(x, layout.position_ids), VALUE_BASE)
        y = y.flatten(2)
        return self.out(y if self.gate is None else self.gate(y, zero_padding(x, layout.padding_mask)))

    def flops(self, length: int) -> int:
        """FLOPs of the four projections and of the gate of one sequence."""
        gate = 0 if self.gate is None else self.gate.flops(length)
        return 4 * length * self.count * (self.count + self.kv_count) * self.dim_head**2 + gate


class _Normed(torch.autograd.Function):
    """`x / rms(x) * exp(log_scale / 2)` by head, for x `[*tokens, heads, dim_head]`.

    It saves its output, which attention saves as well, and one number for each token and head. Torch's own norm saves
    its input and the values before the gain too: four times as much.
    """

    @staticmethod
    def forward(ctx, x: Tensor, log_scale: Tensor) -> Tensor:
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        # The epsilon is fixed because torch's default follows the dtype: bfloat16's would shrink ordinary queries.
        mean_square = torch.linalg.vector_norm(wide, dim=-1, keepdim=True).square_() / x.shape[-1] + 1e-6
        gain = mean_square.rsqrt_() * (log_scale / 2).exp()[:, None].to(wide.dtype)
        y = (wide * gain).to(x.dtype)
        ctx.save_for_backward(y, gain, log_scale)
        return y

    @staticmethod
    @first_order_only
    def backward(ctx, dy: Tensor) -> tuple[Tensor, Tensor]:  # pyright: ignore
        y, gain, log_scale = ctx.saved_tensors
        wide, y = dy.to(gain.dtype), y.to(gain.dtype)
        along = (wide * y).sum(-1, keepdim=True)
        square = log_scale.exp()[:, None].to(gain.dtype)  # mean square of the output
        dx = (wide * gain).addcmul_(y, along * gain / (-y.shape[-1] * square))
        return dx.to(dy.dtype), along.flatten(0, -3).sum((0, 2)).to(log_scale.dtype) / 2
