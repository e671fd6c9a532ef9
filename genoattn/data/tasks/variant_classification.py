"""A window of the reference and the same with a variant in it: which class the variant is of."""

from collections.abc import Mapping, Sequence
from typing import Literal, final

import numpy as np
from jaxtyping import UInt8

from genoattn.data.example import ContextFormat, Example
from genoattn.data.targets import TargetSpec
from genoattn.data.tasks.base import Task
from genoattn.errors import UserError
from genoattn.genome.alphabet import UNKNOWN
from genoattn.genome.labelled_variants import LabelledVariant
from genoattn.genome.sequence_store import Genome
from genoattn.genome.simulate import Rates


@final
class VariantClassification(Task):
    """Labels come from `file`: a VCF, whose INFO field `label` is read, or a table with a column of that name.

    `classes` names for each class the labels that make it; a variant with another label is left out. With `weights`
    balanced each class counts alike in the loss, however many variants it has. `split_bed` names genes, all variants
    of each of which are for training, for validation or for the test; without it the blocks (or records) of data.split
    decide. The verdict looks at the allele in both windows, and at the mean of both.
    """

    evaluator = "classification"

    def __init__(
        self,
        file: str | None = None,
        label: str = "CLNSIG",
        classes: Mapping[str, Sequence[str]] = {},
        weights: Literal["none", "balanced"] = "none",
        split_bed: str | None = None,
    ):
        if file is None:
            raise UserError("task.file must be given: a VCF or a tab-separated table of labelled variants")
        if len(classes) < 2 or not all(classes.values()):
            raise UserError(f"task.classes must name two classes or more, each with its labels, got {dict(classes)}")
        every = [value for values in classes.values() for value in values]
        if len(set(every)) < len(every):
            raise UserError(f"task.classes must give each label to one class, got {dict(classes)}")
        if weights not in ("none", "balanced"):
            raise UserError(f"task.weights must be 'none' or 'balanced', got {weights!r}")
        self.file, self.label, self.weights, self.split_bed = file, label, weights, split_bed
        self.classes = {str(name): [str(value) for value in values] for name, values in classes.items()}
        self.segment_count, self.context_format = 2, ContextFormat(restart_positions=True)
        self.outputs = {"class": TargetSpec(len(classes), 1.0, level="window", strand_symmetry="invariant")}

    def set_class_weights(self, training: Sequence[LabelledVariant]) -> None:
        """Have each class count alike in the loss where that is asked for; raises UserError at one without variants."""
        counts = np.bincount([one.label for one in training], minlength=len(self.classes))
        for name, count in zip(self.classes, counts, strict=True):
            if count == 0:
                raise UserError(f"task.classes: no variant of class {name!r} lies in what is for training")
        if self.weights == "balanced":
            share = tuple((counts.sum() / (len(counts) * counts)).tolist())
            self.outputs = {"class": self.outputs["class"]._replace(balance=share)}

    def reference_length(self, length: int) -> int:
        return length

    def example(
        self, reference: UInt8[np.ndarray, "reference_length"], length: int, rates: Rates, rng: np.random.Generator
    ) -> Example:
        raise ValueError("examples of this task are labelled variants, not windows; see `show`")

    def window_around(self, genome: Genome, one: LabelledVariant, length: int) -> Example:
        """The two windows of a variant, `length` bases of reference with its site in the middle, N beyond the ends."""
        start, stop, inserted = one.mutation
        begin = (start + stop) // 2 - length // 2
        low, high = max(begin, 0), min(begin + length, genome.lengths[one.record])
        inside = genome.fetch(one.record, low, high)
        before = np.pad(inside, (low - begin, begin + length - high), constant_values=UNKNOWN)
        first, last = max(start - begin, 0), min(stop - begin, length)
        came = np.frombuffer(inserted, np.uint8)
        bases = np.concatenate([before[:first], came, before[last:]])
        # a deletion shows at the base after it, an insertion in the reference at the base that it comes before
        sites = ((first, max(last, first + 1)), (first, max(first + len(came), first + 1)))
        target = {"class": np.array([one.label], np.int8)}
        return Example(bases, None, target, (), before, allele_spans=sites)
