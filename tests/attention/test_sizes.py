"""Results do not depend on how much is computed at a time: the sizes of a GPU and small ones give those of a CPU."""

from collections.abc import Callable
from functools import partial

import pytest
import torch

from genoattn.attention.base import Attention, TokenLayout
from genoattn.attention.delta import DeltaAttention
from genoattn.attention.full import FullAttention
from genoattn.attention.hierarchical import HierarchicalAttention
from genoattn.attention.linear import LinearAttention
from genoattn.attention.modules.head_options import HeadOptions
from genoattn.attention.nsa import NativeSparseAttention
from genoattn.attention.ops import sizes, states_at_once
from genoattn.attention.sparse import SparseAttention
from genoattn.attention.ssd import StateSpaceAttention
from genoattn.attention.topk import TopKAttention
from genoattn.attention.window import WindowAttention

ACROSS = HeadOptions(count=2, cross_segment=0.5)

SMALL = sizes.Sizes(1, 1, 1, 1, 1, 5, 5, 7, 7, True)

LAYERS: dict[str, Callable[..., Attention]] = {
    "full": FullAttention,
    "window": partial(WindowAttention, left=9, right=4, dilation=2, global_tokens=3),
    "linear": LinearAttention,
    "linear, taylor": partial(LinearAttention, features="taylor", key_dim=4, decay=False),
    "linear, elu": partial(LinearAttention, features="elu"),
    "delta": DeltaAttention,
    "ssd": StateSpaceAttention,
    "hierarchical": partial(HierarchicalAttention, block_size=4),
    "sparse": partial(SparseAttention, block_size=8, blocks_per_query=3, pool=4),
    "nsa": partial(NativeSparseAttention, cell_size=4, block_size=8, blocks_per_query=3, window=9),
    "topk": partial(TopKAttention, k=9),
}


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("name", LAYERS)
def test_sizes_do_not_show(name: str, causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for chunk in ("chunk_state.CHUNK", "linear.CHUNK", "delta_rule.CHUNK", "state_space.CHUNK"):
        monkeypatch.setattr(f"genoattn.attention.ops.{chunk}", 8)
    monkeypatch.setattr(states_at_once, "GROUP", 3)
    torch.manual_seed(0)
    layer = LAYERS[name](16, causal, heads=ACROSS).double()
    x = torch.randn(2, 90, 16, dtype=torch.float64)
    layout, found = TokenLayout(torch.rand(2, 90) > 0.2, segment_ids=torch.arange(90).expand(2, -1) // 50), []
    for some in (sizes.CPU, sizes.GPU, SMALL):
        monkeypatch.setitem(sizes.BY_DEVICE, "cpu", some)
        leaf = x.clone().requires_grad_()
        y = layer(leaf, layout)
        found.append([y.detach(), *torch.autograd.grad(y, [leaf, *layer.parameters()], torch.cos(x))])
    for usual, *others in zip(*found, strict=True):
        for other in others:
            assert (usual - other).abs().max() <= 1e-9 * max(1.0, float(usual.abs().max()))


@pytest.mark.parametrize("count", [1, 2, 7, 32, 100])
def test_states_at_once(count: int) -> None:
    torch.manual_seed(0)
    first, added = torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, count, 3, 4, dtype=torch.float64)
    log_kept, changes = -torch.rand(2, count).double(), torch.randn(2, count, 3, 3, dtype=torch.float64) / 3
    faded, changed = [first], [first]
    for at in range(count):
        faded.append(faded[-1] * log_kept[:, at, None, None].exp() + added[:, at])
        changed.append(changes[:, at] @ changed[-1] + added[:, at])
    before, after = states_at_once.faded_states(first, added, log_kept)
    assert torch.allclose(torch.cat([before, after[:, None]], dim=1), torch.stack(faded, dim=1))
    assert torch.allclose(states_at_once.changed_states(first, changes, added), torch.stack(changed, dim=1))
