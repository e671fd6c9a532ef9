"""The study of measured effects: its grid, its tests between layers and its page, on rows that are made up."""

from typing import Any

import numpy as np
import pytest

from benchmarks.studies import variants_report
from benchmarks.studies.variants import FOLDS, LAYERS, LONG, RIVALS, SETS, Run, by_group, grid, key_of, share
from genoattn.genome.labelled_variants import LabelledVariant
from genoattn.genome.mutations import Mutation

GROUPS = [f"g{number}" for number in range(12)]
LEVELS = {"consequence": 0.8, "cadd": 0.85, "phylop": 0.85, "zero_shot": 0.45, "window": 0.7}
"""Levels of AUROC; 0.65 of what has none."""


def figures(run: Run, name: str, fold: int) -> dict[str, dict[str, float]]:
    """Groups differ by up to 0.1 and seeds by 0.002; `window` is 0.05 above every other layer."""
    level = LEVELS.get(name, 0.65) + 0.002 * run.seed
    return {
        group: {"variants": 9, "auroc": level + 0.01 * number, "auprc": 0.4, "spearman": 0.2}
        for number, group in enumerate(GROUPS)
        if number % FOLDS == fold - 1
    }


def row(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = {**run._asdict(), "seconds": 6.0}
    if run.layer == "reproduced":
        own = {"auroc": 0.651, "auprc": 0.356, "least": 0.597, "most": 0.774}
        return found | {"variants": 3644, "share": 0.2, "figures": {"logistic regression": own}}
    if run.layer == "baselines":
        names = ("consequence", "logistic regression", *(["cadd", "phylop"] if run.set == "brca1" else []))
        return found | {"answers": {name: figures(run, name, run.fold) for name in names}}
    return found | {"groups": figures(run, run.layer, run.fold), "parameters": 25_000}


@pytest.fixture(scope="module")
def measured() -> variants_report.Measured:
    return variants_report.Measured([row(run) for run in grid()])


def test_the_parts_make_the_grid_and_every_run_has_a_key() -> None:
    runs = grid()
    assert sorted([*share("1/2"), *share("2/2")]) == sorted(runs) and len({run.key for run in runs}) == len(runs)
    assert all(key_of(row(run)) == run.key for run in runs) and set(RIVALS) == set(SETS)
    assert sum(run.layer == "full" and run.length == LONG for run in runs) == FOLDS


def test_figures_are_of_groups(measured: variants_report.Measured) -> None:
    variants = [
        LabelledVariant(0, Mutation(at, at + 1, b"\1"), label, score, group)
        for at, (label, score, group) in enumerate([(0, 1.0, "a"), (1, -1.0, "a"), (1, -2.0, "b"), (0, 0.0, "b")])
    ]
    found = by_group(variants, np.array([-5.0, 2.0, 0.0, 1.0]))
    assert found["a"] == {"variants": 2, "auroc": 1, "auprc": 1, "spearman": 1}
    assert found["b"]["auroc"] == 0 and found["b"]["spearman"] == -1
    window = measured.runs(variants_report.Setting("brca1", "window"))
    assert [run.value for run in window] == pytest.approx([0.755, 0.757, 0.759])


def test_a_seed_without_all_folds_is_left_out() -> None:
    rows = [row(run) for run in grid() if run.seed < 2 and (run.layer, run.seed, run.fold) != ("full", 1, 2)]
    full = variants_report.Measured(rows).runs(variants_report.Setting("sars2", "full"))
    assert [run.value for run in full] == pytest.approx([0.705])


def test_a_layer_that_is_better_in_every_group_is_told_apart(measured: variants_report.Measured) -> None:
    first, second = (variants_report.Setting("brca1", layer) for layer in ("full", "window"))
    pair = measured.difference(first, second)
    assert pair and pair.mean == pytest.approx(-0.05) and pair.high < 0
    text = variants_report.differences(measured)
    assert "not told apart: `window` / " in text and "`window` over" in text


def test_the_page(measured: variants_report.Measured) -> None:
    found = {line[0][0]: line for line in reversed(variants_report.outcomes(measured).rows)}
    assert found["1"][2] == "no" and "brca1: 5 of 15 pairs" in found["1"][1]
    assert found["2"][2] == "no" and "`window`, to consequence -0.098" in found["2"][1]
    assert found["3"][2] == "yes" and found["4"][2] == "yes" and found["5"][2] == "yes"
    names = [line[0] for line in variants_report.layers(measured, "brca1").rows]
    assert names[0] == "cadd" and names[-1] == "zero-shot" and names.count("`none`") == 2
    values = variants_report.values(measured.rows)
    assert all(value() for name, value in values.items() if callable(value) and name != "variant_layers")
    missing = variants_report.outcomes(variants_report.Measured([row(run) for run in grid() if run.layer != "none"]))
    assert missing.rows[0][2] == "open" and set(LAYERS) > {"none"}
