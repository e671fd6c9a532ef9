"""Regressions on simple features of a variant, logistic for its class and linear for its measured number."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int

from genoattn.data.example import Example
from genoattn.genome.labelled_variants import LabelledVariant

FLANK = 3
"""Bases on each side of a variant that are features."""


def features(variant: LabelledVariant, example: Example) -> Float[np.ndarray, "features"]:
    """Kind, size, transition, GC content, alleles and flanking bases of a variant."""
    assert example.reference is not None and example.allele_spans is not None
    start, stop, inserted = variant.mutation
    reference, (first, last) = example.reference, example.allele_spans[0]
    deleted, added = reference[first:last], np.frombuffer(inserted, np.uint8)
    snv = variant.mutation.kind == "snv"
    transition = snv and int(deleted[0]) ^ int(added[0]) == 2
    known = reference[reference < 4]
    gc = float(np.isin(known, [1, 2]).mean()) if len(known) else 0.5
    growth = len(inserted) - (stop - start)
    numbers = np.array([snv, growth > 0, np.log1p(abs(growth)), transition, gc], np.float64)
    padded = np.pad(reference, FLANK, constant_values=4)
    flanks = [*padded[first : first + FLANK], *padded[last + FLANK : last + 2 * FLANK]]
    alleles = [deleted[0] if snv else 4, added[0] if snv else 4]
    return np.concatenate([numbers, *(np.eye(5)[min(int(base), 4)] for base in (*flanks, *alleles))])


def logistic_regression(
    training: Float[np.ndarray, "training features"],
    labels: Int[np.ndarray, "training"],
    tested: Float[np.ndarray, "tested features"],
    classes: int,
) -> Float[np.ndarray, "tested classes"]:
    """Class probabilities of the tested variants; L2 penalty of one over the number of variants, fitted by L-BFGS."""
    x, y = torch.from_numpy(training), torch.from_numpy(labels)
    mean, spread = x.mean(0), x.std(0, correction=0).clamp_min(1e-6)
    weight = torch.zeros(classes, x.shape[1] + 1, dtype=torch.float64, requires_grad=True)

    def logits(rows: torch.Tensor) -> torch.Tensor:
        return ((rows - mean) / spread) @ weight[:, 1:].T + weight[:, 0]

    optimizer = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(logits(x), y) + weight[:, 1:].square().sum() / len(x)
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    return logits(torch.from_numpy(tested)).softmax(1).detach().numpy()


def linear_regression(
    training: Float[np.ndarray, "training features"],
    scores: Float[np.ndarray, "training"],
    tested: Float[np.ndarray, "tested features"],
) -> Float[np.ndarray, "tested"]:
    """Numbers of the tested variants; features in standard deviations, L2 penalty 1 on the sum of squares."""
    mean, spread = training.mean(0), np.maximum(training.std(0), 1e-6)
    x, rows = (training - mean) / spread, (tested - mean) / spread
    weight = np.linalg.solve(x.T @ x + np.eye(x.shape[1]), x.T @ (scores - scores.mean()))
    return rows @ weight + scores.mean()
