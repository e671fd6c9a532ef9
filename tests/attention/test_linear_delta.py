"""Linear attention and the delta rule in segments: the same in any cut, one token at a time, and as a square."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from genoattn.attention.delta import naive_delta_rule
from genoattn.attention.modules.feature_maps import feature_map
from genoattn.attention.modules.linear_reference import naive_linear_attention
from genoattn.attention.ops import sizes
from genoattn.attention.ops.chunked_scan import scan
from genoattn.attention.ops.delta_rule import delta_rule
from genoattn.attention.ops.linear import LinearOptions, causal_scan, empty_state, linear_attention

LENGTH = 200
DIRECTIONS = pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
FADES = pytest.mark.parametrize("fades", [False, True], ids=["keeps", "fades"])


def drawn(*more, length=LENGTH, grad=False):
    torch.manual_seed(0)
    shapes = [(2, length, 2, 4)] * 3 + list(more)
    return [torch.randn(shape, dtype=torch.float64, requires_grad=grad) for shape in shapes]


def gates(length=LENGTH):
    torch.manual_seed(1)
    return torch.rand(2, length, 2, dtype=torch.float64), -torch.rand(2, length, 2, dtype=torch.float64)


def decayed_sum(state, pieces, shared):
    """s = a s + x, token by token."""
    (total,), (x, _), (a,), sums = state, pieces, shared, []
    for at in range(x.shape[1]):
        total = a * total + x[:, at]
        sums.append(total)
    return torch.stack(sums, dim=1), (total,)


def decayed_sum_back(state, pieces, shared):
    y, state = decayed_sum(state, (pieces[0].flip(1), None), shared)
    return y.flip(1), state


@pytest.mark.parametrize("segment", [1, 3, 10, 99])
@pytest.mark.parametrize("backwards", [False, True])
def test_a_scan_is_the_same_in_any_segments_and_so_are_its_gradients(segment, backwards):
    torch.manual_seed(0)
    x, total = torch.randn(2, 10, 3, dtype=torch.float64), torch.randn(2, 3, dtype=torch.float64)
    a = torch.rand(3, dtype=torch.float64)
    leaves = [t.requires_grad_() for t in (x, total, a)]
    step = decayed_sum_back if backwards else decayed_sum

    def found(answers):
        y, (last,) = answers
        return [y, last, *torch.autograd.grad(y.square().sum() + last.sum(), leaves)]

    plain = found(step((total,), (x, None), (a,)))
    for got, expected in zip(
        found(scan(step, (total,), (x, None), (a,), segment=segment, backwards=backwards)), plain, strict=True
    ):
        assert torch.allclose(got, expected, atol=1e-12)


def test_a_scan_answers_once_for_each_segment_and_hands_that_to_another():
    x = torch.arange(10.0).view(1, 10).requires_grad_()

    def total_before(state, pieces, _):
        return state[0][:, None], (state[0] + pieces[0].sum(1),)

    def share(state, pieces, _):
        return pieces[0] * pieces[1], state

    before, (total,) = scan(total_before, (torch.zeros(1),), (x,), segment=4, sparse=True)
    assert before.tolist() == [[0, 0 + 1 + 2 + 3, 0 + 1 + 2 + 3 + 4 + 5 + 6 + 7]] and total.item() == 45
    y, _ = scan(share, (), (x, before), segment=4)
    assert torch.equal(y, x * before.repeat_interleave(4, dim=1)[:, :10])
    (gradient,) = torch.autograd.grad(y.sum(), x)
    # x_0 … x_3 count in the sums before the second and the third segment, x_4 … x_7 before the third.
    assert gradient[0, 0] == (4 + 5 + 6 + 7) + (8 + 9) and gradient[0, 9] == 28


@DIRECTIONS
@FADES
def test_linear_is_the_same_in_any_chunks_and_segments(causal, fades, monkeypatch):
    q, k, v = drawn(grad=True)
    mask, decay = torch.rand(2, LENGTH) > 0.3, torch.tensor([0.5, 0.01], dtype=torch.float64) if fades else None
    positions = torch.arange(LENGTH)[None]

    def found(attend):
        y = attend(q, k, v, causal=causal, padding_mask=mask, positions=positions, decay=decay)
        return [y, *torch.autograd.grad(y.square().sum(), (q, k, v))]

    square = found(naive_linear_attention)
    square[0] = square[0].masked_fill(~mask[..., None, None], 0)
    for chunk, numbers in ((64, 2**20), (16, 2000), (7, 1), (300, 1)):
        monkeypatch.setattr("genoattn.attention.ops.chunk_state.CHUNK", chunk)
        monkeypatch.setattr("genoattn.attention.ops.linear.CHUNK", chunk)
        monkeypatch.setitem(sizes.BY_DEVICE, "cpu", sizes.CPU._replace(segment=numbers))
        y, *_ = to_chunks = found(linear_attention)
        assert torch.allclose(y, square[0], atol=1e-10)
        if chunk == 64:
            first = to_chunks
        for got, expected in zip(to_chunks, first, strict=True):
            assert torch.allclose(got, expected, atol=1e-10)


@DIRECTIONS
@pytest.mark.parametrize("features", ["signed", "elu"])
@pytest.mark.parametrize("length", [64, 150])
def test_gradients_of_decay_rates_are_those_of_the_square(causal, features, length, monkeypatch):
    """Of one segment and of several, the last chunk whole or not."""
    q, k, v = drawn(length=length, grad=True)
    rates = torch.tensor([0.5, 0.01], dtype=torch.float64, requires_grad=True)

    def found(attend):
        y = attend(q, k, v, causal=causal, decay=rates, features=features)
        return [y, *torch.autograd.grad(y.square().sum(), (q, k, v, rates))]

    square = found(naive_linear_attention)
    for numbers in (2**20, 1):
        monkeypatch.setitem(sizes.BY_DEVICE, "cpu", sizes.CPU._replace(segment=numbers))
        for got, expected in zip(found(linear_attention), square, strict=True):
            assert torch.allclose(got, expected, atol=1e-9)


@DIRECTIONS
def test_memory_of_either_order_and_queries_of_another_length_than_keys(causal, monkeypatch):
    q, k, v = drawn(length=150, grad=True)
    q_, k_, v_ = (t.detach().repeat(1, 1, 2, 1)[:, :, ::2].requires_grad_() for t in (q, k, v))  # not contiguous
    few = slice(None) if causal else slice(100)
    monkeypatch.setitem(sizes.BY_DEVICE, "cpu", sizes.CPU._replace(segment=1))
    y = linear_attention(q_[:, few], k_, v_, causal=causal)
    expected = naive_linear_attention(*(t.detach().repeat(1, 1, 2, 1)[:, :, ::2] for t in (q, k, v)), causal=causal)
    assert torch.allclose(y, expected[:, few], atol=1e-10)
    assert all(torch.isfinite(t).all() for t in torch.autograd.grad(y.sum(), (q_, k_, v_)))


@FADES
def test_linear_is_its_recurrence(fades):
    q, k, v = drawn()
    decay = torch.tensor([0.5, 0.01], dtype=torch.float64) if fades else torch.zeros(2, dtype=torch.float64)
    phi_q, phi_k = feature_map(q, "elu"), feature_map(k, "elu")
    memory, total, answers = torch.zeros(2, 2, 4, 4, dtype=torch.float64), torch.zeros(2, 2, 4), []
    for at in range(LENGTH):
        memory = memory * (-decay).exp()[:, None, None] + phi_k[:, at, :, :, None] * v[:, at, :, None]
        total = total * (-decay).exp()[:, None] + phi_k[:, at]
        answers.append(torch.einsum("bhm,bhmd->bhd", phi_q[:, at], memory) / (phi_q[:, at] * total).sum(-1)[..., None])
    y = linear_attention(q, k, v, causal=True, decay=decay if fades else None)
    assert torch.allclose(y, torch.stack(answers, dim=1), atol=1e-10)


@FADES
def test_linear_hands_its_state_on(fades):
    q, k, v = drawn(grad=True)
    decay = torch.tensor([0.5, 0.01], dtype=torch.float64) if fades else None
    seen, options, answers = empty_state(2, 2, 4, 4, v), LinearOptions("elu", None, None, decay), []
    for start, stop in ((0, 1), (1, 77), (77, LENGTH)):
        y, seen = causal_scan(*(t[:, start:stop] for t in (q, k, v)), seen, options)
        answers.append(y)
    whole = linear_attention(q, k, v, causal=True, decay=decay)
    pieced = torch.cat(answers, dim=1)
    assert torch.allclose(pieced, whole, atol=1e-12) and seen[1].tolist() == [LENGTH, LENGTH]
    for got, expected in zip(*(torch.autograd.grad(y.square().sum(), (q, k, v)) for y in (pieced, whole)), strict=True):
        assert torch.allclose(got, expected, atol=1e-10)


@pytest.mark.parametrize("ahead", [False, True])
def test_delta_is_its_recurrence_in_any_chunks_and_segments(ahead, monkeypatch):
    (q, k, v), (write, log_kept) = drawn(), gates()
    k, empty = F.normalize(k, dim=-1), torch.zeros(2, 2, 4, 4, dtype=torch.float64)
    recurrent = naive_delta_rule(q, k, v, write, log_kept, ahead)
    for chunk, numbers in ((64, 2**20), (64, 1), (16, 400), (300, 1)):  # 300: the whole square
        monkeypatch.setattr("genoattn.attention.ops.delta_rule.CHUNK", chunk)
        monkeypatch.setitem(sizes.BY_DEVICE, "cpu", sizes.CPU._replace(segment=numbers))
        y, _ = delta_rule(q, k, v, write, log_kept, empty, ahead)
        assert torch.allclose(y, recurrent, atol=1e-10)


def test_delta_hands_its_state_on():
    (q, k, v, memory), (write, log_kept) = drawn((2, 2, 4, 4)), gates()
    pieces = (q, F.normalize(k, dim=-1), v, write, log_kept)
    whole, last = delta_rule(*pieces, memory)
    first, middle = delta_rule(*(t[:, :77] for t in pieces), memory)
    second, end = delta_rule(*(t[:, 77:] for t in pieces), middle)
    assert torch.allclose(torch.cat([first, second], dim=1), whole, atol=1e-12) and torch.allclose(end, last)
    right, beyond = delta_rule(*(t[:, 77:] for t in pieces), memory, ahead=True)
    left, _ = delta_rule(*(t[:, :77] for t in pieces), beyond, ahead=True)
    assert torch.allclose(torch.cat([left, right], dim=1), delta_rule(*pieces, memory, ahead=True)[0], atol=1e-12)


def kept_beside(inputs, run) -> int:
    """Number of elements that the backward pass keeps beside the inputs."""
    own, found = {t.untyped_storage().data_ptr() for t in inputs}, {}

    def note(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            found[storage.data_ptr()] = storage.nbytes() // tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        run()
    return sum(found.values())


@DIRECTIONS
@FADES
def test_backward_keeps_queries_keys_values_and_small_states(causal, fades, monkeypatch):
    monkeypatch.setitem(sizes.BY_DEVICE, "cpu", sizes.CPU._replace(segment=8192))  # segments of 512 tokens
    q, k, v = drawn(length=2048, grad=True)
    decay = torch.tensor([0.5, 0.01], dtype=torch.float64) if fades else None
    beside = kept_beside((q, k, v), lambda: linear_attention(q, k, v, causal=causal, decay=decay))
    memory = 2 * 2 * 4 * (4 + 1)
    assert beside <= 3 * (4 + 1) * (memory + 2) < q.numel() / 10


@DIRECTIONS
@FADES
def test_the_least_denominator_is_that_of_the_square(causal: bool, fades: bool) -> None:
    """Queries that match no key: the sum of their weights, about 1e-8, is below the least denominator."""
    q, k, v = drawn(length=40)
    q, rates = q - 22, torch.rand(2, dtype=torch.float64) if fades else None
    expected = naive_linear_attention(q, k, v, causal=causal, decay=rates)
    phi = feature_map(q, "elu")[0, -1, 0] @ feature_map(k, "elu")[0, :, 0].sum(0)
    assert phi < 1e-6 and expected.abs().max() > 1e-4
    assert torch.allclose(linear_attention(q, k, v, causal=causal, decay=rates), expected, rtol=1e-6, atol=0)
