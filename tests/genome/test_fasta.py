"""FASTA in every dress is read as the same codes, and every way to get it wrong has its sentence."""

import gzip
from pathlib import Path

import numpy as np
import pytest
from Bio import bgzf
from hypothesis import given, settings
from hypothesis import strategies as st

from genoattn.errors import UserError
from genoattn.genome.alphabet import LETTERS, SOFT, decode_bases, encode_bases
from genoattn.genome.fasta import Record, read_fasta

EITHER_CASE = LETTERS + LETTERS.lower()


def pack(text: bytes, packing: str) -> bytes:
    if packing == "plain":
        return text
    if packing == "gzip":
        return gzip.compress(text)
    if packing == "two gzips":  # what `cat a.gz b.gz` makes
        half = len(text) // 2
        return gzip.compress(text[:half]) + gzip.compress(text[half:])
    raise AssertionError(packing)


def write(path: Path, text: bytes, packing: str = "plain") -> Path:
    if packing == "bgzip":
        with bgzf.BgzfWriter(str(path)) as file:
            file.write(text)
    else:
        path.write_bytes(pack(text, packing))
    return path


def read(path: Path) -> dict[str, str]:
    """Names and letters as they stood, case included."""
    letters = {}
    for name, codes, _ in read_fasta(path):
        upper = decode_bases(codes & ~SOFT)
        letters[name] = "".join(u.lower() if c & SOFT else u for u, c in zip(upper, codes, strict=True))
    return letters


@st.composite
def fastas(draw: st.DrawFn) -> tuple[dict[str, str], bytes]:
    """Records, and a text that holds them in some legal dress."""
    names = draw(st.lists(st.from_regex(r"[!-~]{1,8}", fullmatch=True), min_size=1, max_size=4, unique=True))
    runs = st.text(EITHER_CASE, max_size=60) | st.sampled_from(["", "A", "n", "N" * 100])
    letters = [draw(runs) for _ in names]
    if not any(letters):
        letters[-1] = "g"
    end = draw(st.sampled_from(["\n", "\r\n"]))
    blanks = st.sampled_from(["", "", "", " ", "\t ", end, end + " " + end])
    text = draw(st.sampled_from(["", end, " " + end]))
    for name, run in zip(names, letters, strict=True):
        text += ">" + name + draw(st.sampled_from(["", " a description > of it", "\tx"])) + end
        width = draw(st.integers(1, 70))
        for start in range(0, len(run), width):
            text += run[start : start + width] + draw(blanks) + end
    if draw(st.booleans()):
        text = text.rstrip()
    return dict(zip(names, letters, strict=True)), text.encode()


@settings(max_examples=150, deadline=None)
@given(fastas(), st.sampled_from(["plain", "gzip", "two gzips", "bgzip"]))
def test_any_dress_is_read_as_the_same_letters(
    tmp_path_factory: pytest.TempPathFactory, fasta: tuple[dict[str, str], bytes], packing: str
):
    letters, text = fasta
    assert read(write(tmp_path_factory.mktemp("fasta") / "a.fa", text, packing)) == letters


def test_a_record_is_a_name_and_codes(tmp_path: Path):
    path = write(tmp_path / "a.fa", b">chr1 the first\nACGT\nnNry\n>chr2\n\n>chr3\nU")
    first, second, third = read_fasta(path)
    assert isinstance(first, Record) and first.name == "chr1"
    assert first.codes.dtype == np.uint8
    assert first.codes.tolist() == [0, 1, 2, 3, 14 | SOFT, 14, 4 | SOFT, 5 | SOFT]
    assert second.name == "chr2" and len(second.codes) == 0
    assert third.codes.tolist() == [3], "uracil is read as T"


def test_more_text_than_any_buffer(tmp_path: Path):
    rng = np.random.default_rng(0)
    bases = "".join(rng.choice(list("ACGTacgtN"), 300_000))
    text = f">one\n{bases}\n>two\r\n".encode() + b"\r\n".join(bases[i : i + 61].encode() for i in range(0, 300_000, 61))
    for packing in ("plain", "bgzip"):
        assert read(write(tmp_path / packing, text, packing)) == {"one": bases, "two": bases}


BROKEN = {
    "blank inside a line": (b">chr1\nACGT\nAC GT\n", "record chr1, line 3, column 3: ' ' is no base"),
    "blank before a line": (b">chr1\n ACGT\n", "record chr1, line 2, column 1: ' ' is no base"),
    "tab": (b">chr1\nAC\tGT\n", r"record chr1, line 2, column 3: '\t' is no base"),
    "gap": (b">chr1\nACGT\n>chr2\n\nA-\n", "record chr2, line 5, column 2: '-' is no base"),
    "stop": (b">chr1\nACGT*\n", "line 2, column 5: '*' is no base; expected one of ACGTRYSWKMBDHVN in either case"),
    "digits": (b">chr1\r\n61 ACGT\r\n", "record chr1, line 2, column 1: '6' is no base"),
    "protein": (b">sp|P1\nMKTAYI\n", "record sp|P1, line 2, column 6: 'I'"),
    "rubbish": (b">chr1\nAC\xffGT\n", "line 2, column 3: 'ÿ' is no base"),
    "nul": (b">chr1\nACGT\0\0\n", r"line 2, column 5: '\x00' is no base"),
    "vertical tab at a line's end": (b">chr1\nACGT\x0b\n", r"record chr1, line 2, column 5: '\x0b' is no base"),
    "form feed on a line of its own": (b">chr1\nACGT\n\x0c\n", r"line 3, column 1: '\x0c' is no base"),
    "information separator": (b">chr1\nACGT\x1f\r\n", r"line 2, column 5: '\x1f' is no base"),
    "next line": (b">chr1\nACGT\x85\n", r"line 2, column 5: '\x85' is no base"),
    "no-break space": (b">chr1\nACGT \xa0\n", "line 2, column 5: ' ' is no base"),
    "control character first": (b"\x1c\n>chr1\nACGT\n", "is not FASTA: expected '>' as the first character"),
    "name in UTF-8": (
        ">chr1\nA\n>à1 x\nC\n".encode(),
        "line 3: a record's name is printable ASCII, found 'à1'; rename the record",
    ),
    "name with a control character": (
        b">chr\x1d1\nA\n",
        r"line 1: a record's name is printable ASCII, found 'chr\x1d1'",
    ),
    "endless header": (b">" + b"chr" * 400_000, "line 1: a header of more than 1,048,576 characters"),
    "long name": (b">" + b"n" * 9999 + b"\nA*\n", f"record {'n' * 79}…, line 2, column 2: '*'"),
    "header with a blank before it": (b">chr1\nACGT\n >chr2\nA\n", "record chr1, line 3, column 1: ' '"),
    "header without a name": (b">chr1\nACGT\n>\nACGT\n", "line 3: a header without a name"),
    "headers only": (b">chr1\n>chr2\n\n", "holds headers but no bases"),
    "blank lines only": (b"\n \r\n\t\n", "is empty: it holds nothing but blank lines"),
    "fastq": (
        b"@read1\nACGT\n+\nIIII\n",
        "is not FASTA: expected '>' as the first character, found '@read1",
    ),
    "vcf": (b"##fileformat=VCFv4.2\n", "found '##fileformat=VCFv4.2', as in VCF"),
    "genbank": (b"LOCUS       NC_007795\n", "as in GenBank"),
    "web page": (b"\n\n<!DOCTYPE html>", "found '<!DOCTYPE html>', as in HTML"),
    "zip": (b"PK\3\4abc", "as in a zip archive"),
    "binary": (b"\x7fELF\0\0\0", "found '\\x7fELF"),
    "text": (b"\nACGTACGTACGTACGTACGTACGT\n", "found 'ACGTACGTACGTACGTACGT'"),
    "indented": (b"\n >chr1\nACGT\n", "found ' >chr1"),
    "byte-order mark": (b"\xef\xbb\xbf>chr1\nACGT\n", "as in a text with a byte-order mark"),
}


@pytest.mark.parametrize("packing", ["plain", "gzip"])
@pytest.mark.parametrize("kind", BROKEN)
def test_broken_files_have_a_sentence(tmp_path: Path, kind: str, packing: str):
    text, words = BROKEN[kind]
    path = write(tmp_path / "a.fa", text, packing)
    with pytest.raises(UserError) as caught:
        list(read_fasta(path))
    assert words in str(caught.value) and str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_packed_twice(tmp_path: Path):
    with pytest.raises(UserError, match="as in a gzip file that was packed twice"):
        read_fasta(write(tmp_path / "a.fa", gzip.compress(b">chr1\nACGT\n"), "gzip"))


def test_the_place_of_a_letter_is_found_in_any_packing(tmp_path: Path):
    text = b">a\r\n" + b"ACGT\r\n" * 1000 + b">b\r\n" + b"ACGT\r\n" * 500 + b"ACG!\r\n" + b"ACGT\r\n" * 70_000
    for packing in ("plain", "gzip", "bgzip"):
        with pytest.raises(UserError, match=r"record b, line 1503, column 4: '!'"):
            list(read_fasta(write(tmp_path / packing, text, packing)))


def test_records_before_a_mistake_are_given(tmp_path: Path):
    records = read_fasta(write(tmp_path / "a.fa", b">a\nAC\n>b\nA!\n"))
    assert next(records).name == "a"
    with pytest.raises(UserError):
        next(records)


def test_truncated_and_damaged_gzip(tmp_path: Path):
    rng = np.random.default_rng(1)
    text = b">chr1\n" + bytes(rng.choice(list(b"ACGT"), 200_000))
    whole = gzip.compress(text)
    (tmp_path / "cut.fa.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(UserError, match=r"cut\.fa\.gz is a truncated gzip file: it ends in the middle"):
        list(read_fasta(tmp_path / "cut.fa.gz"))
    (tmp_path / "stub.fa.gz").write_bytes(whole[:2])
    with pytest.raises(UserError, match="truncated gzip"):
        list(read_fasta(tmp_path / "stub.fa.gz"))
    for at in (3, len(whole) // 2, len(whole) - 6):
        bent = bytearray(whole)
        bent[at] ^= 255
        (tmp_path / "bent.fa.gz").write_bytes(bent)
        with pytest.raises(UserError, match=r"is a (damaged|truncated) gzip file"):
            list(read_fasta(tmp_path / "bent.fa.gz"))
    (tmp_path / "tail.fa.gz").write_bytes(whole + b"rubbish")
    with pytest.raises(UserError, match=r"tail\.fa\.gz is a damaged gzip file"):
        list(read_fasta(tmp_path / "tail.fa.gz"))


def test_bgzip_cut_between_its_blocks(tmp_path: Path):
    path = write(tmp_path / "a.fa.gz", b">chr1\n" + b"ACGT" * 50_000, "bgzip")
    path.write_bytes(path.read_bytes()[:-28])
    assert gzip.decompress(path.read_bytes()), "gzip sees nothing wrong"
    with pytest.raises(UserError, match="truncated gzip file: bgzip's last block is missing"):
        read_fasta(path)


def test_paths_that_hold_no_file(tmp_path: Path):
    (tmp_path / "genome.fa").write_text(">a\nA\n")
    (tmp_path / "empty.fa").touch()
    cases = {
        tmp_path / "genom.fa": f"genom.fa does not exist; did you mean {tmp_path / 'genome.fa'}?",
        tmp_path / "zzz": "zzz does not exist",
        tmp_path / "no" / "a.fa": f"a.fa does not exist: there is no folder {tmp_path / 'no'}",
        tmp_path / "genome.fa" / "b": "does not exist: there is no folder",
        tmp_path / ("x" * 300): "does not exist",
        tmp_path: "is a folder; expected a FASTA file",
        tmp_path / "empty.fa": "empty.fa is empty",
        Path("/dev/null"): "/dev/null is not a regular file",
        Path("nowhere.fa"): "nowhere.fa does not exist",
    }
    for path, words in cases.items():
        with pytest.raises(UserError) as caught:
            read_fasta(path)
        assert str(caught.value).startswith(str(path)) and words in str(caught.value)


def test_codes_agree_with_the_alphabet(tmp_path: Path):
    (record,) = read_fasta(write(tmp_path / "a.fa", f">a\n{EITHER_CASE}Uu\n".encode()))
    np.testing.assert_array_equal(record.codes & ~SOFT, encode_bases(EITHER_CASE + "Uu"))
    assert [bool(code & SOFT) for code in record.codes] == [letter.islower() for letter in EITHER_CASE + "Uu"]
