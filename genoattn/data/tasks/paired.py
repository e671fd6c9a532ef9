"""Mutation detection with reference and sample in one context: the counterpart of a base has to be looked up."""

from collections.abc import Mapping
from math import inf
from typing import Literal, final

import numpy as np
from jaxtyping import UInt8

from genoattn.data.example import MASK, VISIBLE, ContextFormat, Example, concatenate_examples
from genoattn.data.targets import IGNORE_INDEX, TargetSpec
from genoattn.data.tasks.base import MutationDetection, inversion_labels, mutation_labels
from genoattn.errors import UserError
from genoattn.genome.alphabet import reverse_complement
from genoattn.genome.mutations import Sample, slice_sample
from genoattn.genome.simulate import Rates, simulate
from genoattn.genome.structural_variants import StructuralRates, StructuralVariant, apply_structural, drop_overlapping
from genoattn.genome.windows import slice_padded

RANGES: Mapping[str, tuple[float, str]] = {
    "shift": (inf, "0 or more bases"),
    "drift": (inf, "0 or more bases"),
    "reverse_strand_fraction": (1, "a share between 0 and 1"),
    "mask_fraction": (1, "a share between 0 and 1"),
    "masked_weight": (inf, "at least 0"),
    "max_offset": (63, "between 0 and 63 bases"),
    "offset_weight": (inf, "at least 0"),
}
"""The highest value of settings that begin at 0, and what is expected in words."""


@final
class Paired(MutationDetection):
    """Reference and sample are one context; the model has to find the counterpart of each sample base.

    In the layout "concatenated" the context is reference, separator, sample, and the counterpart lies a window away. In
    the layout "interleaved" the bases of both alternate, r0 s0 r1 s1 …, and the counterpart lies as far away as the
    indels before it have moved the sample against the reference.

    Sample bases whose counterpart is outside the reference window have no label. Two auxiliary outputs teach the model
    to look up the reference: "restore", the masked bases, and "offset", how far away the counterpart is.

    Structural variants come on top of the small mutations, at the same rates in training and tests. Bases that a tandem
    duplication or an expansion adds are labelled as insertions, and those that a contraction removes as a deletion, as
    large insertions and deletions are.
    With `inversion` above 0 inverted bases are the labels of an output "inversion".

    The settings from `rate` to `sizes` are the fields of `Rates`, and `inversion`, `tandem`, `repeat`, `unit`,
    `units`, `large_insertion` and `large_deletion` those of `StructuralRates`.

    Args:
        layout: Order of the tokens of reference and sample.
        structure_shortest: Fewest bases of an inversion, a tandem duplication or a large indel.
        structure_longest: Most bases of them.
        shift: The sample begins up to so many bases before or after the reference.
        drift: It begins up to so many bases further before or after it. Small drifts are as frequent as large ones: 0,
            1, 2 to 3, 4 to 7, … bases are equally likely.
        reverse_strand_fraction: Share of samples that are on the reverse strand.
        restart_positions: The positions of the sample begin at 0 again, as an interleaved context needs it; False: they
            continue.
        mask_fraction: Share of sample bases that are masked and to be restored.
        masked_weight: Weight of the output "restore" in the loss.
        max_offset: Most bases of an offset with a label: sample base i is reference base i + offset.
        offset_weight: Weight of the output "offset" in the loss; 0 leaves it out.
        realign_every: Sample bases of a piece of an interleaved context, in which the reference starts again at the
            true counterpart of the first base, as the anchors of an aligner would place it, so that the drift of a long
            window does not add up; None: no pieces. Between two pieces are `2 max_offset` N. `build_example` does not
            realign.

    Raises:
        UserError: A setting is out of range.
    """

    def __init__(
        self,
        layout: Literal["concatenated", "interleaved"] = "concatenated",
        rate: float = 0.02,
        snv: float = 0.7,
        mnv: float = 0.0,
        insertion: float = 0.15,
        deletion: float = 0.15,
        longest: int = 3,
        transitions: float = 2.0,
        duplication: float = 0.0,
        sizes: Literal["uniform", "log"] = "uniform",
        inversion: float = 0.0,
        tandem: float = 0.0,
        repeat: float = 0.0,
        structure_shortest: int = 20,
        structure_longest: int = 200,
        unit: int = 6,
        units: int = 5,
        large_insertion: float = 0.0,
        large_deletion: float = 0.0,
        shift: int = 0,
        drift: int = 0,
        reverse_strand_fraction: float = 0.0,
        restart_positions: bool = True,
        mask_fraction: float = 0.0,
        masked_weight: float = 1.0,
        max_offset: int = 8,
        offset_weight: float = 0.0,
        realign_every: int | None = None,
    ):
        checked = {"shift": shift, "drift": drift, "reverse_strand_fraction": reverse_strand_fraction}
        checked |= {"mask_fraction": mask_fraction, "masked_weight": masked_weight}
        for name, value in (checked | {"max_offset": max_offset, "offset_weight": offset_weight}).items():
            most, words = RANGES[name]
            if not 0 <= value <= most:
                raise UserError(f"task.{name} must be {words}, got {value}")
        if layout == "interleaved" and not restart_positions:
            raise UserError(
                "task.layout=interleaved gives both bases of a pair the same position, so it needs"
                " task.restart_positions=true, got false"
            )
        if realign_every is not None:
            _check_realigned(realign_every, layout, reverse_strand_fraction, max_offset)
        self.rates = Rates(rate, snv, mnv, insertion, deletion, longest, transitions, duplication, sizes)
        bounds = structure_shortest, structure_longest, unit, units
        self.structure = StructuralRates(inversion, tandem, repeat, *bounds, large_insertion, large_deletion)
        self.shift, self.drift = shift, drift
        self.reverse_strand_fraction, self.mask_fraction = reverse_strand_fraction, mask_fraction
        self.same_start = shift == drift == reverse_strand_fraction == 0
        self.segment_count, self.context_format = 2, ContextFormat(restart_positions, layout == "interleaved")
        self.outputs = {"substitution": TargetSpec(1, 1.0), "insertion": TargetSpec(1, 1.0)}
        self.outputs["deletion"] = TargetSpec(1, 1.0, strand_symmetry="between_bases")
        if inversion > 0:
            self.outputs["inversion"] = TargetSpec(1, 1.0)
        self.max_offset, self.realign_every = max_offset, realign_every
        if offset_weight > 0:
            self.outputs["offset"] = TargetSpec(2 * max_offset + 1, offset_weight, strand_symmetry="none")
        if mask_fraction > 0:
            self.outputs["restore"] = TargetSpec(4, masked_weight, strand_symmetry="complement")

    def reference_length(self, length: int) -> int:
        return self._flank(length) + length + self.shift + self.drift + self._deleted(length)

    def _flank(self, length: int) -> int:
        """Bases before the reference window that a sample may contain; deletions extend one on the reverse strand."""
        return self.shift + self.drift + (self._deleted(length) if self.reverse_strand_fraction else 0)

    def _deleted(self, length: int) -> int:
        """Bases that replace those that deletions remove from a window."""
        return length // 4 + 32 + (self.structure.longest if self.structure.large_deletion else 0)

    def example(
        self, reference: UInt8[np.ndarray, "reference_length"], length: int, rates: Rates, rng: np.random.Generator
    ) -> Example:
        flank, reference = self._flank(length), reference[: self.reference_length(length)]
        offset = self._start(rng)
        reference, variants = self.structure.simulate(reference, rng)
        window = reference[flank : flank + length]
        if self.reverse_strand_fraction and rng.random() < self.reverse_strand_fraction:
            source = reverse_complement(reference[: flank + length + offset])
            variants = [variant.on_reverse_strand(len(source)) for variant in reversed(variants)]
            sample = self._sample(source, variants, length, rates, rng)
            counterparts = length + offset - 1 - sample.reference_position
        else:
            source = reference[flank + offset :]
            variants = [variant.shifted(-flank - offset) for variant in variants]
            sample = self._sample(source, variants, length, rates, rng)
            counterparts = sample.reference_position + offset
        if self.realign_every is None or length <= self.realign_every:
            example = self._label(window, sample, counterparts)
        else:
            starts = range(0, len(sample.bases), self.realign_every)
            pieces = [self._piece(reference, sample, counterparts, first, flank) for first in starts]
            example = concatenate_examples(pieces, 2 * self.max_offset)
        return self._mask(example, rng) if self.mask_fraction else example

    def _piece(
        self, reference: np.ndarray, sample: Sample, counterparts: np.ndarray, first: int, flank: int
    ) -> Example:
        """The piece of a sample from base `first`, beside the reference after the counterpart of the base before."""
        start = int(counterparts[first - 1]) + int(not sample.inserted[first - 1]) if first else 0
        stop = first + (self.realign_every or 0)
        piece = slice_sample(sample, first, stop)
        beside = slice_padded(reference, flank + start, flank + start + len(piece.bases))
        return self._label(beside, piece, counterparts[first:stop] - start)

    def _start(self, rng: np.random.Generator) -> int:
        """Bases from the first base of the reference window to that of the sample."""
        start = int(rng.integers(-self.shift, self.shift + 1)) if self.shift else 0
        if self.drift:
            low = (1 << int(rng.integers(self.drift.bit_length() + 1))) >> 1
            size = int(rng.integers(low, min(max(2 * low, 1), self.drift + 1)))
            start += size if rng.random() < 0.5 else -size
        return start

    def _sample(
        self, source: np.ndarray, variants: list[StructuralVariant], length: int, rates: Rates, rng: np.random.Generator
    ) -> Sample:
        """The first `length` bases of a sample of `source`."""
        mutations = simulate(source, rates, rng)
        within = [variant for variant in variants if variant.start > 0 and variant.stop < len(source)]
        return slice_sample(apply_structural(source, drop_overlapping(mutations, within), within), 0, length)

    def build_example(self, beside: UInt8[np.ndarray, "wide"], sample: Sample, start: int) -> Example:
        return self._label(beside, sample, sample.reference_position - start)

    def _label(self, reference: np.ndarray, sample: Sample, counterparts: np.ndarray) -> Example:
        """The example of a sample; `counterparts` are the positions of its bases in the reference window."""
        inside = (counterparts >= 0) & (counterparts < len(reference))
        ahead = counterparts - np.arange(len(counterparts))
        distance = np.abs(ahead) if self.context_format.interleaved else len(reference) + 1 - ahead
        labels = mutation_labels(sample)
        if "inversion" in self.outputs:
            labels["inversion"] = inversion_labels(sample)
        targets = {name: np.where(inside, label, np.int8(IGNORE_INDEX)) for name, label in labels.items()}
        if "offset" in self.outputs:
            near = inside & (np.abs(ahead) <= self.max_offset)
            targets["offset"] = np.where(near, ahead + self.max_offset, IGNORE_INDEX).astype(np.int8)
        if "restore" in self.outputs:
            targets["restore"] = np.full(len(inside), IGNORE_INDEX, np.int8)
        distance = np.where(inside, distance, -1)
        return Example(sample.bases, None, targets, sample.events, reference, distance=distance)

    def _mask(self, example: Example, rng: np.random.Generator) -> Example:
        """Mask some bases: their labels are "offset" and, if they are as in the reference, "restore"."""
        masked = rng.random(len(example.bases)) < self.mask_fraction
        targets = {
            name: target if name == "offset" else np.where(masked, np.int8(IGNORE_INDEX), target)
            for name, target in example.targets.items()
        }
        same = (example.targets["substitution"] == 0) & (example.targets["insertion"] == 0) & (example.bases < 4)
        targets["restore"] = np.where(masked & same, example.bases.astype(np.int8), IGNORE_INDEX).astype(np.int8)
        return example._replace(targets=targets, masking=np.where(masked, MASK, VISIBLE).astype(np.uint8))


def _check_realigned(every: int, layout: str, reverse_strand_fraction: float, max_offset: int) -> None:
    """Raises UserError if a context cannot be cut into pieces of `every` bases."""
    if layout != "interleaved" or reverse_strand_fraction:
        raise UserError(
            f"task.realign_every={every} cuts an interleaved context on one strand into pieces; it needs"
            " task.layout=interleaved and task.reverse_strand_fraction=0"
        )
    if every <= 2 * max_offset:
        raise UserError(
            f"task.realign_every must be above {2 * max_offset} bases (twice task.max_offset), or null, got {every}"
        )
