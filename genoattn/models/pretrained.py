"""A trained model in Python: it embeds, scores, classifies and detects on sequences given as letters or codes."""

from collections.abc import Sequence
from pathlib import Path
from typing import SupportsBytes, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Float, UInt8

from genoattn.data.batch import collate
from genoattn.data.example import MASK, VISIBLE, Example
from genoattn.data.targets import MUTATION_OUTPUTS
from genoattn.data.tasks.variant_classification import VariantClassification
from genoattn.errors import UserError
from genoattn.genome.alphabet import LETTERS, encode_bases
from genoattn.genome.assembly_placement import place_assembly
from genoattn.genome.calls import MutationCall
from genoattn.models.build import LoadedModel, load_predictor
from genoattn.models.detection import (
    calls_of,
    detection_task,
    is_called,
    related,
    score_block,
    window_scorer,
)
from genoattn.models.embedding import alone, base_vectors, compared

Bases: TypeAlias = str | bytes | SupportsBytes | np.ndarray
"""IUPAC letters in either case (a string, bytes, or a Bio.Seq or SeqRecord), or codes 0..14 as uint8."""


def load(path: str | Path, device: torch.device | str | None = None, trust: Sequence[str] = ()) -> "PretrainedModel":
    """Load a trained model. The folder may come from a stranger: no code runs but that of genoattn.

    Args:
        path: A run folder, its model/ folder, a .ckpt file in its checkpoints/ folder, or an exported folder.
        device: Where the model computes, such as "cpu" or "cuda:1"; None takes the GPU if there is one.
        trust: Packages besides genoattn whose classes the model may use, such as ["my_layers"]; their code is run.

    Raises:
        UserError: There is no saved model, its files are damaged or do not belong together, or it uses a package that
            is not in `trust`.
    """
    return PretrainedModel(load_predictor(Path(path), device, trust))


@final
class PretrainedModel:
    """A trained model with its tokenizer and task. Get one from `genoattn.load`.

    Scores are averaged over both strands if the model was trained so. Every sequence may be a string, bytes, a Bio.Seq,
    a SeqRecord, or codes 0..14 as uint8.

    Attributes:
        card: How the model was built and trained.
        predictor: Tokenizer, task and model.
    """

    def __init__(self, loaded: LoadedModel):
        self.card, self.predictor = loaded.card, loaded.predictor

    def embed(self, sequences: Sequence[Bases]) -> list[Float[np.ndarray, "length dim"]]:
        """One vector a base: that of the token that owns the base, as the heads of the model read it.

        A detector compares two sequences; it is shown each sequence beside itself.

        Args:
            sequences: A list of sequences.

        Returns:
            For each sequence an array `[length, dim]`, float32.
        """
        if isinstance(sequences, (str, bytes)):
            raise UserError("embed takes a list of sequences, got one; write [sequence]")
        tokenizer, task = self.predictor.tokenizer, self.predictor.task
        self.predictor.model.eval()
        vectors = []
        for sequence in sequences:
            example = alone(task, _codes(sequence, "a sequence"))
            batch = collate([example], tokenizer, None, task.context_format, 0, self.card.scores_both_strands)
            batch = batch.to(self.predictor.device)
            with torch.no_grad():
                table = base_vectors(self.predictor, batch)[0]
                if batch.reverse_complement is not None:
                    table = (table + base_vectors(self.predictor, batch.reverse_complement)[0].flip(0)) / 2
            vectors.append(table.float().cpu().numpy())
        return vectors

    def score(self, reference: Bases, sample: Bases) -> Float[np.ndarray, "length 3"]:
        """Probabilities of a mutation at each base of one window.

        Args:
            reference: The reference, which begins at the same place as the sample.
            sample: The sample.

        Returns:
            An array `[sample length, 3]`: substitution, insertion, and deletion before the base.
        """
        task = detection_task(self.predictor.task)
        example = compared(task, _codes(reference, "the reference"), _codes(sample, "the sample"))
        return next(self.predictor.probabilities_per_base([example], MUTATION_OUTPUTS, self.card.scores_both_strands))

    def likelihood(self, sequence: Bases) -> Float[np.ndarray, "length"]:
        """The natural logarithm of the probability of each base, by a language model.

        A causal model predicts a token from those before it; a masked model from those around it, each masked in turn.

        Returns:
            An array `[length]`: the logarithm of a token at its first base, 0 at its other bases, and NaN at bases of
            which a causal model has no prediction.
        """
        task, tokenizer = self.predictor.task, self.predictor.tokenizer
        if task.evaluator != "language":
            raise UserError(f"this model was trained for {type(task).__name__}; only a language model has likelihoods")
        bases = _codes(sequence, "the sequence")
        starts = tokenizer.encode(bases).token_starts
        causal = task.context_format.token_objective == "next"
        if causal:
            examples = [Example(bases, None, {}, ())]
        else:
            masking = np.full((len(starts), len(bases)), VISIBLE, np.uint8)
            for row, start, stop in zip(masking, starts, [*starts[1:], len(bases)], strict=True):
                row[start:stop] = MASK
            examples = [Example(bases, None, {}, (), masking=row) for row in masking]
        rows: list[np.ndarray] = []
        for batch, logits in self.predictor.logits(examples):
            logs = logits["token"].double().log_softmax(-1)
            target = batch.targets["token"].to(logs.device).clamp_min(0)
            rows += list(logs.gather(-1, target[..., None])[..., 0].cpu().numpy())
        likelihood = np.zeros(len(bases))
        if causal:
            likelihood[starts[1:]] = rows[0][: len(starts) - 1]
            likelihood[: starts[1] if len(starts) > 1 else None] = np.nan
        else:
            likelihood[starts] = [row[number] for number, row in enumerate(rows)]
        return likelihood

    def classify(
        self, reference: Bases, alternate: Bases, sites: tuple[tuple[int, int], tuple[int, int]]
    ) -> dict[str, float]:
        """The probability of each class of a variant.

        Args:
            reference: A window of the reference.
            alternate: The same window with the variant in it.
            sites: Bases [start, stop), 0-based, of the allele in each of the two windows.

        Returns:
            Probabilities by class, which sum to 1.
        """
        task = self.predictor.task
        if not isinstance(task, VariantClassification) or task.target != "class":
            raise UserError(f"this model was trained for {type(task).__name__}; it has no classes of variants")
        windows = {"reference": _codes(reference, "the reference")}
        windows["alternate"] = _codes(alternate, "the alternate window")
        for (name, window), (start, stop) in zip(windows.items(), sites, strict=True):
            if not 0 <= start < stop <= len(window):
                raise UserError(
                    f"the site in the {name} window must lie within its {len(window)} bases, got {start}..{stop}"
                )
        example = Example(windows["alternate"], None, {}, (), windows["reference"], allele_spans=sites)
        _, logits = next(self.predictor.logits([example], self.card.scores_both_strands))
        probabilities = logits["class"][0, 0].double().softmax(-1).tolist()
        return dict(zip(task.classes, probabilities, strict=True))

    def detect(self, reference: Bases, sample: Bases, threshold: float = 0.5) -> list[MutationCall]:
        """The mutations of a sample, with their alleles.

        The sample is placed by the k-mers that occur once in the reference, piece by piece and on either strand, as
        `genoattn detect` does. Parts without a place are left out. The two sequences say what differs, and the model
        how probable each difference is a mutation.

        Args:
            reference: The reference.
            sample: A sample of any length.
            threshold: Probability, given that the two sequences differ, from which a mutation is called.

        Returns:
            Calls in the order of the reference. Indels that are too long for the model have no score.

        Raises:
            UserError: The two sequences seem to be unrelated.
        """
        known, bases = _codes(reference, "the reference"), _codes(sample, "the sample")
        task = detection_task(self.predictor.task)
        scorer = window_scorer(self.predictor, self.card)
        calls: list[MutationCall] = []
        for block in related(place_assembly([known], [bases])).blocks:
            calls += calls_of(score_block(block, known, bases, task, self.card.length, scorer), known)
        return [call for call in calls if is_called(call, threshold)]


def _codes(bases: Bases, name: str) -> UInt8[np.ndarray, "length"]:
    if isinstance(bases, np.ndarray):
        if bases.dtype != np.uint8 or bases.ndim != 1 or (len(bases) and bases.max() >= len(LETTERS)):
            raise UserError(f"{name} must be letters, or codes 0..14 as a row of uint8, got {bases.dtype}")
        codes = bases
    else:
        codes = encode_bases(bases if isinstance(bases, str) else bytes(bases))
    if not len(codes):
        raise UserError(f"{name} is empty")
    return codes
