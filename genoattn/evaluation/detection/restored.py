"""The share of masked bases that a detector restores: how well it reads the reference, whatever was mutated."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from genoattn.data.example import Example
from genoattn.data.targets import IGNORE_INDEX
from genoattn.evaluation.base import TEST, Candidate
from genoattn.evaluation.bootstrap import interval, resample, resampled_ratio
from genoattn.evaluation.metrics import MetricKey
from genoattn.evaluation.report import Table, with_interval

OUTPUT = "restore"
"""The output of a task whose sample bases are partly masked."""


@dataclass(frozen=True)
class Restored:
    """Masked bases of a test set, and the share of them that a model tells."""

    key: MetricKey
    name: str
    bases: int
    accuracy: float
    replicates: Float[np.ndarray, "replicates"]
    """The accuracy in every bootstrap resample of genomic blocks."""


def restore(candidate: Candidate, examples: Sequence[Example], both_strands: bool, count: int) -> Restored:
    """Restore the masked bases of examples; those that are not as in the reference have no label and do not count.

    Args:
        candidate: A model whose task has the output "restore".
        examples: Examples with masked bases.
        both_strands: Average the logits of both strands.
        count: Number of resamples.
    """
    right: list[int] = []
    asked: list[int] = []
    for batch, logits in candidate.predictor.logits(examples, both_strands):
        target = batch.targets[OUTPUT]
        labelled = target != IGNORE_INDEX
        right += ((logits[OUTPUT].argmax(-1) == target) & labelled).sum(1).tolist()
        asked += labelled.sum(1).tolist()
    resamples = resample([example.block for example in examples], count)
    replicates = resampled_ratio(np.array(right), np.array(asked), resamples)
    accuracy = sum(right) / sum(asked) if sum(asked) else float("nan")
    return Restored(MetricKey(candidate.key, TEST, "all", "restored"), candidate.name, sum(asked), accuracy, replicates)


def restored_table(rows: Sequence[Restored]) -> Table:
    """A row for each model."""
    lines = [[row.name, f"{row.bases:,}", with_interval(row.accuracy, *interval(row.replicates))] for row in rows]
    return Table("Masked bases restored", ["model", "masked bases", "accuracy [95 %]"], lines)
