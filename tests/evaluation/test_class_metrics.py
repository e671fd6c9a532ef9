"""AUROC and AUPRC in resamples are those of torchmetrics on the resampled items."""

import numpy as np
import pytest
import torch
from torchmetrics.functional import classification

from genoattn.evaluation.class_metrics import rankings


@pytest.mark.parametrize("classes", [2, 3])
def test_rankings_are_those_of_torchmetrics(classes: int):
    rng = np.random.default_rng(classes)
    truth = rng.integers(0, classes, 40)
    table = np.round(rng.dirichlet(np.ones(classes), 40), 1)  # with ties
    times = rng.multinomial(40, np.full(40, 1 / 40), 5)
    found = rankings(table, truth, times)
    for row, auroc, auprc in zip(times, *found, strict=True):
        chosen = np.repeat(np.arange(40), row)
        scores, true = torch.from_numpy(table[chosen]), torch.from_numpy(truth[chosen])
        if classes == 2:
            expected = classification.binary_auroc(scores[:, 1], true)
            precision = classification.binary_average_precision(scores[:, 1], true)
        else:
            expected = classification.multiclass_auroc(scores, true, classes)
            precision = classification.multiclass_average_precision(scores, true, classes)
        assert auroc == pytest.approx(float(expected)) and auprc == pytest.approx(float(precision))


def test_a_class_that_is_missing_has_no_ranking():
    found = rankings(np.full((4, 2), 0.5), np.array([0, 0, 1, 1]), np.array([[1, 1, 1, 1], [1, 1, 0, 0]]))
    assert found.auroc[0] == found.auprc[0] == 0.5 and np.isnan(found.auroc[1]) and np.isnan(found.auprc[1])
