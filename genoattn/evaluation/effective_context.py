"""The effective context of a model: which of its outputs change when one base of the context does, by distance."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from genoattn.data.example import Example
from genoattn.data.tokenizers.base import Tokenizer
from genoattn.evaluation.bootstrap import interval, resample, resampled_ratio
from genoattn.genome.progress import tracked
from genoattn.models.block import Block
from genoattn.models.predictor import Predictor
from genoattn.models.sequence_model import SequenceModel

NEARBY = 8
"""Distances in bases up to which a changed base is near an output."""

ABOVE_NOISE = 3.0
"""A change counts if it is this many times the change of an unchanged copy, which is rounding alone."""


class Effects(NamedTuple):
    """Changes of the outputs with a base to their left and to their right, by window and distance.

    Step n holds the distances distances[n] to distances[n + 1] (excluded); NaN if a window holds no such pair.
    """

    distances: Int[np.ndarray, "steps"]
    left: Float[np.ndarray, "windows steps"]
    right: Float[np.ndarray, "windows steps"]
    noise: float
    """The largest change of an output of an unchanged copy, by rounding alone."""

    @property
    def larger(self) -> Float[np.ndarray, "windows steps"]:
        """The larger of the changes on both sides."""
        return np.fmax(self.left, self.right)


class EffectCurve(NamedTuple):
    """The mean change over windows by distance, with its 95 % interval."""

    distances: Int[np.ndarray, "steps"]
    change: Float[np.ndarray, "steps"]
    low: Float[np.ndarray, "steps"]
    high: Float[np.ndarray, "steps"]


class ContextPositions(NamedTuple):
    """The positions of both sequences in the context of an example, base by base."""

    sample: Int[np.ndarray, "length"]
    reference: Int[np.ndarray, "reference"]

    @property
    def size(self) -> int:
        """Positions of the context, the separator among them."""
        return max(int(positions[-1]) for positions in self if len(positions)) + 1


class ReceptiveField(NamedTuple):
    """The farthest bases to the left and to the right that can change an output; None: no bound."""

    left: int | None
    right: int | None

    @property
    def farthest(self) -> int | None:
        """The bound on either side."""
        return None if self.left is None or self.right is None else max(self.left, self.right)


def theoretical_receptive_field(
    model: SequenceModel, token_length: int, overlap: int, both_strands: bool
) -> ReceptiveField:
    """The receptive field that the architecture allows: the sum over its layers.

    Args:
        model: The model; a sequence-level head has no bound.
        token_length: The most bases that a token owns.
        overlap: Bases that a token reads after its own.
        both_strands: Whether the outputs of both strands are averaged.
    """
    if model.sequence_heads:
        return ReceptiveField(None, None)
    stems = [part.sides for part in (model.stem_conv, model.alignment_stem) if part is not None]
    left, right = (max(side) for side in zip((0, 0), *stems, strict=True))
    bounded = [True, True]
    for block in model.blocks:
        assert isinstance(block, Block)
        for field in (block.attention.receptive_field, block.conv and block.conv.sides):
            left, right = (left + field[0], right + field[1]) if field else (left, right)
        if block.attention.receptive_field is None:
            bounded = [False, bounded[1] and model.causal]
    step = 1 + model.interleaved  # of an interleaved context, every second base is of the same sequence
    # In bases: the output may be the last base of its token, and the farthest token counts with all of its bases.
    sides = [side * token_length + token_length - 1 + more for side, more in ((left, 0), (right, step * overlap))]
    if both_strands:  # the other strand is read from its other end, and there the reference still comes first in a pair
        sides, bounded = [max(sides) + 2 * model.interleaved] * 2, [all(bounded)] * 2
    first, second = (side if bound else None for side, bound in zip(sides, bounded, strict=True))
    return ReceptiveField(first, second)


def steps(longest: int) -> Int[np.ndarray, "steps"]:
    """Distances 1, 2, 3, 4, 6, 8, 12, 16, … up to `longest`: each power of two, and half as much again."""
    powers = 2 ** np.arange(max(1, longest).bit_length())
    distances = np.unique(np.concatenate([powers, powers[1:] * 3 // 2]))
    return distances[distances <= max(1, longest)]


def perturbation_effect(
    predictor: Predictor, examples: Sequence[Example], positions: int, seed: int, both_strands: bool = False
) -> Effects:
    """The change of the outputs when one base of the context is replaced, over windows without masks.

    Every replaced base gives a column of the categorical Jacobian (Zhang et al., PNAS 2024). A change is that of a
    logit, of several classes minus their mean, and of a binary output that of its log-odds, as in the nucleotide
    dependencies of Tomaz da Silva et al. (Nature Genetics 2025). The largest change at a step's distances counts.

    Args:
        predictor: The model.
        examples: The windows.
        positions: Bases that are replaced in each window, evenly spaced. A sequence-level output has one site, so
            bases at every distance from it are replaced instead.
        seed: Decides the new bases.
        both_strands: Average the outputs of both strands.
    """
    interleaved = predictor.task.context_format.interleaved
    distances = steps(max(context_positions(example, interleaved).size for example in examples) - 1)
    rows: list[list[np.ndarray]] = []
    noise = 0.0
    for number, masked in enumerate(tracked(examples, "bases are replaced", len(examples))):
        example = masked._replace(masking=None)
        rng = np.random.default_rng([seed, number])
        places = context_positions(example, interleaved)
        replaced = _positions(example, places, positions, distances)
        copies = [example, *(_changed(example, places, position, rng) for position in replaced), example]
        outputs = _outputs(predictor, copies, both_strands)
        at, before = next(outputs)
        sides = []
        for position, (_, after) in zip([*replaced, None], outputs, strict=True):
            change = np.abs(after - before).max(1)
            if position is None:
                noise = max(noise, float(change.max()))
            else:
                reverse = _by_step(change[::-1], position - at[::-1], distances)
                sides.append((_by_step(change, at - position, distances), reverse))
        rows.append([_mean(np.stack(side)) for side in zip(*sides, strict=True)])
    left, right = (np.stack(side) for side in zip(*rows, strict=True))
    return Effects(distances, left, right, noise)


def effect_curve(
    distances: Int[np.ndarray, "steps"], rows: Float[np.ndarray, "windows steps"], count: int = 200
) -> EffectCurve:
    """The mean over windows and its interval in `count` resamples, at the distances that some window holds."""
    defined = ~np.isnan(rows).all(0)
    resamples = resample(range(len(rows)), count)
    bounds = [
        interval(resampled_ratio(np.nan_to_num(column), 1.0 * ~np.isnan(column), resamples))
        for column in rows[:, defined].T
    ]
    low, high = np.array(bounds).reshape(-1, 2).T
    return EffectCurve(distances[defined], _mean(rows[:, defined]), low, high)


def nearby_effect(curve: EffectCurve) -> float:
    """The largest change within `NEARBY` bases."""
    return float(curve.change[curve.distances <= NEARBY].max(initial=0.0))


def effective_context(curve: EffectCurve, nearby: float, threshold: float, noise: float) -> int:
    """The largest distance with a change above `threshold` times `nearby` and above the noise; 0 without one."""
    above = curve.change > max(threshold * nearby, ABOVE_NOISE * noise)
    return int(curve.distances[above].max(initial=0))


def context_positions(example: Example, interleaved: bool) -> ContextPositions:
    """The positions of the bases of an example in its context, which counts bases and the separator."""
    sample = np.arange(len(example.bases))
    reference = np.arange(0 if example.reference is None else len(example.reference))
    if interleaved:
        return ContextPositions(2 * sample + 1, 2 * reference)
    if example.reference is None:
        return ContextPositions(sample, reference)
    if example.sample_first:
        return ContextPositions(sample, len(sample) + 1 + reference)
    return ContextPositions(len(reference) + 1 + sample, reference)


def _positions(
    example: Example, places: ContextPositions, count: int, distances: Int[np.ndarray, "steps"]
) -> list[int]:
    """The positions of the bases to replace; the separator is none of them."""
    if example.allele_spans is None and example.site is None:
        chosen = np.linspace(0, places.size - 1, min(count, places.size)).round().astype(int)
    else:
        site = int(places.sample[_read_at(example)])
        chosen = np.concatenate([site - distances[::-1], site + distances])
    return chosen[np.isin(chosen, np.concatenate(places))].tolist()


def _changed(example: Example, places: ContextPositions, position: int, rng: np.random.Generator) -> Example:
    """The example with another base at a position of the context."""
    flip = int(rng.integers(1, 4))
    if position in places.sample:
        return example._replace(bases=_flipped(example.bases, places.sample.tolist().index(position), flip))
    assert example.reference is not None
    return example._replace(reference=_flipped(example.reference, places.reference.tolist().index(position), flip))


def _flipped(bases: UInt8[np.ndarray, "length"], at: int, flip: int) -> UInt8[np.ndarray, "length"]:
    changed = bases.copy()
    changed[at] = changed[at] ^ flip if changed[at] < 4 else flip
    return changed


def _outputs(
    predictor: Predictor, copies: Sequence[Example], both_strands: bool
) -> Iterator[tuple[Int[np.ndarray, "outputs"], Float[np.ndarray, "outputs logits"]]]:
    """For each copy the positions that have an output, in order, and all logits there."""
    done = 0
    for _, logits_of in predictor.logits(copies, both_strands):
        for row in range(len(next(iter(logits_of.values())))):
            example = copies[done]
            at, columns = context_positions(example, predictor.task.context_format.interleaved).sample, []
            for name, output in predictor.task.outputs.items():
                logits = logits_of[name][row].double()
                if logits.shape[-1] > 1:
                    logits = logits - logits.mean(-1, keepdim=True)
                if both_strands and output.strand_symmetry == "between_bases":
                    logits[0] = 0  # position 0 has no counterpart on the other strand
                if output.level == "token":
                    logits = logits[_owners(predictor.tokenizer, example)]
                elif output.level == "window":
                    at = at[[_read_at(example)]]
                columns.append(logits[: len(at)].cpu().numpy())
            yield at, np.concatenate(columns, 1)
            done += 1


def _read_at(example: Example) -> int:
    """The sample base that distances to an output of the window are counted from: its site, or else the middle."""
    if example.allele_spans is not None:
        return example.allele_spans[1][0]
    return len(example.bases) // 2 if example.site is None else sum(example.site) // 2


def _owners(tokenizer: Tokenizer, example: Example) -> Int[Tensor, "length"]:
    """The token of the context that owns each sample base."""
    starts, length = tokenizer.encode(example.bases).token_starts, len(example.bases)
    first = 0 if example.reference is None else len(tokenizer.encode(example.reference).token_starts) + 1
    return torch.from_numpy(first + np.repeat(np.arange(len(starts)), np.diff(starts, append=length)))


def _by_step(
    change: Float[np.ndarray, "outputs"], distance: Int[np.ndarray, "outputs"], distances: Int[np.ndarray, "steps"]
) -> Float[np.ndarray, "steps"]:
    """The largest change at each step's distances, which rise; NaN without an output there."""
    bounds = np.searchsorted(distance, [*distances, distance[-1] + 1]).tolist()
    return np.array([change[low:high].max() if low < high else np.nan for low, high in pairwise(bounds)])


def _mean(rows: Float[np.ndarray, "rows steps"]) -> Float[np.ndarray, "steps"]:
    """The mean of the values that are defined; NaN if none is."""
    count = (~np.isnan(rows)).sum(0)
    return np.where(count, np.nansum(rows, 0) / np.maximum(count, 1), np.nan)
