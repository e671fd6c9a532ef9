"""Two assemblies laid beside each other: blocks on both strands, what differs within them, and what has no place."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genoattn.genome.alphabet import UNKNOWN, reverse_complement
from genoattn.genome.anchors import Anchor, chain, chains
from genoattn.genome.assembly_placement import LONGEST_GAP, Block, Placement, place_assembly
from genoattn.genome.calls import untested_parts
from genoattn.genome.local_alignment import align, extension
from genoattn.genome.mutations import Mutation, apply_mutations, mutated_sequence
from genoattn.genome.reference_index import ReferenceIndex
from genoattn.genome.simulate import Rates, simulate

RATES = Rates(rate=0.01, snv=0.7, mnv=0.1, insertion=0.1, deletion=0.1, longest=6)


def random_bases(length: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 4, length, np.uint8)


def mutated(reference: np.ndarray, seed: int) -> np.ndarray:
    return mutated_sequence(reference, simulate(reference, RATES, np.random.default_rng(seed)))


def check_blocks(records: Sequence[np.ndarray], contigs: Sequence[np.ndarray], least: float = 0.99) -> list[Block]:
    """The blocks of a sample; their mutations make the sample of the reference, and no base is in two of them."""
    blocks, share, _ = place_assembly(records, contigs)
    assert share >= least
    for block in blocks:
        made = apply_mutations(records[block.record][block.start : block.stop], block.mutations)
        assert np.array_equal(made.bases, block.oriented(contigs[block.contig]))
    for spans in (
        sorted((block.record, block.start, block.stop) for block in blocks),
        sorted((block.contig, block.contig_start, block.contig_stop) for block in blocks),
    ):
        assert all(left[0] < right[0] or left[2] <= right[1] for left, right in pairwise(spans))
    return list(blocks)


def sizes(block: Block) -> list[int]:
    return [len(inserted) - (stop - start) for start, stop, inserted in block.mutations]


def test_an_equal_genome_is_one_block() -> None:
    reference = random_bases(20_000, 0)
    (block,) = check_blocks([reference], [reference], 1)
    assert block[:7] == (0, 0, 20_000, 0, 0, 20_000, False) and not block.mutations


@pytest.mark.parametrize("reverse", [False, True])
def test_small_mutations_are_found_on_both_strands(reverse: bool) -> None:
    reference = random_bases(30_000, 1)
    sample = mutated(reference, 2)
    contig = reverse_complement(sample) if reverse else sample
    (block,) = check_blocks([reference], [contig], 1)
    assert block.reverse == reverse and len(block.mutations) > 200
    assert (block.start, block.stop, block.contig_start, block.contig_stop) == (0, 30_000, 0, len(contig))


@pytest.mark.parametrize("size", [11, 300, 5000])
def test_long_indels_lie_within_a_block(size: int) -> None:
    reference, new = random_bases(30_000, 3), random_bases(size, 4)
    (block,) = check_blocks([reference], [np.delete(reference, slice(9000, 9000 + size))])
    assert sizes(block) == [-size]
    (block,) = check_blocks([reference], [np.insert(reference, 9000, new)])
    assert sizes(block) == [size]


def test_a_longer_one_ends_a_block_and_is_told() -> None:
    reference = random_bases(40_000, 5)
    size = LONGEST_GAP + 1
    contig = np.delete(reference, slice(9000, 9000 + size))
    blocks = check_blocks([reference], [contig])
    assert len(blocks) == 2
    absent, rest = untested_parts([reference], [contig], Placement(tuple(blocks), 1))
    assert [part.reason for part in absent] == ["absent"] and not rest
    assert absent[0].stop - absent[0].start == size


def test_an_inversion_is_a_block_of_its_own() -> None:
    reference = random_bases(30_000, 6)
    contig = mutated(reference, 7)
    contig[10_000:10_600] = reverse_complement(contig[10_000:10_600])
    blocks = check_blocks([reference], [contig])
    assert [block.reverse for block in blocks] == [False, True, False]
    assert abs(blocks[1].contig_start - 10_000) < 20 and abs(blocks[1].contig_stop - 10_600) < 20


def test_contigs_in_any_order_on_records_in_any_order() -> None:
    records = [random_bases(20_000, 8), random_bases(9_000, 9)]
    turned = np.concatenate([records[0][12_000:], records[0][:12_000]])  # a circle that starts elsewhere
    contigs = [reverse_complement(records[1][4_000:]), turned, random_bases(300, 10), records[1][:4_000]]
    blocks = check_blocks(records, contigs, 0.98)
    assert [block[:7] for block in blocks] == [
        (0, 0, 12_000, 1, 8_000, 20_000, False),
        (0, 12_000, 20_000, 1, 0, 8_000, False),
        (1, 0, 4_000, 3, 0, 4_000, False),
        (1, 4_000, 9_000, 0, 0, 5_000, True),
    ]
    untested, unplaced = untested_parts(records, contigs, Placement(tuple(blocks), 1))
    assert not untested and unplaced == [(2, 0, 300, "absent")]


def test_unlike_and_unknown_parts_are_told() -> None:
    reference = random_bases(20_000, 11)
    contig = reference.copy()
    contig[5_000:5_400], contig[12_000:12_300] = random_bases(400, 12), UNKNOWN
    blocks = check_blocks([reference], [contig], 0.97)
    for parts in untested_parts([reference], [contig], Placement(tuple(blocks), 1)):
        assert [part.reason for part in parts[:1]] == ["unlike"]
        assert 4_990 <= parts[0].start <= 5_010 and 5_390 <= parts[0].stop <= 5_410
    assert untested_parts([reference], [contig], Placement(tuple(blocks), 1))[1][1] == (0, 12_000, 12_300, "unknown")


def test_a_copy_in_the_sample_has_no_place_of_its_own() -> None:
    reference = random_bases(20_000, 13)
    blocks = check_blocks([reference], [reference, reference[3_000:5_000]], 0.9)
    assert len(blocks) == 1


def test_a_diverged_copy_elsewhere_is_not_the_same_place() -> None:
    reference, rng = random_bases(150_000, 30), np.random.default_rng(31)
    prophage = mutated_sequence(reference[50_000:62_000], simulate(reference[50_000:62_000], Rates(0.03), rng))
    sample = np.concatenate([reference[:50_000], reference[62_000:100_000], prophage, reference[100_000:]])
    placement = place_assembly([reference], [sample])
    (copy,) = placement.copies
    assert copy.start < 50_200 and copy.stop > 61_800 and abs(copy.contig_start - 88_000) < 200
    assert [(block.start, block.stop) for block in placement.blocks] == [
        (0, 50_000),
        (62_000, 100_000),
        (100_000, 150_000),
    ]
    for parts in untested_parts([reference], [sample], placement):
        assert "copy" in {part.reason for part in parts} and sum(part.stop - part.start for part in parts) < 12_400


def test_a_moved_part_is_the_same_place() -> None:
    reference = mutated(random_bases(150_000, 32), 33)
    parts = (0, 50_000), (62_000, 100_000), (50_000, 62_000), (100_000, len(reference))
    sample = np.concatenate([reference[start:stop] for start, stop in parts])
    placement = place_assembly([reference], [mutated(sample, 33)])
    assert len(placement.blocks) == 4 and not placement.copies and placement.share > 0.99


@pytest.mark.parametrize("reverse", [False, True])
def test_an_end_full_of_differences_is_cut_off(reverse: bool) -> None:
    reference = random_bases(30_000, 34)
    contig = reference[5_000:25_000].copy()
    contig[20:200:12] ^= 2
    contig[19_812:19_990:12] ^= 2
    (block,) = place_assembly([reference], [reverse_complement(contig) if reverse else contig]).blocks
    start, stop = 5_000 + 189, 5_000 + 19_812
    assert (block.start, block.stop) == (start, stop) and not block.mutations
    assert (block.contig_start, block.contig_stop) == ((188, 19_811) if reverse else (189, 19_812))


def test_differences_at_the_very_ends_are_found() -> None:
    reference = random_bases(5_000, 14)
    sample = reference.copy()
    sample[[0, 4, 4_995, 4_999]] = 3 - sample[[0, 4, 4_995, 4_999]]
    (block,) = check_blocks([reference], [sample], 1)
    assert [mutation.start for mutation in block.mutations] == [0, 4, 4_995, 4_999]


def test_unrelated_sequences_share_nothing() -> None:
    assert place_assembly([random_bases(200_000, 15)], [random_bases(200_000, 16)]) == Placement((), 0)
    assert place_assembly([random_bases(9, 15)], [random_bases(3, 16)]).share == 0
    assert place_assembly([np.full(100, UNKNOWN, np.uint8)], [np.full(100, UNKNOWN, np.uint8)]).share == 0


def test_the_index_holds_what_occurs_once_on_both_strands() -> None:
    records = [random_bases(500, 17), random_bases(400, 18)]
    records.append(np.concatenate([records[0][100:140], reverse_complement(records[1][200:240])]))
    index = ReferenceIndex(records)
    strands = {(group.record, group.reverse): group.anchors for group in index.anchors(reverse_complement(records[1]))}
    last = int(index.offsets[1])
    assert list(strands) == [(1, True)]
    before, after = strands[1, True]
    assert (before.start, before.diagonal - last, after.stop, after.diagonal - last) == (0, 0, 400, 0)
    # A base beyond the copy is equal by chance now and then.
    assert abs(before.stop - 200 - index.k) < 3 and abs(after.start - 240 + index.k) < 3


def test_chains_share_no_anchor() -> None:
    anchors = [Anchor(0, 30, 0), Anchor(40, 90, 0), Anchor(200, 300, 0), Anchor(310, 340, -300), Anchor(345, 400, -300)]
    found = chains(anchors, 20)
    assert found[0][1] == chain(anchors) == anchors[:3]
    assert [members for _, members in found[1:]] == [anchors[3:]]
    assert chains(anchors, 100)[1:] == [] and chains([], 1) == []


@pytest.mark.parametrize("seed", range(12))
def test_any_assemblies_give_blocks_that_hold(seed: int) -> None:
    """Few letters, tandem repeats, palindromes, copies, N and contigs of any size, on both strands."""
    rng = np.random.default_rng(seed)
    first, second = (rng.integers(0, rng.integers(2, 5), rng.integers(1, 1500), np.uint8) for _ in range(2))
    records = [np.concatenate([first, np.tile(first[:7], 20), first[::-1]]), second]
    contigs = []
    for _ in range(4):
        start, stop = np.sort(rng.integers(0, len(records[0]), 2))
        contig = mutated_sequence(records[0][start : stop + 1], simulate(records[0][start : stop + 1], RATES, rng))
        contig[rng.integers(len(contig)) :][:20] = UNKNOWN
        contigs.append(reverse_complement(contig) if rng.random() < 0.5 else contig)
    blocks = check_blocks(records, contigs, 0)
    held = sum(block.stop - block.start for block in blocks)
    untested = sum(part.stop - part.start for part in untested_parts(records, contigs, Placement(tuple(blocks), 1))[0])
    assert held + untested == sum(map(len, records))


def spelled(letters: str) -> np.ndarray:
    return np.array(["ACGTRYSWKMBDHVN".index(letter) for letter in letters], np.uint8)


@pytest.mark.parametrize(
    ("reference", "sample", "mutations"),
    [
        ("ACGT", "ACGT", []),
        ("ACGT", "ACT", [Mutation(2, 3, b"")]),
        ("AAAA", "AAAAA", [Mutation(4, 4, b"\0")]),
        ("ACGTA", "ATGTC", [Mutation(1, 2, b"\3"), Mutation(4, 5, b"\1")]),
        ("ACGTA", "ANGTC", [Mutation(1, 2, b"\16"), Mutation(4, 5, b"\1")]),
        ("", "AC", [Mutation(0, 0, b"\0\1")]),
        ("ACGTACGTTGCA" * 9, "TTGACCATATGG" * 9, None),
        ("A", "N" * 60, None),
    ],
)
def test_alignment(reference: str, sample: str, mutations: list[Mutation] | None) -> None:
    assert align(spelled(reference), spelled(sample)) == mutations


bases = st.lists(st.integers(0, 3), max_size=30).map(lambda codes: np.array(codes, np.uint8))


@settings(max_examples=200, deadline=None)
@given(bases, bases)
def test_an_alignment_makes_the_sample(reference: np.ndarray, sample: np.ndarray) -> None:
    mutations = align(reference, sample)
    assert mutations is not None  # too short to be unlike
    assert np.array_equal(apply_mutations(reference, mutations).bases, sample)


def test_a_large_gap_is_cut_at_anchors_of_its_own() -> None:
    repeat = random_bases(3_000, 19)
    mutations = align(repeat, mutated(repeat, 20))
    assert mutations is not None and len(mutations) > 15


def test_an_extension_ends_where_the_sequences_are_unlike() -> None:
    one, other = random_bases(500, 21), random_bases(500, 22)
    sample = np.concatenate([one[:200], other[:300]])
    sample[50] = 3 - sample[50]
    assert 200 <= extension(one, sample, True) < 210
    assert extension(one, one, False) == 500 and extension(one[:0], one[:0], True) == 0
    sample = one[:20].copy()
    sample[19] = 3 - sample[19]
    assert extension(one[:20], sample, True) == 20 and extension(one[:20], sample, False) == 19
