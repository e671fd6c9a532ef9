"""The page of the calls: a genome browser (igv.js) with calls, probabilities and both assemblies, without a network.

igv.js (Robinson et al. 2023, https://doi.org/10.1093/bioinformatics/btac830) comes from the installed package
igv-notebook, whose file is read; nothing of that package is imported.
"""

import gzip
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np

from genoattn.evaluation.page import render
from genoattn.evaluation.report import visible
from genoattn.files import write_text
from genoattn.genome.alphabet import decode_bases
from genoattn.genome.assembly_placement import Block
from genoattn.genome.block_alignment import write_alignments
from genoattn.genome.vcf_rows import Row, read_rows
from genoattn.genome.vcf_writer import Assemblies

LARGEST = 50_000_000
"""Bytes of data that the page holds at most; what would exceed it is left out, and the page says so."""

LISTED = 1_000
"""Calls in the list below the tracks."""

AROUND = 40
"""Bases shown on each side of a call."""

REFERENCE = "bases of the reference"
SAMPLE = "sample"
BED = {"type": "annotation", "format": "bed", "displayMode": "COLLAPSED", "height": 40}
BAM = {
    "type": "alignment",
    "format": "bam",
    "showCoverage": False,
    "showAllBases": True,
    "alignmentRowHeight": 14,
    "color": "#eeeeee",
}
TRACKS: dict[str, dict[str, Any]] = {
    SAMPLE: {**BAM, "height": 30},
    "calls": {"type": "variant", "format": "vcf", "displayMode": "COLLAPSED", "height": 50},
    "probability": {"type": "wig", "format": "bedgraph", "min": 0, "max": 1, "height": 50, "color": "#0072b2"},
    "blocks": {**BED, "color": "#0072b2", "altColor": "#d55e00"},
    "not tested": {**BED, "color": "#777777"},
}
"""Settings of the tracks for igv.js."""


class Call(NamedTuple):
    """A row of the VCF for the list: where it lies in both assemblies, and what it is."""

    record: str
    position: int
    reference: str
    alternate: str
    kind: str
    probability: str
    passed: str
    contig: str

    @property
    def locus(self) -> str:
        """Its surroundings, as igv.js names them."""
        return f"{self.record}:{max(1, self.position - AROUND)}-{self.position + len(self.reference) - 1 + AROUND}"


def igv_script() -> Path | None:
    """The file of igv.js; None: the package that brings it is not installed."""
    spec = find_spec("igv_notebook")
    places = (spec and spec.submodule_search_locations) or ()
    return next((file for place in places if (file := Path(place, "js", "igv.min.js")).is_file()), None)


def write_calls_page(stem: str, vcf: Path, assemblies: Assemblies, blocks: Sequence[Block]) -> bool:
    """Write the page of the calls beside their VCF.

    Args:
        stem: Path of the outputs without their ending; the page is `stem`.html.
        vcf: The calls. Their tracks, `stem`.bedgraph, .blocks.bed and .untested.bed, are there.
        assemblies: Both assemblies.
        blocks: The blocks of the sample on the reference.

    Returns:
        False if igv.js is not installed; nothing is written then.
    """
    script, records = igv_script(), assemblies.names.records
    if script is None:
        return False
    rows = read_rows(vcf)
    calls = list(islice(map(call_of, rows), LISTED))
    total = len(calls) + sum(1 for _ in rows)
    data, left_out = embedded(contents(stem, vcf, assemblies, blocks))
    sizes = "".join(f"{name}\t{length}\n" for name, length in zip(records, assemblies.names.lengths, strict=True))
    sequence = {"fastaURL": data[REFERENCE]} if REFERENCE in data else {"format": "chromsizes", "url": packed(sizes)}
    tracks = [{"name": name, "url": data[name], "indexed": False, **TRACKS[name]} for name in TRACKS if name in data]
    page = render(
        "genoattn.cli",
        "templates/calls.html.j2",
        {},
        title=visible(vcf.name),
        subtitle=f"{total:,} calls; records of the reference: {len(records):,}",
        sections={},
        calls=calls,
        total=total,
        left_out=left_out,
        script=script.read_text("utf-8").replace("</script", "<\\/script"),
        browser={
            "reference": {"id": "reference", "name": "reference", "indexed": False, **sequence},
            "locus": calls[0].locus if calls else f"{records[0]}:1-{assemblies.names.lengths[0]}",
            "loadDefaultGenomes": False,
            "search": False,
            "showSampleNames": False,
            "tracks": tracks,
        },
    )
    write_text(Path(f"{stem}.html"), page)
    return True


def call_of(row: Row) -> Call:
    """A row of the VCF for the list."""
    info = dict(field.split("=") for field in row.columns[7].split(";"))
    probability = f"{float(info['PROB']):.3f}" if "PROB" in info else ""
    contig = visible(f"{unquote(info['CONTIG'])}:{info['CONTIG_POS']} ({info['STRAND']})")
    return Call(
        row.contig, row.position, row.reference, row.alternates[0], info["TYPE"], probability, row.columns[6], contig
    )


def contents(stem: str, vcf: Path, assemblies: Assemblies, blocks: Sequence[Block]) -> Iterator[tuple[str, str]]:
    """The contents of the page by name, as addresses, the most needed first; an empty or absent file is left out."""
    yield "calls", packed(gzip.decompress(vcf.read_bytes()) if vcf.suffix == ".gz" else vcf.read_bytes())
    files = {"blocks": "blocks.bed", "not tested": "untested.bed", "probability": "bedgraph"}
    texts = {name: Path(f"{stem}.{ending}") for name, ending in files.items()}
    for name in ("blocks", "not tested"):
        if texts[name].stat().st_size:
            yield name, packed(texts[name].read_bytes())
    records = zip(assemblies.names.records, assemblies.records, strict=True)
    yield REFERENCE, packed("".join(f">{name}\n{decode_bases(np.asarray(codes))}\n" for name, codes in records))
    with TemporaryDirectory() as folder:
        write_alignments(file := Path(folder, "sample.bam"), blocks, assemblies)
        yield SAMPLE, address(file.read_bytes())  # a BAM is compressed already
    if texts["probability"].is_file():
        yield "probability", packed(texts["probability"].read_bytes())


def embedded(contents: Iterator[tuple[str, str]]) -> tuple[Mapping[str, str], list[str]]:
    """The first contents that `LARGEST` has room for, and the names of the others."""
    data: dict[str, str] = {}
    left_out = []
    for name, content in contents:
        if sum(map(len, data.values())) + len(content) <= LARGEST:
            data[name] = content
        else:
            left_out.append(name)
    return data, left_out


def packed(content: str | bytes) -> str:
    """A content, compressed, as its own address."""
    plain = content.encode() if isinstance(content, str) else content
    return address(gzip.compress(plain, 6, mtime=0))


def address(content: bytes) -> str:
    """A compressed content as its own address."""
    return f"data:application/gzip;base64,{b64encode(content).decode()}"
