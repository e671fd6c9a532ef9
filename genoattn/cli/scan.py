"""In-silico mutagenesis: every substitution and single-base deletion of a region, as a table and a heat map."""

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float
from omegaconf import DictConfig

from genoattn.cli.console import announce
from genoattn.cli.shards import ShardFolder, chosen_shards, do_shards, joined, scorer_inputs, totals
from genoattn.cli.values import output_folder, saved_model
from genoattn.errors import UserError, shorten
from genoattn.evaluation.metrics import Metrics
from genoattn.evaluation.report import write_report
from genoattn.files import input_paths, replace_when_done, save_figure, write_text
from genoattn.genome.alphabet import decode_bases
from genoattn.genome.indexed_fasta import Sequences, open_for_parts
from genoattn.genome.intervals import Interval
from genoattn.genome.progress import progress
from genoattn.models.devices import local_devices
from genoattn.models.shipped import LANGUAGE
from genoattn.models.variant_scan import MUTANTS, PIECE, RegionScanner
from genoattn.models.variant_scoring import VariantScorer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DECIMALS = 5
"""Decimals of the table; they do not depend on which windows are computed together."""

LABELLED = 120
"""Bases up to which the heat map writes the letters of the reference."""

_REGION = re.compile(r"(.+):([0-9,]+)(?:-([0-9,]+))?")


def main(config: DictConfig) -> None:
    """Scan the region by shards, and write the table as .npz and .tsv, and the heat map as .png and .svg."""
    devices = local_devices(config.devices, gpus=0)
    folder, out, shards = output_folder(), Path(config.out).expanduser(), chosen_shards(config, len(devices))
    check_prefix(out)
    genome = open_for_parts(input_paths(config.fasta, "fasta"))
    region = region_of(config.region, genome)
    model = saved_model(config, "cpu", LANGUAGE)
    scorer = VariantScorer(model, config.length, config.both_strands, embeddings=False, batch=config.batch)
    scanner = RegionScanner(scorer)
    parts = Path(config.parts).expanduser() if config.parts else folder / "parts"
    inputs = {"region": [genome.names[region.record], region.start, region.stop]}
    inputs |= scorer_inputs(genome, scorer, model.card)
    places = [ShardFolder(parts, shard, -(-region.length // PIECE), inputs) for shard in shards]
    done = do_shards("scan", parts, places, lambda todo: scan(genome, region, todo, scanner), devices)
    seconds = totals(done)[1]
    bases = sum(part_of(region, place).length for place in places)
    write_report(folder, [], Metrics(costs={"bases": bases, "scan_seconds": seconds}), {})
    if config.shard is None:
        write(out, genome, region, scanner.meaning, list(joined(places)))
        way = "from the state before each base" if scanner.streams else "window by window"
        announce(f"{region.length:,} bases in {seconds:.1f} s, {way}: {out}.npz, .tsv, .png, .svg")


def scan(genome: Sequences, region: Interval, todo: Sequence[ShardFolder], scanner: RegionScanner) -> None:
    """Scan the parts of a region that belong to some shards, one shard after the other."""
    with progress("the model scores", sum(part_of(region, place).length for place in todo)) as advance:
        for place in todo:
            start = time.perf_counter()
            with place.writing() as rows:
                for piece in scanner.scan(genome, *part_of(region, place)):
                    rows.writelines(("\t".join(map(repr, values)) + "\n").encode() for values in piece.tolist())
                    advance(len(piece))
            place.finish({}, time.perf_counter() - start)


def part_of(region: Interval, place: ShardFolder) -> Interval:
    """The bases of a shard: whole pieces as the scanner makes them, so that their numbers have the same bits."""
    start, stop = (min(region.start + PIECE * number, region.stop) for number in (place.part.start, place.part.stop))
    return Interval(region.record, start, stop)


def write(out: Path, genome: Sequences, region: Interval, meaning: str, rows: Sequence[bytes]) -> None:
    """Write the table of a region, and its heat map, from the rows of all shards."""
    table = np.array([[float(value) for value in row.split()] for row in rows]).round(DECIMALS) + 0.0
    letters = decode_bases(genome.fetch(*region))
    contig = genome.names[region.record]

    with replace_when_done(Path(f"{out}.npz")) as part, part.open("wb") as file:
        np.savez(
            file,
            scores=table,
            mutants=np.array(list(MUTANTS)),
            reference=np.array(list(letters)),
            contig=np.array(contig),
            first=np.array(region.start + 1),
            meaning=np.array(meaning),
        )
    write_text(Path(f"{out}.tsv"), rows_of(contig, region.start, letters, table))
    figure = heat_map(table, letters, region.start, f"{contig}: {meaning}")
    for ending in ("png", "svg"):
        save_figure(figure, Path(f"{out}.{ending}"))


def region_of(text: str, genome: Sequences) -> Interval:
    """The region that a user names, 1-based and with both ends, as an interval; raises UserError if there is none."""
    match = _REGION.fullmatch(text)
    if match is None:
        raise UserError(f"region={shorten(text)}: expected contig:first-last, such as chr1:1000-2000")
    first, last = (int((number or match[2]).replace(",", "") or 0) for number in match.groups()[1:])
    record = genome.index(match[1])
    if not 1 <= first <= last <= genome.lengths[record]:
        most = genome.lengths[record]
        raise UserError(f"region={shorten(text)}: expected bases within 1 and {most}, the first not after the last")
    return Interval(record, first - 1, last)


def check_prefix(out: Path) -> None:
    """Raises UserError if no file can be written whose name begins so."""
    if not out.parent.is_dir():
        raise UserError(f"out={out} cannot be written: there is no folder {out.parent}")
    if not os.access(out.parent, os.W_OK):
        raise UserError(f"out={out} cannot be written: you may not write into {out.parent.absolute()}")


def rows_of(contig: str, start: int, letters: str, table: Float[np.ndarray, "bases 5"]) -> str:
    """The table as text: a row for each base, a column for each mutant, NA where there is no score."""
    columns = [*MUTANTS[:4], "del"]
    rows = [
        [contig, str(start + number + 1), letter, *("NA" if np.isnan(value) else f"{value:g}" for value in row)]
        for number, (letter, row) in enumerate(zip(letters, table.tolist(), strict=True))
    ]
    return "".join("\t".join(row) + "\n" for row in [["chrom", "pos", "ref", *columns], *rows])


def heat_map(table: Float[np.ndarray, "bases 5"], letters: str, start: int, title: str) -> "Figure":
    """A heat map of all mutants, white at 0; a dot marks the base of the reference, grey has no score."""
    from matplotlib import colormaps
    from matplotlib.figure import Figure

    count = len(table)
    figure = Figure(figsize=(min(max(6.0, 0.12 * count + 1.5), 40.0), 2.4), layout="constrained")
    panel = figure.subplots()
    bound = float(np.nanpercentile(np.abs(table), 99.5)) if np.isfinite(table).any() else 0.0
    bound = bound or 1.0
    colours = colormaps["RdBu"].with_extremes(bad="0.85")
    edges = (start + 0.5, start + count + 0.5, len(MUTANTS) - 0.5, -0.5)
    image = panel.imshow(table.T, colours, aspect="auto", interpolation="nearest", extent=edges)
    image.set_clim(-bound, bound)
    figure.colorbar(image, ax=panel, pad=0.01)
    panel.set_yticks(range(len(MUTANTS)), ["A", "C", "G", "T", "−"])
    panel.set(xlabel="position", title=title)
    if count <= LABELLED:
        known = [
            (start + number + 1, MUTANTS.index(letter)) for number, letter in enumerate(letters) if letter in MUTANTS
        ]
        panel.scatter(*zip(*known, strict=True), s=6, color="0.3") if known else None
        top = panel.secondary_xaxis("top")
        top.set_xticks(range(start + 1, start + count + 1), list(letters), fontsize=7)
        top.tick_params(length=0)
    return figure
