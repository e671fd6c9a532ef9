"""How far a model sees: which of its answers change when one base of the context does, by distance."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from genoattn.data.example import Example
from genoattn.data.tokenizers.base import Tokenizer
from genoattn.models.block import Block
from genoattn.models.predictor import Predictor, context_length
from genoattn.models.sequence_model import SequenceModel

NEAREST_STEPS = 8
"""Bases within which an answer is near a changed base."""


ABOVE_NOISE = 3.0
"""Times that a change must be above what an unchanged copy shows, to be told from rounding."""


class Effects(NamedTuple):
    """How much answers change with a base so many bases to their left, and to their right, window by window.

    NaN where a window holds no such pair. Step n is of distances distances[n] up to (not) distances[n + 1].
    """

    distances: Int[np.ndarray, "steps"]
    left: Float[np.ndarray, "windows steps"]
    right: Float[np.ndarray, "windows steps"]
    noise: float
    """The most that an answer of an unchanged copy differs, by rounding alone."""


class EffectCurve(NamedTuple):
    """The mean change over windows by distance, and the middle 95 % of it over resampled windows."""

    distances: Int[np.ndarray, "steps"]
    change: Float[np.ndarray, "steps"]
    low: Float[np.ndarray, "steps"]
    high: Float[np.ndarray, "steps"]


def theoretical_receptive_field(
    model: SequenceModel, span: int, overlap: int, strands: bool
) -> tuple[int | None, int | None]:
    """The farthest bases to the left and to the right that can change an answer; None where nothing bounds them.

    `span` is the most bases that a token owns, `overlap` how many after them it reads. Reaches add up over the depth.
    A verdict on the whole window has no bound.
    """
    if model.sequence_heads:
        return None, None
    parts = [part.sides for part in (model.stem_conv, model.alignment_stem) if part is not None]
    left, right = (max(side) for side in zip((0, 0), *parts, strict=True))
    bound = [True, True]
    for block in model.blocks:
        assert isinstance(block, Block)
        for one in (block.attention.receptive_field, block.conv and block.conv.sides):
            left, right = (left + one[0], right + one[1]) if one else (left, right)
        if block.attention.receptive_field is None:
            bound = [False, bound[1] and model.causal]
    # a token is the farthest of its bases: those before what is asked about in its own, and all of the farthest one's
    sides = [side * span + span - 1 + more for side, more in ((left, 0), (right, overlap))]
    if strands:  # the other strand is read from its other end
        sides, bound = [max(sides)] * 2, [all(bound)] * 2
    first, second = (side if known else None for side, known in zip(sides, bound, strict=True))
    return first, second


def steps(longest: int) -> Int[np.ndarray, "steps"]:
    """Distances 1, 2, 3, 4, 6, 8, 12, 16, … up to `longest`: each power of two, and half as much again."""
    powers = 2 ** np.arange(max(1, longest).bit_length())
    every = np.unique(np.concatenate([powers, powers[1:] * 3 // 2]))
    return every[every <= max(1, longest)]


def perturbation_effect(
    parts: Predictor, examples: Sequence[Example], positions: int, seed: int, strands: bool = False
) -> Effects:
    """The change of answers with one base of the context, over windows with nothing hidden.

    In each window a base at a time is replaced by another, at `spots` places from end to end, and all answers are read:
    a column of the categorical Jacobian (Zhang et al., PNAS 2024) for each. A change is that of a logit, those of
    several classes less their mean (for an answer of yes or no: of its log-odds, as in the nucleotide dependencies of
    Tomaz da Silva et al., Nature Genetics 2025); of all answers at a step's distances the largest counts. Where the one
    answer is about the whole window, bases are changed at every distance from its site instead.
    """
    distances = steps(max(map(_size, examples)) - 1)
    rows: list[tuple[np.ndarray, np.ndarray]] = []
    noise = 0.0
    for number, whole in enumerate(examples):
        example = whole._replace(masking=None)
        rng = np.random.default_rng([seed, number])
        places = _spots(example, positions, distances)
        copies = [example, *(_changed(example, place, rng) for place in places), example]
        tables = _answers(parts, copies, strands)
        at, before = next(tables)
        found = []
        for place, (_, after) in zip([*places, None], tables, strict=True):
            change = np.abs(after - before).max(1)
            if place is None:
                noise = max(noise, float(change.max()))
            else:
                found.append(
                    (_by_step(change, at - place, distances), _by_step(change[::-1], place - at[::-1], distances))
                )
        left, right = (np.stack(side) for side in zip(*found, strict=True))
        rows.append((_mean(left), _mean(right)))
    left, right = (np.stack(side) for side in zip(*rows, strict=True))
    return Effects(distances, left, right, noise)


def curve_of(
    distances: Int[np.ndarray, "steps"], rows: Float[np.ndarray, "windows steps"], draws: int = 200
) -> EffectCurve:
    """The mean of windows, and its interval; only distances that some window holds."""
    held = ~np.isnan(rows).all(0)
    kept = rows[:, held]
    chosen = np.random.default_rng(0).integers(len(kept), size=(draws, len(kept)))
    drawn = np.stack([_mean(kept[draw]) for draw in chosen])
    low, high = np.nanquantile(drawn, [0.025, 0.975], axis=0)
    return EffectCurve(distances[held], _mean(kept), low, high)


def both(seen: Effects) -> Float[np.ndarray, "windows steps"]:
    """The change with a base on either side, whichever is larger."""
    return np.fmax(seen.left, seen.right)


def nearby_effect(curve: EffectCurve) -> float:
    """The largest change at the nearest distances."""
    return float(curve.change[curve.distances <= NEAREST_STEPS].max(initial=0.0))


def effective_context(curve: EffectCurve, beside: float, threshold: float, noise: float) -> int:
    """The largest distance with a change above `threshold` times `beside` and above the noise; 0: there is none."""
    above = curve.change > max(threshold * beside, ABOVE_NOISE * noise)
    return int(curve.distances[above].max(initial=0))


def _size(example: Example) -> int:
    """Places of the context: its bases, and the separator where there are two sequences."""
    return context_length(example) + (example.reference is not None)


def _lead(example: Example) -> int:
    """The place of its first base."""
    return 0 if example.reference is None or example.sample_first else len(example.reference) + 1


def _spots(example: Example, count: int, distances: Int[np.ndarray, "steps"]) -> list[int]:
    """Where bases are changed; the separator is none."""
    size, lead = _size(example), _lead(example)
    separator = len(example.bases) if example.sample_first else lead - 1
    if example.allele_spans is None:
        chosen = np.linspace(0, size - 1, min(count, size)).round().astype(int)
    else:
        site = lead + example.allele_spans[1][0]
        chosen = np.concatenate([site - distances[::-1], site + distances])
    return [place for place in chosen.tolist() if 0 <= place < size and place != separator]


def _changed(example: Example, place: int, rng: np.random.Generator) -> Example:
    """The example with another base at a place of the context."""
    at, flip = place - _lead(example), int(rng.integers(1, 4))
    if 0 <= at < len(example.bases):
        return example._replace(bases=_flipped(example.bases, at, flip))
    assert example.reference is not None
    start = len(example.bases) + 1 if example.sample_first else 0
    return example._replace(reference=_flipped(example.reference, place - start, flip))


def _flipped(bases: UInt8[np.ndarray, "length"], place: int, flip: int) -> UInt8[np.ndarray, "length"]:
    made = bases.copy()
    made[place] = made[place] ^ flip if made[place] < 4 else flip
    return made


def _answers(
    parts: Predictor, copies: Sequence[Example], strands: bool
) -> Iterator[tuple[Int[np.ndarray, "asked"], Float[np.ndarray, "asked numbers"]]]:
    """For each copy the places of the context that are answered for, in order, and the logits of every output there."""
    done = 0
    for _, answers in parts.logits(copies, strands):
        for row in range(len(next(iter(answers.values())))):
            example = copies[done]
            lead, length = _lead(example), len(example.bases)
            at, columns = lead + np.arange(length), []
            for name, output in parts.task.outputs.items():
                logits = answers[name][row].double()
                if logits.shape[-1] > 1:
                    logits = logits - logits.mean(-1, keepdim=True)
                if strands and output.strand_symmetry == "between_bases":
                    logits[0] = 0  # nothing lies before the first base, and what stands there is of the other end
                if output.level == "token":
                    logits = logits[_owners(parts.tokenizer, example)]
                elif output.level == "window":
                    assert example.allele_spans is not None
                    at = np.array([lead + example.allele_spans[1][0]])
                columns.append(logits[: len(at)].cpu().numpy())
            yield at, np.concatenate(columns, 1)
            done += 1


def _owners(tokenizer: Tokenizer, example: Example) -> Int[Tensor, "length"]:
    """The token of the context that owns each base of the sample."""
    starts, length = tokenizer.encode(example.bases).token_starts, len(example.bases)
    first = 0 if example.reference is None else len(tokenizer.encode(example.reference).token_starts) + 1
    return torch.from_numpy(first + np.repeat(np.arange(len(starts)), np.diff(starts, append=length)))


def _by_step(
    change: Float[np.ndarray, "asked"], distance: Int[np.ndarray, "asked"], distances: Int[np.ndarray, "steps"]
) -> Float[np.ndarray, "steps"]:
    """The largest change at each step's distances, which rise; NaN where there is none."""
    cuts = np.searchsorted(distance, [*distances, distance[-1] + 1]).tolist()
    return np.array([change[low:high].max() if low < high else np.nan for low, high in pairwise(cuts)])


def _mean(rows: Float[np.ndarray, "rows steps"]) -> Float[np.ndarray, "steps"]:
    """The mean of what is there; NaN where nothing is."""
    count = (~np.isnan(rows)).sum(0)
    return np.where(count, np.nansum(rows, 0) / np.maximum(count, 1), np.nan)
