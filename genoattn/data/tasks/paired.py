"""Reference, separator and sample in one context: which sample bases are mutated, the answer lying a window away."""

from typing import final

import numpy as np
from jaxtyping import UInt8

from genoattn.data.example import MASKED, SHOWN, Example, Framing
from genoattn.data.targets import IGNORE, Output
from genoattn.data.tasks.base import Comparison, inverted, truth
from genoattn.errors import UserError
from genoattn.genome.alphabet import reverse_complement
from genoattn.genome.mutations import Sample, cut
from genoattn.genome.simulate import Rates, plant
from genoattn.genome.structural_variants import Change, Structure, clear, rearrange


@final
class Paired(Comparison):
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
        reversed_share: float = 0.0,
        restart: bool = True,
        masked: float = 0.0,
        restore_weight: float = 1.0,
    ):
        if shift < 0:
            raise UserError(f"task.shift must be 0 or more bases, got {shift}")
        for name, share in (("reversed_share", reversed_share), ("masked", masked)):
            if not 0 <= share <= 1:
                raise UserError(f"task.{name} must be a share between 0 and 1, got {share}")
        if restore_weight < 0:
            raise UserError(f"task.restore_weight must be at least 0, got {restore_weight}")
        self.rates = Rates(rate, snv, mnv, insertion, deletion, longest, transitions, duplication)
        self.structure = Structure(inversion, tandem, repeat, structure_shortest, structure_longest, unit, units)
        self.shift, self.reversed_share, self.masked = shift, reversed_share, masked
        self.starts_together = shift == 0 and reversed_share == 0
        self.segments, self.framing = 2, Framing(restart=restart)
        self.outputs = {"substitution": Output(1, 1.0), "insertion": Output(1, 1.0)}
        self.outputs["deletion"] = Output(1, 1.0, mirror="gap")
        if inversion > 0:
            self.outputs["inversion"] = Output(1, 1.0)
        if masked > 0:
            self.outputs["restore"] = Output(4, restore_weight, mirror="letter")

    def span(self, length: int) -> int:
        return self._lead(length) + length + self.shift + length // 4 + 32

    def _lead(self, length: int) -> int:
        """Bases before the reference window: what a sample may reach over, deletions of the other strand included."""
        return self.shift + (length // 4 + 32 if self.reversed_share else 0)

    def example(
        self, reference: UInt8[np.ndarray, "span"], length: int, rates: Rates, rng: np.random.Generator
    ) -> Example:
        lead = self._lead(length)
        offset = int(rng.integers(-self.shift, self.shift + 1)) if self.shift else 0
        reference, changes = self.structure.plant(reference, rng)
        before = reference[lead : lead + length]
        if self.reversed_share and rng.random() < self.reversed_share:
            source = reverse_complement(reference[: lead + length + offset])
            changes = [change.turned(len(source)) for change in reversed(changes)]
            sample = self._sample(source, changes, length, rates, rng)
            example = self._asked(before, sample, length + offset - 1 - sample.origin)
        else:
            source = reference[lead + offset :]
            sample = self._sample(source, [change.moved(-lead - offset) for change in changes], length, rates, rng)
            example = self._asked(before, sample, sample.origin + offset)
        return self._masked(example, rng) if self.masked else example

    def _sample(
        self, source: np.ndarray, changes: list[Change], length: int, rates: Rates, rng: np.random.Generator
    ) -> Sample:
        """The first `length` bases of a sample of `source`."""
        mutations = plant(source, rates, rng)
        within = [change for change in changes if change.start > 0 and change.stop < len(source)]
        return cut(rearrange(source, clear(mutations, within), within), 0, length)

    def lay(self, beside: UInt8[np.ndarray, "wide"], sample: Sample, start: int) -> Example:
        return self._asked(beside, sample, sample.origin - start)

    def _asked(self, before: np.ndarray, sample: Sample, places: np.ndarray) -> Example:
        """The example of a sample whose bases have their counterparts at `places` of the reference window."""
        held = (places >= 0) & (places < len(before))
        distance = np.where(held, len(before) + 1 + np.arange(len(places)) - places, -1)
        targets = {name: np.where(held, target, IGNORE).astype(np.int8) for name, target in truth(sample).items()}
        if "inversion" in self.outputs:
            targets["inversion"] = np.where(held, inverted(sample), IGNORE).astype(np.int8)
        if "restore" in self.outputs:
            targets["restore"] = np.full(len(held), IGNORE, np.int8)
        return Example(sample.bases, None, targets, sample.events, before, distance=distance)

    def _masked(self, example: Example, rng: np.random.Generator) -> Example:
        """Some bases hidden: nothing else is asked of them, and those as in the reference are to be restored."""
        chosen = rng.random(len(example.bases)) < self.masked
        targets = {name: np.where(chosen, IGNORE, target).astype(np.int8) for name, target in example.targets.items()}
        same = (example.targets["substitution"] == 0) & (example.targets["insertion"] == 0) & (example.bases < 4)
        targets["restore"] = np.where(chosen & same, example.bases.astype(np.int8), IGNORE).astype(np.int8)
        hidden = np.where(chosen, MASKED, SHOWN).astype(np.uint8)
        return example._replace(targets=targets, hidden=hidden)
