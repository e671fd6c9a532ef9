"""Layers in half precision, under autocast and in float64: the same computation, as exact as its numbers allow."""

import copy

import pytest
import torch

from genoattn.attention.base import TokenLayout
from genoattn.attention.modules.feature_maps import feature_map
from genoattn.attention.modules.projections import HeadOptions
from genoattn.attention.ops import block_softmax
from genoattn.attention.window import WindowAttention
from tests.attention.test_conformance import DIM, DIRECTIONS, VARIANTS, build

BFLOAT16 = [(variant, {}) for variant in VARIANTS] + [
    ("linear", {"decay": True}),
    ("linear", {"features": "taylor", "key_dim": 8}),
    ("window", {"positions": "alibi"}),
    ("window", {"global_tokens": 3, "dilation": 2}),
]


def relative_error(found, expected):
    found, expected = found.double(), expected.double()
    return ((found - expected).square().mean() / expected.square().mean()).sqrt().item()


@DIRECTIONS
@pytest.mark.parametrize(("variant", "settings"), BFLOAT16, ids=str)
def test_a_layer_whose_weights_are_bfloat16(variant, settings, causal):
    torch.manual_seed(0)
    exact = build(variant, **settings)(dim=DIM, causal=causal)
    rounded = build(variant, **settings)(dim=DIM, causal=causal)
    rounded.load_state_dict(exact.state_dict())
    rounded = rounded.to(torch.bfloat16)
    x, padding_mask = torch.randn(2, 300, DIM), torch.rand(2, 300) > 0.2
    y = rounded(x.bfloat16().requires_grad_(), TokenLayout(padding_mask))
    y.sum().backward()
    assert y.dtype == torch.bfloat16
    assert all(p.grad is not None and p.grad.isfinite().all() for p in rounded.parameters())
    # A choice of keys from rounded scores is another choice, of keys that are nearly as good.
    assert relative_error(y, exact(x, TokenLayout(padding_mask))) < (0.5 if variant in ("sparse", "topk") else 0.05)
    assert rounded.naive(x.bfloat16(), TokenLayout(padding_mask)).dtype == torch.bfloat16


@pytest.mark.parametrize(("variant", "settings"), BFLOAT16, ids=str)
def test_under_autocast_a_layer_is_at_most_twice_as_far_off_as_plain_code(variant, settings):
    """The rule by which FlashAttention tests its kernels; float64 of the slow code is right."""
    torch.manual_seed(0)
    layer = build(variant, **settings)(dim=DIM, causal=variant == "delta").eval()
    exact = copy.deepcopy(layer).double()
    x, upstream = torch.randn(1, 40, DIM), torch.randn(1, 40, DIM)

    def gradients(act, x, autocast=True):
        x = x.clone().requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = act(x)
        return [y, *torch.autograd.grad(y, x, upstream.to(y.dtype))]

    right = gradients(exact.naive, x.double(), autocast=False)
    for ours, plain, expected in zip(gradients(layer, x), gradients(layer.naive, x), right, strict=True):
        assert relative_error(ours, expected) <= 2 * relative_error(plain, expected) + 1e-3


@pytest.mark.parametrize("settings", [{"dilation": 3}, {"global_tokens": 4}, {"positions": "alibi"}], ids=str)
def test_windows_compute_in_float32_under_autocast_both_ways(settings, monkeypatch):
    """The operators that devices without a fused kernel run, forward inside autocast and backward outside."""
    monkeypatch.setattr(block_softmax, "fused", block_softmax.unfused)
    monkeypatch.setattr(block_softmax, "fused_backward", block_softmax.unfused_backward)
    torch.manual_seed(0)
    heads = HeadOptions(count=2, positions=settings.pop("positions", "none"), logit_scale=16.0)
    layer = WindowAttention(32, False, heads, left=20, right=20, **settings)
    q, k, v = (torch.randn(2, 90, 2, 16, requires_grad=True) for _ in range(3))
    upstream = torch.randn(2, 90, 2, 16)

    def gradients():
        q_wide, k_wide = 4 * q, 4 * k
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = layer._attend(q_wide, k_wide, v, TokenLayout(), torch.arange(90)[None])
        return [y, *torch.autograd.grad(y, (q, k, v), upstream)]

    autocast = False
    exact = gradients()
    autocast = True
    for found, expected in zip(gradients(), exact, strict=True):
        assert relative_error(found, expected) < 1e-5


def test_taylor_features_are_exact_in_float64():
    q, k = torch.randn(2, 7, 8, dtype=torch.float64)
    score = (q * k).sum(-1) * 8**-0.5
    products = (feature_map(q, "taylor") * feature_map(k, "taylor")).sum(-1)
    assert torch.allclose(products, 1 + score + score**2 / 2, rtol=1e-14, atol=1e-14)
