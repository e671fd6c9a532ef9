"""Measured effects of single-base changes, by layer and context; whole exons or stretches of the genome are left out.

    python -m benchmarks.studies.variants [--part 1/2]   # for instance both parts at once, on two cores
    python -m benchmarks.studies.variants --collect      # writes results/variants/rows.json.gz
    python -m benchmarks.studies.render variants

Every run has a fixed seed and leaves one line of json in --runs; a run that has its line is not repeated. A run trains
on two of three folds of groups and ranks the variants of each group of the third. Layers differ in the attention layer
alone, and each of them, `none` too, reads k-mers through a convolution (`model.stem_conv`): `none` is a k-mer CNN.
"""

import argparse
import contextlib
import gzip
import io
import json
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from benchmarks.studies.programs import CHECKOUT
from genoattn.cli.values import model_of, plain, recipe_of, value_of
from genoattn.config.compose import compose
from genoattn.data.source import DataSource, open_data_source
from genoattn.data.tasks.variant_classification import VariantClassification
from genoattn.evaluation.base import Candidate
from genoattn.evaluation.baselines.regression import features, logistic_regression
from genoattn.evaluation.score_metrics import ranking, spearman
from genoattn.evaluation.settings import TestSettings
from genoattn.evaluation.variant_classification import VariantClassificationEvaluator
from genoattn.evaluation.variant_rivals import VariantEvaluator
from genoattn.genome.labelled_variants import LabelledVariant
from genoattn.models.build import build_model, check_card, load_predictor, train_tokenizer
from genoattn.models.predictor import Predictor
from genoattn.training.finetuning import load_matching
from genoattn.training.identity import identify

HOME = CHECKOUT / "results" / "variants"
DATA = CHECKOUT / "data" / "variants"
SETS = {
    "brca1": ("task.classes={tolerated: [FUNC], damaging: [LOF]}", "task.groups=exon"),
    "sars2": ("task.classes={tolerated: [tolerated], damaging: [dead]}", "task.groups=3000"),
}
RIVALS = {"brca1": ("task.rivals=[cadd,phylop,consequence]",), "sars2": (f"task.gff={DATA / 'sars2.gff3'}",)}
LAYERS = {
    "full": (),
    "window": ("attention.left=32", "attention.right=32"),
    "conv": (),
    "linear": ("attention.key_dim=16",),
    "hyena": (),
    "none": (),
}
"""Layers and their settings; a token sees 32 others on each side in `window` and 16 in `conv`."""
FOLDS, SEEDS, SHORT, LONG = 3, (0, 1, 2), 128, 512
LONG_LAYERS = {"brca1": ("full", "none"), "sars2": ("none",)}
"""By set, layers that are trained with the longer context too, from one seed: a run of `full` takes minutes there."""
STEPS, MORE_STEPS, BATCH, TUNED_STEPS = 300, 1200, 16, 60
TESTED = 400
"""Most variants of a group that a model is tested on, drawn once for all runs."""
CHECKPOINT = "language"
"""The language model that ships, of S. aureus."""


class Run(NamedTuple):
    """A run; the row `baselines` needs no training of a model, `language` is fine-tuned or has its shape."""

    set: str
    layer: str
    length: int = SHORT
    fold: int = 1
    seed: int = 0
    target: str = "class"
    start: str = "nothing"
    steps: int = STEPS

    @property
    def key(self) -> str:
        return "/".join(map(str, self))


def grid() -> list[Run]:
    """All runs, what costs little first."""
    folds, runs = range(1, FOLDS + 1), [Run(name, "reproduced") for name in SETS]
    for name in SETS:
        runs += [Run(name, row, fold=fold) for row in ("baselines", "zero_shot") for fold in folds]
        runs += [Run(name, layer, SHORT, fold, seed) for seed in SEEDS for layer in LAYERS for fold in folds]
    for name in SETS:
        runs += [Run(name, layer, LONG, fold) for layer in LONG_LAYERS[name] for fold in folds]
        runs += [Run(name, "none", fold=fold, target="score") for fold in folds]
        runs += [Run(name, "none", fold=fold, steps=MORE_STEPS) for fold in folds]
        runs += [
            Run(name, "language", fold=fold, start=start, steps=TUNED_STEPS)
            for start in ("nothing", CHECKPOINT)
            for fold in folds
        ]
    return runs


def words(run: Run) -> list[str]:
    """The settings of a run: of `train` or, for the shape of the language model, of `finetune`."""
    common = [f"data.fasta={DATA / run.set}.fa.gz", f"data.length={run.length}", f"data.batch={BATCH}"]
    common += ["data.validation_windows=256", f"task.file={DATA / run.set}.tsv.gz", "task.label=class"]
    common += ["task.score=score", f"task.target={run.target}", f"task.fold={run.fold}/{FOLDS}", *SETS[run.set]]
    common += [f"seed={run.seed}", f"trainer.max_steps={run.steps}", f"trainer.validate_every={run.steps // 6}"]
    common += ["trainer.threads=1", "trainer.memory_check=false", "curriculum=none"]
    if run.layer == "language":
        return ["checkpoint=language", "task=variant", *common, "optimizer.lr=0.002"]
    layer = run.layer if run.layer in LAYERS else "none"
    shape = ["model.dim=32", "model.depth=2", "model.mlp_ratio=2", "heads.count=2", "model.stem_conv=11"]
    return ["experiment=variant", f"attention={layer}", *LAYERS[layer], *shape, *common, "optimizer.lr=0.004"]


def measure(run: Run) -> dict[str, Any]:
    """The row of a run."""
    start = time.process_time()
    special = {"reproduced": reproduced, "baselines": baselines, "zero_shot": zero_shot}
    found = special.get(run.layer, trained)(run)
    return {**run._asdict(), **found, "seconds": round(time.process_time() - start, 1)}


def trained(run: Run) -> dict[str, Any]:
    """Train the model of a run and rank the tested variants of each group with it."""
    from genoattn.training.run import train_model  # late: the page of the study need not wait for lightning

    tuned = run.layer == "language"
    config = compose("finetune" if tuned else "train", words(run))
    recipe, task, source = recipe_of(config, "none"), value_of(config.task), opened(run.set, run.fold, run.target)
    if tuned:
        pretrained = load_predictor(Path(CHECKPOINT), "cpu")
        nodes = check_card(pretrained.card, (), ("model", "attention"))
        shape, tokenizer = (nodes["model"].build(), nodes["attention"].build()), pretrained.predictor.tokenizer
        predictor = build_model(*shape, task, tokenizer, recipe.seed)
        if run.start == CHECKPOINT:
            load_matching(pretrained, predictor.model)
    else:
        tokenizer = train_tokenizer(value_of(config.tokenizer), source, recipe.seed)
        predictor = model_of(config, "attention", task, tokenizer)
    with tempfile.TemporaryDirectory() as folder:
        train_model(recipe, "model", predictor, source, Path(folder), [], identify(plain(config), source))
    variants = source.labelled["test"]
    parameters = sum(weight.numel() for weight in predictor.model.parameters())
    return {"groups": by_group(variants, predicted(predictor, source, variants, run)), "parameters": parameters}


def predicted(predictor: Predictor, source: DataSource, variants: Sequence[LabelledVariant], run: Run) -> np.ndarray:
    """A number for each variant that is the higher, the more damaging the model finds it."""
    assert isinstance(predictor.task, VariantClassification)
    window = partial(predictor.task.window_around, source.genome, length=run.length)
    answers = [logits for _, logits in predictor.logits([window(variant) for variant in variants])]
    if run.target == "score":  # low scores are damaging, in both sets
        return -np.concatenate([each["score"][:, 0, 0].double().numpy() for each in answers])
    return np.concatenate([each["class"][:, 0].double().diff(dim=-1)[:, 0].numpy() for each in answers])


def baselines(run: Run) -> dict[str, Any]:
    """The regression on plain facts and the rivals."""
    task = value_of(compose("train", [*words(run), *RIVALS[run.set]]).task)
    source = opened(run.set, run.fold, run.target, rivals=True)
    answers = evaluator_of(run, task, source).predict([])
    columns = {one.name: one.values if one.values.ndim == 1 else one.values[:, 1] for one in answers}
    del columns["majority class"]
    return {"answers": {name: by_group(source.labelled["test"], column) for name, column in columns.items()}}


def zero_shot(run: Run) -> dict[str, Any]:
    """The likelihood ratio of the language model that ships."""
    task, source = value_of(compose("train", words(run)).task), opened(run.set, run.fold, run.target)
    model = load_predictor(Path(CHECKPOINT), "cpu").predictor
    answer = evaluator_of(run, task, source).zero_shot(Candidate("zero_shot", "zero-shot", model))
    return {"groups": by_group(source.labelled["test"], answer.values)}


def evaluator_of(run: Run, task: VariantClassification, source: DataSource) -> VariantEvaluator:
    """The evaluator of a class."""
    data = value_of(compose("train", words(run)).data)
    return VariantClassificationEvaluator(source, data, TestSettings(), task, both_strands=False)


def reproduced(run: Run) -> dict[str, Any]:
    """The figures of data/README.md, of all variants: each group left out in turn; rivals as they are."""
    fold_free = [word for word in words(run) if not word.startswith(("task.fold", "task.score"))]
    task = value_of(compose("train", [*fold_free, *RIVALS[run.set]]).task)
    source = opened(run.set, run.fold, run.target, rivals=True, thin=False)
    variants = [variant for part in source.labelled.values() for variant in part]
    labels, groups = (np.array([getattr(one, name) for one in variants]) for name in ("label", "group"))
    facts = np.stack([features(one, task.window_around(source.genome, one, SHORT)) for one in variants])
    pooled = np.zeros(len(labels))
    for group in sorted(set(groups.tolist())):
        out = groups == group
        pooled[out] = logistic_regression(facts[~out], labels[~out], facts[out], 2)[:, 1]
    columns = {"logistic regression": pooled}
    whole = replace(source, labelled=dict.fromkeys(source.labelled, tuple(variants)))
    columns |= {answer.name: answer.values for answer in evaluator_of(run, task, whole).rivals()}
    found: dict[str, Any] = {}
    for name, column in columns.items():
        own = [ranking(column[groups == group], labels[groups == group]).auroc for group in set(groups.tolist())]
        auroc, auprc = ranking(column, labels)
        found[name] = {"auroc": auroc, "auprc": auprc, "least": min(own), "most": max(own)}
    return {"variants": len(labels), "share": float(labels.mean()), "figures": found}


@cache
def opened(name: str, fold: int, target: str, rivals: bool = False, thin: bool = True) -> DataSource:
    """The variants of a fold; with `thin` the test has at most `TESTED` variants of known class of each group."""
    more = RIVALS[name] if rivals else ()
    config = compose("train", [*words(Run(name, "none", fold=fold, target=target)), *more])
    source = open_data_source(value_of(config.data), value_of(config.task), 0)
    if not thin:
        return source
    groups: dict[str, list[LabelledVariant]] = defaultdict(list)
    for variant in source.labelled["test"]:
        if variant.label >= 0:
            groups[variant.group].append(variant)
    rng, tested = np.random.default_rng(0), []
    for own in groups.values():
        tested += [own[number] for number in sorted(rng.permutation(len(own))[:TESTED].tolist())]
    return replace(source, labelled={**source.labelled, "test": tuple(tested)})


def by_group(variants: Sequence[LabelledVariant], numbers: np.ndarray) -> dict[str, dict[str, float]]:
    """AUROC and AUPRC of the damaging class, and Spearman's correlation with the damage, in each group."""
    groups = np.array([variant.group for variant in variants])
    labels, scores = (np.array([getattr(one, name) for one in variants]) for name in ("label", "score"))
    found = {}
    for group in dict.fromkeys(groups.tolist()):
        own = groups == group
        auroc, auprc = ranking(numbers[own], labels[own])
        figures = {"auroc": auroc, "auprc": auprc, "spearman": spearman(numbers[own], -scores[own])}
        found[group] = {"variants": int(own.sum())} | {name: round(value, 5) for name, value in figures.items()}
    return found


def saved_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of all runs that are done, in the order of the grid."""
    lines = [line for file in sorted(folder.glob("rows_*.jsonl")) for line in file.read_text("utf-8").splitlines()]
    rows = {key_of(row): row for row in map(json.loads, lines)}
    return [rows[run.key] for run in grid() if run.key in rows]


def key_of(row: Mapping[str, Any]) -> str:
    """The key of the run of a row."""
    return Run(**{name: row[name] for name in Run._fields}).key


def share(part: str) -> Iterator[Run]:
    """The runs of a part such as 1/2."""
    number, _, count = part.partition("/")
    yield from grid()[int(number) - 1 :: int(count)]


def main(arguments: Sequence[str] | None = None) -> None:
    """Make the runs of a part, or collect the rows of all parts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, default=Path("runs") / "variants", help="where rows are written")
    parser.add_argument("--part", default="1/1", help="which of how many parts this process makes")
    parser.add_argument("--only", default="", help="runs whose key contains this text, such as brca1/none/")
    parser.add_argument("--collect", action="store_true", help="write results/variants/rows.json.gz; run nothing")
    options = parser.parse_args(arguments)
    options.runs.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if not options.collect:
        file = options.runs / f"rows_{options.part.replace('/', '_')}.jsonl"
        for run in share(options.part):
            if options.only in run.key and run.key not in map(key_of, saved_rows(options.runs)):
                with contextlib.redirect_stdout(io.StringIO()):
                    row = measure(run)
                with file.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(row) + "\n")
                print(f"{run.key}: {row['seconds']} s", flush=True)
        return
    rows = saved_rows(options.runs)
    if missing := [run.key for run in grid() if run.key not in map(key_of, rows)]:
        print(f"{len(missing)} runs are missing: {', '.join(missing[:5])} …")
    packed = gzip.compress(json.dumps(rows).encode(), mtime=0)
    (HOME / "rows.json.gz").write_bytes(packed)
    print(f"{len(rows)} rows, {len(packed):,} bytes, {sum(row['seconds'] for row in rows):,.0f} s of a core")


if __name__ == "__main__":
    main()
