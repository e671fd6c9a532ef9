"""Reference, separator and sample in one context: which sample bases are mutated, the answer lying a window away."""

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
    """To tell a mutated sample base its counterpart has to be found in the reference and looked up.

    The sample begins up to `shift` bases before or after the reference, and a share `reversed_share` of samples is of
    the other strand. With `restart` its positions begin anew at 0, else they run on. A share `masked` of its bases is
    hidden, and to restore them is asked too, with `restore_weight`: it teaches to look things up. Nothing is asked of
    bases whose counterpart the reference window does not hold.

    `inversion`, `tandem` and `repeat` are structural events a base, in training and tests alike, beside the small
    mutations and whatever their rates: see `Structure` for what they do and their sizes. What a tandem duplication or
    the expansion of a repeat brings is asked for as inserted, what a contraction takes as missing; bases of an inverted
    stretch are neither, and with `inversion` above 0 an output of that name asks for them.
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
        return self._lead(length) + length + self.shift + length // 4 + 32

    def _lead(self, length: int) -> int:
        """Bases before the reference window: what a sample may reach over, deletions of the other strand included."""
        return self.shift + (length // 4 + 32 if self.reverse_strand_fraction else 0)

    def example(
        self, reference: UInt8[np.ndarray, "reference_length"], length: int, rates: Rates, rng: np.random.Generator
    ) -> Example:
        lead = self._lead(length)
        offset = int(rng.integers(-self.shift, self.shift + 1)) if self.shift else 0
        reference, changes = self.structure.simulate(reference, rng)
        before = reference[lead : lead + length]
        if self.reverse_strand_fraction and rng.random() < self.reverse_strand_fraction:
            source = reverse_complement(reference[: lead + length + offset])
            changes = [change.on_reverse_strand(len(source)) for change in reversed(changes)]
            sample = self._sample(source, changes, length, rates, rng)
            example = self._asked(before, sample, length + offset - 1 - sample.reference_position)
        else:
            source = reference[lead + offset :]
            sample = self._sample(source, [change.shifted(-lead - offset) for change in changes], length, rates, rng)
            example = self._asked(before, sample, sample.reference_position + offset)
        return self._masked(example, rng) if self.mask_fraction else example

    def _sample(
        self, source: np.ndarray, changes: list[StructuralVariant], length: int, rates: Rates, rng: np.random.Generator
    ) -> Sample:
        """The first `length` bases of a sample of `source`."""
        mutations = simulate(source, rates, rng)
        within = [change for change in changes if change.start > 0 and change.stop < len(source)]
        return slice_sample(apply_structural(source, drop_overlapping(mutations, within), within), 0, length)

    def build_example(self, beside: UInt8[np.ndarray, "wide"], sample: Sample, start: int) -> Example:
        return self._asked(beside, sample, sample.reference_position - start)

    def _asked(self, before: np.ndarray, sample: Sample, places: np.ndarray) -> Example:
        """The example of a sample whose bases have their counterparts at `places` of the reference window."""
        held = (places >= 0) & (places < len(before))
        distance = np.where(held, len(before) + 1 + np.arange(len(places)) - places, -1)
        targets = {
            name: np.where(held, target, IGNORE_INDEX).astype(np.int8)
            for name, target in mutation_labels(sample).items()
        }
        if "inversion" in self.outputs:
            targets["inversion"] = np.where(held, inversion_labels(sample), IGNORE_INDEX).astype(np.int8)
        if "restore" in self.outputs:
            targets["restore"] = np.full(len(held), IGNORE_INDEX, np.int8)
        return Example(sample.bases, None, targets, sample.events, before, distance=distance)

    def _masked(self, example: Example, rng: np.random.Generator) -> Example:
        """Some bases hidden: nothing else is asked of them, and those as in the reference are to be restored."""
        chosen = rng.random(len(example.bases)) < self.mask_fraction
        targets = {
            name: np.where(chosen, IGNORE_INDEX, target).astype(np.int8) for name, target in example.targets.items()
        }
        same = (example.targets["substitution"] == 0) & (example.targets["insertion"] == 0) & (example.bases < 4)
        targets["restore"] = np.where(chosen & same, example.bases.astype(np.int8), IGNORE_INDEX).astype(np.int8)
        hidden = np.where(chosen, MASK, VISIBLE).astype(np.uint8)
        return example._replace(targets=targets, masking=hidden)
