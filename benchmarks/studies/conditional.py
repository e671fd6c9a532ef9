"""A strain given its relative, by layer: bits a base by length of the context, and surprise as a detector.

    python -m benchmarks.studies.conditional [LAYER ...] [--steps 250]

Every layer is trained twice by `genoattn train experiment=conditional`, on simulated strains of S. aureus NCTC 8325,
for equally many steps, at one learning rate and from one seed: with relative and strain interleaved, and with the
relative before the strain. Then it is tested on N315 at several lengths, on simulated strains, and on E. coli DH1.
`baselines` is a name like that of a layer. Each training has a process and a run folder of its own under --runs, and
each row a file there: what is there is not repeated, and several processes may share the folder. Each gathers the rows.
"""

import gzip
import json
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch

from benchmarks.common.measure import machine, today, versions
from benchmarks.studies.programs import CHECKOUT, command_line, run
from genoattn.comparison.report.style import COLOURS, LINES, MARKS
from genoattn.data.settings import DataSettings
from genoattn.data.source import open_data_source
from genoattn.data.tasks.conditional import Conditional
from genoattn.evaluation.base import TEST
from genoattn.evaluation.conditional.evaluator import ConditionalEvaluator, measure
from genoattn.evaluation.conditional.readers import ModelReader
from genoattn.evaluation.report import Table
from genoattn.evaluation.settings import TestSettings
from genoattn.files import replace_when_done, write_text
from genoattn.models.build import load_predictor

BASELINES = "baselines"
LAYERS = ("full", "window", "sparse", "topk", "hierarchical", "linear", "delta", "ssd", "hyena", "conv", "none")
LAYOUTS: dict[str, tuple[int, tuple[str, ...]]] = {
    "interleaved": (512, ("data.length=512", "data.batch=8")),
    "before": (
        256,
        (
            *("task.layout=before", "data.length=256", "data.batch=16"),
            *("curriculum.length=32", "curriculum.lengths=mixed"),
        ),
    ),
}
"""The bases of a training window in each layout, and its settings: 4,096 bases of strains a step in both."""
LENGTHS = {"interleaved": (512, 2048, 8192), "before": (256, 1024, 4096)}
N315, DH1 = "data/N315.vcf.gz", "data/ecoli_DH1.vcf.gz"
REAL = "saureus_N315"
"""The strain of the curves and of most columns."""
BASES = 65_536
"""Bases of a strain that are tested at each length."""
KEPT = {
    "all": ("bases", "bits_per_base", "bits_per_base_low", "bits_per_base_high", "accuracy_base"),
    "snv": ("events", "auprc", "auprc_low", "auprc_high"),
    "indel": ("events", "auprc", "auprc_low", "auprc_high"),
}


@cache
def evaluators(layout: str) -> dict[str, ConditionalEvaluator]:
    """The test sets of a layout by species: a simulated strain, and N315 at every length or DH1 at the shortest."""
    task = Conditional(layout="interleaved" if layout == "interleaved" else "before")
    usual, *longer = LENGTHS[layout]
    # As in conf/test/real.yaml.
    rates: dict[str, Any] = {"rate": 0.0048, "snv": 0.9762, "insertion": 0.0106, "deletion": 0.0132}
    rates |= {"transitions": 1.82}
    found = {}
    for name, data, context in (
        ("saureus", DataSettings(length=usual, fasta="data/NCTC8325.fa.gz", vcf=N315), longer),
        ("ecoli", DataSettings(length=usual, fasta="data/ecoli_MG1655.fa.gz", vcf=DH1), None),
    ):
        test = TestSettings(windows=BASES // data.length, context=context, **rates)
        found[name] = ConditionalEvaluator(open_data_source(data, task, 0), data, test, task, False)
    return found


def tested(layout: str, reader: ModelReader | None) -> dict[str, dict[str, Any]]:
    """By reader, by strain and length, the metrics of a model or, without one, of the baselines."""
    found: dict[str, dict[str, Any]] = {}
    for genome, evaluator in evaluators(layout).items():
        for windows in evaluator.sets:
            if windows.strain == TEST and windows.length != LENGTHS[layout][0]:
                continue
            strain = f"{genome}_{windows.strain}"
            for one in [reader] if reader else evaluator.baselines(windows.length):
                metrics = measure(one, windows, False).metrics
                kept = {
                    f"{subset}/{name}": metrics[subset, name]
                    for subset, names in KEPT.items()
                    for name in names
                    if (subset, name) in metrics
                }
                found.setdefault(one.key, {}).setdefault(strain, {})[str(windows.length)] = kept
    return found


def rows_of(name: str, layout: str, runs: Path, steps: int) -> list[dict[str, Any]]:
    """The rows of a layer, or of the baselines, in a layout; a file under `runs` keeps them."""
    home = runs / f"{layout}_{name}_{steps}"
    file = home / "rows.json"
    if file.is_file():
        return json.loads(file.read_text("utf-8"))
    home.mkdir(parents=True, exist_ok=True)
    row: dict[str, Any] = {"layer": name, "layout": layout}
    if name == BASELINES:
        rows = [{**row, "layer": key, "strains": strains} for key, strains in tested(layout, None).items()]
    else:
        words = [
            "experiment=conditional",
            f"attention={name}",
            "control=null",
            "trainer.threads=1",
            *LAYOUTS[layout][1],
        ]
        words += [f"trainer.max_steps={steps}", f"trainer.validate_every={steps}", "test.windows=1", "test.resamples=2"]
        trained = run("train", home / "train", [*words, "data.vcf=[]", "test.context=null"])
        if "error" in trained:
            return [{**row, "error": trained["error"]}]
        costs = {key: trained[f"cost/{key}"] for key in ("parameters", "train_seconds")}
        predictor = load_predictor(home / "train").predictor
        strains = tested(layout, ModelReader(name, name, predictor))[name]
        rows = [{**row, "steps": steps, **costs, "strains": strains}]
    write_text(file, json.dumps(rows) + "\n")
    return rows


def table(rows: Sequence[Mapping[str, Any]], layout: str) -> Table:
    """A row for each layer and baseline of a layout, the fewest bits on N315 at the longest context first."""
    lengths = [str(length) for length in LENGTHS[layout]]
    columns = ["reader", "parameters", "seconds of training", "simulated strain, bits"]
    columns += [f"N315, {int(length):,} bases" for length in lengths]
    columns += ["AUPRC of surprise, SNVs of N315", "indels of N315"]
    columns += ["*E. coli*, simulated strain, bits", "AUPRC, SNVs of it", "*E. coli* DH1, bits"]
    lines, first, last = [], lengths[0], lengths[-1]
    own = [row for row in rows if row["layout"] == layout]
    for row in sorted(own, key=lambda row: _bits(row, REAL, last)):
        if "error" in row:
            lines.append([f"`{row['layer']}`", row["error"], *[""] * (len(columns) - 2)])
            continue
        real, ecoli = row["strains"][REAL], row["strains"]["ecoli_test"][first]
        cells = [f"{row['parameters']:,}", f"{row['train_seconds']:.0f}"] if "steps" in row else ["–", "–"]
        cells += [f"{_bits(row, 'saureus_test', first):.3f}"]
        cells += [_bounded(real[length], "all/bits_per_base") for length in lengths]
        cells += [_bounded(real[last], "snv/auprc"), f"{real[last].get('indel/auprc', 0):.2f}"]
        cells += [f"{ecoli['all/bits_per_base']:.3f}", _bounded(ecoli, "snv/auprc")]
        cells += [f"{_bits(row, 'ecoli_ecoli_DH1', first):.3f}"]
        lines.append([f"`{row['layer']}`" if "steps" in row else row["layer"], *cells])
    return Table(layout, columns, lines)


def best(rows: Sequence[Mapping[str, Any]], layout: str) -> str:
    """A sentence on the layer with the fewest bits at the longest context, beside the copy model; "" without layers."""
    length = str(LENGTHS[layout][-1])
    own = [row for row in rows if row["layout"] == layout and "error" not in row]
    layers = [row for row in own if "steps" in row]
    if not layers:
        return ""
    layer = min(layers, key=lambda row: _bits(row, REAL, length))
    copies = next(row for row in own if row["layer"] == "copies")
    found, beside = (row["strains"][REAL][length] for row in (layer, copies))
    bits, auprc = "all/bits_per_base", "snv/auprc"
    return (
        f"`{layer['layer']}` takes {_bounded(found, bits)} bits a base of N315, {int(length):,} bases of the relative"
        f" {'interleaved' if layout == 'interleaved' else 'before it'}, the copy model {beside[bits]:.3f}; its surprise"
        f" finds the SNVs with an AUPRC of {found[auprc]:.3f}, that of the copy model with {beside[auprc]:.3f}."
    )


def _bits(row: Mapping[str, Any], strain: str, length: str) -> float:
    return 9.0 if "error" in row else row["strains"][strain][length]["all/bits_per_base"]


def _bounded(metrics: Mapping[str, Any], name: str) -> str:
    if name not in metrics:
        return "–"
    return f"{metrics[name]:.3f} [{metrics[f'{name}_low']:.3f}–{metrics[f'{name}_high']:.3f}]"


def plot(rows: Sequence[Mapping[str, Any]], file: Path) -> None:
    """Bits a base of N315 against the context, a panel for each layout; dashed: baselines."""
    figure, panels = plt.subplots(1, len(LENGTHS), figsize=(11, 4.4), layout="constrained", sharey=True)
    names = list(dict.fromkeys(row["layer"] for row in rows if "error" not in row))
    for panel, layout in zip(panels, LENGTHS, strict=True):
        for row in (row for row in rows if row["layout"] == layout and "error" not in row):
            number = names.index(row["layer"])
            bits = [_bits(row, REAL, str(length)) for length in LENGTHS[layout]]
            look = {"color": COLOURS[number % len(COLOURS)], "marker": MARKS[number % len(MARKS)], "ms": 5, "lw": 1}
            style = LINES[number % len(LINES)] if "steps" in row else "--"
            label = row["layer"] if layout == "interleaved" else None
            panel.plot(LENGTHS[layout], bits, linestyle=style, label=label, **look)
        panel.set_xscale("log", base=2)
        panel.set(title=layout, xlabel="context (bases of the relative)", ylabel="bits per base of N315", ylim=(0, 2.3))
    figure.legend(fontsize=8, loc="outside right upper")
    figure.savefig(file, dpi=130)
    plt.close(figure)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train and test what has no row yet, gather all rows, and print the tables and draw the curves."""
    names = (BASELINES, *LAYERS)
    parser = command_line(__doc__, names, "conditional")
    parser.add_argument("--steps", type=int, default=250, help="training steps of 4,096 bases of strains")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    runs = options.runs.absolute()
    for name in () if options.table else options.layers or names:
        for layout in LAYOUTS:
            rows_of(name, layout, runs, options.steps)
    files = [runs / f"{layout}_{name}_{options.steps}" / "rows.json" for layout in LAYOUTS for name in names]
    rows = [row for file in files if file.is_file() for row in json.loads(file.read_text("utf-8"))]
    if rows:
        about = {"machine": machine(), "versions": versions(["torch"]), "date": today(), "steps": options.steps}
        packed = gzip.compress((json.dumps({**about, "rows": rows}) + "\n").encode(), mtime=0)
        with replace_when_done(options.json.with_suffix(".json.gz")) as file:
            file.write_bytes(packed)
    saved = json.loads(gzip.decompress(options.json.with_suffix(".json.gz").read_bytes()))
    plot(saved["rows"], options.json.with_name("conditional.png"))
    for layout in LAYOUTS:
        table(saved["rows"], layout).print()


if __name__ == "__main__":
    assert Path.cwd() == CHECKOUT, f"start this in {CHECKOUT}"
    main()
