"""Hyena: a gated convolution as long as the sequence, whose filter a small network writes."""

import math
from collections.abc import Iterator
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genoattn.attention.base import Attention, ChunkReader, TokenLayout, zero_padding
from genoattn.attention.modules.short_convolution import ShortConvolution
from genoattn.attention.modules.streaming import Chunk, overlapping_chunks
from genoattn.attention.ops.long_convolution import convolution_flops, long_convolution, transform_length
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

    The decay is learned, and starts at memories of 4 to `span` tokens. Positions and segments have no effect. Papers:
    Poli et al. 2023, arXiv:2302.10866; HyenaDNA, arXiv:2306.15794.

    Args:
        dim: Channels of a token.
        causal: See the token itself and those before it alone.
        short: Tokens of the short convolution, an odd number.
        span: Memory in tokens of the slowest channel before training, and the longest period of the filter's sines.
        hidden: Units of a layer of the filter's network.

    Raises:
        UserError: A setting is out of its range.
    """

    complexity = "n log n"

    def __init__(self, dim: int, causal: bool, short: int = 3, span: int = 65536, hidden: int = 32):
        super().__init__()
        if short < 1 or short % 2 == 0:
            raise UserError(f"attention.short must be an odd number of tokens, got {short}")
        if span < 4:
            raise UserError(f"attention.span must be 4 or more tokens, got {span}")
        if hidden < 1:
            raise UserError(f"attention.hidden must be 1 or more, got {hidden}")
        self.causal = causal
        self.weights_sum_to_one = False
        self.asymmetry = "the filter to the left and to the right is learned apart"
        left, right = (short - 1, 0) if causal else (short // 2, short // 2)
        # No biases: zeros at padding stay zeros through the projections.
        self.project = nn.Linear(dim, 3 * dim, bias=False)
        self.short = ShortConvolution(3 * dim, left, right)
        self.periods = [2**power for power in range(1, span.bit_length())]
        self.network = nn.ModuleList([nn.Linear(1 + 2 * len(self.periods), hidden), nn.Linear(hidden, hidden)])
        self.taps = nn.Linear(hidden, dim, bias=False)
        self.log_rate = nn.Parameter(-torch.linspace(math.log(4), math.log(span), dim))
        self.skip = nn.Parameter(torch.ones(dim))
        self.out = nn.Linear(dim, dim, bias=False)

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        if not x.numel():
            return x * self.skip
        q, kv = self._split(self._projected(x, layout), layout)
        with torch.autocast(x.device.type, enabled=False):
            y = long_convolution(kv.transpose(1, 2), self._taps(x.shape[1]), self._zero(x.shape[1]))
        return self._combined(q, kv, y, layout)

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        q, k, v = self.short.naive(self._projected(x, layout)).chunk(3, dim=-1)
        kv = zero_padding(k * v, layout.padding_mask)
        length, zero = x.shape[1], self._zero(x.shape[1])
        index = torch.arange(length, device=x.device)
        ahead = index[None, :] - index[:, None]
        square = self._taps(length)[:, (zero - ahead).clamp_min(0)]
        square = square.masked_fill(ahead > 0, 0) if self.causal else square
        return self._combined(q, kv, torch.einsum("dij,bjd->bdi", square.to(kv.dtype), kv), layout)

    def _projected(self, x: Tensor, layout: TokenLayout) -> Tensor:
        """Queries, keys and values before the short convolution."""
        return self.project(zero_padding(x, layout.padding_mask))

    def _split(self, projected: Tensor, layout: TokenLayout) -> tuple[Tensor, Tensor]:
        """Queries, and products of keys and values that are 0 at padding."""
        q, k, v = self.short(projected).chunk(3, dim=-1)
        return q, zero_padding(k * v, layout.padding_mask)

    def _combined(self, q: Tensor, kv: Tensor, y: Tensor, layout: TokenLayout) -> Tensor:
        """Outputs of the tokens from `y`, the convolution of `kv` with the channels first."""
        return self.out(zero_padding(q * (y.transpose(1, 2).to(kv.dtype) + self.skip * kv), layout.padding_mask))

    def _zero(self, length: int) -> int:
        """Index of offset 0 in the filter of a sequence."""
        return 0 if self.causal else length - 1

    def _taps(self, length: int) -> Tensor:
        """The filter at every offset of a sequence, [channels, offsets]."""
        offset = torch.arange(-self._zero(length), length, device=self.skip.device)
        return self._filter(self._hidden(offset), offset, slice(None))

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
        rate = self.log_rate[channels, None].to(hidden.dtype).exp()
        # Every channel has about the same energy: the squares of exp(-rate |offset|) sum to about 1 / (2 rate).
        decay = (-rate * offset.abs()).exp() * (2 * rate).sqrt()
        return (self.taps.weight[channels].to(hidden.dtype) @ hidden) * decay

    def forward_chunked(self, read_chunk: ChunkReader, length: int, chunk: int) -> Iterator[tuple[int, int, Tensor]]:
        """All tokens are read twice: first for the products of keys and values, which are held for the whole sequence.

        They are convolved a few channels at a time, and replaced by the results.
        """
        reads = self.short.left, self.short.right
        held: Tensor | None = None
        for part in overlapping_chunks(read_chunk, length, chunk, *reads):
            kv = self._of_chunk(part)[1]
            if held is None:
                wide = torch.promote_types(kv.dtype, torch.float32)
                held = kv.new_empty(len(kv), kv.shape[2], length, dtype=wide)
            held[..., part.start : part.stop] = kv.transpose(1, 2)
        assert held is not None
        self._convolve_in_place(held)
        for part in overlapping_chunks(read_chunk, length, chunk, *reads):
            q, kv = self._of_chunk(part)
            layout = TokenLayout(None if part.layout.padding_mask is None else part.inner(part.layout.padding_mask))
            yield part.start, part.stop, self._combined(q, kv, held[..., part.start : part.stop], layout)

    def _of_chunk(self, part: Chunk) -> tuple[Tensor, Tensor]:
        """Queries, and products of keys and values, of the tokens of a chunk that are to be answered."""
        q, kv = self._split(self._projected(part.x, part.layout), part.layout)
        return part.inner(q), part.inner(kv)

    def _convolve_in_place(self, kv: Tensor) -> None:
        """Convolve a few channels at a time; only the hidden layer of the filter's network is held at all offsets."""
        batch, dim, length = kv.shape
        zero, few = self._zero(length), max(1, GROUP_ELEMENTS // (batch * transform_length(length)))
        offsets = torch.arange(-zero, length, device=kv.device).split(FILTER_OFFSETS)
        hidden = [self._hidden(offset) for offset in offsets]
        for start in range(0, dim, few):
            channels = slice(start, start + few)
            taps = [self._filter(*part, channels) for part in zip(hidden, offsets, strict=True)]
            kv[:, channels] = long_convolution(kv[:, channels], torch.cat(taps, dim=1), zero)

    def flops(self, length: int) -> int:
        """Projections, the filter's network and the transforms (2.5 n log2 n each)."""
        dim, offsets = self.out.in_features, self._zero(length) + length
        network = 2 * offsets * sum(layer.weight.numel() for layer in (*self.network, self.taps))  # type: ignore
        return 8 * length * dim**2 + network + convolution_flops(length, dim)

    def state_bytes(self, length: int) -> int:
        """The product of key and value of every token, and the projections that the short convolution reads."""
        dim = self.out.in_features
        return 4 * dim * (length + 3 * min(length, self.short.left))
