"""The state space layer: the recurrence of its definition, memories spread over the heads, and its two directions."""

import pytest
import torch

from genoattn.attention.base import TokenLayout
from genoattn.attention.modules.projections import HeadOptions
from genoattn.attention.modules.short_convolution import ShortConvolution
from genoattn.attention.ops import sizes
from genoattn.attention.ops.state_space import state_space_scan
from genoattn.attention.ssd import StateSpaceAttention
from genoattn.errors import UserError


@pytest.mark.parametrize("length", [1, 63, 64, 150])
def test_the_scan_is_the_recurrence(length, monkeypatch):
    monkeypatch.setattr("genoattn.attention.ops.state_space._segment_length", lambda heads, by: 128)
    torch.manual_seed(0)
    c, b = torch.randn(2, 2, length, 5, dtype=torch.float64)
    v, log_kept = torch.randn(2, length, 3, 4, dtype=torch.float64), -torch.rand(2, length, 3, dtype=torch.float64)
    first = memory = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    outputs = []
    for t in range(length):
        written = torch.einsum("bn,bhp->bhnp", b[:, t], v[:, t])
        memory = log_kept[:, t].exp()[..., None, None] * memory + written
        outputs.append(torch.einsum("bhnp,bn->bhp", memory, c[:, t]))
    y, last = state_space_scan(c, b, v, log_kept, first)
    assert torch.allclose(y, torch.stack(outputs, dim=1), atol=1e-12)
    assert torch.allclose(last, memory, atol=1e-12)


def test_heads_begin_with_memories_of_different_lengths():
    layer = StateSpaceAttention(32, False, HeadOptions(count=4))
    spans = 1 / (torch.nn.functional.softplus(layer.step_bias) * layer.log_rate.exp())
    assert torch.allclose(spans[0], spans[1])
    assert torch.allclose(spans[0].log2(), torch.tensor([4.125, 6.375, 8.625, 10.875]), atol=1e-3)
    (single,) = StateSpaceAttention(32, True, HeadOptions(count=1)).step_bias[0]
    assert 100 < 1 / torch.nn.functional.softplus(single) < 300


def test_both_directions_learn_what_is_their_own():
    torch.manual_seed(0)
    layer = StateSpaceAttention(8, False).double()
    x = torch.randn(1, 9, 8, dtype=torch.float64)
    both = layer(x)
    for parameter in (layer.step_bias, layer.log_rate, layer.skip, layer.convolution_bias):
        assert parameter.shape[0] == 2
        saved = parameter.data.clone()
        parameter.data[1] += 0.5
        assert not torch.allclose(layer(x), both)
        parameter.data.copy_(saved)
    layer.convolutions[1].load_state_dict(layer.convolutions[0].state_dict())
    assert torch.allclose(layer(x.flip(1)).flip(1), layer(x))  # equal directions are symmetric


@pytest.mark.parametrize("causal", [False, True])
def test_rotated_values_turn_what_comes_from_elsewhere(causal):
    torch.manual_seed(0)
    layers = [StateSpaceAttention(8, causal, HeadOptions(rotate_values=turned)).double() for turned in (True, False)]
    layers[1].load_state_dict(layers[0].state_dict())
    for layer in layers:
        layer.skip.data += 1
    x = torch.randn(1, 9, 8, dtype=torch.float64)
    turned, plain = (
        torch.cat([layer(x, TokenLayout(position_ids=far * torch.arange(9)[None])) for far in (1, 3)])
        for layer in layers
    )
    assert torch.equal(plain[0], plain[1]) and not torch.allclose(turned[0], turned[1], atol=1e-3)
    alone = [layer(x[:, :1], TokenLayout(position_ids=torch.tensor([[5]]))) for layer in layers]
    assert torch.allclose(*alone)  # a token's own value is turned back


@pytest.mark.parametrize(("left", "right"), [(3, 0), (1, 1), (0, 0), (0, 2)])
def test_short_convolution(left, right, monkeypatch):
    monkeypatch.setitem(sizes.BY_DEVICE, "cpu", sizes.CPU._replace(convolved=40))  # several pieces
    torch.manual_seed(0)
    convolution = ShortConvolution(5, left, right).double()
    for length in (1, 2, 9):
        x = torch.randn(2, length, 5, dtype=torch.float64, requires_grad=True)
        ids = torch.arange(length)
        for segments in (ids % 2, ids // 4, torch.tensor([0, 1, 0, 2, 2, 1, 0, 0, 1])[:length]):
            layout = TokenLayout(segment_ids=segments.expand(2, -1))
            assert torch.allclose(convolution(x, layout), convolution.naive(x, layout))
        assert torch.allclose(convolution(x), convolution.naive(x))
        inputs = (x, convolution.weight)
        assert torch.autograd.gradcheck(lambda x, _: convolution(x), inputs)
        assert torch.autograd.gradgradcheck(lambda x, _: convolution(x), inputs, fast_mode=True)
        turns = TokenLayout(segment_ids=(ids % 2).expand(2, -1))
        assert torch.autograd.gradcheck(lambda x, _, turns=turns: convolution(x, turns), inputs, fast_mode=True)


def test_a_short_convolution_over_the_tokens_of_a_segment():
    torch.manual_seed(0)
    convolution, x = ShortConvolution(3, 2, 1), torch.randn(1, 12, 3)
    turns = torch.arange(12) % 2
    y = convolution(x, TokenLayout(segment_ids=turns[None]))
    for segment in (0, 1):
        assert torch.allclose(y[:, turns == segment], convolution(x[:, turns == segment]), atol=1e-6)
    halves = convolution(x, TokenLayout(segment_ids=(torch.arange(12) // 6)[None]))
    assert torch.allclose(halves[:, 6:], convolution(x[:, 6:]), atol=1e-6)
    mixed = torch.tensor([[0, 0, 1, 0, 1, 1, 0, 2, 2, 1, 0, 0]])
    whole, looked = (
        convolution(x, TokenLayout(segment_ids=mixed)),
        convolution.reach,
    )  # a part with all tokens within reach suffices
    for at in range(12):
        part = slice(max(0, at - looked[0]), at + looked[1] + 1)
        near = convolution(x[:, part], TokenLayout(segment_ids=mixed[:, part]))
        assert torch.allclose(near[:, at - part.start], whole[:, at], atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"state": 0}, "attention.state must be 1 or more, got 0"),
        ({"short": 0}, "attention.short must be 1 or more, got 0"),
        ({"expand": 0}, "attention.expand must be 1 or more, got 0"),
        ({"expand": 1, "heads": HeadOptions(count=8, rotate_values=True)}, "turns pairs of channels.* got 1"),
        ({"heads": HeadOptions(count=3)}, "heads.count must divide attention.expand times the model's dim, 16, got 3"),
    ],
)
def test_mistakes_read_well(settings, words):
    with pytest.raises(UserError, match=words):
        StateSpaceAttention(8, True, **settings)
