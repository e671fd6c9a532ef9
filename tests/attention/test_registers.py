"""A sink and registers, which heads see beside tokens: by hand, and against the layers they must equal."""

import pytest
import torch

from genoattn.attention.base import TokenLayout
from genoattn.attention.full import FullAttention
from genoattn.attention.modules.projections import HeadOptions
from genoattn.attention.ops.beside import Beside
from genoattn.attention.ops.sliding_window import window_attention
from genoattn.attention.ops.softmax import full_attention
from genoattn.attention.window import WindowAttention
from tests.attention.test_conformance import DIM, DIRECTIONS

OPERATORS = {
    "full": full_attention,
    "window": lambda *t, causal, beside: window_attention(
        *t, left=9, right=9 - 9 * causal, causal=causal, beside=beside
    ),
}


@DIRECTIONS
@pytest.mark.parametrize("operator", OPERATORS)
def test_a_sink_is_a_term_of_the_denominator(operator, causal):
    """Of n tokens with scores of 0 and values of 1 a query reads n / (n + exp(sink))."""
    nothing, ones = torch.zeros(1, 9, 2, 4, dtype=torch.float64), torch.ones(1, 9, 2, 4, dtype=torch.float64)
    sink = torch.tensor([-1.0, 2.0], dtype=torch.float64)
    y = OPERATORS[operator](nothing, nothing, ones, causal=causal, beside=Beside(sink.expand(1, 9, 2)))
    seen = torch.arange(1, 10)[:, None] if causal else torch.full((9, 1), 9)
    assert torch.allclose(y, (seen / (seen + sink.exp()))[None, ..., None].expand_as(y), atol=1e-12)


@DIRECTIONS
@pytest.mark.parametrize("kind", [FullAttention, WindowAttention])
def test_a_sink_that_scores_nothing_is_no_sink(kind, causal):
    torch.manual_seed(0)
    plain, layer = kind(DIM, causal).double(), kind(DIM, causal, sink=True).double()
    layer.load_state_dict(plain.state_dict(), strict=False)
    x, layout = torch.randn(2, 50, DIM, dtype=torch.float64), TokenLayout(torch.rand(2, 50) > 0.3)
    with torch.no_grad():
        assert not torch.allclose(layer(x, layout), plain(x, layout), atol=1e-4)  # before training its score is 0
        layer.registers.sink.fill_(-60.0)
        assert torch.allclose(layer(x, layout), plain(x, layout), atol=1e-12)
        layer.registers.sink.fill_(60.0)  # and one that takes all leaves nothing
        assert layer(x, layout).abs().max() < 1e-12


@pytest.mark.parametrize("kind", [FullAttention, WindowAttention])
def test_a_sink_learns_in_half_precision(kind):
    torch.manual_seed(0)
    layer, x = kind(DIM, True, HeadOptions(), sink=True), torch.randn(2, 300, DIM)
    wanted = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        y = layer(x)
        assert (y - wanted).square().mean() < 1e-3 * wanted.square().mean()
        y.square().sum().backward()
    assert layer.registers.sink.grad.isfinite().all() and layer.registers.sink.grad.any()


@DIRECTIONS
@pytest.mark.parametrize("kind", [FullAttention, WindowAttention])
def test_registers_have_no_position(kind, causal):
    torch.manual_seed(0)
    layer = kind(DIM, causal, HeadOptions(rotate_values=True, cross_segment=0.5), sink=True, registers=3).double()
    torch.nn.init.normal_(layer.registers.values)
    x, segments = torch.randn(2, 30, DIM, dtype=torch.float64), (torch.arange(30) % 2).expand(2, -1)
    here, there = (
        layer(x, TokenLayout(position_ids=torch.arange(start, start + 30).expand(2, -1), segment_ids=segments))
        for start in (0, 7000)
    )
    assert torch.allclose(here, there, atol=1e-9)


@DIRECTIONS
@pytest.mark.parametrize("kind", [FullAttention, WindowAttention])
def test_an_empty_register_is_a_sink(kind, causal):
    torch.manual_seed(0)
    heads = HeadOptions(qk_norm=False)
    sink, register = kind(DIM, causal, heads, sink=True).double(), kind(DIM, causal, heads, registers=1).double()
    register.load_state_dict({k: v for k, v in sink.state_dict().items() if "sink" not in k}, strict=False)
    torch.nn.init.zeros_(register.registers.keys)
    x = torch.randn(2, 50, DIM, dtype=torch.float64)
    assert torch.allclose(register(x), sink(x), atol=1e-12)


@pytest.mark.parametrize("kind", [FullAttention, WindowAttention])
def test_a_head_that_sees_no_token_answers_its_registers(kind):
    layer = kind(DIM, False, HeadOptions(cross_segment=1.0), registers=2)
    torch.nn.init.ones_(layer.registers.values)
    layer.heads.out.weight.data.copy_(torch.eye(DIM))
    mask = torch.arange(9).expand(2, -1) < 6
    assert torch.allclose(layer(torch.randn(2, 9, DIM), TokenLayout(mask)), mask[..., None].expand(-1, -1, DIM).float())


def test_without_registers_a_layer_has_the_weights_that_it_had():
    assert not [name for name in FullAttention(DIM, False).state_dict() if "registers" in name]
