"""Measurements of the checks: outputs with their gradients, counted costs, and a small model with a toy task."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from genoattn.attention.base import Attention, TokenLayout
from genoattn.attention.ops.long_convolution import transform_flops


def output_and_gradients(
    layer: Attention, x: Tensor, layout: TokenLayout, naive: bool = False, upstream: Tensor | None = None
) -> list[Tensor]:
    """The output, and the gradients of its sum times `upstream` (fixed random numbers) by the input and parameters."""
    x = x.clone().requires_grad_()
    y = layer.naive(x, layout) if naive else layer(x, layout)
    if upstream is None:
        upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(0), dtype=y.dtype)
    inputs = [x, *layer.parameters()]
    return [y.detach(), *torch.autograd.grad(y, inputs, upstream, allow_unused=True, materialize_grads=True)]


def difference(a: Tensor, b: Tensor) -> float:
    """The largest absolute difference, divided by the largest number in `b` if that is above 1; infinite for NaN."""
    if not a.numel():
        return 0.0
    worst = (a.detach() - b.detach()).abs().max() / max(1.0, b.detach().abs().max().item())
    return worst.nan_to_num(float("inf")).item()


def bfloat16_error(layer: Attention, x: Tensor) -> float:
    """Root mean square error of the output under autocast, relative to the root mean square in float32."""
    with torch.no_grad():
        exact = layer(x)
        with torch.autocast("cpu", torch.bfloat16):
            rounded = layer(x).float()
    return ((rounded - exact).square().mean() / exact.square().mean()).sqrt().nan_to_num(float("inf")).item()


class LargestTensor(TorchDispatchMode):
    """Records the bytes of the largest storage that any operator returns."""

    def __init__(self):
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                self.bytes = max(self.bytes, tensor.untyped_storage().nbytes())
        return result


def _cpu_sdpa_flops(query, key, value, dropout=0.0, is_causal=False, *, attn_mask=None, scale=None, out_shape=None):
    """Two products for each pair of a query and a key, masked or not; torch's counter lacks the CPU kernel."""
    batch, heads, queries, width = query
    return 2 * batch * heads * queries * key[2] * (width + value[3])


def _cpu_sdpa_backward_flops(upstream, query, key, value, *_, attn_mask=None, scale=None, out_shape=None):
    """Five products where forward has two."""
    return _cpu_sdpa_flops(query, key, value) * 5 // 2


def _real_fft_flops(values, dims, *_, out_shape=None):
    """One transform for each row of real numbers; torch's counter lacks all transforms."""
    return _transforms(values, dims[0], values[dims[0]])


def _inverse_fft_flops(values, dims, normalization, size, *, out_shape=None):
    """One transform to `size` real numbers for each row of complex ones."""
    return _transforms(values, dims[0], size)


def _complex_fft_flops(values, dims, *_, out_shape=None):
    """Transforms of complex numbers: twice the FLOPs of real ones."""
    return 2 * _transforms(values, dims[0], values[dims[0]])


def _transforms(values, dim, size):
    return round(math.prod(values) // values[dim] * transform_flops(size))


class Cost(NamedTuple):
    """FLOPs and bytes of the largest tensor of one sequence, forward and backward, and FLOPs forward by operator."""

    flops: int
    largest_tensor: int
    forward: dict[str, int]


def count_cost(layer: Attention, dim: int, length: int) -> Cost:
    """The cost of one sequence, counted while the layer runs."""
    aten = torch.ops.aten
    kernels = {
        aten._scaled_dot_product_flash_attention_for_cpu: _cpu_sdpa_flops,
        aten._scaled_dot_product_flash_attention_for_cpu_backward: _cpu_sdpa_backward_flops,
        aten._fft_r2c: _real_fft_flops,
        aten._fft_c2r: _inverse_fft_flops,
        aten._fft_c2c: _complex_fft_flops,
    }
    x = torch.randn(1, length, dim, requires_grad=True)
    layout = TokenLayout(padding_mask=torch.arange(length)[None] < length - 5)
    with LargestTensor() as largest, FlopCounterMode(display=False, custom_mapping=kernels) as counter:
        y = layer(x, layout)
        forward = {
            str(operator).removeprefix("aten.").removeprefix("_"): int(flops)
            for operator, flops in counter.get_flop_counts()["Global"].items()
        }
        y.sum().backward()
    return Cost(counter.get_total_flops(), largest.bytes, forward)


class Stack(nn.Module):
    """Embedding, residual blocks of the layer and an MLP, and a head of four classes."""

    def __init__(self, factory: Callable[..., Attention], dim: int, causal: bool, depth: int = 2):
        super().__init__()
        self.embed = nn.Embedding(8, dim)
        self.mixes = nn.ModuleList(factory(dim=dim, causal=causal) for _ in range(depth))
        self.mlps = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 2 * dim), nn.GELU(), nn.Linear(2 * dim, dim))
            for _ in range(depth)
        )
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(depth))
        self.head = nn.Sequential(nn.LayerNorm(dim), nn.Linear(dim, 4))

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for norm, mix, mlp in zip(self.norms, self.mixes, self.mlps, strict=True):
            x = x + mix(norm(x))
            x = x + mlp(x)
        return self.head(x)


def toy_task(batch: int, causal: bool) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens (letters 0 to 3, marks 4 to 7), the label of each token, and the tokens to score, all [batch, 32]."""
    index = torch.arange(32)
    start, kind = torch.randint(0, 17, (batch, 1)), torch.randint(4, (batch, 1))
    run = (index >= start) & (index < start + 8)
    tokens = torch.where(run, 4 + kind, torch.randint(4, (batch, 32)))
    return tokens, kind.expand(batch, 32), (index >= start + 8) if causal else ~run


def far_task(batch: int, length: int) -> tuple[Tensor, Tensor]:
    """Tokens as in `toy_task` with a run of 32 marks that begins among the first 32, and the kind of the marks."""
    index = torch.arange(length)
    start, kind = torch.randint(0, 32, (batch, 1)), torch.randint(4, (batch, 1))
    run = (index >= start) & (index < start + 32)
    return torch.where(run, 4 + kind, torch.randint(4, (batch, length))), kind[:, 0]


def stored_letters(batch: int, keys: int, dim: int) -> tuple[Tensor, Tensor]:
    """Tokens of random keys with one of four letters each, then 16 of the keys alone, and the letters to be told."""
    stored, letters = torch.randn(batch, keys, dim - 4), torch.randint(4, (batch, keys))
    asked = torch.randint(keys, (batch, 16))
    values = 4 * torch.nn.functional.one_hot(letters, 4).float()
    questions = stored.gather(1, asked[..., None].expand(-1, -1, dim - 4))
    x = torch.cat([torch.cat([stored, values], -1), torch.nn.functional.pad(questions, (0, 4))], dim=1)
    return x, letters.gather(1, asked)
