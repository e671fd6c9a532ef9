"""VCF files, held to the columns of their lines: each record is one line, with its place and its letters."""

from contextlib import suppress
from pathlib import Path

import numpy as np

from genoattn.errors import UserError
from genoattn.genome.alphabet import encode_bases
from genoattn.genome.vcf import read_info, read_variants, to_mutations
from tests.fuzz.cases import Files, Kind, Wrong, chance, insert_odd, letters, pack, pick, unpack, words_of

SEQUENCES = {"chr1": "ACGTTGCANRYACGTACGGT" * 20, "track_7": "GATTACA" * 30}
CODES = {name: encode_bases(sequence) for name, sequence in SEQUENCES.items()}
LENGTHS = {name: len(sequence) for name, sequence in SEQUENCES.items()}
HEAD = [
    "##fileformat=VCFv4.2",
    "##contig=<ID=chr1,length=400>",
    "##contig=<ID=track_7>",
    '##FILTER=<ID=LOW,Description="x">',
    '##INFO=<ID=KIND,Number=.,Type=String,Description="x">',
    '##INFO=<ID=AF,Number=A,Type=Float,Description="x">',
    '##INFO=<ID=DB,Number=0,Type=Flag,Description="x">',
    '##FORMAT=<ID=GT,Number=1,Type=String,Description="x">',
]
COLUMNS = "#CHROM POS ID REF ALT QUAL FILTER INFO".replace(" ", "\t")
ALTERNATES = ("<DEL>", "*", ".", "A[chr1:7[", "]chr1:7]A", ".A", "A.", "A,C,G", "a", "<NON_REF>", "N", "R", "", "A,,C")
GENOTYPES = ("0/1", "1|1", "./.", "0", "1", "2", "9", ".", "", "1/2/3", "a/b", "0/1:5")
INFOS = (*words_of(". KIND=W KIND=a,b AF=0.5 AF=x DB KIND END=5 END=x UNKNOWN=1"), "KIND=" + "y" * 500, "")
POSITIONS = ("0", "-1", "", "x", "1.5", "99999999999", "+5", "5 ")
FIELDS = ("KIND", "AF", "DB", "END")


def row(rng: np.random.Generator, genotypes: bool) -> str:
    """A record; its REF is that of the genome most of the time."""
    contig = pick(rng, list(SEQUENCES))
    start, size = int(rng.integers(LENGTHS[contig])), int(rng.integers(1, 5))
    reference = SEQUENCES[contig][start : start + size]
    alternate = letters(rng, b"ACGT", int(rng.integers(1, 5))).decode()
    if chance(rng, 0.1):
        alternate = pick(rng, ALTERNATES)
    if chance(rng, 0.05):
        reference = pick(rng, ["", "N", ".", "A" * 500, "a", "-", "AC,G"])
    position = str(start + 1) if chance(rng, 0.97) else pick(rng, POSITIONS)
    fields = [contig, position, ".", reference, alternate, pick(rng, [".", "30", "x"]), pick(rng, [".", "PASS", "LOW"])]
    fields.append(pick(rng, INFOS) if chance(rng, 0.3) else ".")
    return "\t".join([*fields, *(["GT", pick(rng, GENOTYPES)] if genotypes else [])])


def make(rng: np.random.Generator) -> Files:
    """A VCF of a few records, often with a fault in its header or its lines."""
    genotypes = chance(rng, 0.4)
    head = list(HEAD)
    if chance(rng, 0.15):
        del head[int(rng.integers(len(head)))]
    lines = [*head, COLUMNS + ("\tFORMAT\tsample" if genotypes else "")]
    lines += [row(rng, genotypes) for _ in range(int(rng.integers(8)))]
    end = pick(rng, ["\n", "\n", "\n", "\r\n"])
    text = (end.join(lines) + end * int(rng.integers(2))).encode()
    if chance(rng, 0.35):
        text = insert_odd(rng, text)
    return {"input": pack(rng, text)}


def rows_of(text: bytes) -> list[list[str]]:
    """The columns of every record, as the text has them."""
    lines = [line.removesuffix(b"\r") for line in text.split(b"\n")]
    return [line.decode("utf-8", "surrogateescape").split("\t") for line in lines if line and not line.startswith(b"#")]


def run(folder: Path) -> str:
    """Read the records and an INFO field, and compare them with the columns of the text."""
    path = folder / "input"
    content = path.read_bytes()
    values = None
    with suppress(UserError):  # the records may be right all the same
        values = read_info(path, FIELDS[len(content) % len(FIELDS)])
    variants = read_variants(path, LENGTHS)
    rows = rows_of(unpack(content) or b"")
    if variants.total != len(rows) or (values is not None and len(values) != len(rows)):
        raise Wrong(f"{len(rows)} lines of records, {variants.total} records read or skipped")
    for contig, listed in variants.by_contig.items():
        for variant in listed:
            name, position, _, reference, alternates, *_ = rows[variant.record - 1]
            same = (name, int(position) - 1, reference) == (variant.contig, variant.start, variant.reference)
            if not same or variant.alternate not in alternates.split(","):
                raise Wrong(f"{variant} was read of {rows[variant.record - 1]}")
        mutations, overlapping = to_mutations(listed, CODES[contig], contig, path)
        if len(mutations) + overlapping != len(listed):
            raise Wrong(f"{len(listed)} variants, {len(mutations)} mutations and {overlapping} overlapping")
    return "read" if rows else "empty"


KIND = Kind("vcf", 0.25, lambda _: (make, run))
