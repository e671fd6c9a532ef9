"""Windows of variants against a naive construction: the mutation is applied to the whole record, which is sliced."""

from pathlib import Path

import numpy as np
import pytest

from genoattn.genome.alphabet import decode_bases
from genoattn.genome.mutations import Mutation, mutated_sequence
from genoattn.genome.sequence_store import Genome, open_genome
from genoattn.genome.variant_windows import window_pairs

LENGTH = 20


@pytest.fixture(scope="module")
def genome(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Genome:
    fasta = tmp_path_factory.mktemp("genome") / "x.fa"
    rng = np.random.default_rng(0)
    fasta.write_text("".join(f">{n}\n{decode_bases(rng.integers(0, 4, n, np.uint8))}\n" for n in (100, 25, 12)))
    return open_genome([Path(fasta)])


def naive(record: np.ndarray, mutation: Mutation) -> list[tuple[str, str]]:
    """The windows of both anchors; those where the allele has no room are left out."""
    mutated, added = mutated_sequence(record, [mutation]), len(mutation.inserted) - (mutation.stop - mutation.start)
    begin = min(max((mutation.start + mutation.stop) // 2 - LENGTH // 2, 0), max(len(record) - LENGTH, 0))
    end = min(begin + LENGTH, len(record))
    pairs = []
    size = min(end - begin, len(mutated) - begin)
    if mutation.stop <= begin + size and mutation.start + len(mutation.inserted) <= begin + size:
        pairs.append((record[begin : begin + size], mutated[begin : begin + size]))
    size = min(end - begin, end + added)
    if end - size <= mutation.start and end + added - size <= mutation.start:
        pairs.append((record[end - size : end], mutated[end + added - size : end + added]))
    texts = [(decode_bases(first), decode_bases(second)) for first, second in pairs if len(first) > 1]
    return list(dict.fromkeys(texts))


@pytest.mark.parametrize("number", range(3))
@pytest.mark.parametrize(
    ("removed", "added"), [(1, 1), (3, 3), (0, 1), (0, 7), (1, 0), (9, 0), (2, 3), (4, 1), (0, 15)]
)
def test_windows_are_slices_of_the_mutated_record(genome: Genome, number: int, removed: int, added: int) -> None:
    record = genome.fetch(number, 0, genome.lengths[number])
    for start in range(len(record) - removed + 1):
        old = record[start : start + removed]
        new = (np.resize(old if removed else np.zeros(1, np.uint8), added) + 1) % 4
        mutation = Mutation(start, start + removed, new.astype(np.uint8).tobytes())
        pairs = window_pairs(genome, number, mutation, LENGTH)
        assert [tuple(decode_bases(window.bases) for window in pair) for pair in pairs] == naive(record, mutation)
        for first, second in pairs:
            assert len(first.bases) == len(second.bases) <= LENGTH
            assert np.array_equal(first.bases[first.start : first.stop], old)
            assert np.array_equal(second.bases[second.start : second.stop], new)


def test_anchors(genome: Genome) -> None:
    middle = window_pairs(genome, 0, Mutation(50, 50, bytes([0, 1])), LENGTH)
    (left, left_mutated), (right, right_mutated) = middle
    assert np.array_equal(left.bases, right.bases) and len(left.bases) == LENGTH
    assert left.start == left_mutated.start == 10 and right_mutated.start == 8
    assert np.array_equal(left.bases[:10], left_mutated.bases[:10])
    assert np.array_equal(right.bases[10:], right_mutated.bases[10:])
    assert len(window_pairs(genome, 0, Mutation(50, 51, bytes([0])), LENGTH)) == 1
    assert len(window_pairs(genome, 0, Mutation(0, 0, bytes([0])), LENGTH)) == 1
    assert not window_pairs(genome, 0, Mutation(40, 61, b""), LENGTH)
