"""The mutations between two assemblies: from two FASTA files and a saved model to a VCF."""

import os
import shutil
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from importlib.metadata import version
from itertools import compress
from pathlib import Path

import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from genoattn.cli.calls_page import write_calls_page
from genoattn.cli.console import announce
from genoattn.cli.detect_shards import SCORES, BlockScorer
from genoattn.cli.shards import OWN, ShardFolder, chosen_shards, do_shards, genome_digest, model_inputs
from genoattn.cli.values import output_folder, saved_model
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
from genoattn.genome.record_bases import records_of
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
from genoattn.models.card import uses_both_strands
from genoattn.models.detection import (
    ScoredBlock,
    calls_of,
    detection_task,
    is_called,
    related,
    window_scorer,
)
from genoattn.models.devices import local_devices

ENDINGS = (".vcf.gz", ".vcf")


MODULES = ("genoattn.models.detection", "genoattn.genome.assembly_placement")
"""Modules that place and score, with all that they import."""


def main(config: DictConfig) -> None:
    """Place the sample on the reference, score all windows by shards, and write calls, tracks and a report."""
    devices = local_devices(config.devices)
    folder, out, shards = output_folder(), Path(config.out).expanduser(), chosen_shards(config, len(devices))
    stem = check_output(out)
    references, samples = (input_paths(config[name], name) for name in ("reference", "sample"))
    genome, other = open_genome(references), open_genome(samples)
    assemblies = open_assemblies(genome, other)
    _, records, contigs = assemblies
    loaded = saved_model(config)
    both = config.reverse_complement and uses_both_strands(config.reverse_complement)
    task, length = detection_task(loaded.predictor.task), loaded.card.length

    print(f"placing {len(contigs):,} contigs of the sample on {len(records):,} records of the reference")
    placement = related(place_assembly(records, contigs), config.min_placed)
    untested, unplaced = untested_parts(records, contigs, placement)
    print(describe(placement, sum(part.stop - part.start for part in untested)))
    truth = truth_of(config, genome, assemblies, placement)

    parts = Path(config.parts).expanduser() if config.parts else folder / "parts"
    inputs = {"reference": genome_digest(genome), "sample": genome_digest(other), "both_strands": both}
    inputs |= {"track": config.track} | model_inputs(loaded.card, MODULES)
    blocks = BlockScorer(records, contigs, placement.blocks, task, length, config.track)
    places = [ShardFolder(parts, shard, blocks.chunks[-1], inputs, SCORES) for shard in shards]
    scorer = window_scorer(loaded.predictor, loaded.card, both)
    do_shards("detect", parts, places, lambda todo: blocks.score(todo, scorer), devices)
    if config.shard is None:
        calls = calls_and_track(blocks.joined(places), assemblies, Path(f"{stem}.bedgraph") if config.track else None)
        write_parts(Path(f"{stem}.untested.bed"), untested, assemblies.names.records)
        write_parts(Path(f"{stem}.unplaced.bed"), unplaced, assemblies.names.contigs)
        write_blocks(Path(f"{stem}.blocks.bed"), placement.blocks, assemblies.names)
        passed = [is_called(call, config.threshold) for call in calls]
        pairs = [pair for pair in zip(calls, passed, strict=True) if pair[1] or config.all]
        write_vcf(out, pairs, assemblies.names, origin(references, samples))
        page = write_calls_page(stem, out, assemblies, placement.blocks)
        report(folder, calls, passed, truth, assemblies, placement)
        if config.parts is None:
            shutil.rmtree(parts, ignore_errors=True)
        print(f"the calls for a browser: {stem}.html" if page else f'no {stem}.html: pip install "genoattn[tracks]"')
        beds = f"{stem}.untested.bed and {stem}.unplaced.bed"
        announce(f"{sum(passed):,} mutations in {out}; what was not tested: {beds}")


def calls_and_track(scored: Iterable[ScoredBlock], assemblies: Assemblies, track: Path | None) -> list[MutationCall]:
    """Every difference with its probability; that of each reference base is written as a bedGraph and a bigWig."""
    calls: list[MutationCall] = []
    names = assemblies.names
    with ExitStack() as stack:
        rows = None
        if track is not None:
            rows = stack.enter_context(stack.enter_context(replace_when_done(track)).open("w", encoding="utf-8"))
        for block in scored:
            number, start = block.block.record, block.block.start
            if rows is not None:
                rows.writelines(bedgraph_rows(names.records[number], start, block.per_reference_base()))
            calls += calls_of(block, assemblies.records[number])
    if track is not None and can_write_bigwig():
        write_bigwig(track, track.with_suffix(".bw"), names.records, names.lengths)
    return calls


def report(
    folder: Path,
    calls: Sequence[MutationCall],
    passed: Sequence[bool],
    truth: Truth | None,
    assemblies: Assemblies,
    placement: Placement,
) -> None:
    """Print and write the numbers of calls and, with a truth, how right they are."""
    candidates = {"model": list(compress(calls, passed)), "aligner": calls}
    tables, qualities = [calls_table(calls, candidates["model"])], {}
    if truth is not None:
        records = [np.asarray(record) for record in assemblies.records]
        qualities = {name: compare_with_truth(truth, found, records) for name, found in candidates.items()}
        tables += truth_tables(truth, qualities)
    counts = {name: count_kinds(found) for name, found in candidates.items()}
    costs = Metrics(costs={"placed_share": placement.share, "blocks": len(placement.blocks)})
    write_report(folder, tables, calls_metrics(counts, truth.name if truth else "", qualities) + costs, {})


def truth_of(config: DictConfig, reference: Genome, assemblies: Assemblies, placement: Placement) -> Truth | None:
    """The true mutations that the user named, and the regions that they are known for."""
    if not config.truth:
        if config.truth_regions:
            raise UserError("truth_regions needs truth, a VCF of the sample's true mutations")
        return None
    regions = read_regions(config.truth_regions, reference, "truth_regions") if config.truth_regions else None
    path = Path(config.truth).expanduser()
    records = [np.asarray(record) for record in assemblies.records]
    return read_truth(path, assemblies.names, records, placement.blocks, regions)


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
    """Both assemblies as they are read from the store; raises UserError at a name that no VCF may hold."""
    check_names(reference.names)
    names = Names(reference.names, reference.lengths, sample.names)
    return Assemblies(names, records_of(reference), records_of(sample))


def origin(references: Sequence[Path], samples: Sequence[Path]) -> Origin:
    """The lines on this run in the header of the VCF: program, command, reference, and the name of the sample."""
    words = [word for word in HydraConfig.get().overrides.task if word.partition("=")[0] not in (*OWN, "out")]
    command = " ".join(["genoattn detect", *words])
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
