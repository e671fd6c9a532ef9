"""What heads see beside tokens: a sink, by hand and against the softmax written out."""

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
