"""Labelled variants by split: by the blocks of a genome, by genes, or by folds of their groups."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from genoattn.data.tasks.variant_classification import Fold, VariantClassification
from genoattn.errors import UserError
from genoattn.genome.intervals import BedFile, Interval, read_bed, split_genes
from genoattn.genome.labelled_variants import LabelledVariant, in_intervals, read_labelled
from genoattn.genome.sequence_store import Genome
from genoattn.genome.splits import Splits

SPLITS = ("train", "validation", "test")

VALIDATION_SHARE = 0.1
"""The share of the groups outside a fold that are for validation; one group at least."""


class AssignedVariants(NamedTuple):
    """Labelled variants by split, the number of rows in no split by reason, and the genes that decided, if any."""

    by_split: Mapping[str, tuple[LabelledVariant, ...]]
    skipped: Mapping[str, int]
    genes: BedFile | None


def assign_variants_to_splits(
    genome: Genome,
    splits: Splits,
    task: VariantClassification,
    seed: int,
    length: int,
    vcf_filter: str | None = None,
) -> AssignedVariants:
    """Read the labelled variants of a task and assign them to splits; raises UserError if a split gets none.

    The genes of `task.split_bed` decide or, without it, the splits of the genome.
    """
    variants, skipped = _read(genome, task, length, vcf_filter)
    genes = read_bed(Path(task.split_bed), genome) if task.split_bed else None
    intervals = split_genes(genes, seed) if genes else splits[:3]
    by_split = {name: in_intervals(variants, part) for name, part in zip(SPLITS, intervals, strict=True)}
    for name, assigned in by_split.items():
        if not assigned:
            raise UserError(f"task.file={task.file} holds no labelled variant for {name}")
    between = len(variants) - sum(map(len, by_split.values()))
    return AssignedVariants(by_split, skipped | ({"between the splits": between} if between else {}), genes)


def variants_by_fold(
    genome: Genome, task: VariantClassification, length: int, vcf_filter: str | None = None
) -> AssignedVariants:
    """Read the labelled variants of a task and assign them by `task.fold`; raises UserError if groups are too few.

    No block of the genome decides, so windows may be longer than a block: the window of a tested variant may reach into
    a training group. Its bases are shared there, and no label is.
    """
    assert task.fold is not None
    variants, skipped = _read(genome, task, length, vcf_filter)
    ordered = sorted(variants, key=lambda variant: (variant.record, variant.mutation.start))
    split_of = split_groups(list(dict.fromkeys(variant.group for variant in ordered)), task.fold)
    by_split = {name: tuple(each for each in variants if split_of[each.group] == name) for name in SPLITS}
    return AssignedVariants(by_split, skipped, None)


def split_groups(groups: Sequence[str], fold: Fold) -> dict[str, str]:
    """The split of each group: the groups are dealt to the folds in turn; validation is drawn by fold, not by a seed.

    Args:
        groups: The groups in the order of the genome.
        fold: The fold that is tested.

    Returns:
        By group, its split.

    Raises:
        UserError: There are fewer groups than folds, or fewer than three.
    """
    if len(groups) < max(fold.count, 3):
        raise UserError(
            f"task.fold={fold.number}/{fold.count} needs {max(fold.count, 3)} groups or more, and task.groups gives"
            f" {len(groups)}"
        )
    others = [group for number, group in enumerate(groups) if number % fold.count != fold.number - 1]
    size = min(max(1, round(VALIDATION_SHARE * len(others))), len(others) - 1)
    chosen = np.random.default_rng(list(fold)).permutation(len(others))[:size].tolist()
    validation = {others[number] for number in chosen}
    return {
        group: "test" if group not in others else "validation" if group in validation else "train" for group in groups
    }


def spans(by_split: Mapping[str, Sequence[LabelledVariant]]) -> Splits:
    """The intervals from the first to the last changed base of each group, by split."""
    parts: list[tuple[Interval, ...]] = []
    for name in SPLITS:
        ends: dict[tuple[int, str], tuple[int, int]] = {}
        for variant in by_split[name]:
            key, (start, stop, _) = (variant.record, variant.group), variant.mutation
            low, high = ends.get(key, (start, stop))
            ends[key] = min(low, start), max(high, stop, start + 1)
        parts.append(tuple(sorted(Interval(record, *end) for (record, _), end in ends.items())))
    return Splits(parts[0], parts[1], parts[2], ())


def _read(
    genome: Genome, task: VariantClassification, length: int, vcf_filter: str | None
) -> tuple[list[LabelledVariant], dict[str, int]]:
    path = Path(task.file)
    return read_labelled(path, task.label, task.classes, genome, length // 2, vcf_filter, task.beside)
