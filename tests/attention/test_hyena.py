"""The convolution of hyena is exact at any length and its filter means the same everywhere."""

import itertools

import pytest
import torch

from genoattn.attention.base import TokenLayout
from genoattn.attention.hyena import HyenaAttention
from genoattn.attention.modules.head_options import HeadOptions
from genoattn.attention.modules.hyena_across import convolution_across
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
    every = slice(0, 8)
    short, long = (layer._filter(layer._hidden(at), at, every) for at in map(layer._offsets, (50, 400)))
    zero = 0 if causal else 399
    assert torch.allclose(long[:, zero : zero + 50], short[:, -50:], atol=1e-6)


def test_the_filter_is_exact_a_million_tokens_away():
    torch.manual_seed(0)
    layer = HyenaAttention(8, True, span=2**20)
    offset = torch.tensor([2**20 - 1, 1_000_003])
    near = layer._filter(layer._hidden(offset), offset, slice(None)).double()
    exact = layer.double()._filter(layer._hidden(offset), offset, slice(None))
    assert torch.allclose(near, exact, rtol=1e-4, atol=1e-9)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("ids", [[0, 1] * 5, [1, 0] * 4 + [1], [0] * 3 + [1] * 4, [0, 2, 2, 1, 0, 1, 1, 0], [3, 3]])
def test_a_convolution_of_other_segments(ids, causal):
    torch.manual_seed(0)
    length, zero = len(ids), 0 if causal else len(ids) - 1
    x, taps = torch.randn(2, 3, length).double(), torch.randn(3, zero + length).double()
    expected = torch.zeros_like(x)
    for i, j in itertools.product(range(length), repeat=2):
        if ids[i] != ids[j] and zero + i - j >= 0:
            expected[..., i] += taps[:, zero + i - j] * x[..., j]
    layout = TokenLayout(segment_ids=torch.tensor([ids, ids]))
    assert torch.allclose(convolution_across(x, taps, zero, layout), expected, atol=1e-12)


@pytest.mark.parametrize("causal", [False, True])
def test_rotated_products_turn_what_comes_from_elsewhere(causal):
    torch.manual_seed(0)
    layer = HyenaAttention(8, causal, HeadOptions(count=2, rotate_values=True)).double()
    x = torch.randn(1, 9, 8, dtype=torch.float64)
    near, far = (layer(x, TokenLayout(position_ids=scale * torch.arange(9)[None])) for scale in (1, 3))
    assert not torch.allclose(near, far, atol=1e-3)
    turned = layer(x, TokenLayout(position_ids=torch.zeros(1, 9, dtype=torch.long)))
    weights, rows = layer.state_dict(), [0, 1, 0, 1, 2, 3, 2, 3]  # pairs of channels share a filter
    plain = HyenaAttention(8, causal, HeadOptions(count=2)).double()
    plain.load_state_dict(weights | {name: weights[name][rows] for name in ("taps.weight", "log_rate")})
    assert torch.allclose(plain(x), turned)  # equal positions turn nothing


def test_half_of_the_channels_across_segments_keep_what_is_their_own():
    layer = HyenaAttention(8, True, HeadOptions(count=2, cross_segment=0.5))
    memories = layer.log_rate.neg().exp()
    assert torch.equal(memories[:4], memories[4:]) and memories[0].item() == pytest.approx(4)
    assert layer.skip.shape == (4,)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"short": 4}, "attention.short must be an odd number of tokens, got 4"),
        ({"span": 3}, "attention.span must be 4 or more tokens, got 3"),
        ({"heads": HeadOptions(count=3)}, "heads.count must divide the model's dim of 8, got 3"),
        ({"heads": HeadOptions(count=8, rotate_values=True)}, "turns pairs of channels.* got 1"),
        ({"hidden": 0}, "attention.hidden must be 1 or more, got 0"),
    ],
)
def test_mistakes_read_well(settings, words):
    with pytest.raises(UserError, match=words):
        HyenaAttention(8, True, **settings)
