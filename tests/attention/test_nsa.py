"""Native sparse attention chooses the block that holds what a query looks for, and is full attention at its limits."""

import pytest
import torch

from genoattn.attention.base import TokenLayout
from genoattn.attention.full import FullAttention
from genoattn.attention.modules.projections import HeadOptions
from genoattn.attention.nsa import NativeSparseAttention
from genoattn.attention.ops.native_sparse import choose_blocks
from genoattn.errors import UserError


@pytest.mark.parametrize("causal", [False, True])
def test_blocks_are_chosen_by_the_weight_of_their_cells(causal):
    torch.manual_seed(0)
    count, size, cells = 10, 8, 2
    k = torch.nn.functional.normalize(torch.randn(1, count * cells, 1, 4, dtype=torch.float64), dim=-1)
    q = torch.zeros(1, count, size, 1, 4, dtype=torch.float64)
    q[0, 8, 2] = 40 * k[0, 5, 0]  # one query of block 8 looks for a cell of block 2
    real, real_cells = torch.ones(1, count, size, dtype=torch.bool), torch.ones(1, count * cells, dtype=torch.bool)
    chosen = choose_blocks(q, k, real, real, real_cells, causal=causal, blocks=4 if not causal else 3)
    # A causal block is chosen for by the queries of the block before it.
    assert chosen[0, 9 if causal else 8, 0].tolist() == ([2, 8, 9] if causal else [2, 7, 8, 9])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("settings", [{"window": 90}, {"window": 0, "blocks_per_query": 12}], ids=str)
@pytest.mark.parametrize("options", [{}, {"cross_segment": 0.5, "rotate_values": True}], ids=str)
def test_window_and_selection_that_leave_nothing_out_are_full_attention(options, settings, causal):
    torch.manual_seed(0)
    heads = HeadOptions(count=2, **options)
    layer = NativeSparseAttention(16, causal, heads, cell_size=4, block_size=8, **settings).double()
    full = FullAttention(16, causal, heads).double()
    full.heads.load_state_dict(layer.heads.state_dict())
    open_branch = 2 if settings["window"] else 1  # of compressed, selected, window
    with torch.no_grad():
        layer.gates.weight.zero_()
        layer.gates.bias.copy_(torch.where(torch.arange(6) % 3 == open_branch, 40.0, -40.0))
    x, mask = torch.randn(2, 90, 16, dtype=torch.float64), torch.rand(2, 90) > 0.3
    turns, thirds = (torch.arange(90) % 2).expand(2, -1), torch.randint(3, (2, 90))
    for layout in (TokenLayout(), TokenLayout(mask, segment_ids=turns), TokenLayout(mask, segment_ids=thirds)):
        assert torch.allclose(layer(x, layout), full(x, layout), atol=1e-12)


def test_a_crossing_head_compresses_the_other_segment_as_it_stands_in_the_cell():
    torch.manual_seed(0)
    layer = NativeSparseAttention(16, False, HeadOptions(count=1, cross_segment=1.0), cell_size=4, block_size=8)
    x = torch.randn(1, 24, 16)
    turns = torch.arange(24)[None] % 2
    v = layer.heads.project(x)[2]
    with torch.no_grad():
        layer.gates.weight.zero_()
        layer.gates.bias.copy_(torch.tensor([40.0, -40.0, -40.0]))  # the compressed branch alone
    for segment in (0, 1):
        shown, in_cells = v.masked_fill((turns == segment)[..., None, None], 0), (turns != segment).view(1, 6, 4)
        values = layer.compress_values(shown.unflatten(1, (6, 4)), in_cells)
        answers = layer(x, TokenLayout(segment_ids=turns))[0, segment::2]
        # An answer is a mean of the values of cells, whose weights sum to 1.
        basis = layer.heads.out(values[0].flatten(1))
        weights = torch.linalg.lstsq(basis.T, answers.T).solution
        assert torch.allclose(basis.T @ weights, answers.T, atol=1e-4)
        assert torch.allclose(weights.sum(0), torch.ones(12), atol=1e-3)


def test_the_selection_learns_through_the_compressed_branch():
    torch.manual_seed(0)
    layer = NativeSparseAttention(16, False, HeadOptions(count=2), cell_size=4, block_size=8, blocks_per_query=3)
    layer(torch.randn(1, 90, 16)).square().sum().backward()
    gradients = {name: parameter.grad for name, parameter in layer.named_parameters()}
    assert all(gradient is not None and gradient.any() for gradient in gradients.values())


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"cell_size": 0}, "attention.cell_size must be 1 or more tokens, got 0"),
        ({"block_size": 24}, "attention.block_size must be a multiple of attention.cell_size, 16, got 24"),
        ({"blocks_per_query": 2}, "attention.blocks_per_query must be 3 or more"),
        ({"window": -1}, "attention.window must be 0 or more tokens, got -1"),
    ],
)
def test_mistakes_read_well(settings, words):
    with pytest.raises(UserError, match=words):
        NativeSparseAttention(16, True, **settings)
