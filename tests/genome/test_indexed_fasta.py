"""FASTA files with indexes are read in parts, and an index that does not fit is noticed before a wrong base is read."""

import os
from pathlib import Path

import numpy as np
import pysam
import pytest

from genoattn.errors import UserError
from genoattn.genome.alphabet import decode_bases
from genoattn.genome.indexed_fasta import IndexedFasta, open_for_parts
from genoattn.genome.sequence_store import Genome, open_genome
from tests.fuzz.cases import bgzip

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("GENOATTN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def write(file: Path, packed: bool = False, lengths: tuple[int, ...] = (150, 90, 70, 61), index: bool = True) -> Path:
    rng = np.random.default_rng(0)
    records = [decode_bases(rng.integers(0, 15, length, np.uint8)) for length in lengths]
    records = [
        f">r{number} some words\r\n" + "".join(f"{text[start : start + 60]}\r\n" for start in range(0, len(text), 60))
        for number, text in enumerate(records)
    ]
    text = "".join(records).replace("C", "c").encode()
    file.write_bytes(bgzip(text) if packed else text)
    if index:
        pysam.faidx(str(file))  # type: ignore[attr-defined]
    return file


@pytest.mark.parametrize("packed", [False, True])
def test_parts_are_those_of_the_store(packed: bool, tmp_path: Path, cache: Path) -> None:
    """Over the ends of lines and of the blocks of bgzip, which hold 64 KB each."""
    lengths = (150, 90, 70, 200_000) if packed else (150, 90, 70, 61)
    file = write(tmp_path / "a.fa", packed, lengths)
    indexed = open_for_parts([file])
    assert isinstance(indexed, IndexedFasta) and not list(cache.glob("genome-*"))
    store = open_genome([file])
    assert isinstance(open_for_parts([file]), Genome)
    assert indexed.names == store.names and indexed.lengths == store.lengths and indexed.identity == store.identity
    rng = np.random.default_rng(1)
    for record, length in enumerate(store.lengths):
        for start, stop in np.sort(rng.integers(0, length + 1, (20, 2))).tolist():
            assert np.array_equal(indexed.fetch(record, start, stop), store.fetch(record, start, stop))
    assert indexed.index("r2") == 2
    with pytest.raises(IndexError, match=r"bases 0\.\.71 of r2, which has 70"):
        indexed.fetch(2, 0, 71)
    with pytest.raises(UserError, match="the genome holds no record 'r9'; there are r0, r1, r2, r3"):
        indexed.index("r9")


def test_two_files_of_which_one_has_no_index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first, second = write(tmp_path / "a.fa"), write(tmp_path / "b.fa", packed=True)
    both = open_for_parts([first, second])
    assert isinstance(both, IndexedFasta) and both.names[-1] == "b:r3"
    assert np.array_equal(both.fetch(7, 0, 61), both.fetch(3, 0, 61))
    assert "4 record names stand in several FASTA files; r0 is read as a:r0 and b:r0" in capsys.readouterr().out
    (tmp_path / "b.fa.gzi").unlink()
    assert isinstance(open_for_parts([first, second]), Genome)
    message = f"{second}.fai is not used: {second}.gzi is missing; `samtools faidx {second}` makes both"
    assert message in capsys.readouterr().out


def test_an_index_that_is_older_than_its_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = write(tmp_path / "a.fa")
    os.utime(tmp_path / "a.fa.fai", (1, 1))
    assert isinstance(open_for_parts([file]), Genome)
    assert capsys.readouterr().out.startswith(f"{file}.fai is older than {file}, and is not used; `samtools faidx")


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("r2\t70", "r2\t69", "does not fit {}: the record r2 is not where it says; make it again with `samtools faidx"),
        ("r2\t70", "r2\t71", "does not fit {}: the record r2 is not where it says"),
        ("r2\t70", "r2\t700", "does not fit {}: the record r2 is not where it says"),
        ("r2\t", "r4\t", "does not fit {}: the record r4 is not where it says"),
        ("60\t62", "61\t62", "does not fit {}: the record r2 is not where it says"),
        ("r2\t", "r3\t", "line 4: expected a name of its own and four numbers, separated by tabs, got 'r3"),
        ("\t60\t62", "\t60", "line 1: expected a name of its own and four numbers"),
        ("r0\t150", "r0\t-150", "line 1: expected a name of its own and four numbers"),
        ("60\t62", "60\t9", "line 1: expected lines with bases, got 'r0"),
    ],
)
def test_an_index_that_does_not_fit(old: str, new: str, sentence: str, tmp_path: Path) -> None:
    file = write(tmp_path / "a.fa")
    index = tmp_path / "a.fa.fai"
    text = index.read_text()
    index.write_text(text.replace(old, new))
    assert old in text
    with pytest.raises(UserError) as caught:
        open_for_parts([file]).fetch(2, 10, 20)
    assert str(caught.value).startswith(f"{index}") and sentence.format(file) in str(caught.value)


def test_files_that_are_damaged_or_change(tmp_path: Path) -> None:
    file = write(tmp_path / "a.fa")
    genome = open_for_parts([file])
    content = file.read_bytes()
    file.write_bytes(content[:40] + b"!" + content[41:])
    with pytest.raises(UserError, match=r"a\.fa changed while it was being read"):
        genome.fetch(0, 0, 9)
    os.utime(tmp_path / "a.fa.fai")
    with pytest.raises(UserError, match=r"a\.fa, record r0, base 25: '!' is no base; expected one of ACGT"):
        open_for_parts([file]).fetch(0, 20, 30)
    packed = write(tmp_path / "b.fa", packed=True)
    (tmp_path / "b.fa.gzi").write_bytes(b"\1" + b"\0" * 7)
    with pytest.raises(UserError, match=r"b\.fa\.gzi is no index of bgzip; make it again with `samtools faidx"):
        open_for_parts([packed])
