"""The convolution of hyena is exact at any length and its filter means the same everywhere."""

import pytest
import torch

from genoattn.attention.hyena import HyenaAttention
from genoattn.attention.ops.long_convolution import long_convolution, transform_length
from genoattn.errors import UserError


@pytest.mark.parametrize("length", [1, 2, 3, 5, 64, 65, 80, 97, 129])
@pytest.mark.parametrize("both_ways", [False, True])
def test_long_convolution_is_the_sum_over_offsets(length, both_ways):
    torch.manual_seed(0)
    zero = length - 1 if both_ways else 0
    x = torch.randn(2, 3, length, dtype=torch.float64)
    taps = torch.randn(3, zero + length, dtype=torch.float64)
    square = torch.zeros(3, length, length, dtype=torch.float64)
    for i in range(length):
        for j in range(length if both_ways else i + 1):
            square[:, i, j] = taps[:, zero + i - j]
    assert torch.allclose(long_convolution(x, taps, zero), torch.einsum("cij,bcj->bci", square, x), atol=1e-12)


def test_transforms_have_sizes_that_are_fast_and_long_enough():
    sizes = {length: transform_length(length) for length in range(1, 3000)}
    assert all(2 * length - 1 <= size <= max(2, 2.7 * length) for length, size in sizes.items())
    assert sizes[1024] == 2048 and sizes[1025] == 2560 and sizes[1281] == 3072


@pytest.mark.parametrize("causal", [False, True])
def test_the_filter_does_not_depend_on_the_length(causal):
    torch.manual_seed(0)
    layer = HyenaAttention(8, causal)
    short, long = layer._taps(50), layer._taps(400)
    zero = 0 if causal else 399
    assert torch.allclose(long[:, zero : zero + 50], short[:, -50:], atol=1e-6)


def test_the_filter_is_exact_a_million_tokens_away():
    torch.manual_seed(0)
    layer = HyenaAttention(8, True, span=2**20)
    offset = torch.tensor([2**20 - 1, 1_000_003])
    near = layer._filter(layer._hidden(offset), offset, slice(None)).double()
    exact = layer.double()._filter(layer._hidden(offset), offset, slice(None))
    assert torch.allclose(near, exact, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"short": 4}, "attention.short must be an odd number of tokens, got 4"),
        ({"span": 3}, "attention.span must be 4 or more tokens, got 3"),
        ({"hidden": 0}, "attention.hidden must be 1 or more, got 0"),
    ],
)
def test_mistakes_read_well(settings, words):
    with pytest.raises(UserError, match=words):
        HyenaAttention(8, True, **settings)
