"""Hyena: a gated convolution as long as the sequence, whose filter a small network writes."""

import math
from collections.abc import Iterator
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genoattn.attention.base import Attention, ChunkReader, TokenLayout, zero_padding
from genoattn.attention.modules.cross_segment import other_segment
from genoattn.attention.modules.head_options import HeadOptions
from genoattn.attention.modules.hyena_across import convolution_across
from genoattn.attention.modules.rotary import VALUE_ROPE, position_ids_of, rotate
from genoattn.attention.modules.short_convolution import ShortConvolution
from genoattn.attention.modules.streaming import Chunk, overlapping_chunks
from genoattn.attention.ops.long_convolution import convolution_flops, long_convolution, transform_length
from genoattn.attention.parallel import Span, halo, own_channels, tied, to_channels, to_shards
from genoattn.errors import UserError

GROUP_ELEMENTS = 2**24
"""Elements of a transform of a few channels in `forward_chunked`."""


FILTER_OFFSETS = 2**16
"""Offsets whose taps are computed together in `forward_chunked`."""


@final
class HyenaAttention(Attention):
    """Hyena operator of order 2: y_i = q_i ∘ (Σ_j h_{i - j} ∘ k_j ∘ v_j + d ∘ k_i ∘ v_i).

    Queries, keys and values are projections with a short depthwise convolution. A token sees all tokens, or those up to
    itself if causal; a filter h of its own for each channel says how a distance weighs, content decides by the products
    alone. The filter is a small network of sine activations over sines of the distance, with periods of 2, 4, 8, …
    tokens, times an exponential decay whose rates are spread over the channels. It does not depend on the length of the
    sequence. Looking both ways the network also reads the side. Time is n log n.

    The decay is learned, and starts at memories of 4 to `span` tokens. Papers: Poli et al. 2023, arXiv:2302.10866;
    HyenaDNA, arXiv:2306.15794.

    Heads are groups of channels. The channels of a head with `cross_segment` sum over tokens of other segments only,
    without d, and their short convolution stays within a segment. The memories of both kinds start alike.
    `rotate_values` turns pairs of channels of k ∘ v by the position, and the sums back; the channels of a pair then
    share one filter, so that distances alone count. The other options of the heads have no effect.

    Args:
        dim: Channels of a token.
        causal: See the token itself and those before it alone.
        heads: Options of the heads.
        short: Tokens of the short convolution, an odd number.
        span: Memory in tokens of the slowest channel before training, and the longest period of the filter's sines.
        hidden: Units of a layer of the filter's network.

    Raises:
        UserError: A setting is out of its range, the heads do not divide the channels, or rotated ones are no pairs.
    """

    complexity = "n log n"

    def __init__(
        self,
        dim: int,
        causal: bool,
        heads: HeadOptions = HeadOptions(),
        short: int = 3,
        span: int = 65536,
        hidden: int = 32,
    ):
        super().__init__()
        if short < 1 or short % 2 == 0:
            raise UserError(f"attention.short must be an odd number of tokens, got {short}")
        if span < 4:
            raise UserError(f"attention.span must be 4 or more tokens, got {span}")
        if hidden < 1:
            raise UserError(f"attention.hidden must be 1 or more, got {hidden}")
        width, rows = dim // heads.count, 1 + heads.rotate_values
        if dim % heads.count:
            raise UserError(f"heads.count must divide the model's dim of {dim}, got {heads.count}")
        if width % rows:
            raise UserError(
                f"heads.rotate_values=true turns pairs of channels, so a head needs an even number of them, got {width}"
            )
        self.count, self.rotate_values = heads.count, heads.rotate_values
        self.cross = heads.cross_segment_count * width
        self.own = dim - self.cross
        self.causal = causal
        self.weights_sum_to_one = False
        self.asymmetry = "the filter to the left and to the right is learned apart"
        left, right = (short - 1, 0) if causal else (short // 2, short // 2)
        # No biases: zeros at padding stay zeros through the projections.
        self.project = nn.Linear(dim, 3 * dim, bias=False)
        self.short = ShortConvolution(3 * self.own, left, right)
        self.short_across = ShortConvolution(3 * self.cross, left, right) if self.cross else None
        self.periods = [2**power for power in range(1, span.bit_length())]
        self.network = nn.ModuleList([nn.Linear(1 + 2 * len(self.periods), hidden), nn.Linear(hidden, hidden)])
        self.taps = nn.Linear(hidden, dim // rows, bias=False)
        kinds = (torch.linspace(math.log(4), math.log(span), n // rows) for n in (self.own, self.cross))
        self.log_rate = nn.Parameter(-torch.cat(list(kinds)))
        self.skip = nn.Parameter(torch.ones(self.own))
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        if not x.numel():
            return x * self.out.weight.sum()
        q, kv = self._split(self._projected(x, layout), layout)
        y = self._rotated(kv, layout, 1).transpose(1, 2)
        offset = self._offsets(x.shape[1])
        with torch.autocast(x.device.type, enabled=False):
            y = self._convolved(y, self._filter(self._hidden(offset), offset, slice(None)), layout, self.cross)
        return self._combined(q, kv, y, layout)

    def forward_span(
        self, x: Float[Tensor, "batch shard dim"], layout: TokenLayout, span: Span
    ) -> Float[Tensor, "batch shard dim"]:
        """Each process convolves some channels of the whole sequence, to which shards are exchanged, and back."""
        wide = halo(x, span, *self._reach())
        q, kv = (wide.inner(t) for t in self._split(self._projected(wide.x, wide.layout), wide.layout))
        channels, dim = own_channels(kv.shape[2], span), kv.shape[2]
        came = y = to_channels(self._rotated(kv, layout, 1), span)
        if y.numel():
            offset, across = self._offsets(span.total), channels.stop - max(channels.start, self.own)
            with torch.autocast(x.device.type, enabled=False):
                taps = self._filter(self._hidden(offset), offset, channels)
                y = self._convolved(y, taps, span.whole, max(0, across))
        return tied(self._combined(q, kv, to_shards(tied(y, came).to(kv.dtype), span, dim), layout), wide.x)

    def _convolved(self, kv: Tensor, taps: Tensor, layout: TokenLayout, across: int) -> Tensor:
        """Some channels of a sequence, convolved; the last `across` see the tokens of other segments only."""
        zero, widths = self._zero(kv.shape[-1]), [len(taps) - across, across]
        if not across:
            return long_convolution(kv, taps, zero)
        (own, cross), (own_taps, cross_taps) = kv.split(widths, dim=1), taps.split(widths)
        y = convolution_across(cross, cross_taps, zero, layout)
        return torch.cat([long_convolution(own, own_taps, zero), y], dim=1) if widths[0] else y

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        q, kv = self._split(self._projected(x, layout), layout, naive=True)
        length, zero, rotated = x.shape[1], self._zero(x.shape[1]), self._rotated(kv, layout, 1)
        index, offset = torch.arange(length, device=x.device), self._offsets(length)
        ahead = index[None, :] - index[:, None]
        taps = self._filter(self._hidden(offset), offset, slice(None)).to(kv.dtype)
        square = taps[:, (zero - ahead).clamp_min(0)]
        square = square.masked_fill(ahead > 0, 0) if self.causal else square
        y = torch.einsum("dij,bjd->bdi", square[: self.own], rotated[..., : self.own])
        others = other_segment(layout.segment_ids, x).to(kv.dtype)
        across = torch.einsum("dij,bij,bjd->bdi", square[self.own :], others, rotated[..., self.own :])
        return self._combined(q, kv, torch.cat([y, across], dim=1), layout)

    def _projected(self, x: Tensor, layout: TokenLayout) -> Tensor:
        """Queries, keys and values before the short convolution."""
        return self.project(zero_padding(x, layout.padding_mask))

    def _split(self, projected: Tensor, layout: TokenLayout, naive: bool = False) -> tuple[Tensor, Tensor]:
        """Queries, and products of keys and values that are 0 at padding."""
        if self.short_across is None:
            q, k, v = (self.short.naive if naive else self.short)(projected).chunk(3, dim=-1)
        else:
            kinds = (self.short, TokenLayout()), (self.short_across, layout)
            parts = projected.split([3 * self.own, 3 * self.cross], dim=-1)
            short = [(by.naive if naive else by)(part, seen) for part, (by, seen) in zip(parts, kinds, strict=True)]
            q, k, v = (torch.cat(some, dim=-1) for some in zip(*(t.chunk(3, dim=-1) for t in short), strict=True))
        return q, zero_padding(k * v, layout.padding_mask)

    def _rotated(self, x: Tensor, layout: TokenLayout, sign: int) -> Tensor:
        """Channels [batch, length, dim], turned by the positions times `sign` if so set."""
        if not self.rotate_values:
            return x
        return rotate(
            x.unflatten(-1, (self.count, -1)), sign * position_ids_of(x, layout.position_ids), VALUE_ROPE
        ).flatten(2)

    def _combined(self, q: Tensor, kv: Tensor, y: Tensor, layout: TokenLayout) -> Tensor:
        """Outputs of the tokens from `y`, the convolution of `kv` with the channels first."""
        y = self._rotated(y.transpose(1, 2), layout, -1).to(kv.dtype)
        skip = F.pad(self.skip, (0, self.cross)) if self.cross else self.skip
        return self.out(zero_padding(q * (y + skip * kv), layout.padding_mask))

    def _zero(self, length: int) -> int:
        """Index of offset 0 in the filter of a sequence."""
        return 0 if self.causal else length - 1

    def _offsets(self, length: int) -> Tensor:
        """The distances in a sequence, in the order of the filter's taps."""
        return torch.arange(-self._zero(length), length, device=self.skip.device)

    def _hidden(self, offset: Tensor) -> Tensor:
        """The last hidden layer of the filter's network at some offsets, [units, offsets], in at least float32."""
        wide = torch.promote_types(self.log_rate.dtype, torch.float32)
        periods = torch.tensor(self.periods, device=offset.device)
        # Phases of whole numbers modulo a period are exact, however far the offset is.
        phase = (2 * math.pi) * (offset[:, None] % periods).to(wide) / periods
        hidden = torch.cat([offset[:, None].sign().to(wide), phase.sin(), phase.cos()], dim=1)
        for layer in self.network:
            hidden = F.linear(hidden, layer.weight.to(wide), layer.bias.to(wide)).sin()  # type: ignore[union-attr]
        return hidden.T

    def _filter(self, hidden: Tensor, offset: Tensor, channels: slice) -> Tensor:
        """The filter of some channels at some offsets, [channels, offsets]."""
        rows = self._rows(channels)
        rate = self.log_rate[rows, None].to(hidden.dtype).exp()
        # Every channel has about the same energy: the squares of exp(-rate |offset|) sum to about 1 / (2 rate).
        decay = (-rate * offset.abs()).exp() * (2 * rate).sqrt()
        return (self.taps.weight[rows].to(hidden.dtype) @ hidden) * decay

    def _rows(self, channels: slice) -> slice | Tensor:
        """The filters of some channels: that of each, or with rotated values one for the two channels of a pair."""
        if not self.rotate_values:
            return channels
        index = torch.arange(len(self.log_rate), device=self.skip.device).view(self.count, -1)
        return torch.cat([index, index], dim=1).flatten()[channels]

    def forward_chunked(self, read_chunk: ChunkReader, length: int, chunk: int) -> Iterator[tuple[int, int, Tensor]]:
        """All tokens are read twice: first for the products of keys and values, which are held for the whole sequence.

        They are convolved a few channels at a time, and replaced by the results.
        """
        held: Tensor | None = None
        segments, reach = [], self._reach()
        for part in overlapping_chunks(read_chunk, length, chunk, *reach):
            kv = self._of_chunk(part)[1]
            if held is None:
                wide = torch.promote_types(kv.dtype, torch.float32)
                held = kv.new_empty(len(kv), kv.shape[2], length, dtype=wide)
            layout = part.inner_layout()
            held[..., part.start : part.stop] = self._rotated(kv, layout, 1).transpose(1, 2)
            segments.append(layout.segment_ids)
        assert held is not None
        ids = torch.cat(segments, dim=1) if self.cross and segments[0] is not None else None
        self._convolve_in_place(held, TokenLayout(segment_ids=ids))
        for part in overlapping_chunks(read_chunk, length, chunk, *reach):
            y = held[..., part.start : part.stop]
            yield part.start, part.stop, self._combined(*self._of_chunk(part), y, part.inner_layout())

    def _reach(self) -> tuple[int, int]:
        """Tokens on each side that the short convolutions read."""
        return (self.short.left, self.short.right) if self.short_across is None else self.short_across.reach

    def _of_chunk(self, part: Chunk) -> tuple[Tensor, Tensor]:
        """Queries, and products of keys and values, of the tokens of a chunk that are to be answered."""
        q, kv = self._split(self._projected(part.x, part.layout), part.layout)
        return part.inner(q), part.inner(kv)

    def _convolve_in_place(self, kv: Tensor, layout: TokenLayout) -> None:
        """Convolve a few channels at a time; only the hidden layer of the filter's network is held at all offsets."""
        batch, dim, length = kv.shape
        few = max(1, GROUP_ELEMENTS // (batch * transform_length(length)))
        offsets = self._offsets(length).split(FILTER_OFFSETS)
        hidden = [self._hidden(offset) for offset in offsets]
        for first, last in ((0, self.own), (self.own, dim)):
            for start in range(first, last, few):
                some = slice(start, min(start + few, last))
                taps = [self._filter(*part, some) for part in zip(hidden, offsets, strict=True)]
                across = 0 if first < self.own else some.stop - some.start
                kv[:, some] = self._convolved(kv[:, some], torch.cat(taps, dim=1), layout, across)

    def flops(self, length: int) -> int:
        """Projections, the filter's network and the transforms (2.5 n log2 n each).

        Channels that see another segment are not transformed in a sequence of one segment. Where two segments take
        turns they cost as much as the others, and in other orders a transform there and back more for each segment.
        """
        dim, offsets = self.out.in_features, self._zero(length) + length
        weights = sum(layer.weight.numel() for layer in self.network)  # type: ignore[union-attr, misc]
        network = 2 * offsets * (weights + dim * self.taps.in_features)
        return 8 * length * dim**2 + network + convolution_flops(length, self.own)

    def state_bytes(self, length: int) -> int:
        """The product of key and value of every token, and the projections that the short convolution reads."""
        dim = self.out.in_features
        return 4 * dim * (length + 3 * min(length, self._reach()[0]))
