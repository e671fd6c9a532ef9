"""One sequence over several processes: exchanges and their gradients; that of layers is a check of every layer."""

import pickle

import pytest
import torch

from genoattn.attention.base import Attention, TokenLayout
from genoattn.attention.conformance.parallel import Case, over_processes
from genoattn.attention.conformance.probes import difference, output_and_gradients
from genoattn.attention.none import NoAttention
from genoattn.attention.parallel import Span
from genoattn.attention.parallel.processes import ProcessesError, processes
from genoattn.attention.parallel.shards import padded_layout
from genoattn.attention.window import WindowAttention
from genoattn.errors import UserError
from tests.attention import on_each_process as there

WORLDS = pytest.mark.parametrize("world", [2, 4])


@WORLDS
def test_fetch_returns_what_each_process_asks_for(world):
    length, x = 12, there.whole(12)
    ranges = [[(0, 0), (rank, rank + 2), (5, 9), (11, 12)] for rank in range(world)]
    found = processes(world).run(there.fetched, length, ranges)
    counts = torch.zeros(length, dtype=x.dtype)
    for rank, (some, _) in enumerate(found):
        index = [at for start, stop in ranges[rank] for at in range(start, stop)]
        assert torch.equal(some, x[:, index])
        counts[index] += rank + 1
    gradient = torch.cat([gradient for _, gradient in found], dim=1)
    assert torch.equal(gradient, counts[:, None].expand_as(x))


@WORLDS
@pytest.mark.parametrize(("left", "right"), [(0, 0), (2, 1), (0, 3), (7, 11), (30, 30)])
def test_a_halo_reaches_over_several_shards(world, left, right):
    length, x = 12, there.whole(12)
    size, reads = length // world, torch.zeros(length, dtype=x.dtype)
    found = processes(world).run(there.wide, length, left, right)
    for rank, (some, positions, inner, _) in enumerate(found):
        start, stop = max(0, rank * size - left), min(length, (rank + 1) * size + right)
        assert torch.equal(some, x[:, start:stop])
        assert torch.equal(positions, torch.arange(start, stop).expand(2, -1))
        assert torch.equal(inner, x[:, rank * size : (rank + 1) * size])
        reads[start:stop] += 1
    assert torch.equal(torch.cat([part[3] for part in found], dim=1), reads[:, None].expand_as(x))


@WORLDS
def test_sums_and_gathers_have_the_gradients_of_all_processes(world):
    length, x = 12, there.whole(12)
    parts, weights = x.split(length // world, dim=1), sum(range(1, world + 1))
    for rank, (summed, by_sum, largest, tokens, by_tokens) in enumerate(processes(world).run(there.summed, length)):
        assert torch.equal(summed, torch.stack(parts).sum(0))
        assert torch.equal(largest, parts[-1])
        assert torch.equal(tokens, x)
        for gradient in (by_sum, by_tokens):
            assert torch.equal(gradient, torch.full_like(parts[rank], weights))


@WORLDS
@pytest.mark.parametrize("ahead", [False, True])
def test_a_memory_is_carried_through_the_shards_before(world, ahead):
    for rank, (memory, more) in enumerate(processes(world).run(there.memories, ahead)):
        expected = 0.0
        for other in range(world - 1, rank, -1) if ahead else range(rank):
            expected = expected / 2 + 2.0**other
        assert memory.tolist() == [expected]
        assert more[:, 0, 0].tolist() == list(range(world))


def test_a_dimension_of_a_mesh_is_a_group():
    x = there.whole(8)
    first, second = x[:, :4], x[:, 4:]
    for rank, (some, total, exchanged, number) in enumerate(processes(4).run(there.over_a_mesh)):
        assert number == rank % 2
        assert torch.equal(some, (first, second)[number])
        assert torch.equal(total, first + second)
        rows = slice(2 * number, 2 * number + 2)
        assert torch.equal(exchanged, torch.cat([first[0, rows], second[0, rows]]))


def test_an_error_in_one_process_ends_all_and_others_take_their_place():
    with pytest.raises(ProcessesError, match="ValueError: no such token"):
        processes(2).run(there.fail_on_the_last)
    assert len(processes(2).run(there.described, 8)) == 2


def test_what_a_process_cannot_read_is_told():
    class Unreadable:
        def __reduce__(self):
            return (pickle.loads, (b"no pickle",))

    with pytest.raises(pickle.UnpicklingError):
        processes(2).run(there.described, Unreadable())
    assert len(processes(2).run(there.described, 8)) == 2


def test_shards_are_filled_up_with_padding_that_goes_on_as_the_sequence_does():
    turns = torch.arange(7).expand(2, -1) % 2
    layout = padded_layout(TokenLayout(None, 10 * torch.arange(7).expand(2, -1), turns), there.whole(7), 12)
    assert layout.padding_mask is not None and layout.padding_mask[0].tolist() == [True] * 7 + [False] * 5
    assert layout.alternating and not layout.boundary
    halves = padded_layout(TokenLayout(None, None, (torch.arange(7) > 2).long().expand(2, -1)), there.whole(7), 8)
    assert halves.boundary == 3 and halves.position_ids is None
    assert padded_layout(layout, there.whole(12), 12) is layout
    parts = processes(4).run(there.described, 7, 2)
    assert [(part.shape[1], start) for part, start, _ in parts] == [(2, 0), (2, 2), (2, 4), (2, 6)]
    assert parts[3][2].tolist() == [[True, False]] * 2


@WORLDS
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("settings", [{"global_tokens": 9}, {"left": 40, "right": 40}, {"global_tokens": 50}])
def test_global_tokens_and_windows_may_be_longer_than_a_shard(world, causal, settings):
    torch.manual_seed(0)
    layer = WindowAttention(16, causal, **({"left": 3, "right": 2} | settings)).double()
    x, upstream = (torch.randn(2, 21, 16, dtype=torch.float64) for _ in range(2))
    case = Case(x, TokenLayout(torch.rand(2, 21) > 0.2), upstream)
    found = over_processes(layer, [case], world, gradients=True)
    alone = output_and_gradients(layer, case.x, case.layout, upstream=upstream)
    assert isinstance(found, list)
    assert max(difference(a, b) for a, b in zip(found[0], alone, strict=True)) < 1e-12


def test_a_layer_without_a_receptive_field_refuses_in_words():
    class Everywhere(NoAttention):  # type: ignore[misc]
        receptive_field = None

        def __init__(self):
            super().__init__(4, False)
            self.receptive_field = None

    layout = TokenLayout(span=Span(None, 0, 2, 3, TokenLayout()))
    with pytest.raises(UserError, match=r"Everywhere \(bidirectional\) cannot be computed by several processes"):
        Everywhere()(torch.zeros(1, 3, 4), layout)
    assert Attention.shard_multiple == 1
