"""Readings of a model in windows around variants: likelihoods, embeddings, masked bases, and classes."""

from collections.abc import Sequence
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from genoattn.attention.base import TokenLayout
from genoattn.data.batch import Batch, collate
from genoattn.data.example import MASK, VISIBLE, Example, reverse_complement_example
from genoattn.data.targets import IGNORE_INDEX
from genoattn.genome.alphabet import LETTERS, reverse_complement
from genoattn.genome.variant_windows import Window, WindowPair
from genoattn.models.embedding import alone, of_bases
from genoattn.models.predictor import Predictor, predict, token_layout

OTHER_TOKENS = "other_tokens"
"""The reason why a masked model has no ratio: its tokenizer cuts both alleles into other tokens."""


class Reading(NamedTuple):
    """The likelihood and the embeddings of a window.

    Attributes:
        likelihood: The natural logarithm of the probability of the window; 0 without a causal model.
        mean: The mean embedding of the window.
        site: The mean embedding of the allele.
    """

    likelihood: float
    mean: Float[np.ndarray, "dim"]
    site: Float[np.ndarray, "dim"]


@final
class Reader:
    """A model that reads windows of one length together, in float64 and without gradients."""

    def __init__(self, predictor: Predictor, both_strands: bool):
        """Read with a model, whose weights become float64; `both_strands` averages with the reverse strand."""
        self.predictor, self.both_strands = predictor, both_strands
        self.tokenizer, self.task, self.model = predictor.tokenizer, predictor.task, predictor.model
        self.model.double().eval()

    @torch.no_grad()
    def read(self, windows: Sequence[Window]) -> list[Reading]:
        """Likelihood and embeddings of windows of equal length."""
        examples = [alone(self.task, window.bases) for window in windows]
        spans = [_site(window) for window in windows]
        rows = self._read(examples, spans)
        if self.both_strands:
            length = len(windows[0].bases)
            turned = [reverse_complement_example(example) for example in examples]
            rows = (rows + self._read(turned, [(length - stop, length - start) for start, stop in spans])) / 2
        dim = (rows.shape[1] - 1) // 2
        return [Reading(float(row[0]), row[1 : dim + 1], row[dim + 1 :]) for row in rows.cpu().numpy()]

    def _read(self, examples: Sequence[Example], spans: Sequence[tuple[int, int]]) -> Float[Tensor, "batch numbers"]:
        """For each example its likelihood, its mean vector and the mean vector of its site."""
        batch, layout = self._batch(examples)
        features = self.model.features(batch.ids, batch.reference_window, layout)
        vectors = of_bases(self.predictor, batch, features)
        sites = [row[start:stop].mean(0) for row, (start, stop) in zip(vectors, spans, strict=True)]
        likelihoods = vectors.new_zeros(len(examples), 1)
        if self.task.context_format.token_objective == "next":
            logits = self.model.heads(features, layout.padding_mask, None)["token"]
            likelihoods[:, 0] = torch.stack(list(map(_likelihood, logits, batch.targets["token"])))
        return torch.cat([likelihoods, vectors.mean(1), torch.stack(sites)], 1)

    @torch.no_grad()
    def masked_ratios(self, groups: Sequence[Sequence[WindowPair]]) -> list[list[float | None]]:
        """log P(second allele) - log P(first) of substitutions, masked; None if the tokens of both differ in length.

        The pairs of a group have the same first window, and differ from it at the same bases.
        """
        rows = [(group[0].first.bases, [pair.second.bases for pair in group]) for group in groups]
        ratios = self._masked(rows)
        if not self.both_strands:
            return ratios
        turned = [(reverse_complement(first), list(map(reverse_complement, seconds))) for first, seconds in rows]
        return [
            [None if one is None or other is None else (one + other) / 2 for one, other in zip(*pair, strict=True)]
            for pair in zip(ratios, self._masked(turned), strict=True)
        ]

    def _masked(self, rows: Sequence[tuple[np.ndarray, Sequence[np.ndarray]]]) -> list[list[float | None]]:
        examples = []
        for first, seconds in rows:
            masking = np.where(first != seconds[0], MASK, VISIBLE).astype(np.uint8)
            examples.append(Example(first, None, {}, (), masking=masking))
        batch, layout = self._batch(examples)
        logits = self.model(batch.ids, batch.reference_window, layout)["token"]
        return [
            [self._ratio(first, second, table) for second in seconds]
            for (first, seconds), table in zip(rows, logits, strict=True)
        ]

    def _ratio(self, first: np.ndarray, second: np.ndarray, logits: Float[Tensor, "tokens ids"]) -> float | None:
        """The sum over tokens that own a substituted base."""
        before, after = self.tokenizer.encode(first), self.tokenizer.encode(second)
        if not np.array_equal(before.token_starts, after.token_starts):
            return None
        places = np.flatnonzero(first != second)
        owners = np.unique(np.searchsorted(before.token_starts, places, side="right") - 1)
        chosen = logits[torch.from_numpy(owners).to(logits.device)]
        if self.tokenizer.max_token_length == 1:  # several ids may begin with the same base
            letters = self._letters(chosen)
            numbers, tokens = (first[places], second[places]), torch.arange(len(places), device=logits.device)
        else:
            letters, tokens = chosen, torch.arange(len(owners), device=logits.device)
            numbers = before.ids[owners], after.ids[owners]
        old, new = (letters[tokens, torch.from_numpy(ids.astype(np.int64)).to(logits.device)] for ids in numbers)
        return float((new - old).sum())

    def _letters(self, logits: Float[Tensor, "tokens ids"]) -> Float[Tensor, "tokens 4"]:
        """Logarithms, but for a constant, of the probability of each base as the one that a token owns."""
        own = torch.from_numpy(self.tokenizer.token_bases()[:, 0]).to(logits.device)
        return torch.stack([logits[:, own == letter].logsumexp(-1) for letter in range(4)], 1)

    @torch.no_grad()
    def label_answers(self, examples: Sequence[Example]) -> list[tuple[float, ...]]:
        """The probability of each class of variants, or their number; their windows have equal lengths."""
        batch = collate(examples, self.tokenizer, None, self.task.context_format, 0, self.both_strands)
        logits = predict(self.model, batch.to(self.predictor.device), self.task.outputs)
        if "score" in logits:
            return [tuple(row) for row in logits["score"][:, 0].tolist()]
        return [tuple(row) for row in logits["class"][:, 0].softmax(-1).tolist()]

    def _batch(self, examples: Sequence[Example]) -> tuple[Batch, TokenLayout]:
        batch = collate(examples, self.tokenizer, None, self.task.context_format).to(self.predictor.device)
        return batch, token_layout(batch)


def _likelihood(logits: Float[Tensor, "tokens ids"], targets: Tensor) -> Tensor:
    """The sum over the next tokens; those of an ambiguous letter do not count."""
    counted = (targets != IGNORE_INDEX) & ((targets < 4) | (targets >= len(LETTERS)))
    own = logits[counted]
    return (own.gather(1, targets[counted][:, None])[:, 0] - own.logsumexp(1)).sum()


def _site(window: Window) -> tuple[int, int]:
    """The bases at which an allele is read: an empty one at the next base or, at the end of the window, the last."""
    start = min(window.start, len(window.bases) - 1)
    return start, max(window.stop, start + 1)
