"""Window attention: which keys are seen, by the weight of each, and that no cut into blocks or segments shows."""

import pytest
import torch

from genoattn.attention.modules.reference import reference_attention
from genoattn.attention.ops import block_softmax, sizes, sliding_window_blocks
from genoattn.attention.ops.sliding_window import window_attention, windowed_attention
from genoattn.attention.ops.sliding_window_blocks import Window, scored_pairs


def seen_pairs(length, left, right, dilation=1, first=0, causal=False, mask=None):
    """The square of (query, key) pairs, from the definition; of every sequence where some of its tokens are padding."""
    query, key = torch.arange(length)[:, None], torch.arange(length)
    steps = (key - query) / dilation
    near = (steps == steps.round()) & (steps >= -left) & (steps <= right)
    known = ((key < first) | (query < first)) & ~(causal & (key > query))
    return near | known if mask is None else (near | known) & mask[..., :, None] & mask[..., None, :]


@pytest.mark.parametrize(
    ("left", "right", "dilation", "first", "causal"),
    [
        (3, 5, 1, 0, False),
        (0, 0, 1, 0, False),
        (4, 0, 1, 0, True),
        (40, 40, 1, 0, False),
        (2, 1, 3, 0, False),
        (2, 0, 30, 2, True),
        (3, 2, 2, 4, False),
    ],
)
def test_a_window_sees_the_keys_it_says(left, right, dilation, first, causal, monkeypatch):
    monkeypatch.setitem(sizes.BY_DEVICE, "cpu", sizes.CPU._replace(window_block=4, window_queries=8))
    # With scores of 0 and one channel to each value, a channel of an answer is the weight of one key.
    length, mask = 33, torch.ones(33, dtype=torch.bool)
    mask[10:13] = mask[-1] = False
    nothing, values = torch.zeros(1, length, 1, length), torch.eye(length)[None, :, None]
    for kept in (None, mask):
        seen = seen_pairs(length, left, right, dilation, first, causal, kept)
        weights = window_attention(
            nothing,
            nothing,
            values,
            left=left,
            right=right,
            causal=causal,
            dilation=dilation,
            global_tokens=first,
            padding_mask=None if kept is None else kept[None],
        )[0, :, 0]
        assert torch.allclose(weights, seen / seen.sum(1, keepdim=True).clamp_min(1), atol=1e-6)


def gradients(y, tensors):
    upstream = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    return [y.detach(), *torch.autograd.grad(y, tensors, upstream)]


def largest_difference(some, others):
    return max((a - b).abs().max().item() for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize("plain", [False, True], ids=["fused", "plain"])
@pytest.mark.parametrize(("block", "segment", "batch"), [(8, 32, 2), (16, 64, 1), (7, 21, 1), (64, 4096, 2)])
@pytest.mark.parametrize(
    ("left", "right", "dilation", "first", "sloped"),
    [(9, 5, 1, 0, False), (20, 0, 1, 0, True), (3, 4, 3, 0, True), (5, 6, 1, 4, False), (2, 3, 2, 3, False)],
)
def test_no_cut_into_blocks_shows(left, right, dilation, first, sloped, block, segment, batch, plain, monkeypatch):
    """Holes of padding stand across the borders of segments, one of them longer than a segment; gradients too."""
    monkeypatch.setitem(sizes.BY_DEVICE, "cpu", sizes.CPU._replace(window_block=block, window_queries=segment))
    monkeypatch.setattr(sliding_window_blocks, "backward_block", lambda window: block)
    if plain:  # what other devices than the CPU run
        monkeypatch.setattr(block_softmax, "fused", block_softmax.unfused)
        monkeypatch.setattr(block_softmax, "fused_backward", block_softmax.unfused_backward)
    torch.manual_seed(0)
    length = 150
    q, k, v = torch.randn(3, batch, length, 2, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(batch, length, dtype=torch.bool)
    mask[:, 30:36] = mask[:, 60:100] = mask[-1, -20:] = mask[0, :2] = False
    slopes = torch.tensor([0.5, 0.1], dtype=torch.float64) if sloped else None
    distance = (torch.arange(length) - torch.arange(length)[:, None]).abs()
    bias = None if slopes is None else -slopes[:, None, None] * distance
    for kept in (None, mask):
        y = window_attention(
            q,
            k,
            v,
            left=left,
            right=right,
            causal=False,
            dilation=dilation,
            global_tokens=first,
            padding_mask=kept,
            slopes=slopes,
        )
        seen = seen_pairs(length, left, right, dilation, first, mask=kept)
        expected = reference_attention(q, k, v, visible=seen.expand(batch, -1, -1), bias=bias)
        assert largest_difference(gradients(y, (q, k, v)), gradients(expected, (q, k, v))) < 1e-12


def test_a_part_of_the_queries_answers_as_in_the_whole():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 90, 2, 4, dtype=torch.float64)
    for dilation in (1, 3):
        whole = windowed_attention(q, k, v, Window(7, 5, dilation))
        part = windowed_attention(q[:, 31:60], k, v, Window(7, 5, dilation, before=31))
        assert torch.allclose(part, whole[:, 31:60], atol=1e-12)


def test_half_precision_is_computed_in_float32():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 70, 2, 8).bfloat16()
    y = windowed_attention(q, k, v, Window(9, 9))
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, windowed_attention(q.float(), k.float(), v.float(), Window(9, 9)).bfloat16())


def test_pairs_that_are_scored():
    assert scored_pairs(10, 10, Window(3, 2)) == 100  # one block, which sees all
    assert scored_pairs(96, 96, Window(32, 0)) == 32 * (32 + 64 + 64)
    assert scored_pairs(96, 96, Window(16, 0, dilation=3)) == 3 * 32 * 32
    wide = scored_pairs(2**20, 2**20, Window(256, 256))
    assert 1 <= wide / (2**20 * 513) < 1.1


@pytest.mark.parametrize("plain", [False, True], ids=["fused", "plain"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("padding", [1, 2, 3, 5])
def test_global_tokens_that_are_all_padding_have_no_weight(padding, causal, plain, monkeypatch):
    if plain:
        monkeypatch.setattr(block_softmax, "fused", block_softmax.unfused)
        monkeypatch.setattr(block_softmax, "fused_backward", block_softmax.unfused_backward)
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 13, 2, 4, dtype=torch.float64, requires_grad=True)
    mask = torch.ones(2, 13, dtype=torch.bool)
    mask[0, :padding] = False  # the other sequence has its global tokens
    y = window_attention(q, k, v, left=2, right=0 if causal else 2, causal=causal, global_tokens=2, padding_mask=mask)
    seen = seen_pairs(13, 2, 0 if causal else 2, first=2, causal=causal, mask=mask)
    expected = reference_attention(q, k, v, visible=seen)
    assert largest_difference(gradients(y, (q, k, v)), gradients(expected, (q, k, v))) < 1e-12
