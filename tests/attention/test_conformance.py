"""Every layer of conf/attention passes every check, and every check catches the fault it is there for."""

import re
from dataclasses import fields
from functools import cache
from pathlib import Path
from typing import final

import pytest
import torch
import torch.nn.functional as F
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from genoattn.attention.base import Attention, TokenLayout, zero_padding
from genoattn.attention.conformance import CHECKS, check, cost
from genoattn.attention.conformance.check import perturbed_layer
from genoattn.attention.full import FullAttention
from genoattn.attention.hybrid import cycle
from genoattn.attention.hyena import HyenaAttention
from genoattn.attention.linear import LinearAttention
from genoattn.attention.modules.projections import HeadOptions
from genoattn.attention.modules.reference import reference_attention
from genoattn.attention.modules.rotary import VALUE_ROPE, Rope, rotate
from genoattn.attention.none import NoAttention
from genoattn.attention.ops.hierarchical import hierarchical_attention
from genoattn.attention.window import WindowAttention
from genoattn.config.compose import check as check_config
from genoattn.config.compose import compose
from genoattn.errors import UserError
from genoattn.models.sequence_model import SequenceModel
from tests.attention.faulty_shards import DetachedNeighbours, ShardsAlone

DIM = 32
CONF = Path(__file__).parents[2] / "conf" / "attention"
STACKS = ["based", "hybrid", "striped"]  # lists of layers, each of them checked by itself
VARIANTS = sorted({path.stem for path in CONF.glob("*.yaml")} - set(STACKS))
OTHER_SETTINGS = [
    ("full", {"positions": "none", "qk_norm": False}),
    ("full", {"cross_segment": 0.5, "logit_scale": 4.0}),
    ("full", {"kv_heads": 2, "rotate_values": True, "gate": "head", "rope_scaling": "ntk", "rope_factor": 4.0}),
    ("full", {"sink": True, "cross_segment": 0.5, "rotate_values": True}),
    ("full", {"registers": 3, "cross_segment": 0.5, "rotate_values": True}),
    ("full", {"registers": 2, "sink": True, "kv_heads": 2, "qk_norm": False}),
    ("full", {"kv_heads": 2, "cross_segment": 0.25, "logit_scale": 4.0}),
    ("window", {"left": 5, "right": 3, "kv_heads": 2, "cross_segment": 0.5}),
    ("window", {"left": 5, "right": 3, "count": 2, "rotate_values": True, "gate": "channel"}),
    ("window", {"left": 9, "right": 4, "positions": "alibi", "kv_heads": 1}),
    ("window", {"left": 5, "right": 3, "dilation": 3}),
    ("window", {"left": 5, "right": 3, "dilation": 2, "positions": "alibi"}),
    ("window", {"left": 7, "right": 4, "global_tokens": 3, "cross_segment": 0.5}),
    ("window", {"left": 3, "right": 2, "global_tokens": 3, "dilation": 4}),
    ("window", {"left": 4, "right": 2, "global_tokens": 1}),
    ("window", {"cross_segment": 0.25, "left": 20, "right": 9}),
    ("window", {"left": 0, "right": 70, "positions": "none"}),
    ("window", {"sink": True, "left": 7, "right": 4, "dilation": 2, "positions": "alibi", "kv_heads": 2}),
    ("window", {"sink": True, "left": 7, "right": 4, "global_tokens": 3, "cross_segment": 0.5}),
    ("window", {"registers": 3, "sink": True, "left": 5, "right": 3, "cross_segment": 0.5, "rotate_values": True}),
    ("window", {"registers": 2, "left": 7, "right": 4, "global_tokens": 3, "kv_heads": 2, "positions": "none"}),
    ("gated", {"wrapped": "linear", "gate_per": "head"}),
    ("gated", {"wrapped": "none"}),
    ("hierarchical", {"block_size": 4, "positions": "none", "rotate_values": True}),
    (
        "hierarchical",
        {"cross_segment": 0.5, "rope_scaling": "yarn", "rope_factor": 8.0, "rope_trained_length": 40, "block_size": 8},
    ),
    ("sparse", {"block_size": 8, "blocks_per_query": 3, "rotate_values": True, "gate": "head"}),
    ("sparse", {"block_size": 16, "blocks_per_query": 4, "positions": "none", "qk_norm": False}),
    ("sparse", {"block_size": 8, "blocks_per_query": 6, "cross_segment": 0.5}),
    ("pyramid", {"pool_sizes": "[1,4,16]", "left": 5, "right": 3, "positions": "none", "gate": "head"}),
    ("pyramid", {"pool_sizes": "[1,4]", "left": 5, "right": 3, "cross_segment": 0.5, "rotate_values": True}),
    ("topk", {"k": 5, "positions": "none", "rotate_values": True}),
    ("topk", {"k": None, "fraction": 0.1}),
    ("topk", {"k": 9, "cross_segment": 0.5, "logit_scale": 4.0}),
    ("hyena", {"short": 1, "span": 4, "hidden": 3}),
    ("hyena", {"hidden": 3, "count": 2, "cross_segment": 0.5, "rotate_values": True}),
    ("nsa", {"cell_size": 4, "block_size": 8, "blocks_per_query": 4, "window": 3}),
    ("nsa", {"cell_size": 8, "block_size": 8, "blocks_per_query": 3, "positions": "none", "qk_norm": False}),
    ("nsa", {"cell_size": 8, "block_size": 16, "blocks_per_query": 4, "cross_segment": 0.5, "rotate_values": True}),
    ("ssd", {"state": 5, "expand": 1, "short": 1, "count": 1}),
    ("ssd", {"state": 5, "expand": 1, "count": 2, "cross_segment": 0.5, "rotate_values": True}),
    ("delta", {"rotate_values": True, "gate": "head", "cross_segment": 0.5}),
    ("linear", {"features": "elu", "positions": "none", "decay": False, "key_dim": None}),
    ("linear", {"features": "relu", "positions": "none", "cross_segment": 1.0, "decay": False, "key_dim": None}),
    ("linear", {"features": "exp", "gate": "channel", "decay": False, "key_dim": 4}),
    ("linear", {"features": "taylor", "decay": False, "key_dim": None}),
    ("linear", {"features": "elu", "rotate_values": True, "cross_segment": 0.5, "key_dim": None, "rope_base": 500.0}),
    ("linear", {"key_dim": 16, "cross_segment": 0.5, "short_conv": 4}),
    ("linear", {"features": "taylor", "positions": "none", "count": 2, "key_dim": 8}),
]
# The settings varied above do not matter to these, and gradients over several processes come with outputs.
SKIPPED_CHECKS = {"bfloat16_precision", "learns", "learns_far", "capacity", "parallel"}
DIRECTIONS = pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])


def build(variant, **settings):
    """The factory of a layer under settings: those of its heads, and its own."""
    words, heads = {None: "null"}, {field.name for field in fields(HeadOptions)}
    groups = {key: "heads" if key in heads else "attention" for key in settings}
    return composed(variant, *(f"{groups[key]}.{key}={words.get(value, value)}" for key, value in settings.items()))


@cache
def composed(variant, *overrides):
    return instantiate(compose("train", ["heads=default", f"attention={variant}", *overrides]).attention)


def result_of(check, factory, causal):
    """The result of a check; a layer may refuse a direction in words."""
    try:
        factory(dim=DIM, causal=causal)
    except UserError as refusal:
        pytest.skip(str(refusal))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cost, "MILLION", 2**16)  # bfloat16 is slow on a CPU; sums that stop growing show here too
        return CHECKS[check](factory, DIM, causal)


@pytest.mark.parametrize("check", CHECKS)
@DIRECTIONS
@pytest.mark.parametrize("variant", VARIANTS)
def test_check(variant, causal, check):
    result = result_of(check, build(variant), causal)
    # The control: a task that a layer without mixing learns would show nothing about those with it.
    expected = not (variant == "none" and check == "learns")
    assert result.holds == expected, f"{result.name}: {result.detail} (catches {result.why})"
    assert not (check.startswith("parallel") and "refused" in result.detail), result.detail


@pytest.mark.parametrize("check", [check for check in CHECKS if check not in SKIPPED_CHECKS])
@DIRECTIONS
@pytest.mark.parametrize(("variant", "settings"), OTHER_SETTINGS, ids=lambda value: str(value))
def test_check_under_other_settings(variant, settings, causal, check):
    result = result_of(check, build(variant, **settings), causal)
    assert result.holds, f"{result.name}: {result.detail} (catches {result.why})"


@final
class Faulty(Attention):
    """A sound layer inside, and one fault in what becomes of its answer or in what is said about it."""

    complexity = "linear"

    def __init__(self, inner, answer, causal, reach):
        super().__init__()
        self.inner, self.answer, self.causal, self.receptive_field = inner, answer, causal, reach
        self.weights_sum_to_one = True

    def init_state(self, batch):
        return (torch.zeros(batch, 0),)

    def step(self, x, state, layout=TokenLayout()):
        return self(x, layout), state

    def forward_chunked(self, read_chunk, length, chunk):
        for start in range(0, length, chunk):
            yield start, min(start + chunk, length), self(*read_chunk(start, min(start + chunk, length)))

    def forward(self, x, layout=TokenLayout()):
        return self.answer(self.inner, x, layout)

    def naive(self, x, layout=TokenLayout()):
        return self.inner.naive(x, layout)

    def flops(self, length):
        return self.inner.flops(length)

    def state_bytes(self, length):
        return self.inner.state_bytes(length)


def window(dim, causal):
    return WindowAttention(dim, causal, left=5, right=5)


def plain(layer, x, layout):
    return layer(x, layout)


def half_the_gradient(layer, x, layout):
    y = layer(x, layout)
    return (y + y.detach()) / 2


def shared_across_the_batch(layer, x, layout):
    y = layer(x, layout)
    return y + y.mean(0, keepdim=True)


def wrong_where_all_global_tokens_are_padding(layer, x, layout):
    y = layer(x, layout)
    hidden = torch.zeros(len(x)) if layout.padding_mask is None else ~layout.padding_mask[:, :3].any(1)
    return y * (1 - 0.1 * hidden.to(y.dtype))[:, None, None]


class SquareWithHalfItsSecondDerivative(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x.square()

    @staticmethod
    def backward(ctx, dy):
        return 2 * ctx.saved_tensors[0].detach() * dy


FAULTS = {
    "length made even": ("any_length", window, lambda layer, x, _: layer(F.pad(x, (0, 0, 0, x.shape[1] % 2)))),
    "half the gradient": ("matches_naive", window, half_the_gradient),
    "all global tokens hidden": ("matches_naive", window, wrong_where_all_global_tokens_are_padding),
    "padding not hidden": ("padding_invariance", window, lambda layer, x, _: layer(x)),
    "causality dropped": ("causality", lambda dim, _: WindowAttention(dim, False, left=5, right=5), plain),
    "shared across the batch": ("batch_invariance", window, shared_across_the_batch),
    "sum in place of average": ("weights_sum_to_one", window, lambda layer, x, layout: layer(x, layout) * 11),
    "sums in half precision": (
        "bfloat16_precision",
        NoAttention,
        lambda layer, x, _: layer(x).half().cumsum(1).float(),
    ),
    "rounded inputs": (
        "float32_precision",
        window,
        lambda layer, x, _: layer(x.half().float() if x.dtype == torch.float32 else x),
    ),
    "a square": ("declared_cost", FullAttention, plain),
    "reach off by one": (
        "receptive_field",
        lambda dim, causal: WindowAttention(dim, causal, left=6, right=5),
        plain,
    ),
    "no mixing": ("learns", NoAttention, plain),
    "memories of four tokens": ("learns_far", lambda dim, causal: HyenaAttention(dim, causal, span=4), plain),
    "half the second derivative": (
        "second_derivatives",
        NoAttention,
        lambda layer, x, _: SquareWithHalfItsSecondDerivative.apply(layer(x)),
    ),
    "a side not declared": ("reversal_equivariance", window, plain),
    "half the gradient again": ("gradient_check", window, half_the_gradient),
    "a state forgotten": ("step_by_step", window, plain),
    "segments without their neighbours": ("chunk_by_chunk", window, plain),
    "shards without their neighbours": ("parallel", ShardsAlone, None),
    "neighbours without a gradient": ("parallel_gradient", DetachedNeighbours, None),
}


def faulty(fault):
    _, inner, answer = FAULTS[fault]
    if answer is None:
        return inner

    def factory(dim, causal):
        unbounded = fault in ("sums in half precision", "memories of four tokens")
        reach = None if unbounded else (5, 0 if causal else 5)
        return Faulty(inner(dim, causal), answer, causal, reach)

    return factory


def test_every_check_has_a_fault_to_catch():
    assert {check for check, _, _ in FAULTS.values()} == set(CHECKS) - {"capacity"}  # which only warns


def test_capacity_warns_of_a_layer_that_cannot_tell_its_keys_apart():
    assert (
        "of the letters stored under 64 random keys (guessing: 0.25)"
        in CHECKS["capacity"](build("linear", features="elu"), DIM, True).warning
    )
    assert not CHECKS["capacity"](build("full"), DIM, True).warning


@pytest.mark.parametrize("fault", FAULTS)
def test_check_catches_fault(fault):
    check = FAULTS[fault][0]
    result = CHECKS[check](faulty(fault), DIM, check != "reversal_equivariance")
    assert not result.holds, result.detail


def test_causality_allows_for_the_rounding_of_an_fft():
    def sums_by_fft(layer, x, layout):
        values, length = layer(x, layout), x.shape[1]
        spectrum = torch.fft.rfft(values, 2 * length, dim=1) * torch.fft.rfft(x.new_ones(length), 2 * length)[:, None]
        return zero_padding(torch.fft.irfft(spectrum, 2 * length, dim=1)[:, :length], layout.padding_mask)

    def factory(dim, causal):
        return Faulty(NoAttention(dim, causal), sums_by_fft, causal, None)

    layer, x = factory(DIM, True).double(), torch.randn(1, 40, DIM, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(layer(x)[0, 5].sum(), x)
    assert gradient[0, 6:].any()
    assert CHECKS["causality"](factory, DIM, True).holds


def test_a_reference_that_is_forward_itself_is_noted():
    def factory(dim, causal):
        layer = NoAttention(dim, causal)
        setattr(layer, "naive", layer.forward)  # noqa: B010
        return layer

    result = CHECKS["matches_naive"](factory, DIM, False)
    assert result.holds and "is naive another computation?" in result.warning
    assert not CHECKS["matches_naive"](build("full"), DIM, False).warning


def test_declared_cost_lists_operators():
    detail = CHECKS["declared_cost"](build("none"), DIM, False).detail
    assert "declares 4,194,304 and torch counts 4,194,304 (mm 4,194,304)" in detail


def test_a_mistake_made_in_the_reference_too_is_still_caught():
    assert CHECKS["matches_naive"](faulty("reach off by one"), DIM, False).holds
    assert not CHECKS["receptive_field"](faulty("reach off by one"), DIM, False).holds


def test_denominator_that_counts_padding_is_caught():
    def counting(layer, x, layout):
        y = layer(x, layout)
        return y if layout.padding_mask is None else y * layout.padding_mask.sum(1)[:, None, None] / x.shape[1]

    def factory(dim, causal):
        return Faulty(LinearAttention(dim, causal), counting, causal, None)

    assert CHECKS["padding_invariance"](factory, DIM, False).holds
    assert not CHECKS["batch_invariance"](factory, DIM, False).holds


def test_check_names_the_checks_and_reports_a_refusal():
    def bidirectional_only(dim, causal):
        if causal:
            raise UserError("this layer looks both ways, so causal must be false")
        return NoAttention(dim, causal)

    results = check(bidirectional_only, DIM)
    assert [result.name for result in results if not result.holds] == ["learns (bidirectional)"]
    assert len(results) == len(CHECKS) + 1
    assert results[-1].name == "refuses (causal)"
    assert "looks both ways" in results[-1].detail


def test_checks_leave_the_random_numbers_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    CHECKS["batch_invariance"](build("linear"), DIM, False)
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("variant", ["full", "window", "linear"])
def test_rotary_positions_count_by_difference_at_a_million(variant):
    torch.manual_seed(0)
    layer = build(variant)(dim=DIM, causal=False).double()
    x, positions = torch.randn(1, 50, DIM, dtype=torch.float64), torch.arange(50)[None]
    near, far = layer(x, TokenLayout(position_ids=positions)), layer(x, TokenLayout(position_ids=positions + 1_000_000))
    assert torch.allclose(near, far, atol=1e-8)
    assert not torch.allclose(near, layer(x, TokenLayout(position_ids=2 * positions)), atol=1e-3)


def test_rotate_turns_pairs_of_channels():
    x = torch.tensor([1.0, 0.0, 0.0, 2.0]).view(1, 1, 1, 4)  # pairs (1, 0) and (0, 2)
    turned = rotate(x, torch.tensor([[1]]), Rope(4.0)).flatten()
    one, half = torch.tensor(1.0), torch.tensor(0.5)  # 4^-0 and 4^-(1/2) radians at position 1
    expected = torch.stack([one.cos(), -2 * half.sin(), one.sin(), 2 * half.cos()])
    assert torch.allclose(turned, expected)


def test_stretched_rotations():
    where = 8, torch.device("cpu"), torch.float64
    plain, half = Rope().frequencies(*where), torch.full((8,), 0.25).double()
    linear, ntk, yarn = (
        Rope(scaling=scaling, factor=4.0, trained_length=2048).frequencies(8, torch.device("cpu"), torch.float64)
        / plain
        for scaling in ("linear", "ntk", "yarn")
    )
    assert torch.allclose(linear, half)
    for stretched in (ntk, yarn):  # the fastest pair is kept, the slowest interpolated, and the others lie between
        assert stretched[0] == 1 and stretched[-1].item() == pytest.approx(0.25)
        assert (stretched.diff() <= 0).all()
    assert yarn[:3].eq(1).all() and not ntk[1:].eq(1).any()
    assert Rope(scaling="yarn", factor=4.0).temperature == pytest.approx(1.1386, rel=1e-4)
    layer = build("full", rope_scaling="linear", rope_factor=4.0)(dim=DIM, causal=False)
    twin = build("full")(dim=DIM, causal=False)
    twin.load_state_dict(layer.state_dict())
    x, positions = torch.randn(1, 9, DIM), torch.arange(9)[None]
    assert torch.allclose(layer(x, TokenLayout(position_ids=4 * positions)), twin(x), atol=1e-5)


def outputs_at(layer, positions):
    """Outputs of a layer with new weights for the same tokens at other positions."""
    torch.manual_seed(0)
    layer, x = perturbed_layer(layer, DIM, False), torch.randn(1, 40, DIM, dtype=torch.float64)
    return layer(x, TokenLayout(position_ids=positions[None])).detach()


@pytest.mark.parametrize("variant", VARIANTS)
def test_positions_count_by_their_differences_and_turn_as_set(variant):
    """Rotated values too; and a layer with rotary positions heeds their base."""
    positions = torch.arange(40)
    turned = build(variant, rotate_values=True)
    torch.testing.assert_close(outputs_at(turned, positions + 7), outputs_at(turned, positions))
    plain, slow = outputs_at(build(variant), positions), outputs_at(build(variant, rope_base=50.0), positions)
    has_rotary = not torch.equal(plain, outputs_at(build(variant), 3 * positions))
    assert torch.equal(plain, slow) != has_rotary


def test_a_query_that_sees_nothing_answers_zero():
    q = torch.randn(1, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    visible = torch.tensor([[[True, False, False], [False, False, False], [True, True, False]]])
    y = reference_attention(q, q, q, visible=visible)
    y.sum().backward()
    assert not y[0, 1].any()
    assert torch.allclose(y[0, 0], q[0, 0])
    assert q.grad is not None and q.grad.isfinite().all()


@DIRECTIONS
@pytest.mark.parametrize(
    "variant", ["full", "topk", "sparse", "nsa", "hierarchical", "window", "linear", "delta", "ssd", "hyena"]
)
def test_crossing_heads_see_the_other_segment_and_nothing_else(variant, causal):
    torch.manual_seed(0)
    reach = 7 if variant == "window" else 99
    few = {"delta": {"short_conv": 0}, "ssd": {"short": 1}, "hyena": {"short": 1}}  # no neighbours of the own segment
    sides = (few | {"window": {"left": reach, "right": reach}}).get(variant, {})
    layer = build(variant, cross_segment=1.0, **sides)(dim=DIM, causal=causal).double()
    x = torch.randn(1, 40, DIM, dtype=torch.float64, requires_grad=True)
    segments, mask = torch.randint(3, (1, 40)) * 5, torch.rand(1, 40) > 0.3
    y = layer(x, TokenLayout(padding_mask=mask, segment_ids=segments))
    for at in range(40):
        (gradient,) = torch.autograd.grad(y[0, at].square().sum(), x, retain_graph=True)
        index = torch.arange(40)
        seen = (index >= at - reach) & (index <= (at if causal else at + reach)) & (segments[0] != segments[0, at])
        seen &= mask[0] & mask[0, at]
        some = gradient[0].abs().amax(-1) > 1e-13  # a convolution by FFT rounds
        assert some[index != at].tolist() == seen[index != at].tolist()
    alone = layer(x, TokenLayout(segment_ids=torch.zeros(1, 40, dtype=torch.long)))
    assert not alone.any() and not layer(x).any()


def test_orders_of_segments():
    def order(*ids, positions=None):
        layout = TokenLayout(None, positions, torch.tensor(ids))
        return layout.segments, layout.alternating, layout.boundary

    assert order([3, 5, 3, 5], [3, 5, 3, 5]) == ((3, 5), True, None)
    assert order([1, 0, 1]) == ((0, 1), True, None)
    assert order([0, 0, 0, 1], [0, 0, 0, 1]) == ((0, 1), False, 3)
    assert order([0, 1], [0, 1]) == ((0, 1), True, 1)
    for mixed in ([[0, 1, 0, 1], [1, 0, 1, 0]], [[0, 0, 1, 1], [0, 1, 1, 1]], [[0, 1, 2, 1]], [[0, 0, 1, 0]], [[4, 4]]):
        assert order(*mixed)[1:] == (False, None)
    assert TokenLayout().segments == () and TokenLayout().boundary is None and not TokenLayout().alternating
    pairs = TokenLayout(position_ids=torch.tensor([[7, 7, 9, 9]]))
    assert pairs.positions_in_pairs and not TokenLayout(position_ids=torch.arange(4)[None]).positions_in_pairs


@pytest.mark.parametrize(
    "variant", ["full", "topk", "sparse", "nsa", "hierarchical", "window", "linear", "delta", "ssd", "hyena"]
)
def test_heads_across_interleaved_segments_cost_less_than_heads_across_none(variant):
    index = torch.arange(256)[None]
    layout, flops = TokenLayout(None, index // 2, index % 2), []
    for share in (0.0, 1.0):
        layer = build(variant, cross_segment=share)(dim=DIM, causal=False)
        with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH):
            layer(torch.randn(1, 256, DIM), layout)
        flops.append(counter.get_total_flops())
    assert flops[1] <= 1.05 * flops[0]


@pytest.mark.parametrize("variant", ["full", "topk", "sparse", "hierarchical", "window", "linear"])
def test_rotated_values_tell_how_far_away_they_come_from(variant):
    torch.manual_seed(0)
    averages = {"features": "elu", "decay": False} if variant == "linear" else {}
    options = {"positions": "none", "rotate_values": True, **averages}
    layer = build(variant, **options)(dim=DIM, causal=False).double()
    x = torch.randn(1, 1, DIM, dtype=torch.float64).repeat(1, 3, 1)  # equal tokens, so equal weights
    positions = torch.tensor([[5, 7, 11]])
    values = rotate(layer.heads.value(x).unflatten(-1, (4, -1)), positions, VALUE_ROPE).mean(1, keepdim=True)
    expected = layer.heads.out(rotate(values.expand(-1, 3, -1, -1), -positions, VALUE_ROPE).flatten(2))
    assert torch.allclose(layer(x, TokenLayout(position_ids=positions)), expected)
    assert torch.allclose(layer(x, TokenLayout(position_ids=positions + 1000)), expected)
    assert not torch.allclose(layer(x, TokenLayout(position_ids=2 * positions)), expected, atol=1e-3)


def test_a_gate_stands_between_mixing_and_projection():
    torch.manual_seed(0)
    gated, x = build("gated", wrapped="window")(dim=DIM, causal=False), torch.randn(1, 9, DIM)
    layer = build("window", gate="channel")(dim=DIM, causal=False)
    gate = gated.wrapped.heads.gate
    torch.nn.init.normal_(gate.open.weight)
    layer.load_state_dict(gated.wrapped.state_dict())
    assert torch.equal(gated(x), layer(x))
    layer.heads.gate = None
    with torch.no_grad():
        mixed = torch.linalg.solve(layer.heads.out.weight, layer(x).mT).mT
    assert torch.allclose(gated(x), layer.heads.out(mixed * gate.open(x).sigmoid()), atol=1e-4)


def test_logit_scale_is_where_the_softmax_starts():
    layer = build("full", logit_scale=4.0)(dim=DIM, causal=False)
    q, k, _ = layer.heads.project(torch.randn(1, 5, DIM))
    assert torch.allclose((q.square().mean(-1) * k.square().mean(-1)).sqrt(), torch.tensor(4.0), rtol=1e-4)
    torch.manual_seed(0)
    first = build("full")(dim=DIM, causal=False)
    torch.manual_seed(0)
    second = build("full", logit_scale=4.0, cross_segment=0.5)(dim=DIM, causal=False)
    assert torch.equal(first.heads.out.weight, second.heads.out.weight)
    assert not first.heads.log_logit_scale.any()


@pytest.mark.parametrize(
    ("variant", "settings", "words"),
    [
        ("full", {"cross_segment": 1.5}, "heads.cross_segment is a share of the heads, from 0 to 1, got 1.5"),
        ("window", {"cross_segment": 0.1}, "heads.cross_segment of 0.1 of 4 heads is less than half a head"),
        ("window", {"logit_scale": 0.0}, "heads.logit_scale must be more than 0, got 0.0"),
        ("full", {"logit_scale": 2.0, "qk_norm": False}, "heads.logit_scale needs heads.qk_norm=true"),
        ("full", {"count": 5}, "heads.count must divide the model's dim of 32, got 5"),
        ("linear", {"count": 0}, "heads.count must be 1 or more, got 0"),
        ("full", {"count": 32}, "needs an even number of them, got 1"),
        ("full", {"count": 32, "positions": "none", "rotate_values": True}, "heads.rotate_values=true turns pairs"),
        ("gated", {"gate": "head"}, "heads.gate of the wrapped layer must be none"),
        ("full", {"positions": "alibi"}, "attention=window takes it"),
        ("full", {"rope_base": 1.0}, "heads.rope_base must be more than 1, got 1.0"),
        ("full", {"positions": "none", "rope_base": 5.0}, "need heads.positions=rotary, got positions none"),
        ("full", {"rope_factor": 2.0}, "heads.rope_factor needs heads.rope_scaling=linear, ntk or yarn, got 2.0"),
        ("full", {"rope_scaling": "ntk"}, "heads.rope_scaling=ntk needs heads.rope_factor above 1, got 1.0"),
        ("full", {"rope_scaling": "yarn", "rope_factor": 2.0}, "needs heads.rope_trained_length of 1 or more tokens"),
        (
            "full",
            {"rope_scaling": "linear", "rope_factor": 2.0, "rope_trained_length": 9},
            "heads.rope_trained_length belongs to heads.rope_scaling=yarn, got 9 with linear",
        ),
        ("full", {"kv_heads": 3}, "attention.kv_heads must divide the 4 heads, got 3"),
        ("full", {"registers": -1}, "attention.registers must be 0 or more, got -1"),
        ("window", {"dilation": 0}, "attention.dilation must be 1 or more tokens, got 0"),
        (
            "window",
            {"positions": "alibi", "cross_segment": 0.5},
            "with heads.cross_segment or attention.global_tokens take",
        ),
        ("window", {"left": -1}, "attention.left must be 0 or more tokens, got -1"),
        ("window", {"right": -7}, "attention.right must be 0 or more tokens, got -7"),
        ("sparse", {"block_size": 0}, "attention.block_size must be 1 or more tokens, got 0"),
        ("sparse", {"block_size": 60}, "attention.pool must divide attention.block_size=60, got 8"),
        (
            "sparse",
            {"blocks_per_query": 2},
            "attention.blocks_per_query must be 3 or more: a block's own and those beside it are always seen",
        ),
        (
            "pyramid",
            {"pool_sizes": "[4,16]"},
            r"attention.pool_sizes must list .*, 1 and then ever more, got \[4, 16\]",
        ),
        ("pyramid", {"pool_sizes": "[1,16,16]"}, r"1 and then ever more, got \[1, 16, 16\]"),
        ("pyramid", {"pool_sizes": "[]"}, r"1 and then ever more, got \[\]"),
        (
            "linear",
            {"features": "tailor"},
            "attention.features must be one of elu, relu, exp, taylor, signed, got",
        ),
        ("linear", {"features": "exp", "qk_norm": False}, "attention.features=exp overflows without"),
    ],
)
def test_mistakes_read_well(variant, settings, words):
    with pytest.raises((UserError, InstantiationException)) as raised:
        build(variant, **settings)(dim=DIM, causal=False)
    # Hydra wraps an error of options that are built with the config; a layer is built later.
    mistake = raised.value.__cause__ if isinstance(raised.value, InstantiationException) else raised.value
    assert isinstance(mistake, UserError)
    assert re.search(words, str(mistake))


def test_state_bytes():
    assert build("full")(dim=DIM, causal=True).state_bytes(1000) == 2 * 1000 * 32 * 4
    assert build("window")(dim=DIM, causal=True).state_bytes(1000) == 2 * 128 * 32 * 4
    assert build("linear")(dim=DIM, causal=True).state_bytes(1000) == 4 * (4 * 64 * 8 + 4 * 64)
    assert build("none")(dim=DIM, causal=True).state_bytes(1000) == 0


@pytest.mark.parametrize(
    ("overrides", "kinds"),
    [
        (["attention=hybrid"], ["WindowAttention", "FullAttention"]),
        (["attention=hybrid", "attention.layers=[none,conv]"], ["NoAttention", "ConvolutionAttention"]),
        (["attention=hybrid", "attention.layers=[full,linear]"], ["FullAttention", "LinearAttention"]),
        (["attention=gated", "attention.wrapped=full", "attention.kinds.full.kv_heads=2"], ["GatedAttention"]),
    ],
)
def test_layers_named_inside_others_bring_their_settings(overrides, kinds):
    config = compose("train", overrides)
    check_config(config, "train")
    built = instantiate(config.attention)
    built = built if isinstance(built, list) else [built]
    assert [type(factory(dim=DIM, causal=False)).__name__ for factory in built] == kinds


def test_layers_of_a_hybrid_take_turns_over_the_depth():
    factories = composed("hybrid", "attention.layers=[window,none]")
    model = SequenceModel(4, {"kind": 2}, None, factories, dim=DIM, depth=3)
    assert [type(block.attention) for block in model.blocks] == [WindowAttention, NoAttention, WindowAttention]
    for layers, depth in (("window,none", 1), ("window,window,none", 2)):
        factories = composed("hybrid", f"attention.layers=[{layers}]")
        with pytest.raises(UserError, match=rf"model.depth={depth} builds only the first {depth}, so a kind of layer"):
            SequenceModel(4, {"kind": 2}, None, factories, dim=DIM, depth=depth)
    SequenceModel(4, {"kind": 2}, None, composed("hybrid", "attention.layers=[window,none,window]"), dim=DIM, depth=2)
    with pytest.raises(
        UserError, match=r"attention.layers names wind, which attention.kinds lacks; did you mean window"
    ):
        cycle(["wind"], {"window": WindowAttention})
    with pytest.raises(UserError, match="must name at least one layer"):
        cycle([], {"window": WindowAttention})
    with pytest.raises(UserError, match=r"there is no conf/attention/ful.yaml .*; did you mean full"):
        composed("gated", "attention.wrapped=ful")


@DIRECTIONS
def test_hierarchical_reads_every_token_once(causal):
    torch.manual_seed(0)
    q, v = torch.randn(2, 300, 2, 4, dtype=torch.float64), torch.randn(2, 300, 2, 4, dtype=torch.float64)
    mask = torch.rand(2, 300) > 0.3
    y = hierarchical_attention(q, torch.zeros_like(q), v, causal=causal, block=4, padding_mask=mask)
    v = zero_padding(v, mask)
    total, count = (v.cumsum(1), mask.cumsum(1)) if causal else (v.sum(1, keepdim=True), mask.sum(1, keepdim=True))
    assert torch.allclose(y, zero_padding((total / count.clamp_min(1)[..., None, None]).expand_as(v), mask), atol=1e-12)


def test_hierarchical_sees_a_sequence_turned_round_the_same():
    torch.manual_seed(0)
    q, k, v = torch.randn(3, 1, 256, 2, 4, dtype=torch.float64)
    y = hierarchical_attention(q, k, v, causal=False, block=8)
    turned = hierarchical_attention(q.flip(1), k.flip(1), v.flip(1), causal=False, block=8)
    assert torch.allclose(turned.flip(1), y, atol=1e-12)


@DIRECTIONS
@pytest.mark.parametrize(
    ("variant", "settings"),
    [
        ("window", {"left": 90, "right": 90}),
        ("topk", {"k": 90}),
        ("topk", {"k": None, "fraction": 1.0}),
        ("sparse", {"block_size": 8, "blocks_per_query": 12, "pool": 1}),
    ],
)
def test_a_layer_that_leaves_nothing_out_is_full_attention(variant, settings, causal):
    torch.manual_seed(0)
    full, layer = build("full")(dim=DIM, causal=causal).double(), build(variant, **settings)(dim=DIM, causal=causal)
    layer = layer.double()
    layer.load_state_dict(full.state_dict())
    x, mask = torch.randn(2, 90, DIM, dtype=torch.float64), torch.rand(2, 90) > 0.3
    assert torch.allclose(layer(x, TokenLayout(padding_mask=mask)), full(x, TokenLayout(padding_mask=mask)), atol=1e-12)


@pytest.mark.parametrize("variant", ["topk", "sparse"])
def test_a_layer_refuses_what_would_take_too_long(variant):
    layer = build(variant, max_length=50)(dim=DIM, causal=False)
    with pytest.raises(UserError, match=r"takes at most attention.max_length=50 tokens, got 51"):
        layer(torch.randn(1, 51, DIM))
