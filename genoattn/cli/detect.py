"""The mutations between two assemblies: from two FASTA files and a saved model to a VCF."""

import itertools
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from importlib.metadata import version
from pathlib import Path

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from genoattn.cli.calls_page import write_calls_page
from genoattn.cli.console import announce
from genoattn.cli.values import output_folder, saved_model
from genoattn.data.example import Example
from genoattn.data.tasks.base import MutationDetection
from genoattn.errors import UserError
from genoattn.evaluation.detection.called import (
    Truth,
    calls_metrics,
    calls_table,
    compare_with_truth,
    count_kinds,
    read_truth,
    truth_tables,
)
from genoattn.evaluation.metrics import Metrics
from genoattn.evaluation.report import write_report
from genoattn.files import input_paths, replace_when_done
from genoattn.genome.assembly_placement import Placement, place_assembly
from genoattn.genome.bigwig import can_write_bigwig, write_bigwig
from genoattn.genome.calls import MutationCall, untested_parts
from genoattn.genome.progress import progress
from genoattn.genome.regions import read_regions
from genoattn.genome.sequence_store import Genome, open_genome
from genoattn.genome.vcf_writer import (
    Assemblies,
    Names,
    Origin,
    bedgraph_rows,
    check_names,
    write_blocks,
    write_parts,
    write_vcf,
)
from genoattn.genome.windows import tiles
from genoattn.models.card import uses_both_strands
from genoattn.models.detection import (
    WindowScorer,
    calls_of,
    detection_task,
    is_called,
    related,
    score_block,
    window_scorer,
)

ENDINGS = (".vcf.gz", ".vcf")


def main(config: DictConfig) -> None:
    """Place the sample on the reference, score every window, and write calls, tracks and a report."""
    folder, out = output_folder(), Path(config.out).expanduser()
    stem = check_output(out)
    references, samples = (input_paths(config[name], name) for name in ("reference", "sample"))
    genome = open_genome(references)
    assemblies = open_assemblies(genome, open_genome(samples))
    names, records, contigs = assemblies
    loaded = saved_model(config)
    both = config.reverse_complement and uses_both_strands(config.reverse_complement)
    scorer = window_scorer(loaded.predictor, loaded.card, both)
    task, length = detection_task(loaded.predictor.task), loaded.card.length

    print(f"placing {len(contigs):,} contigs of the sample on {len(records):,} records of the reference")
    placement = related(place_assembly(records, contigs), config.min_placed)
    untested, unplaced = untested_parts(records, contigs, placement)
    print(describe(placement, sum(part.stop - part.start for part in untested)))
    truth = truth_of(config, genome, assemblies, placement)
    track = Path(f"{stem}.bedgraph") if config.track else None
    with counting(placement, length, scorer, track is not None) as counted:
        calls = score(assemblies, placement, task, length, counted, track)
    passed = [is_called(call, config.threshold) for call in calls]
    if track is not None and can_write_bigwig():
        write_bigwig(track, Path(f"{stem}.bw"), names.records, names.lengths)
    write_parts(Path(f"{stem}.untested.bed"), untested, names.records)
    write_parts(Path(f"{stem}.unplaced.bed"), unplaced, names.contigs)
    write_blocks(Path(f"{stem}.blocks.bed"), placement.blocks, names)
    pairs = [pair for pair in zip(calls, passed, strict=True) if pair[1] or config.all]
    write_vcf(out, pairs, names, origin(references, samples))
    page = write_calls_page(stem, out, assemblies, placement.blocks)

    candidates = {"model": list(itertools.compress(calls, passed)), "aligner": calls}
    tables, qualities = [calls_table(calls, candidates["model"])], {}
    if truth is not None:
        qualities = {name: compare_with_truth(truth, found, records) for name, found in candidates.items()}
        tables += truth_tables(truth, qualities)
    counts = {name: count_kinds(found) for name, found in candidates.items()}
    costs = Metrics(costs={"placed_share": placement.share, "blocks": len(placement.blocks)})
    write_report(folder, tables, calls_metrics(counts, truth.name if truth else "", qualities) + costs, {})
    print(f"the calls for a browser: {stem}.html" if page else f'no {stem}.html: pip install "genoattn[tracks]"')
    announce(f"{sum(passed):,} mutations in {out}; what was not tested: {stem}.untested.bed and {stem}.unplaced.bed")


def score(
    assemblies: Assemblies,
    placement: Placement,
    task: MutationDetection,
    length: int,
    scorer: WindowScorer,
    track: Path | None,
) -> list[MutationCall]:
    """Every difference with its probability.

    The probability of each reference base is written as a bedGraph to `track`. Without it only the windows that hold a
    difference are scored.
    """
    calls: list[MutationCall] = []
    with ExitStack() as stack:
        rows = None
        if track is not None:
            rows = stack.enter_context(stack.enter_context(replace_when_done(track)).open("w", encoding="utf-8"))
        for block in placement.blocks:
            record, contig = assemblies.records[block.record], assemblies.contigs[block.contig]
            scored = score_block(block, record, contig, task, length, scorer, rows is not None)
            if rows is not None:
                name = assemblies.names.records[block.record]
                rows.writelines(bedgraph_rows(name, block.start, scored.per_reference_base()))
            calls += calls_of(scored, record)
    return calls


def truth_of(config: DictConfig, reference: Genome, assemblies: Assemblies, placement: Placement) -> Truth | None:
    """The true mutations that the user named, and the regions that they are known for."""
    if not config.truth:
        if config.truth_regions:
            raise UserError("truth_regions needs truth, a VCF of the sample's true mutations")
        return None
    regions = read_regions(config.truth_regions, reference, "truth_regions") if config.truth_regions else None
    path = Path(config.truth).expanduser()
    return read_truth(path, assemblies.names, assemblies.records, placement.blocks, regions)


def check_output(out: Path) -> str:
    """The path of the output without its ending; raises UserError if nothing can be written there."""
    ending = next((ending for ending in ENDINGS if out.name.endswith(ending) and out.name != ending), None)
    if ending is None:
        raise UserError(f"out={out} must end in .vcf or .vcf.gz")
    if not out.parent.is_dir():
        raise UserError(f"out={out} cannot be written: there is no folder {out.parent}")
    if not os.access(out.parent, os.W_OK):
        raise UserError(f"out={out} cannot be written: you may not write into {out.parent.absolute()}")
    if out.is_dir():
        raise UserError(f"out={out} is a folder; expected the name of a file")
    return str(out).removesuffix(ending)


def open_assemblies(reference: Genome, sample: Genome) -> Assemblies:
    """All bases of both assemblies; raises UserError at a name that no VCF may hold."""
    check_names(reference.names)
    bases = [
        [genome.fetch(number, 0, length) for number, length in enumerate(genome.lengths)]
        for genome in (reference, sample)
    ]
    return Assemblies(Names(reference.names, reference.lengths, sample.names), *bases)


def origin(references: Sequence[Path], samples: Sequence[Path]) -> Origin:
    """The lines on this run in the header of the VCF: program, command, reference, and the name of the sample."""
    command = " ".join(["genoattn detect", *HydraConfig.get().overrides.task])
    name = samples[0].name.removesuffix(".gz").rpartition(".")[0] or samples[0].name
    files = ",".join(str(path) for path in references)
    return Origin(f"genoattn {version('genoattn')}", command, files, "_".join(name.split()))


def describe(placement: Placement, untested: int) -> str:
    """One sentence on how much has a place, and where it does not lie in order."""
    blocks = placement.blocks
    reverse = sum(block.reverse for block in blocks)
    return (
        f"{placement.share:.2%} of the sample lies in {len(blocks):,} blocks of the reference, {reverse:,} of them on"
        f" the reverse strand; {untested:,} bases of the reference have no aligned sample"
    )


@contextmanager
def counting(placement: Placement, length: int, scorer: WindowScorer, everywhere: bool) -> Iterator[WindowScorer]:
    """The scorer behind a progress bar of windows."""
    tiled = ((block, len(tiles(block.start, block.stop, length))) for block in placement.blocks)
    total = sum(windows if everywhere else min(windows, len(block.mutations)) for block, windows in tiled)
    with progress("the model scores", total) as advance:

        def counted(examples: Sequence[Example]) -> Iterator[np.ndarray]:
            for scores in scorer(examples):
                advance(1)
                yield scores

        yield counted
