"""Projections to queries, keys and values by head, and of the outputs of heads."""

import math
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genoattn.attention.base import ChunkReader, TokenLayout, zero_padding
from genoattn.attention.modules.gate import Gate
from genoattn.attention.modules.head_options import HeadOptions
from genoattn.attention.modules.norms import normed_heads
from genoattn.attention.modules.rotary import ROTARY, VALUE_ROPE, VALUES_ROTARY, Turns, rotated
from genoattn.attention.modules.short_convolution import SHORT_CONV, Past, ShortConvolution, no_past
from genoattn.attention.parallel import Span, halo
from genoattn.errors import UserError


@final
class QKVProjection(nn.Module):
    """Projections of a sequence to queries, keys and values by head, and of the heads' outputs back to the sequence.

    Args:
        dim: Channels of a token.
        heads: Options of the heads.
        kv_heads: Number of heads of keys and values, each shared by several heads of queries (None: `heads.count`).
        positions: The values of `heads.positions` that the layer knows.
        key_dim: Channels of a query and a key of each head (None: those of a value).
        short_conv: Tokens of a convolution of queries, keys and values over the token and those before it (0: none).
        activation: Apply SiLU after the short convolution.

    Raises:
        UserError: The heads do not fit the channels or each other, or the layer does not know these positions.
    """

    def __init__(
        self,
        dim: int,
        heads: HeadOptions = HeadOptions(),
        kv_heads: int | None = None,
        positions: tuple[str, ...] = ("rotary", "none"),
        key_dim: int | None = None,
        short_conv: int = 0,
        activation: bool = False,
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
        self.rotate_values, self.rope = heads.rotate_values, heads.rope
        self.key_dim = self.dim_head if key_dim is None else key_dim
        if self.key_dim < 1:
            raise UserError(f"attention.key_dim must be 1 or more channels, got {key_dim}")
        if (self.rotary and self.key_dim % 2) or (self.rotate_values and self.dim_head % 2):
            raise UserError(
                f"{'rotary positions' if self.rotary else 'heads.rotate_values=true'} turns pairs of channels, so a "
                f"head needs an even number of them, got {self.key_dim if self.rotary else self.dim_head}"
            )
        # No biases: zeros at padding stay zeros through every projection.
        self.query = nn.Linear(dim, count * self.key_dim, bias=False)
        self.key = nn.Linear(dim, self.kv_count * self.key_dim, bias=False)
        self.value = nn.Linear(dim, self.kv_count * self.dim_head, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        if heads.tie_qk_init:
            group = (self.kv_count, -1, self.key_dim, dim)  # the queries of one key begin equal too
            self.key.weight.data.copy_(self.query.weight.data.view(group)[:, 0].flatten(0, 1))
            self.query.weight.data.copy_(
                self.key.weight.data.view(group).expand(group[0], count // group[0], *group[2:]).flatten(0, 2)
            )
        if self.qk_norm:
            self.log_logit_scale = nn.Parameter(torch.full((count,), math.log(heads.logit_scale)))
        if short_conv < 0:
            raise UserError(f"attention.short_conv must be 0 or more tokens, got {short_conv}")
        channels = (count + self.kv_count) * self.key_dim + self.kv_count * self.dim_head
        self.conv = ShortConvolution(channels, short_conv - 1, alone=True) if short_conv else None
        self.activation = activation
        self.gate = None if heads.gate == "none" else Gate(dim, dim if heads.gate == "channel" else count)

    @property
    def own_heads(self) -> int:
        """Number of heads that see all segments: the first ones."""
        return self.count - self.cross_heads

    @property
    def averages(self) -> bool:
        """True if a layer whose weights sum to 1 gives back values of 1 that all tokens share."""
        return not self.cross_heads and not self.rotate_values and self.gate is None and self.conv is None

    @property
    def asymmetry(self) -> str | None:
        """Reason why reversing a sequence changes more than the order of the outputs; None if there is none."""
        if self.rotary or self.rotate_values:
            return ROTARY if self.rotary else VALUES_ROTARY
        return None if self.conv is None else SHORT_CONV

    def project(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout(), past: Past | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values of the real tokens, each `[batch, length, heads or kv_heads, dim_head]`.

        With `rotate_values` the values are rotated by their positions. With `qk_norm` queries and keys have a mean
        square of the head's learned logit scale, so that both sides share it equally: a softmax sees only their
        product, a feature map sees each. Shared keys have a mean square of 1, and their
        queries all of it. A short convolution comes first; `past` are the tokens before `x`.
        """
        return self._project(x, layout, past, None)

    def project_and_rotate(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout, past: Past | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`project`, with queries and keys rotated by their positions if positions are rotary."""
        turned = layout.turns(x, self.key_dim, self.rope) if self.rotary else None
        return self._project(x, layout, past, turned)

    def _project(
        self, x: Tensor, layout: TokenLayout, past: Past | None, turned: Turns | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        if self.conv is not None:
            return self._convolved(self.conv, x, layout, past, turned)
        tokens = zero_padding(x, layout.padding_mask)
        return self.queries(tokens, turned), *self._shared(self.key(tokens), self.value(tokens), x, layout, turned)

    def _convolved(
        self, conv: ShortConvolution, x: Tensor, layout: TokenLayout, past: Past | None, turned: Turns | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """`project` with a short convolution of the projections."""
        past = no_past(len(x), x.shape[2], x) if past is None else past
        tokens = past.before(x, layout)
        wide = torch.cat([project(tokens.x.to(x.dtype)) for project in (self.query, self.key, self.value)], dim=-1)
        wide = conv(wide, past.layout_before(layout), past.x.shape[1])
        wide = F.silu(wide) if self.activation else wide
        q, k, v = wide.split([project.out_features for project in (self.query, self.key, self.value)], dim=-1)
        return self._normed(q.unflatten(-1, (self.count, -1)), turned), *self._shared(k, v, x, layout, turned)

    def past_of(self, read_chunk: ChunkReader, start: int) -> Past | None:
        """The tokens before token `start` of a long sequence that its projections depend on; None if there are none."""
        if self.conv is None or not start:
            return None
        x, layout = read_chunk(max(0, start - self.conv.reach[0]), start)
        return no_past(len(x), x.shape[2], x).before(x, layout)

    def past_of_span(self, x: Float[Tensor, "batch shard dim"], span: Span) -> Past | None:
        """The tokens of earlier shards that the projections of a shard depend on; None if there are none."""
        if self.conv is None:
            return None
        wide = halo(x, span, self.conv.reach[0], 0)
        past = wide.x[:, : wide.before]
        return no_past(len(x), x.shape[2], x).before(past, span.whole.part(past, span.start - wide.before))

    def past_after(self, x: Tensor, layout: TokenLayout, past: Past | None) -> Past | None:
        """The tokens up to the last of `x` that the projections of the next tokens depend on."""
        if self.conv is None:
            return None
        past = no_past(len(x), x.shape[2], x) if past is None else past
        return past.before(x, layout).last(self.conv.reach[0])

    def past_tokens(self, length: int) -> int:
        """Number of tokens before the next one that its projections depend on, after `length` tokens."""
        return 0 if self.conv is None else min(length, self.conv.reach[0])

    def queries(
        self, x: Float[Tensor, "batch length dim"], turned: Turns | None = None
    ) -> Float[Tensor, "batch length heads dim_head"]:
        """The queries of `project`."""
        return self._normed(self.query(x).unflatten(-1, (self.count, -1)), turned)

    def keys_values(self, x: Float[Tensor, "batch length dim"], layout: TokenLayout) -> tuple[Tensor, Tensor]:
        """The keys and values of `project`."""
        tokens = zero_padding(x, layout.padding_mask)
        return self._shared(self.key(tokens), self.value(tokens), x, layout)

    def _shared(
        self, k: Tensor, v: Tensor, x: Tensor, layout: TokenLayout, turned: Turns | None = None
    ) -> tuple[Tensor, Tensor]:
        """Keys and values by head from their projections."""
        k, v = (t.unflatten(-1, (self.kv_count, -1)) for t in (k, v))
        if self.rotate_values:
            v = rotated(v, layout.turns(x, self.dim_head, VALUE_ROPE))
        return self._normed(k, turned, keys=True), v

    def _normed(self, x: Tensor, turned: Turns | None, keys: bool = False) -> Tensor:
        """Queries or keys, normalised if so set and rotated by `turned`."""
        if self.qk_norm:
            scale = self.log_logit_scale
            if self.kv_count < self.count:  # a shared key has no scale of its own: that of each query is its square
                scale = scale.new_zeros(x.shape[2]) if keys else 2 * scale
            return normed_heads(x, scale, turned, self.rope.temperature)
        if turned is not None:
            return rotated(x, turned, self.rope.temperature)
        return x if self.rope.temperature == 1 else x * self.rope.temperature

    def normed(self, keys: Float[Tensor, "few heads dim_head"]) -> Float[Tensor, "few heads dim_head"]:
        """Keys that belong to no token, normalised as those of tokens are."""
        return self._normed(keys[None], None, keys=True)[0]

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
            cos, sin = layout.turns(x, self.dim_head, VALUE_ROPE)
            y = rotated(y, (cos, -sin))
        y = y.flatten(2)
        return self.out(y if self.gate is None else self.gate(y, zero_padding(x, layout.padding_mask)))

    def flops(self, length: int) -> int:
        """FLOPs of the four projections and of the gate of one sequence."""
        gate = 0 if self.gate is None else self.gate.flops(length)
        widths = self.key_dim + self.dim_head  # of the queries and outputs of a head, and of its keys and values
        return 2 * length * self.out.in_features * (self.count + self.kv_count) * widths + gate
