"""`genoattn detect` with the model that ships: strains of S. aureus, planted mutations, and how probable is probable.

python -m benchmarks.studies.detection [NAME=ASSEMBLY.fa.gz,TRUTH.vcf.gz,REGIONS.bed ...]

The reference is the bundled NCTC 8325. Three samples are made of it: with the bundled VCFs of RN4220 and N315, and with
mutations that are planted at random. The model has seen simulated mutations of E. coli alone. More samples may be
named: an assembly, a VCF of its mutations, and a BED of the parts of the reference that the VCF speaks of.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np

from benchmarks.common.measure import machine, today, versions
from benchmarks.studies.programs import CHECKOUT, run
from genoattn.comparison.report.style import COLOURS, MARKS
from genoattn.evaluation.detection.called import KINDS
from genoattn.evaluation.report import Table
from genoattn.genome.alphabet import decode_bases
from genoattn.genome.assembly_placement import place_assembly
from genoattn.genome.mutations import Mutation, mutated_sequence
from genoattn.genome.sequence_store import open_genome
from genoattn.genome.simulate import Rates, simulate
from genoattn.genome.vcf import read_variants, to_mutations
from genoattn.models.build import load_predictor
from genoattn.models.detection import detection_task, score_block, window_scorer
from genoattn.paths import genomes_dir

REFERENCE = genomes_dir() / "NCTC8325.fa.gz"
PLANTED = Rates(0.002, 0.7, 0.0, 0.15, 0.15, longest=50, duplication=0.5, sizes="log")
SEED = 0
BINS = (0, 0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99, 1)
OUTPUTS = ("substitution", "insertion", "deletion")


def write_sample(name: str, folder: Path, bases: int | None = None) -> tuple[Path, Path]:
    """A FASTA of the reference, or its first `bases`, with mutations of a bundled VCF or planted ones; their VCF."""
    genome = open_genome([REFERENCE])
    reference, contig = genome.fetch(0, 0, bases or genome.lengths[0]), genome.names[0]
    folder.mkdir(parents=True, exist_ok=True)
    if name == "planted":
        mutations = simulate(reference, PLANTED, np.random.default_rng(SEED))
        vcf = folder / "planted.vcf"
        vcf.write_text("".join(_vcf(reference, contig, mutations)), "utf-8")
    else:
        vcf = genomes_dir() / f"{name}.vcf.gz"
        variants = read_variants(vcf, {contig: len(reference)}).by_contig[contig]
        mutations = to_mutations(variants, reference, contig, vcf).mutations
    fasta = folder / f"{name}.fa"
    fasta.write_text(f">{name}\n{decode_bases(mutated_sequence(reference, mutations))}\n", "utf-8")
    return fasta, vcf


def _vcf(reference: np.ndarray, contig: str, mutations: Sequence[Mutation]) -> Iterator[str]:
    yield "##fileformat=VCFv4.3\n"
    yield f"##contig=<ID={contig},length={len(reference)}>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    for start, stop, inserted in mutations:
        shared = len(inserted) != stop - start
        removed = decode_bases(reference[start - shared : stop])
        added = decode_bases(reference[start - shared : start]) + decode_bases(np.frombuffer(inserted, np.uint8))
        yield f"{contig}\t{start + 1 - shared}\t.\t{removed}\t{added}\t.\tPASS\t.\n"


def detected(name: str, fasta: Path, vcf: Path, regions: str | None, runs: Path) -> list[dict[str, Any]]:
    """A row for each kind of mutation: precision, recall and F1 of the model and of every difference."""
    words = ["checkpoint=default", f"reference={REFERENCE}", f"sample={fasta}", f"truth={vcf}", "track=false"]
    words += [f"out={runs}/{name}.vcf.gz", *([f"truth_regions={regions}"] if regions else [])]
    metrics = run("detect", runs / name, words)
    if "error" in metrics:
        raise SystemExit(f"{name}: {metrics['error']}")
    truth = next(key.split("/")[1] for key in metrics if key.startswith("model/") and key.endswith("/precision"))
    rows = []
    for kind in KINDS:
        row: dict[str, Any] = {"sample": name, "kind": kind}
        for candidate in ("model", "aligner"):
            prefix = f"{candidate}/{truth}/{kind.replace(' ', '_')}"
            row |= {f"{candidate} {value}": metrics[f"{prefix}/{value}"] for value in ("precision", "recall", "f1")}
            row["events"] = metrics[f"{prefix}/events"]
        rows.append(row)
    return rows


def reliability(fasta: Path) -> list[dict[str, Any]]:
    """For bins of the probability at a base: bases, mean probability and share with a mutation; and the Brier score."""
    genome, sample = open_genome([REFERENCE]), open_genome([fasta])
    reference, contig = genome.fetch(0, 0, genome.lengths[0]), sample.fetch(0, 0, sample.lengths[0])
    loaded = load_predictor(Path("default"), "cpu")
    task, scorer = detection_task(loaded.predictor.task), window_scorer(loaded.predictor, loaded.card)
    probabilities: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    for block in place_assembly([reference], [contig]).blocks:
        scored = score_block(block, reference, contig, task, loaded.card.length, scorer)
        made = scored.sample
        truth = np.stack([made.substituted, made.inserted, made.deleted_before], 1)
        equivalent = np.stack([made.substituted, made.ambiguous_inserted, made.ambiguous_deleted_before], 1)
        counted = scored.tested[:, None] & (truth | ~equivalent)  # other placements of an indel have no label
        probabilities.append(np.where(counted, scored.table, np.nan))
        labels.append(truth)
    table, truth = np.concatenate(probabilities), np.concatenate(labels)
    rows = []
    for column, output in enumerate(OUTPUTS):
        kept = ~np.isnan(table[:, column])
        predicted, true = table[kept, column].astype(float), truth[kept, column]
        number = np.digitize(predicted, BINS[1:-1])
        bins = [
            {"bases": int(here.sum()), "predicted": float(predicted[here].mean()), "observed": float(true[here].mean())}
            if (here := number == index).any()
            else {"bases": 0, "predicted": None, "observed": None}
            for index in range(len(BINS) - 1)
        ]
        brier, base = float(((predicted - true) ** 2).mean()), float(true.mean())
        rows.append({"output": output, "bins": bins, "brier": brier, "brier of the rate": base * (1 - base)})
    return rows


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """A row for each sample and kind that has mutations."""
    lines = [
        [
            row["sample"],
            row["kind"],
            f"{row['events']:,}",
            *(
                "–" if row[f"{candidate} {value}"] is None else f"{row[f'{candidate} {value}']:.3f}"
                for candidate in ("model", "aligner")
                for value in ("precision", "recall", "f1")
            ),
        ]
        for row in rows
        if row["events"]
    ]
    columns = ["sample", "kind", "mutations", "precision", "recall", "F1"]
    return Table("detection", [*columns, *(f"aligner {column}" for column in columns[3:])], lines, texts=2)


def reliability_table(rows: Sequence[dict[str, Any]]) -> Table:
    """Bins of the probability by output: bases, mean probability, share of bases with a mutation."""
    lines = []
    for index, (low, high) in enumerate(pairwise(BINS)):
        cells = []
        for row in rows:
            within = row["bins"][index]
            shares = "–" if not within["bases"] else f"{within['predicted']:.4f} / {within['observed']:.4f}"
            cells += [f"{within['bases']:,}", shares]
        lines.append([f"{low:g} to {high:g}", *cells])
    scores = [cell for row in rows for cell in (f"{row['brier']:.6f}", f"{row['brier of the rate']:.6f}")]
    lines.append(["Brier score, and that of the mean rate", *scores])
    columns = [f"{row['output']}{end}" for row in rows for end in (", bases", ", predicted / observed")]
    return Table("reliability", ["probability", *columns], lines)


def diagram(rows: Sequence[dict[str, Any]], file: Path) -> None:
    """The reliability diagram: the share of the bases of a bin that has a mutation, against their mean probability.

    Both axes are log odds, so that bins near 0 and 1 are told apart. Bins without or with nothing but mutations are
    drawn at one base more or less; bins of fewer than ten bases are left out.
    """

    def log_odds(share: float) -> float:
        return float(np.log10(share / (1 - share)))

    figure, panel = plt.subplots(figsize=(5, 4.6), layout="constrained")
    for number, row in enumerate(rows):
        points = []
        for within in row["bins"]:
            if (bases := within["bases"]) >= 10:
                observed = min(max(within["observed"], 1 / bases), 1 - 1 / bases)
                points.append((log_odds(max(within["predicted"], 1e-7)), log_odds(observed)))
        panel.plot(*zip(*points, strict=True), color=COLOURS[number], marker=MARKS[number], label=row["output"])
    ticks = (0.0001, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.999)
    ends = [log_odds(0.00005), log_odds(0.9995)]
    panel.plot(ends, ends, color="0.6", ls=":", label="as probable as said")
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_ticks([log_odds(tick) for tick in ticks], [f"{tick:g}" for tick in ticks])
    panel.set(xlabel="probability of a mutation", ylabel="share of bases with a mutation", xlim=ends, ylim=ends)
    panel.legend(fontsize=8)
    figure.savefig(file, dpi=130)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs what is not there yet, saves the measurements, and prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples", nargs="*", metavar="NAME=ASSEMBLY,VCF,BED")
    parser.add_argument("--runs", type=Path, default=Path("runs/detection").resolve())
    parser.add_argument("--json", type=Path, default=CHECKOUT / "results" / "detection" / "rows.json")
    parser.add_argument("--draw", action="store_true", help="only draw the diagram of the saved measurements again")
    options = parser.parse_args(arguments)
    if options.draw:
        diagram(json.loads(options.json.read_text("utf-8"))["reliability"], options.json.with_name("reliability.png"))
        return
    rows = []
    for name in ("RN4220", "N315", "planted"):
        rows += detected(name, *write_sample(name, options.runs / "samples"), None, options.runs)
    for sample in options.samples:
        name, _, files = sample.partition("=")
        fasta, vcf, regions = files.split(",")
        rows += detected(name, Path(fasta).resolve(), Path(vcf).resolve(), regions, options.runs)
    calibration = reliability(options.runs / "samples" / "planted.fa")
    saved = {"machine": machine(), "versions": versions(["torch"]), "date": today(), "rows": rows}
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps(saved | {"reliability": calibration}, indent=1) + "\n", "utf-8")
    diagram(calibration, options.json.with_name("reliability.png"))
    print(table(rows).markdown(), reliability_table(calibration).markdown(), sep="\n")


if __name__ == "__main__":
    main()
