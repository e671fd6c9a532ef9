"""Cells that a token of a pyramid reads, counted by brute force: complete if causal, and of real tokens only."""

import pytest
import torch

from genoattn.attention.base import TokenLayout
from genoattn.attention.full import FullAttention
from genoattn.attention.modules.projections import HeadOptions
from genoattn.attention.pyramid import PyramidAttention, pooled, spread


def seen_at_level(at, length, pool, left, right, causal):
    """Tokens of the cells that a token reads at a level, of which `left` and `right` are seen from its own."""
    cell = (at + 1) // pool - 1 if causal else at // pool
    cells = range(cell - left, cell + (0 if causal else right) + 1) if cell >= 0 else []
    return {token for token in range(length) if token // pool in cells}


@pytest.mark.parametrize(("causal", "pools"), [(True, (1, 4, 16)), (True, (1, 3, 7)), (True, (1, 32))])
def test_a_causal_token_reads_complete_cells(causal, pools):
    torch.manual_seed(0)
    layer = PyramidAttention(32, causal, pool_sizes=pools, left=1, right=1).double()
    x = torch.randn(1, 70, 32, dtype=torch.float64, requires_grad=True)
    y = layer(x)
    for at in range(70):
        (gradient,) = torch.autograd.grad(y[0, at].sum(), x, retain_graph=True)
        expected = set.union(*(seen_at_level(at, 70, pool, 1, 1, causal) for pool in pools[:-1]))
        expected |= seen_at_level(at, 70, pools[-1], 70, 70, causal)
        assert set(gradient[0].any(-1).nonzero().flatten().tolist()) == expected


def test_cells_are_means_of_real_tokens():
    x = torch.tensor([1.0, 2.0, 0.0, 0.0, 0.0, 6.0, 7.0])[None, :, None]
    mask = torch.tensor([[True, True, False, False, False, True, True]])
    cells, layout = pooled(x, mask, torch.tensor([[10, 13, 0, 0, 0, 30, 40]]), 2)
    assert cells.flatten().tolist() == [1.5, 0, 6, 7]
    assert layout.padding_mask is not None and layout.padding_mask.tolist() == [[True, False, True, True]]
    assert layout.position_ids is not None and layout.position_ids.tolist() == [[11, 0, 30, 40]]


def test_answers_are_spread_over_their_cells_or_behind_them():
    y = torch.tensor([1.0, 2.0, 3.0])[None, :, None]
    assert spread(y, 3, 8, causal=False).flatten().tolist() == [1, 1, 1, 2, 2, 2, 3, 3]
    assert spread(y, 3, 8, causal=True).flatten().tolist() == [0, 0, 1, 1, 1, 2, 2, 2]


@pytest.mark.parametrize("causal", [False, True])
def test_one_level_is_full_attention(causal):
    heads = HeadOptions(cross_segment=0.5, rotate_values=True)
    full, layer = FullAttention(32, causal, heads).double(), PyramidAttention(32, causal, heads, [1]).double()
    layer.levels[0].load_state_dict(full.state_dict())
    x, mask = torch.randn(2, 50, 32, dtype=torch.float64), torch.rand(2, 50) > 0.3
    layout = TokenLayout(mask, segment_ids=(torch.arange(50) % 2).expand(2, -1))
    assert torch.equal(layer(x, layout), full(x, layout))


def test_cells_of_several_tokens_know_no_segments():
    layer = PyramidAttention(32, False, HeadOptions(count=4, cross_segment=0.5, rotate_values=True))
    options = [(level.heads.cross_heads, level.heads.rotate_values) for level in layer._each()]
    assert options == [(2, True), (0, False), (0, False)]
