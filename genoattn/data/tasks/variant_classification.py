"""Labelled variants: the class or the measured number of a variant, from the reference and the same window with it."""

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, NamedTuple, final

import numpy as np
from annotated_types import Ge
from jaxtyping import UInt8

from genoattn.data.example import ContextFormat, Example
from genoattn.data.targets import TargetSpec
from genoattn.data.tasks.base import Task
from genoattn.errors import UserError
from genoattn.genome.indexed_fasta import Sequences
from genoattn.genome.labelled_variants import Beside, LabelledVariant
from genoattn.genome.simulate import Rates
from genoattn.genome.windows import fetch_padded

CLINVAR_CLASSES = {
    "benign": ["Benign", "Likely_benign", "Benign/Likely_benign"],
    "pathogenic": ["Pathogenic", "Likely_pathogenic", "Pathogenic/Likely_pathogenic"],
}
"""The classes and their labels in ClinVar's INFO field CLNSIG."""


class Fold(NamedTuple):
    """The groups that are tested: those of fold `number` (from 1) of `count`."""

    number: int
    count: int


@final
class VariantClassification(Task):
    """The class of a labelled variant, or the number that was measured of it.

    The model reads the allele in the window of the reference and in the window with the variant, and the mean of both.
    A number is learned, and predicted, in standard deviations of the training variants from their mean.
    """

    def __init__(
        self,
        file: str | None = None,
        label: str = "CLNSIG",
        classes: Mapping[str, Sequence[str]] | None = None,
        weights: Literal["none", "balanced"] = "none",
        split_bed: str | None = None,
        target: Literal["class", "score"] = "class",
        score: str | None = None,
        groups: str | Annotated[int, Ge(1)] | None = None,
        fold: str | None = None,
        rivals: Sequence[str] = (),
        gff: str | None = None,
    ):
        """Build the task.

        Args:
            file: A VCF, or a tab-separated table with the columns chrom, pos (1-based), ref, alt and the label.
            label: The INFO field of the VCF, or the column of the table, that holds the label.
            classes: The labels that make each class; variants with another label are left out or, if the number is
                learned, have no class. None: `CLINVAR_CLASSES`, or no classes if the number is learned.
            weights: "balanced" gives every class the same weight in the loss, however many variants it has.
            split_bed: A BED or GFF3 of genes; all variants of a gene go to the same split. None: those of the genome.
            target: "class": the class is learned; "score": the number of the column `score`.
            score: The column or INFO field of a number that was measured; None: there is none.
            groups: The column or INFO field of the group of a variant, or the bases of the stretches of the genome that
                are groups; intervals draw whole groups. None: there are no groups.
            fold: "2/5": the groups are dealt to five folds in the order of the genome, the second is tested, and a
                tenth of the other groups is for validation. None: `split_bed` or the splits of the genome decide.
            rivals: Columns or INFO fields of other predictions, numbers or words, which the report holds beside the
                model.
            gff: A GFF3 file with the coding regions; the report has a baseline that knows the consequence alone.

        Raises:
            UserError: A setting is missing or contradicts another.
        """
        if file is None:
            raise UserError("task.file must be given: a VCF or a tab-separated table of labelled variants")
        _check_target(target, score, weights)
        if classes is None:
            classes = CLINVAR_CLASSES if target == "class" else {}
        _check_classes(classes, optional=target == "score")
        if fold is not None and (groups is None or split_bed is not None):
            raise UserError(f"task.fold={fold} needs task.groups, and task.split_bed=null")
        self.file, self.label, self.weights, self.split_bed, self.gff = file, label, weights, split_bed, gff
        self.target, self.groups, self.fold = target, groups, parse_fold(fold)
        self.beside = Beside(score, groups, tuple(rivals), by_score=target == "score")
        self.classes = {str(name): [str(value) for value in values] for name, values in classes.items()}
        self.segment_count, self.sites, self.context_format = 2, 2, ContextFormat(restart_positions=True)
        self.mean, self.deviation = 0.0, 1.0
        if target == "class":
            self.evaluator = "classification"
            self.outputs = {"class": TargetSpec(len(classes), 1.0, level="window", strand_symmetry="invariant")}
        else:
            self.evaluator = "variant_score"
            self.outputs = {"score": TargetSpec(1, 1.0, level="window", strand_symmetry="invariant", number=True)}

    def set_targets(self, training: Sequence[LabelledVariant]) -> None:
        """Set the weight of each class in the loss, or the mean and deviation of the number, by the training split.

        Raises:
            UserError: A class is empty, or all numbers are equal.
        """
        if self.target == "score":
            numbers = np.array([variant.score for variant in training])
            self.mean, self.deviation = float(numbers.mean()), float(numbers.std())
            if self.deviation == 0:
                raise UserError(f"task.score={self.beside.score}: all numbers of the training split are equal")
            return
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

    def window_around(self, genome: Sequences, variant: LabelledVariant, length: int) -> Example:
        """The two windows of a variant: `length` bases of reference with the site in the middle, N beyond the ends."""
        start, stop, inserted = variant.mutation
        begin = (start + stop) // 2 - length // 2
        reference = fetch_padded(genome, variant.record, begin, begin + length)
        first, last = max(start - begin, 0), min(stop - begin, length)
        alternate = np.frombuffer(inserted, np.uint8)
        bases = np.concatenate([reference[:first], alternate, reference[last:]])
        # An empty allele is read at the next base: a deletion in the sample, an insertion in the reference.
        alleles = ((first, max(last, first + 1)), (first, max(first + len(alternate), first + 1)))
        if self.target == "class":
            target = {"class": np.array([variant.label], np.int8)}
        else:
            target = {"score": np.array([(variant.score - self.mean) / self.deviation], np.float32)}
        return Example(bases, None, target, (), reference, allele_spans=alleles)


def parse_fold(text: str | None) -> Fold | None:
    """The fold of a text such as "2/5"; None for None."""
    if text is None:
        return None
    found = re.fullmatch(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,8})", text)
    if not found or not 1 <= int(found[1]) <= int(found[2]) or int(found[2]) < 2:
        raise UserError(f"task.fold must be a number and a count of two or more, such as 1/5, got {text!r}")
    return Fold(int(found[1]), int(found[2]))


def _check_target(target: str, score: str | None, weights: str) -> None:
    if target not in ("class", "score"):
        raise UserError(f"task.target must be 'class' or 'score', got {target!r}")
    if target == "score" and score is None:
        raise UserError("task.target=score needs task.score, the column or INFO field of the measured number")
    if weights not in ("none", "balanced"):
        raise UserError(f"task.weights must be 'none' or 'balanced', got {weights!r}")
    if weights == "balanced" and target == "score":
        raise UserError("task.weights=balanced is for classes, and task.target=score learns a number")


def _check_classes(classes: Mapping[str, Sequence[str]], optional: bool) -> None:
    if optional and not classes:
        return
    if len(classes) < 2 or not all(classes.values()):
        raise UserError(f"task.classes must name two classes or more, each with its labels, got {dict(classes)}")
    labels = [value for values in classes.values() for value in values]
    if len(set(labels)) < len(labels):
        raise UserError(f"task.classes must give each label to one class, got {dict(classes)}")
