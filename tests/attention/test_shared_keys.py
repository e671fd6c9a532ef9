"""Heads of queries that share keys and values: the same outputs as with repeated ones, and less to keep."""

import pytest
import torch

from genoattn.attention.base import TokenLayout
from genoattn.attention.full import FullAttention
from genoattn.attention.modules.projections import HeadOptions
from genoattn.attention.window import WindowAttention
from tests.attention.test_conformance import DIM, DIRECTIONS

KINDS = pytest.mark.parametrize("kind", [FullAttention, WindowAttention])


@DIRECTIONS
@KINDS
@pytest.mark.parametrize(
    "heads", [HeadOptions(), HeadOptions(cross_segment=0.25, qk_norm=False)], ids=["plain", "cross"]
)
def test_shared_keys_are_equal_to_repeated_ones(kind, causal, heads):
    torch.manual_seed(0)
    shared, whole = kind(DIM, causal, heads, kv_heads=2).double(), kind(DIM, causal, heads).double()
    if heads.qk_norm:
        torch.nn.init.normal_(shared.heads.log_logit_scale)
    weights = shared.state_dict()
    for name in ("heads.key.weight", "heads.value.weight"):
        weights[name] = weights[name].unflatten(0, (2, -1)).repeat_interleave(2, dim=0).flatten(0, 1)
    whole.load_state_dict(weights)
    x = torch.randn(2, 50, DIM, dtype=torch.float64)
    layout = TokenLayout(torch.rand(2, 50) > 0.2, segment_ids=(torch.arange(50) % 2).expand(2, -1))
    assert torch.allclose(shared(x, layout), whole(x, layout), atol=1e-12)


def saved_bytes(layer, x):
    """Bytes of the tensors that the backward pass of a layer needs, each storage once."""
    kept = {}

    def note(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        layer(x)
    return sum(kept.values())


@DIRECTIONS
@KINDS
def test_shared_keys_are_kept_once(kind, causal):
    length, dim, x = 256, 64, torch.randn(1, 256, 64)
    several, one = (saved_bytes(kind(dim, causal, kv_heads=kv_heads), x) for kv_heads in (None, 1))
    keys_and_values = 2 * 4 * length * dim
    assert several - one >= keys_and_values * 3 // 4  # those of three of four heads
