"""The exam of a classifier: held-out variants, beside the commonest class and a regression on a few facts."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import final

import matplotlib.pyplot as plt
import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torchmetrics.functional.classification import (
    binary_auroc,
    binary_average_precision,
    binary_roc,
    multiclass_auroc,
    multiclass_average_precision,
    multiclass_confusion_matrix,
    multiclass_f1_score,
    multiclass_matthews_corrcoef,
)

from genoattn.data.settings import DataSettings
from genoattn.data.source import DataSource
from genoattn.data.tasks.base import Task
from genoattn.data.tasks.variant_classification import VariantClassification
from genoattn.evaluation.base import Candidate, EvaluationResult, Evaluator
from genoattn.evaluation.baselines.logistic_regression import features, logistic_regression
from genoattn.evaluation.report import Table
from genoattn.evaluation.settings import TestSettings
from genoattn.files import save_figure

MEASURES = ("auroc", "auprc", "accuracy", "f1", "mcc")


COLUMNS = ("variants", "model", "number", "AUROC [95 %]", "AUPRC [95 %]", "accuracy", "F1 (macro)", "MCC")


@final
class VariantClassificationEvaluator(Evaluator):
    """AUROC and AUPRC are of the second class of two, or of each against the rest of more, averaged.

    Of another genome than the one trained on the test split alone is tested too: the regression learns from the rest.
    An interval is the middle 95 % over resampled variants.
    """

    def __init__(
        self, source: DataSource, data: DataSettings, test: TestSettings, task: Task, strands: bool, known: bool
    ):
        assert isinstance(task, VariantClassification)
        self.task, self.strands, self.resamples = task, strands, test.resamples
        self.training, self.tested = source.labelled["train"], source.labelled["test"]
        show = partial(task.window_around, source.genome, length=data.length)
        self.examples = [show(one) for one in self.tested]
        self.taught = [show(one) for one in self.training]
        self.truth = np.array([one.label for one in self.tested])

    def evaluate(self, candidates: Sequence[Candidate]) -> EvaluationResult:
        counts = np.bincount([one.label for one in self.training], minlength=len(self.task.classes))
        told = {one.name: self._told(one) for one in candidates}
        told["logistic"] = self._regressed()
        told["majority"] = np.tile(counts / counts.sum(), (len(self.truth), 1))
        figures: dict[str, int | float] = {}
        rows: list[list[str]] = []
        for kind, chosen in self._kinds():
            for name, table in told.items():
                found = measured(table[chosen], self.truth[chosen], self.resamples)
                rival = name.partition(" (")[0]
                prefix = "test" if name == candidates[0].name else f"{rival}/test"
                prefix += "" if kind == "all" else f"/{kind}"
                figures |= {f"{prefix}/{measure}": value for measure, value in found.items()}
                rows.append([kind, name, f"{int(chosen.sum()):,}", *_cells(found)])
        title = f"Variants told apart by attention={candidates[0].name}"
        sheets = [Table(title, COLUMNS, rows, texts=2), self._confusion(told[candidates[0].name])]
        draw: Callable[[Path], None] = partial(_plot, told, self.truth)
        return EvaluationResult(figures, sheets, {"roc": draw}, {one.key: {} for one in candidates})

    def _told(self, one: Candidate) -> Float[np.ndarray, "variants classes"]:
        tables = [
            answers["class"][:, 0].double().softmax(-1).cpu().numpy()
            for _, answers in one.predictor.logits(self.examples, self.strands)
        ]
        return np.concatenate(tables)

    def _kinds(self) -> Iterator[tuple[str, Bool[np.ndarray, "variants"]]]:
        snv = np.array([one.mutation.kind == "snv" for one in self.tested])
        yield "all", np.ones(len(snv), np.bool_)
        if snv.any() and not snv.all():
            yield from (("snv", snv), ("indel", ~snv))

    def _regressed(self) -> Float[np.ndarray, "variants classes"]:
        taught = np.stack([features(*pair) for pair in zip(self.training, self.taught, strict=True)])
        tested = np.stack([features(*pair) for pair in zip(self.tested, self.examples, strict=True)])
        return logistic_regression(
            taught, np.array([one.label for one in self.training]), tested, len(self.task.classes)
        )

    def _confusion(self, table: Float[np.ndarray, "variants classes"]) -> Table:
        names = list(self.task.classes)
        truth, said = torch.from_numpy(self.truth), torch.from_numpy(table.argmax(1))
        counts = multiclass_confusion_matrix(said, truth, len(names)).tolist()
        rows = [[name, *(f"{count:,}" for count in row)] for name, row in zip(names, counts, strict=True)]
        return Table("Which class (rows) was called what (columns)", ["class", *names], rows)


def measured(
    table: Float[np.ndarray, "variants classes"], truth: Int[np.ndarray, "variants"], resamples: int
) -> dict[str, float]:
    """Every measure, and for AUROC and AUPRC the middle 95 % over resampled variants; NaN where a class is missing."""
    found: dict[str, float] = dict(zip(MEASURES, _measure(table, truth), strict=True))  # type: ignore[arg-type]
    rng = np.random.default_rng(0)
    picks = (rng.integers(len(truth), size=len(truth)) for _ in range(resamples))
    drawn = np.array([_measure(table[pick], truth[pick])[:2] for pick in picks])
    for number, name in enumerate(MEASURES[:2]):
        values = drawn[~np.isnan(drawn[:, number]), number]
        low, high = np.quantile(values, [0.025, 0.975]) if len(values) else (math.nan, math.nan)
        found |= {f"{name}_low": float(low), f"{name}_high": float(high)}
    return found


def _measure(table: np.ndarray, truth: np.ndarray) -> tuple[float, ...]:
    likely, true, classes = torch.from_numpy(table), torch.from_numpy(truth), table.shape[1]
    said = likely.argmax(1)
    rest = (
        float((said == true).double().mean()),
        float(multiclass_f1_score(said, true, classes)),
        float(multiclass_matthews_corrcoef(said, true, classes)),
    )
    if len(np.unique(truth)) < classes:
        return math.nan, math.nan, *rest
    if classes == 2:
        return float(binary_auroc(likely[:, 1], true)), float(binary_average_precision(likely[:, 1], true)), *rest
    ranked = multiclass_auroc(likely, true, classes), multiclass_average_precision(likely, true, classes)
    return float(ranked[0]), float(ranked[1]), *rest


def _cells(found: dict[str, float]) -> list[str]:
    ranked = [f"{found[name]:.3f} [{found[f'{name}_low']:.3f}–{found[f'{name}_high']:.3f}]" for name in MEASURES[:2]]
    return [*ranked, *(f"{found[name]:.3f}" for name in MEASURES[2:])]


def _plot(
    told: dict[str, Float[np.ndarray, "variants classes"]], truth: Int[np.ndarray, "variants"], file: Path
) -> None:
    """The share of the last class that is found against the share of the others that is called it."""
    figure, panel = plt.subplots(figsize=(5, 4.5), layout="constrained")
    last = torch.from_numpy(truth == next(iter(told.values())).shape[1] - 1).long()
    for name, table in told.items():
        false, true, _ = binary_roc(torch.from_numpy(table[:, -1]), last)
        panel.plot(false.numpy(), true.numpy(), label=name)
    panel.set(xlabel="false positive rate", ylabel="true positive rate")
    panel.legend(fontsize=8)
    save_figure(figure, file)
