"""Hierarchical attention works in segments: they show in no answer, and nothing of the size of the scores is kept."""

import pytest
import torch

from genoattn.attention.base import TokenLayout
from genoattn.attention.conformance.probes import LargestTensor
from genoattn.attention.conformance.streaming import in_chunks
from genoattn.attention.hierarchical import HierarchicalAttention
from genoattn.attention.ops import sizes
from genoattn.attention.ops.hierarchical import hierarchical_attention

DIRECTIONS = pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
LENGTH, BLOCK = 1000, 4  # eight levels, of which four are near


@DIRECTIONS
def test_answers_and_gradients_are_the_same_in_any_segments(causal, monkeypatch):
    torch.manual_seed(0)
    q, k, v, upstream = torch.randn(4, 2, LENGTH, 2, 4, dtype=torch.float64)
    mask, positions = torch.rand(2, LENGTH) > 0.3, torch.randint(900, (2, 1)) + 3 * torch.arange(LENGTH)
    inputs = [t.requires_grad_() for t in (q, k, v)]

    def tried(rows):
        monkeypatch.setitem(sizes.BY_DEVICE, "cpu", sizes.CPU._replace(hierarchical_rows=rows))
        y = hierarchical_attention(q, k, v, causal=causal, block=BLOCK, positions=positions, padding_mask=mask)
        return [y.detach(), *torch.autograd.grad(y, inputs, upstream)]

    whole = tried(4 * LENGTH)
    for rows in (1, 4 * 96, 4 * 352):  # one unit of 32 tokens, three, eleven
        for t, expected in zip(tried(rows), whole, strict=True):
            assert torch.allclose(t, expected, atol=1e-12)


@DIRECTIONS
def test_only_queries_keys_and_values_are_kept_for_the_gradient(causal):
    saved = {}

    def pack(t):
        saved[t.untyped_storage().data_ptr()] = t.untyped_storage().nbytes()
        return t

    q, k, v = (torch.randn(1, LENGTH, 2, 8, requires_grad=True) for _ in range(3))
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        hierarchical_attention(q, k, v, causal=causal, block=BLOCK)
    assert sum(saved.values()) == 3 * 4 * 2 * 8 * LENGTH  # 4 bytes a number, and nothing of the scores


@DIRECTIONS
def test_no_tensor_on_the_way_is_larger_than_the_queries(causal, monkeypatch):
    monkeypatch.setitem(sizes.BY_DEVICE, "cpu", sizes.CPU._replace(hierarchical_rows=256))
    q, k, v = (torch.randn(1, 2048, 2, 8, requires_grad=True) for _ in range(3))
    with LargestTensor() as largest:
        hierarchical_attention(q, k, v, causal=causal, block=BLOCK).sum().backward()
    assert largest.bytes == 4 * q.numel()


@DIRECTIONS
@pytest.mark.parametrize("segment", [1, 100, LENGTH])
def test_streams_where_cells_are_held(causal, segment):
    torch.manual_seed(0)
    layer = HierarchicalAttention(32, causal, block_size=BLOCK).double()
    x, mask = torch.randn(2, LENGTH, 32, dtype=torch.float64), torch.rand(2, LENGTH) > 0.3
    layout = TokenLayout(mask, position_ids=2 * torch.arange(LENGTH).expand(2, -1))
    with torch.no_grad():
        y = torch.cat(list(in_chunks(layer, x, layout, segment)), dim=1)
        assert torch.allclose(y, layer(x, layout), atol=1e-12)
