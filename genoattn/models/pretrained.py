"""A trained model at hand: it embeds, scores and detects on sequences that are given as strings or codes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias, final

import numpy as np
import torch
from jaxtyping import Float, UInt8

from genoattn.data.batch import Batch, collate
from genoattn.data.example import MASK, VISIBLE, Example
from genoattn.data.targets import MUTATION_OUTPUTS
from genoattn.data.tasks.base import MutationDetection
from genoattn.data.tasks.variant_classification import VariantClassification
from genoattn.errors import UserError
from genoattn.genome.alphabet import LETTERS, UNKNOWN, encode_bases
from genoattn.genome.mutations import Sample
from genoattn.genome.windows import tiles
from genoattn.models.build import load_predictor
from genoattn.models.checkpoint import find_model, read_description
from genoattn.models.predictor import Predictor, token_layout

Bases: TypeAlias = str | bytes | np.ndarray
"""IUPAC letters in either case, or codes 0..14 as uint8."""


SEED_LENGTH = 32
"""Bases by which a window of a sample is laid beside the reference."""


class MutationCall(NamedTuple):
    """A mutation found: sample bases [start, stop), 0-based; start == stop where bases are gone before `start`."""

    kind: Literal["substitution", "insertion", "deletion"]
    start: int
    stop: int
    score: float


def load(path: Path) -> "PretrainedModel":
    """The model in a run folder or its model/ folder."""
    home = find_model(path)
    about = read_description(home)
    return PretrainedModel(load_predictor(home, about), about)


@final
class PretrainedModel:
    """A tokenizer, a task and trained weights; both strands are averaged where training said so."""

    def __init__(self, parts: Predictor, about: dict):
        self.predictor, self.about, self.length = parts, about, about["length"]
        self.both_strands: bool = about["reverse_complement"] in ("average", "equivariant")
        self.thresholds: dict[str, float] = about["kept"].get("thresholds", {})

    def embed(self, sequences: Sequence[Bases]) -> list[Float[np.ndarray, "length dim"]]:
        """For each sequence a vector a base, float32: that of the token that owns it, as the heads read it.

        A detector, which compares, is shown each sequence beside itself.
        """
        if isinstance(sequences, (str, bytes)):
            raise UserError("embed takes a list of sequences, got one; write [sequence]")
        model, tokenizer, task = self.predictor.model.eval(), self.predictor.tokenizer, self.predictor.task
        made = []
        for sequence in sequences:
            bases = _codes(sequence, "a sequence")
            example = (
                self._example(bases, bases) if isinstance(task, MutationDetection) else Example(bases, None, {}, ())
            )
            if isinstance(task, VariantClassification):
                example = example._replace(reference=bases)
            batch = collate([example], tokenizer, None, task.context_format, 0, self.both_strands)
            with torch.no_grad():
                table = self._vectors(model, batch)
                if batch.reverse_complement is not None:
                    table = (table + self._vectors(model, batch.reverse_complement).flip(0)) / 2
            made.append(table.float().numpy())
        return made

    def _vectors(self, model: torch.nn.Module, batch: Batch) -> torch.Tensor:
        features = model.features(batch.ids, batch.reference_window, token_layout(batch))[0]  # type: ignore[operator]
        return (
            features
            if batch.base_to_answer is None
            else features[batch.base_to_answer[0] // self.predictor.tokenizer.max_token_length]
        )

    def score(self, reference: Bases, sample: Bases) -> Float[np.ndarray, "length 3"]:
        """Probabilities of a substitution, an insertion and a deletion (before it) for each base of one window.

        Both sequences begin at the same place.
        """
        example = self._example(_codes(reference, "the reference"), _codes(sample, "the sample"))
        return next(self.predictor.probabilities_per_base([example], MUTATION_OUTPUTS, self.both_strands))

    def likelihood(self, sequence: Bases) -> Float[np.ndarray, "length"]:
        """The natural logarithm of each base's probability, by a language model; NaN where none is asked for.

        A causal model tells a token from those before it, a masked one from those around it, each hidden in turn: a
        token's logarithm stands at its first base, and 0 at the others that it owns.
        """
        task, tokenizer = self.predictor.task, self.predictor.tokenizer
        if task.evaluator != "language":
            raise UserError(
                f"this model was trained for {type(task).__name__}, which tells no likelihood of a sequence"
            )
        bases = _codes(sequence, "the sequence")
        starts = tokenizer.encode(bases).token_starts
        if task.context_format.token_objective == "next":
            examples = [Example(bases, None, {}, ())]
        else:
            hidden = np.full((len(starts), len(bases)), VISIBLE, np.uint8)
            for row, start, stop in zip(hidden, starts, [*starts[1:], len(bases)], strict=True):
                row[start:stop] = MASK
            examples = [Example(bases, None, {}, (), masking=row) for row in hidden]
        told = np.zeros(len(bases))
        asked = []
        for batch, answers in self.predictor.logits(examples):
            logs = answers["token"].double().log_softmax(-1)
            target = batch.targets["token"].to(logs.device).clamp_min(0)
            asked += list(logs.gather(-1, target[..., None])[..., 0].cpu().numpy())
        if task.context_format.token_objective == "next":
            told[starts[1:]] = asked[0][: len(starts) - 1]
            told[: starts[1] if len(starts) > 1 else None] = np.nan
        else:
            told[starts] = [row[number] for number, row in enumerate(asked)]
        return told

    def classify(
        self, reference: Bases, alternate: Bases, sites: tuple[tuple[int, int], tuple[int, int]]
    ) -> dict[str, float]:
        """The probability of each class of a variant, from a window of the reference and the same with it in.

        `sites` are the bases [start, stop), 0-based, of the allele in each window.
        """
        task = self.predictor.task
        if not isinstance(task, VariantClassification):
            raise UserError(f"this model was trained for {type(task).__name__}, which tells no class of a variant")
        before, bases = _codes(reference, "the reference"), _codes(alternate, "the alternate window")
        for what, (start, stop), length in zip(
            ("reference", "alternate"), sites, map(len, (before, bases)), strict=True
        ):
            if not 0 <= start < stop <= length:
                raise UserError(
                    f"the site in the {what} window must lie within its {length} bases, got {start}..{stop}"
                )
        example = Example(bases, None, {}, (), before, allele_spans=sites)
        _, answers = next(self.predictor.logits([example], self.both_strands))
        likely = answers["class"][0, 0].double().softmax(-1).tolist()
        return dict(zip(task.classes, likely, strict=True))

    def detect(self, reference: Bases, sample: Bases) -> list[MutationCall]:
        """The mutations of a sample of any length that begins where the reference does, at the model's thresholds.

        The sample is cut into windows as long as those of training, each laid where its first bases match best.
        """
        known, bases = _codes(reference, "the reference"), _codes(sample, "the sample")
        table, drift = np.zeros((len(bases), len(MUTATION_OUTPUTS))), 0
        for start, low, high in tiles(0, len(bases), self.length):
            window = bases[start : start + self.length]
            drift = _offset(known, window, start, drift)
            example = self._example(known, window, start + drift)
            scores = next(self.predictor.probabilities_per_base([example], MUTATION_OUTPUTS, self.both_strands))
            table[start + low : start + high] = scores[low:high]
        return sorted(self._calls(table), key=lambda call: (call.start, call.stop))

    def _calls(self, table: Float[np.ndarray, "length 3"]) -> list[MutationCall]:
        calls = []
        for output, scores in zip(MUTATION_OUTPUTS, table.T, strict=True):
            above = np.flatnonzero(scores >= self.thresholds.get(output, 0.5))
            joined = output == "insertion"  # its bases are one event; others stand for themselves
            for run in np.split(above, np.flatnonzero(np.diff(above) > 1) + 1 if joined else range(1, len(above))):
                if len(run):
                    stop = int(run[-1]) + (output != "deletion")
                    calls.append(MutationCall(output, int(run[0]), stop, float(scores[run].max())))  # type: ignore[arg-type]
        return calls

    def _example(self, reference: np.ndarray, sample: np.ndarray, start: int = 0) -> Example:
        task = self.predictor.task
        if not isinstance(task, MutationDetection):
            raise UserError(
                f"this model was trained for {type(task).__name__}, which compares no sample to a reference"
            )
        left, right = start - task.max_shift, start + len(sample) + task.max_shift
        inside = reference[max(left, 0) : max(right, 0)]
        gone = (max(-left, 0), max(right - max(left, 0) - len(inside), 0))
        none = np.zeros(len(sample), np.bool_)
        truth = Sample(sample, start + np.arange(len(sample)), none, none, none, none, none, ())
        example = task.build_example(np.pad(inside, gone, constant_values=UNKNOWN), truth, start)
        return example._replace(masking=None)


def _offset(reference: np.ndarray, window: np.ndarray, start: int, drift: int) -> int:
    """How far the window's first bases stand from their own place in the reference, within a few of the last drift."""
    head = window[:SEED_LENGTH]
    if start == 0 or len(head) < SEED_LENGTH:
        return drift
    near = sorted(range(drift - SEED_LENGTH, drift + SEED_LENGTH + 1), key=lambda one: abs(one - drift))
    inside = [one for one in near if 0 <= start + one <= len(reference) - len(head)]
    matches = {one: int((reference[start + one : start + one + len(head)] == head).sum()) for one in inside}
    return max(matches, key=lambda one: matches[one], default=drift)


def _codes(bases: Bases, what: str) -> UInt8[np.ndarray, "length"]:
    if isinstance(bases, np.ndarray):
        if bases.dtype != np.uint8 or bases.ndim != 1 or (len(bases) and bases.max() >= len(LETTERS)):
            raise UserError(f"{what} must be letters, or codes 0..14 as a row of uint8, got {bases.dtype}")
        codes = bases
    else:
        codes = encode_bases(bases)
    if not len(codes):
        raise UserError(f"{what} is empty")
    return codes
