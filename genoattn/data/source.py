"""The source of examples: a genome with its splits, VCFs of real mutations of it, and labelled variants."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from genoattn.data.curriculum import Curriculum
from genoattn.data.dataset import ExampleDataset, ItemSampler, StrainSampler, VariantSampler, WindowSampler
from genoattn.data.settings import DataSettings, TrainingSplit
from genoattn.data.tasks.base import MutationDetection, Task
from genoattn.data.tasks.conditional import Conditional
from genoattn.data.tasks.variant_classification import VariantClassification
from genoattn.data.tasks.window_classification import ItemClassification, Items
from genoattn.data.variant_splits import SPLITS, assign_variants_to_splits, spans, variants_by_fold
from genoattn.errors import UserError
from genoattn.files import input_paths
from genoattn.genome.input_files import describe_counts
from genoattn.genome.intervals import Interval, split_genes
from genoattn.genome.labelled_variants import LabelledVariant
from genoattn.genome.leak_audit import LeakAudit, audit_leak, check_leak
from genoattn.genome.regions import RegionFile
from genoattn.genome.sequence_store import Genome, open_genome
from genoattn.genome.splits import Splits, split_blocks, split_records, test_only
from genoattn.genome.strains import Strain, open_strain
from genoattn.genome.windows import Windows
from genoattn.paths import genomes_dir

BUNDLED_GENOME = ("NCTC8325.fa.gz", ("RN4220.vcf.gz", "N315.vcf.gz"))
"""The genome that is part of the project, and the VCFs of two strains."""


@dataclass(frozen=True)
class DataSource:
    """A genome with its splits, and the variants that belong to it.

    Attributes:
        genome: The genome.
        splits: Its training, validation and test intervals.
        vcfs: VCFs of real mutations of the genome.
        strains: Strains of the genome, placed on it, for a task that has them.
        labelled: Labelled variants by split, for a task that has them.
        skipped_variants: The number of rows with variants in no split, by reason.
        items: What examples are made of, such as genes, for a task that does not draw windows from anywhere.
        genes: The file of genes that split the labelled variants.
        new_records: The records that a saved model was not trained on; all of their bases are held out.
        leak: What the held-out blocks share with the training blocks; None without training blocks.
    """

    genome: Genome
    splits: Splits
    vcfs: tuple[Path, ...]
    strains: tuple[Strain, ...] = ()
    labelled: Mapping[str, tuple[LabelledVariant, ...]] = field(default_factory=dict)
    skipped_variants: Mapping[str, int] = field(default_factory=dict)
    genes: RegionFile | None = None
    items: Items | None = None
    new_records: tuple[int, ...] = ()
    leak: LeakAudit | None = None

    @property
    def trained_on(self) -> bool:
        """False if a saved model was trained on no record of this genome."""
        return len(self.new_records) < len(self.genome.records)


def open_data_source(data: DataSettings, task: Task, seed: int, trained: TrainingSplit | None = None) -> DataSource:
    """Open a genome and split it for windows of a task.

    For a saved model every base that its training held out is held out again, whatever `data` says: records that it was
    trained on (with the same sha256) keep their split, and all bases of other records are for the test.

    Args:
        data: The genome, its VCFs and the length of windows; without a FASTA the genome that is part of the project.
        task: The task; it says how many reference bases a window needs, and may have labelled variants.
        seed: The seed of a split by records or genes.
        trained: The split that a saved model was trained with; None before training.

    Returns:
        The genome with its splits.

    Raises:
        UserError: A file is missing or malformed, the genome is too short for the windows, or the held-out blocks share
            more than `data.max_leak` with the training blocks.
    """
    _check_min_length(data, task)
    folder = genomes_dir()
    bundled = data.fasta is None and data.vcf is None
    fastas = input_paths(data.fasta, "data.fasta") if data.fasta else [folder / BUNDLED_GENOME[0]]
    vcfs = [folder / name for name in BUNDLED_GENOME[1]] if bundled else input_paths(data.vcf or [], "data.vcf")
    genome = open_genome(fastas, Path(data.cache) if data.cache else None, data.soft_mask)
    if isinstance(task, VariantClassification) and task.fold:
        assigned = variants_by_fold(genome, task, data.length, data.vcf_filter)
        splits = spans(assigned.by_split)
        return DataSource(genome, splits, tuple(vcfs), labelled=assigned.by_split, skipped_variants=assigned.skipped)
    if trained is None:
        splits, new = split_genome(genome, task, data.length, data.split, seed, data.min_length), ()
    else:
        splits, new = split_as_trained(genome, task, data, seed, trained)
    source = DataSource(genome, splits, tuple(vcfs), _strains(data, task, genome), new_records=new)
    if trained is not None and source.trained_on:
        seed = trained.seed
    parts = splits[:3]
    if isinstance(task, ItemClassification):
        source = replace(source, items=task.read_items(genome, splits))
    if isinstance(task, VariantClassification):
        variants = assign_variants_to_splits(genome, splits, task, seed, data.length, data.vcf_filter)
        labels, genes = variants.by_split, variants.genes
        source = replace(source, labelled=labels, skipped_variants=variants.skipped, genes=genes)
        parts = split_genes(genes.path, genes.intervals, seed) if genes else parts
    if not parts[0]:
        return source
    leak = audit_leak(genome, *parts)
    check_leak(leak, data.max_leak, whole_records=trained is None and data.split == "record")
    return replace(source, leak=leak)


def split_genome(
    genome: Genome, task: Task, length: int, split: str, seed: int, min_length: int | None = None
) -> Splits:
    """Split a genome by `block` or by `record` for windows of `length` sample bases."""
    window = task.reference_length(length)
    if split == "record":
        return split_records(genome.names, genome.lengths, window, seed=seed, min_length=min_length)
    return split_blocks(genome.lengths, window, names=genome.names, min_length=min_length)


def split_as_trained(
    genome: Genome, task: Task, data: DataSettings, seed: int, trained: TrainingSplit
) -> tuple[Splits, tuple[int, ...]]:
    """The splits of a genome for a saved model, and the numbers of the records that it was not trained on."""
    new = tuple(number for number, record in enumerate(genome.records) if record.sha256 not in trained.genome)
    window = task.reference_length(data.length)
    if len(new) == len(genome.records):
        if isinstance(task, MutationDetection):
            return test_only(genome.names, genome.lengths, window), new
        return split_genome(genome, task, data.length, data.split, seed, data.min_length), new
    splits = _repeat_split(genome, task, trained)
    whole = [Interval(record, 0, genome.lengths[record]) for record in new if genome.lengths[record] >= window]
    test = tuple(sorted([*splits.test, *whole]))
    if not test:
        raise UserError(
            "data.fasta holds no base that the training of this model held out: all of its records are for training;"
            " name the whole genome that the model was trained on, or another genome"
        )
    short = tuple(genome.names[record] for record in new if genome.lengths[record] < window)
    validation = splits.validation or test
    return Splits(splits.train, validation, test, splits.skipped + short), new


def _repeat_split(genome: Genome, task: Task, trained: TrainingSplit) -> Splits:
    """The split of the training for those records of a genome that it had."""
    window, min_length = task.reference_length(trained.length), trained.min_length
    known = [number for number, record in enumerate(genome.records) if record.sha256 in trained.genome]
    if trained.split == "record":
        if Counter(trained.genome) - Counter(genome.records[number].sha256 for number in known):
            # Without all of its records the split cannot be repeated, and any of them may be for training.
            return Splits(tuple(Interval(number, 0, genome.lengths[number]) for number in known), (), (), ())
        of_sequence: dict[str, list[int]] = {sha256: [] for sha256 in trained.genome}
        for number in known:
            of_sequence[genome.records[number].sha256].append(number)
        known = [of_sequence[sha256].pop(0) for sha256 in trained.genome]  # in the order of the training
    names, lengths = [genome.names[number] for number in known], [genome.lengths[number] for number in known]
    if trained.split == "record":
        splits = split_records(names, lengths, window, seed=trained.seed, min_length=min_length)
    else:  # a record is cut into blocks by its own length alone
        splits = split_blocks(lengths, window, names=names, min_length=min_length, require_test=False)
    train, validation, test = (
        tuple(sorted(interval._replace(record=known[interval.record]) for interval in split)) for split in splits[:3]
    )
    return Splits(train, validation, test, splits.skipped)


def build_dataset(
    source: DataSource,
    split: str,
    data: DataSettings,
    task: Task,
    seed: int,
    total: int,
    curriculum: Curriculum,
    both_strands: bool = False,
) -> ExampleDataset:
    """The examples of a task for a split (train, validation, test): of windows, or of labelled variants."""
    intervals = getattr(source.splits, split)
    if isinstance(task, Conditional) and source.strains:
        strains = StrainSampler(source.strains, intervals, task, data.length, both_strands)
        return ExampleDataset(strains, task, data.length, seed, curriculum, total, data.bucket_batches)
    if source.items is not None:
        assert isinstance(task, ItemClassification)
        items = ItemSampler(source.genome, source.items.of(split), task, both_strands)
        return ExampleDataset(items, task, data.length, seed, curriculum, total, data.bucket_batches)
    if not isinstance(task, VariantClassification):
        return build_window_dataset(source, intervals, data, task, seed, total, curriculum, both_strands)
    sampler = VariantSampler(source.genome, source.labelled[split], task, both_strands)
    return ExampleDataset(sampler, task, data.length, seed, curriculum, total, data.bucket_batches)


def build_window_dataset(
    source: DataSource,
    intervals: tuple[Interval, ...],
    data: DataSettings,
    task: Task,
    seed: int,
    total: int,
    curriculum: Curriculum,
    both_strands: bool = False,
) -> ExampleDataset:
    """The examples of a task from windows within intervals."""
    window = task.reference_length(data.length)
    windows = Windows(source.genome, intervals, window, data.max_n_fraction, data.min_length)
    sampler = WindowSampler(windows, task, both_strands)
    return ExampleDataset(sampler, task, data.length, seed, curriculum, total, data.bucket_batches)


def describe_source(source: DataSource) -> str:
    """Lines that say which genome this is, how it is split, and which records a saved model was not trained on."""
    genome, splits = source.genome, source.splits
    sizes = ", ".join(
        f"{name} {sum(interval.length for interval in intervals):,}"
        for name, intervals in zip(SPLITS, splits[:3], strict=True)
    )
    short = f", {len(splits.skipped)} records too short" if splits.skipped else ""
    lines = [f"genome: {len(genome.records)} record(s), {genome.total:,} bases; {sizes}{short}"]
    if source.leak:
        lines.append(str(source.leak))
    if not source.trained_on:
        lines.append("the model was trained on no record of this genome: all of it is held out")
    elif source.new_records:
        known = [name for number, name in enumerate(genome.names) if number not in source.new_records]
        new = [genome.names[number] for number in source.new_records]
        lines += [
            f"records that the model was trained on: {_listed(known)}; only their test blocks are held out",
            f"records with another sequence: {_listed(new)}; held out as a whole (a record that was trimmed or edited"
            " after training counts as another sequence)",
        ]
    if source.labelled:
        rows = sum(map(len, source.labelled.values())) + sum(source.skipped_variants.values())
        counts = ", ".join(f"{name} {len(variants):,}" for name, variants in source.labelled.items())
        reasons = describe_counts(source.skipped_variants)
        lines.append(f"labelled variants: {rows:,} rows; {counts}{f'; left out: {reasons}' if reasons else ''}")
        groups = {name: dict.fromkeys(v.group for v in variants) for name, variants in source.labelled.items()}
        if any(groups["test"]):
            lines.append("groups: " + "; ".join(f"{name} {_listed(list(own))}" for name, own in groups.items()))
    if source.items:
        lines.append(str(source.items))
    if source.genes:
        path, intervals, skipped = source.genes.path, source.genes.intervals, source.genes.skipped
        reasons = f"; left out: {describe_counts(skipped)}" if skipped else ""
        lines.append(
            f"{path.name}: {len(intervals) + sum(skipped.values()):,} lines; {len(intervals):,} intervals{reasons}"
        )
    return "\n".join(lines)


def _listed(names: Sequence[str], most: int = 10) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _strains(data: DataSettings, task: Task, genome: Genome) -> tuple[Strain, ...]:
    """The strains of `data.strains`, placed on the genome; prints how much of each lies beside it."""
    paths = input_paths(data.strains or [], "data.strains")
    if paths and not isinstance(task, Conditional):
        raise UserError(f"data.strains={data.strains} is for task=conditional alone; leave data.strains=null")
    strains = [open_strain(path, genome, data.cache, data.vcf_filter) for path in paths]
    for strain in strains:
        print(f"{strain.name}: {strain.share:.1%} of the strain lies beside the genome")
    return tuple(strains)


def _check_min_length(data: DataSettings, task: Task) -> None:
    if data.min_length is None:
        return
    if not task.accepts_short_records:
        raise UserError(
            f"data.min_length={data.min_length} takes records shorter than a window whole, which task=pretrain can and"
            f" {type(task).__name__} cannot; leave data.min_length=null"
        )
    if data.min_length > data.length:
        raise UserError(f"data.min_length must be at most data.length ({data.length}), got {data.min_length}")
