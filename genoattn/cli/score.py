"""Scores of the variants of a VCF: the same rows in the same order, with fields of INFO from a saved model."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from itertools import islice
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from genoattn.cli.detect import check_output, paths_of
from genoattn.cli.values import output_folder, saved_model
from genoattn.errors import UserError
from genoattn.evaluation.metrics import Metrics
from genoattn.evaluation.report import Table, write_report
from genoattn.files import replace_when_done
from genoattn.genome.scorable import REASONS, Allele, AlleleReader
from genoattn.genome.sequence_store import open_genome
from genoattn.genome.vcf_rows import ENCODING, ERRORS, LAST, InfoField, Row, completed_header, read_rows, survey
from genoattn.genome.vcf_writer import open_vcf
from genoattn.models.shipped import LANGUAGE
from genoattn.models.variant_scoring import Scored, ScoreField, VariantScorer

REASON = "GA_REASON"
ROWS = 64
"""Rows that are in memory at a time."""


def main(config: DictConfig) -> None:
    """Read the whole VCF once for its mistakes, then score it and write the VCF, a table and a report."""
    folder, out, path = output_folder(), Path(config.out).expanduser(), Path(config.vcf).expanduser()
    table = Path(f"{check_output(out)}.tsv")
    if path.resolve() == out.resolve():
        raise UserError(f"out={out} is the VCF that is read; expected another name")
    genome = open_genome(paths_of(config.fasta))
    reader = AlleleReader(genome, config.ref_policy, path)
    outline = survey(path, reader.read)
    scorer = VariantScorer(
        saved_model(config, "cpu", LANGUAGE), config.length, config.both_strands, config.embeddings, config.batch
    )
    if not outline.ordered and out.name.endswith(".gz"):
        print(f"{path} is not sorted by contig and position, or has one above {LAST:,}: {out} gets no index")

    counts, start = Counter[str](), time.perf_counter()
    lengths = dict(zip(genome.names, genome.lengths, strict=True))
    header = completed_header(outline, lengths, info_fields(scorer.fields), origin(config))
    longest = max([*genome.lengths, *outline.ends.values()]) if outline.ordered else None
    with replace_when_done(table) as part, part.open("wb") as tsv, open_vcf(out, longest) as write:
        write(header.encode(ENCODING, ERRORS))
        tsv.write(table_row(["chrom", "pos", "ref", "alt"], [field.name for field in scorer.fields], "reason"))
        for row, scored in scored_rows(path, outline.rows, reader, scorer):
            counts.update(result.reason for result in scored)
            write(row.text(info_of(scored, scorer.fields)).encode(ENCODING, ERRORS))
            for alternate, result in zip(row.alternates, scored, strict=True):
                place = [row.contig, row.columns[1], row.reference, alternate]
                tsv.write(table_row(place, texts(result, scorer.fields), result.reason))
    report(folder, outline.rows, counts, time.perf_counter() - start)
    print(f"{outline.rows:,} rows in {out}; one line for each ALT: {table}")
    print(f"run folder: {folder}")


def scored_rows(
    path: Path, total: int, reader: AlleleReader, scorer: VariantScorer
) -> Iterator[tuple[Row, list[Scored]]]:
    """Every row of a VCF with the scores of its ALTs; they have no values where there is no allele."""
    none = (float("nan"),) * len(scorer.fields)
    remaining = read_rows(path)
    with progress(total) as advance:
        while rows := list(islice(remaining, ROWS)):
            read = [reader.read(row) for row in rows]
            alleles = [allele for own in read for allele in own if isinstance(allele, Allele)]
            scored = iter(scorer.score(reader.genome, alleles))
            for row, own in zip(rows, read, strict=True):
                yield row, [next(scored) if isinstance(allele, Allele) else Scored(none, allele) for allele in own]
                advance(1)


def info_fields(fields: Sequence[ScoreField]) -> list[InfoField]:
    """The fields as the header of the VCF defines them."""
    reasons = "; ".join(f"{reason}: {text}" for reason, text in REASONS.items())
    scores = [InfoField(field.name, "Float", field.meaning.replace('"', "'")) for field in fields]
    return [*scores, InfoField(REASON, "String", f"Why an ALT has no score, or an unusual one. {reasons}")]


def info_of(scored: Sequence[Scored], fields: Sequence[ScoreField]) -> dict[str, str]:
    """The fields of INFO of a row, with a value for each ALT; a field without any value is empty."""
    columns = [*zip(*(texts(result, fields) for result in scored), strict=True), [result.reason for result in scored]]
    names = [*(field.name for field in fields), REASON]
    return {
        name: ",".join(value or "." for value in column) if any(column) else ""
        for name, column in zip(names, columns, strict=True)
    }


def texts(scored: Scored, fields: Sequence[ScoreField]) -> list[str]:
    """The values of an ALT as files have them."""
    return [field.text(value) for field, value in zip(fields, scored.values, strict=True)]


def table_row(place: Sequence[str], values: Sequence[str], reason: str) -> bytes:
    """A row of the table; NA stands for a value that is missing."""
    return ("\t".join([*place, *(value or "NA" for value in [*values, reason])]) + "\n").encode(ENCODING, ERRORS)


def origin(config: DictConfig) -> Mapping[str, str]:
    """The lines on this run in the header of the VCF, with the settings on which scores depend."""
    words = [word for word in HydraConfig.get().overrides.task if word.partition("=")[0] not in ("batch", "out")]
    fasta = ",".join(map(str, paths_of(config.fasta)))
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


@contextmanager
def progress(total: int) -> Iterator[Callable[[int], object]]:
    """A progress bar of rows or bases with the time that is left, which disappears at the end; gives what moves it."""
    console = Console()
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("  the model scores", total=total)
        yield lambda rows: bar.advance(task, rows)
