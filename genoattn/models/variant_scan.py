"""Every substitution and every deletion of one base in a region, scored by a saved model."""

from collections.abc import Iterator
from functools import partial
from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor

from genoattn.data.tokenizers.nucleotide import NucleotideTokenizer
from genoattn.errors import UserError
from genoattn.genome.alphabet import reverse_complement
from genoattn.genome.mutations import Mutation
from genoattn.genome.scorable import Allele
from genoattn.genome.sequence_store import Genome
from genoattn.models.sequence_model import ModelState
from genoattn.models.variant_scoring import NAN, VariantScorer

MUTANTS = "ACGT-"
"""The columns of a scan: the base that a base becomes, or its deletion."""

PIECE = 64
"""Bases that are scored at a time."""


@final
class RegionScanner:
    """Scans regions with a language model or a classifier of variants.

    A language model has the log-likelihood ratio of each mutant as `VariantScorer` defines it, with 0 for the base
    itself; a masked one has NaN for deletions. A classifier has the logarithm of the odds of its first class and a
    model of a measured number that number, both with NaN for the base itself. Rows of ambiguous bases are NaN.

    All mutants of a base have the same window up to that base. A causal model whose layers have states reads it once,
    and goes on from there with each mutant. A masked model reads one window for all letters.
    """

    def __init__(self, scorer: VariantScorer):
        """Scan with the model of a scorer; raises UserError if it is of another kind."""
        if not (scorer.objective or scorer.classes or scorer.number):
            raise UserError(
                f"this model was trained for {type(scorer.task).__name__}; a scan needs a language model or a model of"
                " task=variant"
            )
        self.scorer, self.model = scorer, scorer.reader.model
        self.streams = self._has_states()

    @property
    def meaning(self) -> str:
        """The name and the unit of the numbers."""
        if self.scorer.classes:
            return f"log odds of {self.scorer.classes[0]}"
        if self.scorer.number:
            return "predicted number (standard deviations)"
        return "log-likelihood ratio (nats)"

    def _has_states(self) -> bool:
        plain = isinstance(self.scorer.reader.tokenizer, NucleotideTokenizer)
        if not plain or self.scorer.objective != "next" or self.scorer.length < 4:
            return False
        try:
            with torch.no_grad():
                self.model.step(torch.zeros(1, 2, dtype=torch.long), self.model.init_state(1))
        except UserError:
            return False
        return True

    def scan(self, genome: Genome, record: int, start: int, stop: int) -> Iterator[Float[np.ndarray, "bases 5"]]:
        """Score the mutants of bases [start, stop), 0-based and half-open, of a record.

        Yields:
            The scores of the next `PIECE` bases by the letters of `MUTANTS`.
        """
        length, total = self.scorer.length, genome.lengths[record]
        # Where windows would reach beyond an end of the record they are those of the scorer.
        inner = range(length // 2 + 1, total - (length - length // 2)) if self.streams else range(0)
        for first in range(start, stop, PIECE):
            last = min(first + PIECE, stop)
            codes = genome.fetch(record, first, last)
            if first in inner and last - 1 in inner:
                table = self._streamed(genome, record, first, last)
                table[np.arange(len(codes)), np.minimum(codes, 3)] = 0
            else:
                table = self._one_by_one(genome, record, first, codes)
            table[codes > 3] = NAN
            yield table

    def _one_by_one(
        self, genome: Genome, record: int, first: int, codes: UInt8[np.ndarray, "bases"]
    ) -> Float[np.ndarray, "bases 5"]:
        """Each mutant as a variant of its own."""
        table = np.full((len(codes), len(MUTANTS)), NAN)
        places, alleles = [], []
        for number, code in enumerate(codes.tolist()):
            if code > 3:
                continue
            for column in range(len(MUTANTS)):
                if column != code:
                    inserted = bytes([column]) if column < 4 else b""
                    places.append((number, column))
                    alleles.append(Allele(record, Mutation(first + number, first + number + 1, inserted)))
            if self.scorer.objective:
                table[number, code] = 0
        for place, (values, _) in zip(places, self.scorer.score(genome, alleles), strict=True):
            odds = np.log(values[0]) - np.log1p(-values[0]) if self.scorer.classes else values[0]
            table[place] = odds
        return table

    @torch.no_grad()
    def _streamed(self, genome: Genome, record: int, first: int, last: int) -> Float[np.ndarray, "bases 5"]:
        """The ratios of mutants that begin from the state of the model before them."""
        length = self.scorer.length
        left = length // 2
        # From the first base of the first right-anchored window to the last one of the last left-anchored.
        codes = genome.fetch(record, first - left - 1, last + length - left)
        table = self._of_strand(codes, left)
        if self.scorer.reader.both_strands:
            turned = self._of_strand(reverse_complement(codes), length - 1 - left)[::-1]
            table = (table + turned[:, [3, 2, 1, 0, 4]]) / 2
        return table

    def _of_strand(self, codes: UInt8[np.ndarray, "wide"], left: int) -> Float[np.ndarray, "bases 5"]:
        """The ratios of one strand: windows have `left` bases before their site, and the first site is `left` + 1."""
        length = self.scorer.length
        windows = np.lib.stride_tricks.sliding_window_view(codes, length + 1)
        rows = [
            self._continued(torch.from_numpy(windows[n : n + self.scorer.batch].astype(np.int64)), left)
            for n in range(0, len(windows), self.scorer.batch)
        ]
        table = torch.cat(rows).cpu().numpy()
        # Columns: the window, the window by mutant, and the window that lacks the base after the site.
        whole, ratios, right = table[1:, 0], table[1:, 1:6] - table[1:, :1], table[:-1, 6]
        ratios[:, 4] = (ratios[:, 4] + right - whole) / 2
        return ratios

    def _continued(self, codes: Int64[Tensor, "batch wide"], left: int) -> Float[Tensor, "batch 7"]:
        """The likelihoods of windows: as they are, with each mutant of base `left`, and without the base after it."""
        codes = codes.to(self.scorer.reader.predictor.device)
        site, rest = codes[:, left : left + 1], codes[:, left + 1 : -1]
        logs, before = self._read(codes[:, :left], self.model.init_state(len(codes)))
        shared = _sum(logs[:, :-1], codes[:, 1:left])
        following = partial(self._likelihood, logs[:, -1:], before)
        own, after = self._read(site, before)
        own_site = shared + _sum(logs[:, -1:], site)
        whole = own_site + self._likelihood(own, after, rest)
        mutants = whole[:, None].repeat(1, len(MUTANTS))
        for turn in range(1, 4):
            other = (site + turn) % 4
            mutants.scatter_(1, other, (shared + following(torch.cat([other, rest], 1)))[:, None])
        mutants[:, 4] = shared + following(codes[:, left + 1 :])
        right = own_site + self._likelihood(own, after, codes[:, left + 2 :])
        return torch.cat([whole[:, None], mutants, right[:, None]], 1)

    def _read(self, ids: Tensor, state: ModelState) -> tuple[Float[Tensor, "batch length ids"], ModelState]:
        """The logarithms of the probabilities of the token after each token, and the state after all of them."""
        features, state = self.model.step(ids, state)
        return self.model.heads(features, None, None)["token"].log_softmax(-1), state

    def _likelihood(self, last: Tensor, state: ModelState, ids: Tensor) -> Float[Tensor, "batch"]:
        """The likelihood of tokens after a state, of which `last` predicts the first."""
        logs, _ = self._read(ids[:, :-1], state)
        return _sum(torch.cat([last, logs], 1), ids)


def _sum(logs: Float[Tensor, "batch length ids"], ids: Int64[Tensor, "batch length"]) -> Float[Tensor, "batch"]:
    """The sum over tokens; those of an ambiguous letter do not count."""
    return (logs.gather(2, ids[..., None])[..., 0] * (ids < 4)).sum(1)
