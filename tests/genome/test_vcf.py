"""Real strains come out as bcftools makes them, any mutation survives the way through a VCF, mistakes read well."""

import gzip
import hashlib
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genoattn.errors import UserError
from genoattn.genome.alphabet import decode_bases, encode_bases
from genoattn.genome.mutations import Mutation, apply_mutations, mutated_sequence
from genoattn.genome.vcf import Variant, read_variants, to_mutations

DATA = Path(__file__).parents[2] / "data"
CONTIG = '##fileformat=VCFv4.2\n##contig=<ID=chr>\n##FORMAT=<ID=GT,Number=1,Type=String,Description="genotype">\n'
IUPAC = {
    "R": "AG",
    "Y": "CT",
    "S": "CG",
    "W": "AT",
    "K": "GT",
    "M": "AC",
    "B": "CGT",
    "D": "AGT",
    "H": "ACT",
    "V": "ACG",
}
IUPAC |= {"N": "ACGT"} | {base: base for base in "ACGT"}
COLUMNS = "#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO"


def write(path: Path, records: list[str], genotypes: bool = False) -> Path:
    """A VCF of records written as "chr 5 A C" or "chr 5 A C 0/1"."""
    lines = [CONTIG + COLUMNS + "\tFORMAT\tsample" * genotypes]
    for record in records:
        contig, position, reference, alternate, *genotype = record.split(" ")
        fields = [contig, position, ".", reference, alternate, ".", ".", "."]
        lines.append("\t".join(fields + ["GT", *genotype] * genotypes))
    path.write_text("\n".join(lines) + "\n")
    return path


def read_chromosome(path: Path) -> tuple[str, np.ndarray]:
    header, *lines = gzip.decompress(path.read_bytes()).decode().splitlines()
    return header[1:].split()[0], encode_bases("".join(lines))


def strain(records: list[str], sequence: str, folder: Path) -> tuple[str, int]:
    """The sequence that records of a VCF make of a contig, and how many of them overlapped an earlier one."""
    path = write(folder / "strain.vcf", records)
    codes = encode_bases(sequence)
    variants = read_variants(path, {"chr": len(codes)})
    mutations, overlapping = to_mutations(variants.by_contig["chr"], codes, "chr", path)
    assert len(mutations) + overlapping + sum(variants.skipped.values()) == variants.total == len(records)
    return decode_bases(mutated_sequence(codes, mutations)), overlapping


@pytest.mark.parametrize(
    ("fasta", "vcf", "records", "checksum"),
    [
        ("NCTC8325", "RN4220", 128, "f0f570f110bd4a9d02f2c4c66c7f37d34a5df9ff14489e17cffb716b12a8b936"),
        ("NCTC8325", "N315", 13_648, "39336bc8a4815c7b0d80fe3f7130e04a2119823db96d41323509c88edc687a5b"),
        ("ecoli_MG1655", "ecoli_DH1", 282, "e9f1d4e1b707f2fbde4f3c98f51736dfda17cc9554f4d90ca11509fd4ea5abfd"),
    ],
)
def test_real_strains_are_what_bcftools_consensus_makes(fasta: str, vcf: str, records: int, checksum: str) -> None:
    name, codes = read_chromosome(DATA / f"{fasta}.fa.gz")
    path = DATA / f"{vcf}.vcf.gz"
    variants = read_variants(path, {name: len(codes)})
    assert len(variants.by_contig[name]) == records and variants.skipped == {}
    mutations, overlapping = to_mutations(variants.by_contig[name], codes, name, path)
    assert len(mutations) == records and overlapping == 0
    sample = apply_mutations(codes, mutations)
    assert len(sample.events) == records
    assert np.array_equal(sample.bases, mutated_sequence(codes, mutations))
    assert hashlib.sha256(decode_bases(sample.bases).encode()).hexdigest() == checksum
    assert checksum in (DATA / "README.md").read_text()


def test_the_files_that_ship_are_the_files_described() -> None:
    described = [line.split() for line in (DATA / "README.md").read_text().splitlines()]
    files = {words[1]: words[0] for words in described if len(words) == 2 and len(words[0]) == 64}
    assert files == {
        path.relative_to(DATA).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in DATA.rglob("*")
        if path.suffix in (".gz", ".gff3")
    }


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, list[Mutation]]:
    letters = draw(st.sampled_from(["AC", "ACGTN"]))
    reference = encode_bases(draw(st.text(letters, min_size=2, max_size=40)))
    mutations: list[Mutation] = []
    position = draw(st.integers(1, 5))
    while position <= len(reference):
        stop = min(len(reference), position + draw(st.integers(0, 4)))
        inserted = encode_bases(draw(st.text(letters, max_size=4))).tobytes()
        if inserted != reference[position:stop].tobytes():
            mutations.append(Mutation(position, stop, inserted))
        position = stop + draw(st.integers(1, 5))
    return reference, mutations


@settings(deadline=None, max_examples=100)
@given(
    case=cases(),
    random=st.randoms(use_true_random=False),
    form=st.sampled_from(["plain", "gzip", "shuffled", "lower"]),
)
def test_mutations_survive_the_way_through_a_vcf(
    case: tuple[np.ndarray, list[Mutation]], random: Random, form: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    reference, mutations = case
    records = []
    for start, stop, inserted in mutations:
        anchor = decode_bases(reference[start - 1 : start])
        gone, came = decode_bases(reference[start:stop]), decode_bases(np.frombuffer(inserted, np.uint8))
        records.append(f"chr {start} {anchor}{gone} {anchor}{came}")
    if form == "shuffled":
        random.shuffle(records)
    if form == "lower":
        records = [record.lower() for record in records]  # the contig is in lower case already
    path = write(tmp_path_factory.getbasetemp() / "mutations.vcf", records)
    if form == "gzip":
        path.write_bytes(gzip.compress(path.read_bytes()))
    variants = read_variants(path, {"chr": len(reference)})
    assert variants.skipped == {}
    back, overlapping = to_mutations(variants.by_contig["chr"], reference, "chr", path)
    assert overlapping == 0
    assert apply_mutations(reference, back).bases.tolist() == apply_mutations(reference, mutations).bases.tolist()


@pytest.mark.parametrize(
    ("reference", "alternate", "minimal"),
    [
        ("C", "T", (4, 5, "T")),
        ("CG", "CGA", (6, 6, "A")),
        ("CGT", "C", (5, 7, "")),
        ("CGT", "AGT", (4, 5, "A")),
        ("CGT", "CAT", (5, 6, "A")),
        ("CGT", "CTG", (5, 7, "TG")),
        ("CGTT", "CCT", (5, 7, "C")),
        ("CGT", "CGCGT", (5, 5, "GC")),
        ("C", "GC", (4, 4, "G")),
        ("CG", "G", (4, 5, "")),
        ("c", "t", (4, 5, "T")),
    ],
)
def test_a_mutation_is_what_ref_and_alt_do_not_share(
    reference: str, alternate: str, minimal: tuple[int, int, str]
) -> None:
    start, stop, inserted = minimal
    mutations, _ = to_mutations([Variant("chr", 4, reference, alternate, 1)], encode_bases("ACGTCGTT"), "chr", "x.vcf")
    assert mutations == [Mutation(start, stop, encode_bases(inserted).tobytes())]


@pytest.mark.parametrize(
    ("records", "made", "overlapping"),  # as bcftools 1.16 has it
    [
        (["chr 5 C A", "chr 5 C G"], "AAAAAGCGT", 1),
        (["chr 5 CGC C", "chr 6 G A"], "AAAACGT", 1),
        (["chr 5 C T", "chr 5 C CAA"], "AAAATAAGCGT", 0),
        (["chr 5 C CAA", "chr 5 C T"], "AAAACAAGCGT", 1),
        (["chr 5 C CA", "chr 5 C CT"], "AAAACAGCGT", 1),
        (["chr 5 CG C", "chr 6 GC G"], "AAAACGT", 0),
        (["chr 5 CG C", "chr 6 G GA"], "AAAACACGT", 0),
        (["chr 5 CG ACT", "chr 6 GC G"], "AAAAACTCGT", 1),
        (["chr 1 A C", "chr 1 A GA"], "CAAACGCGT", 1),
        (["chr 5 CGC AGC", "chr 6 GCG GC"], "AAAAAGCGT", 1),  # begins inside the REF before it, changes beyond it
        (["chr 8 G C", "chr 1 A G"], "GAAACGCCT", 0),
    ],
)
def test_of_overlapping_records_the_first_wins(records: list[str], made: str, overlapping: int, tmp_path: Path) -> None:
    assert strain(records, "AAAACGCGT", tmp_path) == (made, overlapping)


def test_ambiguous_bases_of_the_fasta_are_written_as_vcf_wants_them(tmp_path: Path) -> None:
    assert strain(["chr 2 A T", "chr 3 N C"], "ARNY", tmp_path) == ("ATCY", 0)
    with pytest.raises(UserError, match=r"chr:4 holds Y in the FASTA; .* says T"):
        strain(["chr 4 T C"], "ARNY", tmp_path)


@pytest.mark.parametrize(("letter", "bases"), IUPAC.items())
def test_ref_has_the_first_base_that_a_letter_stands_for(letter: str, bases: str) -> None:
    for base in "ACGT":
        variants = [Variant("chr", 1, base, "TGCA"["ACGT".index(base)], 1)]
        if base == min(bases) and letter != "N":
            assert len(to_mutations(variants, encode_bases(f"A{letter}"), "chr", "x.vcf").mutations) == 1
        else:
            with pytest.raises(UserError, match=f"chr:2 holds {letter} in the FASTA; x.vcf says {base}"):
                to_mutations(variants, encode_bases(f"A{letter}"), "chr", "x.vcf")


def test_alt_is_chosen_by_genotype_then_order(tmp_path: Path) -> None:
    records = ["chr 1 A C,G 0/2", "chr 2 A C,G 1|2", "chr 3 A C,G ./.", "chr 4 A C,G 0", "chr 5 A C,G ./1"]
    path = write(tmp_path / "genotyped.vcf", records, genotypes=True)
    variants = read_variants(path, {"chr": 9})
    assert [(v.start, v.alternate) for v in variants.by_contig["chr"]] == [(0, "G"), (1, "C"), (4, "C")]
    assert variants.skipped == {"missing genotype": 1, "reference genotype": 1}
    path = write(tmp_path / "sites.vcf", ["chr 2 A C,G"])
    assert read_variants(path, {"chr": 9}).by_contig == {"chr": [Variant("chr", 1, "A", "C", 1)]}


def test_what_names_no_bases_is_skipped_and_counted(tmp_path: Path) -> None:
    alternates = ["<DEL>", "<NON_REF>", "*", "A[chr:7[", "]chr:7]A", ".A", "A.", ".", "a", "C"]
    path = write(tmp_path / "odd.vcf", [f"chr 2 A {alternate}" for alternate in alternates])
    variants = read_variants(path, {"chr": 9, "plasmid": 5})
    assert variants.by_contig == {"chr": [Variant("chr", 1, "A", "C", 10)], "plasmid": []}
    reasons = {
        "symbolic ALT": 2,
        "ALT deleted by another record (*)": 1,
        "breakend": 4,
        "no ALT": 1,
        "ALT equals REF": 1,
    }
    assert variants.skipped == reasons and variants.total == len(alternates)


def test_line_ends_and_empty_files(tmp_path: Path) -> None:
    path = write(tmp_path / "windows.vcf", ["chr 2 A C"])
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert len(read_variants(path, {"chr": 9}).by_contig["chr"]) == 1
    assert read_variants(write(tmp_path / "none.vcf", []), {"chr": 9}).by_contig == {"chr": []}
    assert to_mutations([], encode_bases("ACGT"), "chr", "none.vcf") == ([], 0)


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ("Chr 2 A C", "mistake.vcf, record 1 (Chr:2): the FASTA has no contig 'Chr'; did you mean chr?"),
        ("chr 9 T C", "mistake.vcf, record 1 (chr:9): REF ends at base 9, but chr in the FASTA has 8 bases"),
        ("chr 7 GTA C", "mistake.vcf, record 1 (chr:7): REF ends at base 9, but chr in the FASTA has 8 bases"),
        ("chr 0 A C", "mistake.vcf, record 1 (chr:0): position 0 is before the contig's first base"),
        ("chr 2 J C", "mistake.vcf, record 1 (chr:2): REF base 1 is 'J', which is no IUPAC letter (ACGTRYSWKMBDHVN)"),
        ("chr 2 C AX", "mistake.vcf, record 1 (chr:2): ALT base 2 is 'X', which is no IUPAC letter (ACGTRYSWKMBDHVN)"),
        ("chr 2 G C", "chr:2 holds C in the FASTA; {path} says G"),
        ("chr 2 cgg C", "chr:4 holds T in the FASTA; {path} says G"),
        ("chr x A C", "mistake.vcf: record 1 is malformed or cut short"),
    ],
)
def test_a_record_that_cannot_be_right(record: str, words: str, tmp_path: Path) -> None:
    path = write(tmp_path / "mistake.vcf", [record])
    codes = encode_bases("ACGTACGT")
    with pytest.raises(UserError) as error:
        to_mutations(read_variants(path, {"plasmid": 3, "chr": 8}).by_contig["chr"], codes, "chr", path)
    assert words.format(path=path) in str(error.value)


def test_a_contig_shorter_than_the_vcf_was_read_for() -> None:
    with pytest.raises(UserError) as error:
        to_mutations([Variant("chr", 2, "GTA", "G", 1)], encode_bases("ACGT"), "chr", "x.vcf")
    assert str(error.value) == "chr:5 is beyond the contig's end in the FASTA; x.vcf says A"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing.vcf", " does not exist"),
        ("folder.vcf", " is a folder; expected a VCF"),
        ("empty.vcf", " is not a VCF; expected a header from ##fileformat=VCF to #CHROM"),
        ("latin_contig.vcf", ", record 1 holds the byte 0xe9, which is no text in UTF-8"),
        ("latin_ref.vcf", ", record 1 holds the byte 0xe9, which is no text in UTF-8"),
        ("unknown_gzip.vcf.gz", " is not a VCF; expected a header from ##fileformat=VCF to #CHROM"),
        ("endless.vcf.gz", ", line 2: a header line of more than 16,777,216 characters"),
        (
            "long_name.vcf",
            f", record 1 ({'n' * 79}…:1): the FASTA has no contig '{'n' * 79}…'; there are NC_007795.1, chr",
        ),
        ("text.vcf", " is not a VCF; expected a header from ##fileformat=VCF to #CHROM"),
        ("headless.vcf", " is not a VCF; expected a header from ##fileformat=VCF to #CHROM"),
        ("cut.vcf", ": record 3 is malformed or cut short"),
        ("cut_bgzip.vcf.gz", " is a truncated gzip file: bgzip's last block is missing; fetch or copy it again"),
        (
            "cut_gzip.vcf.gz",
            " is a truncated gzip file: it ends in the middle; fetch or copy it again",
        ),
        ("damaged_gzip.vcf.gz", " is a damaged gzip file (Error -3 while decompressing data"),
        ("damaged_bgzip.vcf.gz", ": record "),
    ],
)
def test_a_file_that_is_no_vcf(name: str, words: str, tmp_path: Path) -> None:
    whole = (DATA / "RN4220.vcf.gz").read_bytes()
    packed = gzip.compress(gzip.decompress(whole))
    wrong = {
        "empty.vcf": b"",
        "latin_contig.vcf": f"{CONTIG}{COLUMNS}\nchr\xe91\t1\t.\tA\tC\t.\t.\t.\n".encode("latin-1"),
        "latin_ref.vcf": f"{CONTIG}{COLUMNS}\nchr\t1\t.\tA\xe9\tC\t.\t.\t.\n".encode("latin-1"),
        "unknown_gzip.vcf.gz": gzip.compress(b"##fileformat=\xa8\x0c\xf7\n"),
        "endless.vcf.gz": gzip.compress(b"##fileformat=VCFv4.2\n#" + bytes(1 << 24), 1),
        "long_name.vcf": write(tmp_path / "whole.vcf", [f"{'n' * 9999} 1 A C"]).read_bytes(),
        "text.vcf": b">chr\nACGT\n",
        "headless.vcf": b"##fileformat=VCFv4.2\nchr\t1\t.\tA\tC\t.\t.\t.\n",
        "cut.vcf": write(tmp_path / "whole.vcf", ["chr 1 A C", "chr 2 A C", "chr 3 A C"]).read_bytes()[:-14],
        "cut_bgzip.vcf.gz": whole[: len(whole) // 2],
        "cut_gzip.vcf.gz": packed[: len(packed) // 2],
        "damaged_gzip.vcf.gz": packed[:1000] + bytes(1000) + packed[2000:],
        "damaged_bgzip.vcf.gz": whole[:-1000] + bytes(900) + whole[-100:],
    }
    (tmp_path / "folder.vcf").mkdir()
    if name in wrong:
        (tmp_path / name).write_bytes(wrong[name])
    with pytest.raises(UserError) as error:
        read_variants(tmp_path / name, {"NC_007795.1": 2_821_361, "chr": 9})
    assert str(error.value).startswith(f"{tmp_path / name}{words}")


def test_bgzip_that_only_gzip_can_read(tmp_path: Path) -> None:
    path = tmp_path / "odd.vcf.gz"
    whole = (DATA / "RN4220.vcf.gz").read_bytes()
    path.write_bytes(whole[:14] + b"\xff" + whole[15:])  # htslib takes it for bgzip and cannot go back in it
    contigs = {"NC_007795.1": 2_821_361}
    assert read_variants(path, contigs) == read_variants(DATA / "RN4220.vcf.gz", contigs)
