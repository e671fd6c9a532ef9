"""What a layer sends when several processes hold a sequence: counted in collectives, and by its formula."""

import pytest

from benchmarks.models.sequence_parallel import MOVING, built_layer, moved_by
from benchmarks.models.sequence_parallel_paper import FLOAT, formula, sent_to_choose
from genoattn.attention.parallel.processes import processes

LENGTH, WORLD = 2048, 4
SETTINGS = {
    "sparse": {"blocks_per_query": LENGTH // 64},  # all of them: every shard asks for the tokens of all others
    "nsa": {"blocks_per_query": LENGTH // 32},
    "pyramid": {"left": 20, "right": 10},  # within the 32 cells of a shard
}


@pytest.mark.parametrize("causal", [False, True], ids=["both ways", "causal"])
@pytest.mark.parametrize("name", MOVING)
def test_bytes_that_a_layer_sends(name: str, causal: bool) -> None:
    settings = SETTINGS.get(name, {})
    found = processes(WORLD).run(moved_by, name, causal, LENGTH, settings)
    built = built_layer(name, causal, settings)
    most = FLOAT * formula(built, LENGTH, WORLD)
    forwards, backwards = (max(direction) for direction in zip(*found, strict=True))
    assert (forwards, backwards) == (most + sent_to_choose(built, LENGTH, WORLD), most)


@pytest.mark.parametrize("name", ["sparse", "nsa"])
def test_fewer_blocks_are_fewer_bytes(name: str) -> None:
    one, few = (processes(WORLD).run(moved_by, name, False, LENGTH, {"blocks_per_query": n}) for n in (LENGTH, 3))
    assert all(less[0] < more[0] / 3 and less[1] < more[1] / 3 for more, less in zip(one, few, strict=True))
