"""Variant classification: the class of a variant from two windows, the reference and the reference with the variant."""

from collections.abc import Mapping, Sequence
from typing import Literal, final

import numpy as np
from jaxtyping import UInt8

from genoattn.data.example import ContextFormat, Example
from genoattn.data.targets import TargetSpec
from genoattn.data.tasks.base import Task
from genoattn.errors import UserError
from genoattn.genome.labelled_variants import LabelledVariant
from genoattn.genome.sequence_store import Genome
from genoattn.genome.simulate import Rates
from genoattn.genome.windows import fetch_padded

CLINVAR_CLASSES = {
    "benign": ["Benign", "Likely_benign", "Benign/Likely_benign"],
    "pathogenic": ["Pathogenic", "Likely_pathogenic", "Pathogenic/Likely_pathogenic"],
}
"""The classes and their labels in ClinVar's INFO field CLNSIG."""


@final
class VariantClassification(Task):
    """The class of a labelled variant.

    The model reads the allele in the window of the reference and in the window with the variant, and the mean of both.
    """

    evaluator = "classification"

    def __init__(
        self,
        file: str | None = None,
        label: str = "CLNSIG",
        classes: Mapping[str, Sequence[str]] | None = None,
        weights: Literal["none", "balanced"] = "none",
        split_bed: str | None = None,
    ):
        """Build the task.

        Args:
            file: A VCF, or a tab-separated table with the columns chrom, pos (1-based), ref, alt and the label.
            label: The INFO field of the VCF, or the column of the table, that holds the label.
            classes: The labels that make each class; variants with another label are left out. None: `CLINVAR_CLASSES`.
            weights: "balanced" gives every class the same weight in the loss, however many variants it has.
            split_bed: A BED file of genes; all variants of a gene go to the same split. None: the splits of the genome.

        Raises:
            UserError: A setting is missing or contradicts another.
        """
        if file is None:
            raise UserError("task.file must be given: a VCF or a tab-separated table of labelled variants")
        classes = CLINVAR_CLASSES if classes is None else classes
        if len(classes) < 2 or not all(classes.values()):
            raise UserError(f"task.classes must name two classes or more, each with its labels, got {dict(classes)}")
        labels = [value for values in classes.values() for value in values]
        if len(set(labels)) < len(labels):
            raise UserError(f"task.classes must give each label to one class, got {dict(classes)}")
        if weights not in ("none", "balanced"):
            raise UserError(f"task.weights must be 'none' or 'balanced', got {weights!r}")
        self.file, self.label, self.weights, self.split_bed = file, label, weights, split_bed
        self.classes = {str(name): [str(value) for value in values] for name, values in classes.items()}
        self.segment_count, self.sites, self.context_format = 2, 2, ContextFormat(restart_positions=True)
        self.outputs = {"class": TargetSpec(len(classes), 1.0, level="window", strand_symmetry="invariant")}

    def set_class_weights(self, training: Sequence[LabelledVariant]) -> None:
        """Set the weight of each class in the loss, if they are to be balanced; raises UserError at an empty class."""
        counts = np.bincount([variant.label for variant in training], minlength=len(self.classes))
        for name, count in zip(self.classes, counts, strict=True):
            if count == 0:
                raise UserError(f"task.classes: the training split has no variant of class {name!r}")
        if self.weights == "balanced":
            balance = tuple((counts.sum() / (len(counts) * counts)).tolist())
            self.outputs = {"class": self.outputs["class"]._replace(balance=balance)}

    def reference_length(self, length: int) -> int:
        return length

    def example(
        self, reference: UInt8[np.ndarray, "reference_length"], length: int, rates: Rates, rng: np.random.Generator
    ) -> Example:
        raise ValueError("examples of this task are labelled variants, not windows; see `window_around`")

    def window_around(self, genome: Genome, variant: LabelledVariant, length: int) -> Example:
        """The two windows of a variant: `length` bases of reference with the site in the middle, N beyond the ends."""
        start, stop, inserted = variant.mutation
        begin = (start + stop) // 2 - length // 2
        reference = fetch_padded(genome, variant.record, begin, begin + length)
        first, last = max(start - begin, 0), min(stop - begin, length)
        alternate = np.frombuffer(inserted, np.uint8)
        bases = np.concatenate([reference[:first], alternate, reference[last:]])
        # An empty allele is read at the next base: a deletion in the sample, an insertion in the reference.
        alleles = ((first, max(last, first + 1)), (first, max(first + len(alternate), first + 1)))
        target = {"class": np.array([variant.label], np.int8)}
        return Example(bases, None, target, (), reference, allele_spans=alleles)
