"""The source of examples: a genome with its splits, VCFs of real mutations of it, and labelled variants."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from genoattn.data.curriculum import Curriculum
from genoattn.data.dataset import ExampleDataset, ItemSampler, StrainSampler, VariantSampler, WindowSampler
from genoattn.data.genome_list import GenomeFile, genome_files
from genoattn.data.settings import DataSettings, TrainingSplit
from genoattn.data.splitting import split_as_trained, split_genome, split_units
from genoattn.data.tasks.base import Task
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
from genoattn.genome.splits import Splits
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
        files: The FASTA files of the genome, with their weights and groups.
        units: The number of the file or group of each record, where the split keeps them whole; else none.
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
    files: tuple[GenomeFile, ...] = ()
    units: tuple[int, ...] = ()

    @property
    def weights(self) -> tuple[float, ...]:
        """The share of windows of each file beside those of the others; none where every base is equally likely."""
        return tuple(file.weight for file in self.files if file.weight is not None)

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
    files = genome_files(data.fasta or str(folder / BUNDLED_GENOME[0]), "data.fasta")
    vcfs = [folder / name for name in BUNDLED_GENOME[1]] if bundled else input_paths(data.vcf or [], "data.vcf")
    genome = open_genome([file.path for file in files], Path(data.cache) if data.cache else None, data.soft_mask)
    if isinstance(task, VariantClassification) and task.fold:
        assigned = variants_by_fold(genome, task, data.length, data.vcf_filter)
        splits = spans(assigned.by_split)
        return DataSource(genome, splits, tuple(vcfs), labelled=assigned.by_split, skipped_variants=assigned.skipped)
    units = split_units(genome, files, data.split)
    if trained is None:
        splits, new = split_genome(genome, task, data, seed, units), ()
    else:
        splits, new = split_as_trained(genome, task, data, seed, trained, units)
    strains = _strains(data, task, genome)
    source = DataSource(genome, splits, tuple(vcfs), strains, new_records=new, files=tuple(files), units=units)
    _check_weights(source, task)
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
    check_leak(leak, data.max_leak, data.split if trained is None else "block")
    return replace(source, leak=leak)


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
        weights = source.weights if split != "test" else ()
        return build_window_dataset(source, intervals, data, task, seed, total, curriculum, both_strands, weights)
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
    weights: Sequence[float] = (),
) -> ExampleDataset:
    """The examples of a task from windows within intervals; `weights` are the shares of the files, if there are any."""
    window = task.reference_length(data.length)
    windows = Windows(source.genome, intervals, window, data.max_n_fraction, data.min_length, weights)
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
    lines += _describe_files(source)
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


def _describe_files(source: DataSource) -> list[str]:
    """Lines on the files or groups of each split, and on the share of the training windows of each weighted file."""
    lines, records = [], source.genome.records
    if source.units and source.splits.train:
        by_file = source.units == tuple(record.file for record in records)
        names = [file.path.name if by_file else file.group for file in source.files]
        held = [dict.fromkeys(names[records[interval.record].file] for interval in part) for part in source.splits[:3]]
        lines.append("; ".join(f"{split}: {_listed(list(own))}" for split, own in zip(SPLITS, held, strict=True)))
    if source.weights and source.splits.train:
        drawn = sorted({records[interval.record].file for interval in source.splits.train})
        total = sum(source.weights[file] for file in drawn)
        shares = [f"{source.files[file].path.name} {source.weights[file] / total:.1%}" for file in drawn]
        lines.append(f"training windows by file: {_listed(shares)}")
    return lines


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


def _check_weights(source: DataSource, task: Task) -> None:
    if source.weights and (source.strains or isinstance(task, ItemClassification | VariantClassification)):
        raise UserError(
            "data.fasta: weights are shares of windows that are drawn from the genome, and this task draws"
            f" {'strains' if source.strains else 'labelled examples'}; leave the column weight out"
        )


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
