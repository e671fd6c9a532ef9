"""Selection of key blocks, its independence of later tokens, and the cost of a training step."""

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from genoattn.attention.base import TokenLayout
from genoattn.attention.conformance.probes import count_cost
from genoattn.attention.modules.projections import HeadOptions
from genoattn.attention.ops import block_gather as gathered
from genoattn.attention.ops import block_sparse, sizes
from genoattn.attention.ops.block_sparse import select_blocks, sparse_attention
from genoattn.attention.sparse import SparseAttention

DIRECTIONS = pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])


def random(length, batch=2, heads=2, seed=0):
    made = torch.Generator().manual_seed(seed)
    q, k, v = torch.randn(3, batch, length, heads, 4, dtype=torch.float64, generator=made)
    return q, k, v, torch.rand(batch, length, generator=made) > 0.3


def answer_and_gradients(q, k, v, blocks=4, **settings):
    q, k, v = (t.clone().requires_grad_() for t in (q, k, v))
    y = sparse_attention(q, k, v, block=4, blocks=blocks, pool=2, **settings)
    upstream = torch.randn(y.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(y.dtype)
    return [y.detach(), *torch.autograd.grad(y, (q, k, v), upstream)]


@DIRECTIONS
def test_blocks_are_the_forced_ones_and_then_the_best(causal):
    q, k, _, mask = random(80)
    mask[0, 8:20] = False  # three blocks without a real token
    mask[1, 60:] = False
    q, k, real = (t.unflatten(1, (20, 4)) for t in (q, k, mask))
    chosen = select_blocks(q, k, real, real, causal=causal, blocks=5, pool=2)
    assert chosen.shape == (2, 20, 2, 5)
    for row, own, head in torch.cartesian_prod(torch.arange(2), torch.arange(20), torch.arange(2)).tolist():
        found = [at for at in chosen[row, own, head].tolist() if at >= 0]
        seen = [at for at in range(own + 1 if causal else 20) if real[row, at].any()]
        assert found == sorted(set(found)) and len(found) == min(5, len(seen)) and set(found) <= set(seen)
        forced = {at for at in seen if abs(at - own) <= 1}
        assert forced <= set(found)
        asking = pools(q[row, own, :, head], real[row, own])
        if causal:
            asking = pools(q[row, own - 1, :, head], real[row, own - 1]) if own else []
            asking += [q[row, own, 0, head]] * bool(real[row, own, 0])
        if asking:
            score = {
                at: max(float(a @ b) for a in asking for b in pools(k[row, at, :, head], real[row, at])) for at in seen
            }
            left_out = [score[at] for at in seen if at not in found]
            assert all(score[at] >= max(left_out) for at in found if at not in forced and left_out)


def pools(x, real):
    """The means of each two tokens of a block over the real ones."""
    return [pair[some].mean(0) for pair, some in zip(x.split(2), real.split(2), strict=True) if some.any()]


def test_a_needle_is_not_averaged_away():
    torch.manual_seed(0)
    q, k = torch.randn(2, 1, 64 * 64, 1, 64)
    needle = 2.5 * torch.nn.functional.normalize(torch.randn(64), dim=-1)  # eight tokens of 4,096 match
    q[0, 8:16, 0] = k[0, 40 * 64 + 24 : 40 * 64 + 32, 0] = needle
    q, k = (t.unflatten(1, (64, 64)) for t in (q, k))
    real = torch.ones(1, 64, 64, dtype=torch.bool)
    for pool, found in ((8, True), (64, False)):
        chosen = select_blocks(q, k, real, real, causal=False, blocks=4, pool=pool)
        assert (40 in chosen[0, 0, 0]) == found


@DIRECTIONS
def test_a_token_sees_the_blocks_chosen_for_it_and_no_more(causal):
    q, k, v, mask = random(78, batch=1, heads=1)
    v.requires_grad_()
    y = sparse_attention(q, k, v, causal=causal, block=4, blocks=5, pool=2, padding_mask=mask)
    padded = [torch.nn.functional.pad(t, (0, 0) * (t.dim() - 2) + (0, 2)).unflatten(1, (20, 4)) for t in (q, k, mask)]
    chosen = select_blocks(*padded, padded[-1], causal=causal, blocks=5, pool=2)
    for at in mask[0].nonzero().flatten().tolist():
        (gradient,) = torch.autograd.grad(y[0, at].sum(), v, retain_graph=True)
        blocks = chosen[0, at // 4, 0].tolist()
        expected = [key for key in range(at + 1 if causal else 78) if key // 4 in blocks and mask[0, key]]
        assert gradient[0].flatten(1).any(-1).nonzero().flatten().tolist() == expected


def test_later_tokens_have_no_say_in_what_a_causal_layer_chooses():
    layer = SparseAttention(
        32, causal=True, block_size=4, blocks_per_query=3, pool=2, heads=HeadOptions(positions="none")
    ).double()
    x = torch.randn(1, 100, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    y = layer(x)
    for at in range(60, 80):
        other = x.clone()
        other[:, at + 1 :] *= -3
        assert torch.allclose(layer(other)[:, : at + 1], y[:, : at + 1], atol=1e-12)


def test_crossing_heads_choose_blocks_of_the_other_segment():
    heads = HeadOptions(count=1, cross_segment=1.0)
    layer = SparseAttention(32, causal=False, heads=heads, block_size=4, blocks_per_query=5, pool=4).double()
    x = torch.randn(1, 96, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).requires_grad_()
    y = layer(x, TokenLayout(segment_ids=(torch.arange(96) >= 48)[None].long()))
    for at in (20, 70):
        (gradient,) = torch.autograd.grad(y[0, at].square().sum(), x, retain_graph=True)
        seen = [token for token in gradient[0].any(-1).nonzero().flatten().tolist() if token != at]
        assert len(seen) == 5 * 4 and all((token >= 48) != (at >= 48) for token in seen)


@DIRECTIONS
@pytest.mark.parametrize("padded", [False, True])
def test_neither_the_groups_nor_the_kernel_change_the_answer(causal, padded, monkeypatch):
    *qkv, mask = random(90)
    settings = {"causal": causal, "padding_mask": mask if padded else None}
    expected = answer_and_gradients(*qkv, **settings)
    monkeypatch.setitem(sizes.BY_DEVICE, "cpu", sizes.CPU._replace(gathered=1))
    one_by_one = answer_and_gradients(*qkv, **settings)
    for module in (gathered, block_sparse):
        monkeypatch.setattr(module, "FUSED", frozenset())
    plain = answer_and_gradients(*qkv, **settings)
    for a, b, c in zip(expected, one_by_one, plain, strict=True):
        assert torch.allclose(a, b, atol=1e-12) and torch.allclose(a, c, atol=1e-12)


def test_half_precision_is_near_and_stays_what_it_is(monkeypatch):
    *qkv, mask = random(90)
    every = {"causal": False, "padding_mask": mask, "blocks": 23}  # or rounded scores would choose other blocks
    expected = answer_and_gradients(*qkv, **every)
    half = [t.bfloat16() for t in qkv]
    fused = answer_and_gradients(*half, **every)
    for module in (gathered, block_sparse):
        monkeypatch.setattr(module, "FUSED", frozenset())
    plain = answer_and_gradients(*half, **every)
    assert all(t.dtype == torch.bfloat16 for t in fused + plain)
    for exact, *rounded in zip(expected, fused, plain, strict=True):
        assert all(((exact - t).square().mean() / exact.square().mean()).sqrt() < 0.02 for t in rounded)


class NewBytes(TorchDispatchMode):
    """Sums the bytes of all that operators make; what lies in the storage of their arguments is not new."""

    def __init__(self):
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        old = {t.untyped_storage().data_ptr() for t in args if isinstance(t, Tensor)}
        for t in result if isinstance(result, tuple | list) else [result]:
            if isinstance(t, Tensor) and t.untyped_storage().data_ptr() not in old:
                self.total += t.numel() * t.element_size()
        return result


@DIRECTIONS
def test_a_training_step_grows_with_the_length_alone(causal, monkeypatch):
    monkeypatch.setitem(sizes.BY_DEVICE, "cpu", sizes.CPU._replace(gathered=2**13))  # many groups

    def step(length):
        q, k, v = torch.randn(3, 1, length, 2, 8, requires_grad=True)
        with NewBytes() as made:
            sparse_attention(q, k, v, causal=causal, block=32, blocks=4, pool=32).sum().backward()
        return made.total

    assert step(4096) < 2.2 * step(2048)
    layer = SparseAttention(16, causal, HeadOptions(count=2), block_size=32, blocks_per_query=4, pool=32)
    once, twice = (count_cost(layer, 16, length) for length in (2048, 4096))
    assert twice.flops < 2.2 * once.flops and twice.largest_tensor < 2.1 * once.largest_tensor
