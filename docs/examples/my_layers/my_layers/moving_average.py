"""An exponential moving average in place of attention: a token counts less, the farther away it is."""

import torch
from torch import Tensor, nn

from genoattn.attention.base import Attention, TokenLayout, zero_padding
from genoattn.attention.ops.long_convolution import transform_flops


class MovingAverageAttention(Attention):
    """y_i = W_o Σ_j a^|i-j| W_v x_j with a learned decay `a` for each channel; a causal layer sums over j ≤ i."""

    complexity = "n log n"  # of a convolution by the fast Fourier transform
    weights_sum_to_one = False

    def __init__(self, dim: int, causal: bool, longest_memory: float = 4096.0):
        super().__init__()
        self.causal = causal
        self.value = nn.Linear(dim, dim, bias=False)
        self.out = nn.Linear(dim, dim, bias=False)
        memory = torch.logspace(0, 1, dim, base=longest_memory)  # tokens, from 1 to `longest_memory`
        self.log_rate = nn.Parameter(-memory.log())

    def forward(self, x: Tensor, layout: TokenLayout = TokenLayout()) -> Tensor:
        """The fast way: a convolution along the sequence, in float32 at least."""
        values = self._values(x, layout)
        length = x.shape[1]
        distance = torch.arange(-length, length, device=x.device)[:, None]
        kernel = self._weights(distance).roll(-length, dims=0)  # distances 0, 1, …, then -length, …, -1
        spectrum = torch.fft.rfft(values, 2 * length, dim=1) * torch.fft.rfft(kernel, dim=0)
        mixed = torch.fft.irfft(spectrum, 2 * length, dim=1)[:, :length]
        return self.out(zero_padding(mixed.to(x.dtype), layout.padding_mask))

    def naive(self, x: Tensor, layout: TokenLayout = TokenLayout()) -> Tensor:
        """The slow, obvious way, which the checks hold `forward` to: a square of weights for each channel."""
        index = torch.arange(x.shape[1], device=x.device)
        weights = self._weights(index[:, None, None] - index[None, :, None])
        mixed = torch.einsum("ijd,bjd->bid", weights, self._values(x, layout))
        return self.out(zero_padding(mixed.to(x.dtype), layout.padding_mask))

    def _values(self, x: Tensor, layout: TokenLayout) -> Tensor:
        values = self.value(zero_padding(x, layout.padding_mask))
        return values.to(torch.promote_types(values.dtype, torch.float32))

    def _weights(self, distance: Tensor) -> Tensor:
        """a^|distance| for each channel, with 0 for tokens that lie ahead of a causal layer."""
        weights = torch.exp(-self.log_rate.exp() * distance.abs())
        return weights.masked_fill(distance < 0, 0) if self.causal else weights

    def flops(self, length: int) -> int:
        """FLOPs of the two projections, and of the transforms of values and kernel and of their product back."""
        transforms = 3 * self.value.in_features * transform_flops(2 * length)
        return 4 * length * self.value.in_features**2 + round(transforms)

    def state_bytes(self, length: int) -> int:
        """One float32 sum for each channel would be enough to go on."""
        return 4 * self.value.in_features
