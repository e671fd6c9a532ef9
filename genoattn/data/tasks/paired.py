"""Mutation detection with reference and sample in one context: the counterpart of a base is a window away."""

from typing import final

import numpy as np
from jaxtyping import UInt8

from genoattn.data.example import MASK, VISIBLE, ContextFormat, Example
from genoattn.data.targets import IGNORE_INDEX, TargetSpec
from genoattn.data.tasks.base import MutationDetection, inversion_labels, mutation_labels
from genoattn.errors import UserError
from genoattn.genome.alphabet import reverse_complement
from genoattn.genome.mutations import Sample, slice_sample
from genoattn.genome.simulate import Rates, simulate
from genoattn.genome.structural_variants import StructuralRates, StructuralVariant, apply_structural, drop_overlapping


@final
class Paired(MutationDetection):
    """The context is reference, separator, sample; the model has to find the counterpart of each sample base.

    Sample bases whose counterpart is outside the reference window have no label. Masked bases are an auxiliary output
    "restore", which teaches the model to look up the reference.

    Structural variants come on top of the small mutations, at the same rates in training and tests. Bases that a tandem
    duplication or an expansion adds are labelled as insertions, and those that a contraction removes as a deletion.
    With `inversion` above 0 inverted bases are the labels of an output "inversion".
    """

    def __init__(
        self,
        rate: float = 0.02,
        snv: float = 0.7,
        mnv: float = 0.0,
        insertion: float = 0.15,
        deletion: float = 0.15,
        longest: int = 3,
        transitions: float = 2.0,
        duplication: float = 0.0,
        inversion: float = 0.0,
        tandem: float = 0.0,
        repeat: float = 0.0,
        structure_shortest: int = 20,
        structure_longest: int = 200,
        unit: int = 6,
        units: int = 5,
        shift: int = 0,
        reverse_strand_fraction: float = 0.0,
        restart_positions: bool = True,
        mask_fraction: float = 0.0,
        masked_weight: float = 1.0,
    ):
        """Build the task.

        The settings from `rate` to `duplication` are the fields of `Rates`, and `inversion`, `tandem`, `repeat`, `unit`
        and `units` those of `StructuralRates`.

        Args:
            structure_shortest: Fewest bases of an inversion or a tandem duplication.
            structure_longest: Most bases of them.
            shift: The sample begins up to so many bases before or after the reference.
            reverse_strand_fraction: Share of samples that are on the reverse strand.
            restart_positions: The positions of the sample begin at 0 again; False: they continue.
            mask_fraction: Share of sample bases that are masked and to be restored.
            masked_weight: Weight of the output "restore" in the loss.

        Raises:
            UserError: A setting is out of range.
        """
        if shift < 0:
            raise UserError(f"task.shift must be 0 or more bases, got {shift}")
        for name, share in (("reverse_strand_fraction", reverse_strand_fraction), ("mask_fraction", mask_fraction)):
            if not 0 <= share <= 1:
                raise UserError(f"task.{name} must be a share between 0 and 1, got {share}")
        if masked_weight < 0:
            raise UserError(f"task.masked_weight must be at least 0, got {masked_weight}")
        self.rates = Rates(rate, snv, mnv, insertion, deletion, longest, transitions, duplication)
        self.structure = StructuralRates(inversion, tandem, repeat, structure_shortest, structure_longest, unit, units)
        self.shift, self.reverse_strand_fraction, self.mask_fraction = shift, reverse_strand_fraction, mask_fraction
        self.same_start = shift == 0 and reverse_strand_fraction == 0
        self.segment_count, self.context_format = 2, ContextFormat(restart_positions=restart_positions)
        self.outputs = {"substitution": TargetSpec(1, 1.0), "insertion": TargetSpec(1, 1.0)}
        self.outputs["deletion"] = TargetSpec(1, 1.0, strand_symmetry="between_bases")
        if inversion > 0:
            self.outputs["inversion"] = TargetSpec(1, 1.0)
        if mask_fraction > 0:
            self.outputs["restore"] = TargetSpec(4, masked_weight, strand_symmetry="complement")

    def reference_length(self, length: int) -> int:
        return self._flank(length) + length + self.shift + length // 4 + 32

    def _flank(self, length: int) -> int:
        """Bases before the reference window that a sample may contain; deletions extend one on the reverse strand."""
        return self.shift + (length // 4 + 32 if self.reverse_strand_fraction else 0)

    def example(
        self, reference: UInt8[np.ndarray, "reference_length"], length: int, rates: Rates, rng: np.random.Generator
    ) -> Example:
        flank = self._flank(length)
        offset = int(rng.integers(-self.shift, self.shift + 1)) if self.shift else 0
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
        example = self._label(window, sample, counterparts)
        return self._mask(example, rng) if self.mask_fraction else example

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
        distance = np.where(inside, len(reference) + 1 + np.arange(len(counterparts)) - counterparts, -1)
        labels = mutation_labels(sample)
        if "inversion" in self.outputs:
            labels["inversion"] = inversion_labels(sample)
        targets = {name: np.where(inside, label, IGNORE_INDEX).astype(np.int8) for name, label in labels.items()}
        if "restore" in self.outputs:
            targets["restore"] = np.full(len(inside), IGNORE_INDEX, np.int8)
        return Example(sample.bases, None, targets, sample.events, reference, distance=distance)

    def _mask(self, example: Example, rng: np.random.Generator) -> Example:
        """Mask some bases: their only label is "restore", and only if they are as in the reference."""
        masked = rng.random(len(example.bases)) < self.mask_fraction
        targets = {
            name: np.where(masked, IGNORE_INDEX, target).astype(np.int8) for name, target in example.targets.items()
        }
        same = (example.targets["substitution"] == 0) & (example.targets["insertion"] == 0) & (example.bases < 4)
        targets["restore"] = np.where(masked & same, example.bases.astype(np.int8), IGNORE_INDEX).astype(np.int8)
        return example._replace(targets=targets, masking=np.where(masked, MASK, VISIBLE).astype(np.uint8))
