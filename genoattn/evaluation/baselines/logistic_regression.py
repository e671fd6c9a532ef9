"""To be said in a sentence."""

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int

from genoattn.data.example import Example
from genoattn.genome.labelled_variants import LabelledVariant

AROUND = 3
"""Bases to each side of a site that the regression sees."""


def features(one: LabelledVariant, example: Example) -> Float[np.ndarray, "features"]:
    """What is known of a variant without a model: kind, size, transition or not, GC, alleles and the bases around."""
    assert example.reference is not None and example.allele_spans is not None
    start, stop, inserted = one.mutation
    before, (first, last) = example.reference, example.allele_spans[0]
    gone, came = before[first:last], np.frombuffer(inserted, np.uint8)
    snv = one.mutation.kind == "snv"
    transition = snv and int(gone[0]) ^ int(came[0]) == 2
    known = before[before < 4]
    gc = float(np.isin(known, [1, 2]).mean()) if len(known) else 0.5
    plain = [snv, len(inserted) > stop - start, np.log1p(abs(len(inserted) - (stop - start))), transition, gc]
    padded = np.pad(before, AROUND, constant_values=4)
    near = [*padded[first : first + AROUND], *padded[last + AROUND : last + 2 * AROUND]]
    alleles = [gone[0] if snv else 4, came[0] if snv else 4]
    return np.concatenate([np.array(plain, np.float64), *(np.eye(5)[min(int(base), 4)] for base in (*near, *alleles))])


def logistic_regression(
    taught: Float[np.ndarray, "taught facts"],
    labels: Int[np.ndarray, "taught"],
    tested: Float[np.ndarray, "tested facts"],
    classes: int,
) -> Float[np.ndarray, "tested classes"]:
    """Multinomial logistic regression with an L2 penalty of one over the number of variants, by LBFGS."""
    x, y = torch.from_numpy(taught), torch.from_numpy(labels)
    mean, spread = x.mean(0), x.std(0, correction=0).clamp_min(1e-6)
    weight = torch.zeros(classes, x.shape[1] + 1, dtype=torch.float64, requires_grad=True)

    def logits(facts: torch.Tensor) -> torch.Tensor:
        return ((facts - mean) / spread) @ weight[:, 1:].T + weight[:, 0]

    optimizer = torch.optim.LBFGS([weight], max_iter=200, line_search_fn="strong_wolfe")

    def lost() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(logits(x), y) + weight[:, 1:].square().sum() / len(x)
        loss.backward()
        return loss

    optimizer.step(lost)  # type: ignore[arg-type]
    return logits(torch.from_numpy(tested)).softmax(1).detach().numpy()
