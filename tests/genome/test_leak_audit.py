"""What is held out is compared with what is trained on: both strands, whatever the pieces, on genomes of any kind."""

from pathlib import Path

import numpy as np
import pytest

from genoattn.errors import UserError
from genoattn.genome import leak_audit
from genoattn.genome.alphabet import decode_bases, encode_bases, reverse_complement
from genoattn.genome.intervals import Interval
from genoattn.genome.leak_audit import WINDOW, K, LeakAudit, audit_leak, check_leak
from genoattn.genome.sequence_store import Genome, open_genome
from genoattn.genome.splits import split_blocks

DATA = Path(__file__).parents[2] / "data"
RANDOM = np.random.default_rng(0)


def letters(size: int) -> str:
    return decode_bases(RANDOM.integers(0, 4, size, np.uint8))


def other_strand(sequence: str) -> str:
    return decode_bases(reverse_complement(encode_bases(sequence)))


def genome_of(folder: Path, *records: str) -> Genome:
    (folder / "a.fa").write_text("".join(f">r{n}\n{record}\n" for n, record in enumerate(records)))
    return open_genome([folder / "a.fa"], folder / "cache")


def whole(genome: Genome, *records: int) -> list[Interval]:
    return [Interval(record, 0, genome.lengths[record]) for record in records]


def minimizers(genome: Genome, density: float | None = None) -> set[int]:
    return set(leak_audit._minimizers(genome, whole(genome, 0), density).tolist())


def number(kmer: str) -> int:
    """The number of a k-mer or of its other strand, whichever is lower."""
    return min(int("".join(str("ACGT".index(base)) for base in one), 4) for one in (kmer, other_strand(kmer)))


def test_every_window_has_a_minimizer_and_both_strands_have_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sequence = letters(300) + "ac" * 30 + "N" + letters(200) + "R" + letters(K - 1)
    genome = genome_of(tmp_path, sequence)
    found = minimizers(genome)
    kmers = [sequence[at : at + K].upper() for at in range(len(sequence) - K + 1)]
    numbers = [number(kmer) if set(kmer) <= set("ACGT") else None for kmer in kmers]
    assert found <= set(numbers)
    assert all(found & set(numbers[at : at + WINDOW]) for at in range(500) if None not in numbers[at : at + WINDOW])
    assert 0.1 < len(found) / 500 < 0.3
    assert minimizers(genome_of(tmp_path, other_strand(sequence))) == found
    sampled = minimizers(genome, 0.5)
    assert sampled <= set(numbers) and 100 < len(sampled) < 400
    monkeypatch.setattr(leak_audit, "_PIECE", 50)
    assert minimizers(genome) == found and minimizers(genome, 0.5) == sampled


def test_records_that_are_read_together_are_apart(tmp_path: Path) -> None:
    genome = genome_of(tmp_path, letters(90), letters(30), letters(90), letters(20))
    one, short, two, shorter = (set(leak_audit._minimizers(genome, whole(genome, n), None).tolist()) for n in range(4))
    assert set(leak_audit._minimizers(genome, whole(genome, 0, 1, 2, 3), None).tolist()) == one | two
    assert len(one) > 5 and len(two) > 5 and not one & two and not short and not shorter


@pytest.mark.parametrize("sampled_above", [leak_audit.SAMPLED_ABOVE, 10_000])
def test_the_share_is_that_of_the_copied_bases(
    tmp_path: Path, sampled_above: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leak_audit, "SAMPLED_ABOVE", sampled_above)
    train = letters(20_000)
    genome = genome_of(tmp_path, train, other_strand(train[5_000:8_000]) + letters(9_000), letters(4_000))
    audit = audit_leak(genome, whole(genome, 0), whole(genome, 2), whole(genome, 1))
    assert audit.test == pytest.approx(0.25, abs=0.06) and audit.validation == 0 and audit.duplicates == ()
    assert str(audit) == (
        f"leak audit: {audit.test:.1%} of the test minimizers and 0.0% of the validation minimizers occur in training"
        " blocks, 0 duplicate records"
    )


def test_records_that_stand_twice_are_named_by_strand_and_case(tmp_path: Path) -> None:
    first = letters(100)
    records = (first, letters(100), other_strand(first).lower(), first[:99], first)
    assert audit_leak(genome_of(tmp_path, *records), [], [], []).duplicates == (("r2", "r0"), ("r4", "r0"))


def test_genomes_without_k_mers_and_of_repeats(tmp_path: Path) -> None:
    genome = genome_of(tmp_path, "N" * 500, "ACGT", "A" * 500, "T" * 500, "GATTACA" * 70)
    blank, short, run, opposite, repeat = (whole(genome, record) for record in range(5))
    assert audit_leak(genome, blank, short, run)[:2] == (0, 0)
    assert audit_leak(genome, run, blank, opposite)[:2] == (1, 0)
    assert audit_leak(genome, repeat, repeat, run)[:2] == (0, 1)
    assert audit_leak(genome, [], run, run)[:2] == (0, 0)


@pytest.mark.parametrize("name", ["NCTC8325", "ecoli_MG1655"])
def test_the_genomes_that_ship_leak_their_repeats_alone(name: str, tmp_path: Path) -> None:
    genome = open_genome([DATA / f"{name}.fa.gz"], tmp_path)
    audit = audit_leak(genome, *split_blocks(genome.lengths, 512)[:3])
    assert 0 < audit.test < 0.04 and 0 < audit.validation < 0.04 and not audit.duplicates


@pytest.mark.parametrize(
    ("audit", "words"),
    [
        (
            LeakAudit(0.61, 0, ()),
            "61.0% of the test minimizers (24 bases, both strands) occur in training blocks, and ",
        ),
        (LeakAudit(0, 0.7, ()), "70.0% of the validation minimizers"),
        (LeakAudit(0, 0, (("b", "a"),)), "data.fasta holds the sequence of record a again as b, and data.split=record"),
    ],
)
def test_too_large_a_leak_is_an_error(audit: LeakAudit, words: str) -> None:
    with pytest.raises(UserError) as error:
        check_leak(audit, 0.5, split="record")
    assert str(error.value).startswith(words) and "set data.max_leak=null" in str(error.value)
    check_leak(audit, None, split="record")
    check_leak(audit._replace(duplicates=()), 0.7, split="record")
    check_leak(audit, 0.7, split="block")
