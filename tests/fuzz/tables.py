"""BED and GFF3 files and tables of labelled variants, held to a plain reading of their lines."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from genoattn.genome.intervals import split_genes
from genoattn.genome.labelled_variants import in_intervals, read_labelled
from genoattn.genome.regions import read_regions
from genoattn.genome.sequence_store import Genome, open_genome
from tests.fuzz.cases import Files, Kind, Maker, Trial, Wrong, chance, insert_odd, letters, pack, pick, unpack
from tests.fuzz.vcf import LENGTHS, SEQUENCES

CLASSES = {"weak": ["W", "5'", '"W'], "strong": ["S", "S\x1c"]}
LABELS = ("W", "S", "W", "S", "5'", '"W', '"', "", "other", "'S", "S\x1c", "W ", "y" * 300)
NUMBERS = ("", "x", "-1", "1.5", "1e3", "99999999999999999999", "²", "007", "+5", "9" * 5000)
TYPES = ("gene", "CDS", "five_prime_UTR")
LONGEST = 3
UNUSUAL = ("track name=x", "browser position chr1:1-9", "# comment", "track", "", "   ", "#")


def make_bed(rng: np.random.Generator) -> Files:
    """A BED file of genes."""
    lines = []
    for _ in range(int(rng.integers(1, 60))):
        start, length = int(rng.integers(180)), int(rng.integers(1, 30))
        fields = [pick(rng, list(SEQUENCES)), str(start), str(start + length)]
        if chance(rng, 0.003):
            fields[int(rng.integers(3))] = pick(rng, NUMBERS)
        if chance(rng, 0.003):
            fields[0] = pick(rng, ["track_8", "tracks", "Chr1"])
        fields += ["gene", "0", "+"][: int(rng.integers(4))]
        lines.append(pick(rng, ["\t", "\t", "\t", " "]).join(fields) if chance(rng, 0.95) else pick(rng, UNUSUAL))
    return packed(rng, lines)


def make_gff(rng: np.random.Generator) -> Files:
    """A GFF3 of features, some with the sequences at the end."""
    lines = ["##gff-version 3"] * chance(rng, 0.8)
    for _ in range(int(rng.integers(1, 40))):
        start, length = int(rng.integers(1, 170)), int(rng.integers(30))
        fields = [pick(rng, list(SEQUENCES)), "x", pick(rng, TYPES), str(start), str(start + length), ".", "+", "0"]
        fields.append(pick(rng, ["ID=a", ".", "ID=a;Note=b%3B", "ID=é"]))
        if chance(rng, 0.006):
            fields[int(rng.integers(9))] = pick(rng, NUMBERS)
        lines.append("\t".join(fields[: 9 - chance(rng, 0.003)]) if chance(rng, 0.95) else pick(rng, ["#", "", "###"]))
    if chance(rng, 0.2):
        lines += [*pick(rng, [["##FASTA"], []]), ">chr1", letters(rng, b"ACGT", 50).decode(), "chr1\t1"]
    (content,) = packed(rng, lines).values()
    return {"input.gff3": content}


def make_tsv(rng: np.random.Generator) -> Files:
    """A table of labelled variants; its columns come in any order."""
    columns = ["chrom", "pos", "ref", "alt", "label", "note"]
    order = rng.permutation(6).tolist() if chance(rng, 0.3) else range(6)
    if chance(rng, 0.03):
        columns[int(rng.integers(6))] = pick(rng, ["", "label", "pos", "Chrom", '"ref"'])
    lines = ["\t".join(columns[number] for number in order)]
    for _ in range(int(rng.integers(12))):
        contig = pick(rng, list(SEQUENCES))
        start, size = int(rng.integers(LENGTHS[contig])), int(rng.integers(1, 5))
        reference = SEQUENCES[contig][start : start + size]
        alternate = letters(rng, b"ACGT", int(rng.integers(1, 5))).decode()
        note = pick(rng, ["", "x", 'a "quoted" note'])
        fields = [contig, str(start + 1), reference, alternate, pick(rng, LABELS), note]
        if chance(rng, 0.02):
            fields[int(rng.integers(5))] = pick(rng, NUMBERS)
        lines.append("\t".join(fields[number] for number in order))
    if chance(rng, 0.05):
        lines.insert(int(rng.integers(1, len(lines) + 1)), pick(rng, ["", "\t", "chr1", "z" * 140_000, '"']))
    return packed(rng, lines)


def packed(rng: np.random.Generator, lines: list[str]) -> Files:
    """The lines as a file, often with a fault."""
    end = pick(rng, ["\n", "\n", "\r\n", "\r"])
    text = (end.join(lines) + end * int(rng.integers(3))).encode()
    if chance(rng, 0.3):
        text = insert_odd(rng, text)
    return {"input.tsv": pack(rng, text)}


def lines_of(path: Path) -> list[str]:
    """The lines of the text of a file that was read."""
    text = (unpack(path.read_bytes()) or b"").decode("utf-8", "replace")
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def run_bed(genome: Genome, folder: Path) -> str:
    """Read the intervals and compare them with the lines; divide the genes."""
    path = folder / "input.tsv"
    bed = read_regions(str(path), genome, "task.split_bed")
    lines = [line for line in lines_of(path) if line.strip()]
    if len(bed.intervals) + sum(bed.skipped.values()) != len(lines):
        raise Wrong(f"{len(lines)} lines, {len(bed.intervals)} intervals, and left out: {bed.skipped}")
    rows = [line.split("\t") if "\t" in line else line.split() for line in lines if line.split()[0] in LENGTHS]
    expected = [(genome.names.index(name), int(start), int(stop)) for name, start, stop, *_ in rows]
    if [tuple(interval) for interval in bed.intervals] != expected:
        raise Wrong(f"read as {bed.intervals}, expected {expected}")
    split_genes(path, bed.intervals, seed=0)
    return "read"


def run_gff(genome: Genome, folder: Path) -> str:
    """Read the features and compare them with the lines."""
    path = folder / "input.gff3"
    features = read_regions(str(path), genome, "task.split_bed")
    expected = []
    for line in lines_of(path):
        if line.startswith(("##FASTA", ">")):
            break
        if line.strip() and not line.startswith("#"):
            name, _, kind, first, last, *_ = line.split("\t")
            expected.append((kind, genome.names.index(name), int(first) - 1, int(last)))
    found = [(kind, *interval) for kind, interval in zip(features.names, features.intervals, strict=True)]
    if found != expected:
        raise Wrong(f"read as {found}, expected {expected}")
    for kind in {kind for kind, *_ in expected if kind in TYPES}:
        some = read_regions(f"{path}:{kind}", genome, "task.split_bed")
        if len(some.intervals) != sum(kind == other for other, *_ in expected):
            raise Wrong(f"{len(some.intervals)} features of type {kind}")
    return "read"


def run_tsv(genome: Genome, folder: Path) -> str:
    """Read the variants and compare them with the lines."""
    path = folder / "input.tsv"
    variants, skipped = read_labelled(path, "label", CLASSES, genome, LONGEST)
    head, *rows = [line for line in lines_of(path) if line]
    if len(variants) + sum(skipped.values()) != len(rows):
        raise Wrong(f"{len(rows)} rows, {len(variants)} variants, and left out: {skipped}")
    numbers = {value: number for number, values in enumerate(CLASSES.values()) for value in values}
    columns, expected = head.split("\t"), []
    for row in rows:
        fields = dict(zip(columns, row.split("\t"), strict=False))
        short = max(len(fields["ref"]), len(fields["alt"])) <= LONGEST
        if short and (number := numbers.get(fields.get("label", ""))) is not None:
            expected.append((genome.names.index(fields["chrom"]), number))
    if [(variant.record, variant.label) for variant in variants] != expected:
        raise Wrong(f"read as {variants}, expected {expected}")
    in_intervals(variants, [])
    return "read"


def prepare(make: Maker, run: Callable[[Genome, Path], str], folder: Path) -> tuple[Maker, Trial]:
    """Store the genome that the lines are about."""
    fasta = folder / "genome.fa"
    fasta.write_text("".join(f">{name}\n{sequence}\n" for name, sequence in SEQUENCES.items()))
    return make, partial(run, open_genome([fasta], folder / "cache"))


BED = Kind("bed", 0.13, partial(prepare, make_bed, run_bed))
TSV = Kind("tsv", 0.15, partial(prepare, make_tsv, run_tsv))
GFF = Kind("gff", 0.06, partial(prepare, make_gff, run_gff))
