"""Scores of the variants of a VCF: the same rows in the same order, with fields of INFO from a saved model."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.metadata import version
from itertools import islice
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from genoattn.cli.console import announce
from genoattn.cli.detect import check_output
from genoattn.cli.shards import OWN, ShardFolder, chosen_shards, do_shards, joined, scorer_inputs, totals
from genoattn.cli.values import output_folder, saved_model
from genoattn.comparison.inputs import file_digest
from genoattn.errors import UserError
from genoattn.evaluation.metrics import Metrics
from genoattn.evaluation.report import Table, write_report
from genoattn.files import input_paths, replace_when_done
from genoattn.genome.indexed_fasta import open_for_parts
from genoattn.genome.progress import progress
from genoattn.genome.scorable import REASONS, Allele, AlleleReader
from genoattn.genome.vcf_rows import ENCODING, ERRORS, LAST, InfoField, Row, completed_header, read_rows, survey
from genoattn.genome.vcf_writer import open_vcf
from genoattn.models.devices import local_devices
from genoattn.models.shipped import LANGUAGE
from genoattn.models.variant_scoring import Scored, ScoreField, VariantScorer

REASON = "GA_REASON"
ROWS = 64
"""Rows that are in memory at a time."""

PLACE, MISSING = 4, "NA"
"""Columns of the table that name an ALT, and what stands for a value that is missing."""


def main(config: DictConfig) -> None:
    """Read the whole VCF once for its mistakes, score it by shards, and join them to the VCF, a table and a report."""
    devices = local_devices(config.devices, gpus=0)
    folder, out, path = output_folder(), Path(config.out).expanduser(), Path(config.vcf).expanduser()
    table, shards = Path(f"{check_output(out)}.tsv"), chosen_shards(config, len(devices))
    if path.resolve() == out.resolve():
        raise UserError(f"out={out} is the VCF that is read; expected another name")
    genome = open_for_parts(input_paths(config.fasta, "fasta"))
    reader = AlleleReader(genome, config.ref_policy, path)
    outline = survey(path, reader.read)
    model = saved_model(config, "cpu", LANGUAGE)
    scorer = VariantScorer(model, config.length, config.both_strands, config.embeddings, config.batch)
    if config.shard is None and not outline.ordered and out.name.endswith(".gz"):
        print(f"{path} is not sorted by contig and position, or has one above {LAST:,}: {out} gets no index")

    parts = Path(config.parts).expanduser() if config.parts else folder / "parts"
    inputs = {"vcf": file_digest(path, "vcf"), "ref_policy": config.ref_policy}
    inputs |= scorer_inputs(genome, scorer, model.card)
    places = [ShardFolder(parts, shard, outline.rows, inputs) for shard in shards]
    done = do_shards("score", parts, places, lambda todo: score(path, todo, reader, scorer), devices)
    report(folder, sum(len(place.part) for place in places), *totals(done))
    if config.shard is None:
        lengths = dict(zip(genome.names, genome.lengths, strict=True))
        header = completed_header(outline, lengths, info_fields(scorer.fields), origin(config))
        longest = max([*genome.lengths, *outline.ends.values()]) if outline.ordered else None
        names = [field.name for field in scorer.fields]
        with replace_when_done(table) as part, part.open("wb") as tsv, open_vcf(out, longest) as write:
            write(header.encode(ENCODING, ERRORS))
            tsv.write(table_row(["chrom", "pos", "ref", "alt"], names, "reason"))
            join(path, joined(places), [*names, REASON], write, tsv.write)
        announce(f"{outline.rows:,} rows in {out}; one line for each ALT: {table}")


def score(path: Path, todo: Sequence[ShardFolder], reader: AlleleReader, scorer: VariantScorer) -> None:
    """Score the rows of some shards, one shard after the other."""
    with progress("the model scores", sum(len(place.part) for place in todo)) as advance:
        for place in todo:
            counts, start = Counter[str](), time.perf_counter()
            with place.writing() as tsv:
                for row, scored in scored_rows(path, place.part, reader, scorer):
                    counts.update(result.reason for result in scored)
                    for alternate, result in zip(row.alternates, scored, strict=True):
                        tsv.write(table_row(place_of(row, alternate), texts(result, scorer.fields), result.reason))
                    advance(1)
            place.finish(counts, time.perf_counter() - start)


def join(
    path: Path,
    lines: Iterator[bytes],
    names: Sequence[str],
    write: Callable[[bytes], object],
    write_table: Callable[[bytes], object],
) -> None:
    """Write the rows of a VCF with the values of all shards, and their lines to the table.

    Args:
        path: The VCF that was scored.
        lines: A line of the table for each ALT.
        names: Fields of INFO in the order of the columns.
        write: Writes to the VCF.
        write_table: Writes to the table.

    Raises:
        UserError: The VCF has other rows than those that were scored.
    """
    changed = UserError(f"{path} changed while it was scored; start again")
    for row in read_rows(path):
        cells = []
        for alternate in row.alternates:
            line = next(lines, b"")
            *place, values = line.decode(ENCODING, ERRORS).removesuffix("\n").split("\t", PLACE)
            if place != place_of(row, alternate):
                raise changed
            cells.append(["" if value == MISSING else value for value in values.split("\t")])
            write_table(line)
        write(row.text(info_of(cells, names)).encode(ENCODING, ERRORS))
    if next(lines, None) is not None:
        raise changed


def scored_rows(
    path: Path, part: range, reader: AlleleReader, scorer: VariantScorer
) -> Iterator[tuple[Row, list[Scored]]]:
    """The rows of a part of a VCF with the scores of their ALTs; they have no values where there is no allele."""
    none = (float("nan"),) * len(scorer.fields)
    remaining = islice(read_rows(path), part.start, part.stop)
    while rows := list(islice(remaining, ROWS)):
        read = [reader.read(row) for row in rows]
        alleles = [allele for own in read for allele in own if isinstance(allele, Allele)]
        scored = iter(scorer.score(reader.genome, alleles))
        for row, own in zip(rows, read, strict=True):
            yield row, [next(scored) if isinstance(allele, Allele) else Scored(none, allele) for allele in own]


def info_fields(fields: Sequence[ScoreField]) -> list[InfoField]:
    """The fields as the header of the VCF defines them."""
    reasons = "; ".join(f"{reason}: {text}" for reason, text in REASONS.items())
    scores = [InfoField(field.name, "Float", field.meaning.replace('"', "'")) for field in fields]
    return [*scores, InfoField(REASON, "String", f"Why an ALT has no score, or an unusual one. {reasons}")]


def info_of(cells: Sequence[Sequence[str]], names: Sequence[str]) -> dict[str, str]:
    """The fields of INFO of a row from the values of each ALT; a field without any value is empty."""
    return {
        name: ",".join(value or "." for value in column) if any(column) else ""
        for name, column in zip(names, zip(*cells, strict=True), strict=True)
    }


def place_of(row: Row, alternate: str) -> list[str]:
    """The first columns of the table."""
    return [row.contig, row.columns[1], row.reference, alternate]


def texts(scored: Scored, fields: Sequence[ScoreField]) -> list[str]:
    """The values of an ALT as files have them."""
    return [field.text(value) for field, value in zip(fields, scored.values, strict=True)]


def table_row(place: Sequence[str], values: Sequence[str], reason: str) -> bytes:
    """A row of the table."""
    return ("\t".join([*place, *(value or MISSING for value in [*values, reason])]) + "\n").encode(ENCODING, ERRORS)


def origin(config: DictConfig) -> Mapping[str, str]:
    """The lines on this run in the header of the VCF, with the settings on which scores depend."""
    words = [word for word in HydraConfig.get().overrides.task if word.partition("=")[0] not in (*OWN, "batch", "out")]
    fasta = ",".join(map(str, input_paths(config.fasta, "fasta")))
    command = " ".join(["genoattn score", *words])
    return {"genoattnVersion": version("genoattn"), "genoattnCommand": command, "genoattnReference": fasta}


def report(folder: Path, rows: int, counts: Counter[str], seconds: float) -> None:
    """Print and write how many ALTs have which reason, and the time."""
    total = counts.total()
    cells = [["scored", f"{counts['']:,}", ""]]
    cells += [[reason, f"{counts[reason]:,}", text] for reason, text in REASONS.items() if counts[reason]]
    costs = {"rows": rows, "alternates": total, "scored": counts[""], "score_seconds": seconds}
    costs |= {reason: count for reason, count in sorted(counts.items()) if reason}
    notes = [f"{total / max(seconds, 1e-9):,.1f} ALTs a second"]
    write_report(folder, [Table("ALTs", ["", "number", ""], cells, notes=notes)], Metrics(costs=costs), {})
