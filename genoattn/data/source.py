"""genome + splits + VCFs"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from genoattn.data.curriculum import Curriculum
from genoattn.data.dataset import ExampleDataset, VariantSampler, WindowSampler
from genoattn.data.settings import DataSettings
from genoattn.data.tasks.base import MutationDetection, Task
from genoattn.data.tasks.variant_classification import VariantClassification
from genoattn.errors import UserError
from genoattn.genome.intervals import Interval, split_genes
from genoattn.genome.labelled_variants import LabelledVariant, in_intervals, read_labelled
from genoattn.genome.sequence_store import Genome, open_genome
from genoattn.genome.splits import Splits, sizes, split_blocks, split_records, test_only
from genoattn.genome.windows import Windows
from genoattn.paths import genomes_dir

BUNDLED_GENOME = ("NCTC8325.fa.gz", ("RN4220.vcf.gz", "N315.vcf.gz"))


@dataclass(frozen=True)
class DataSource:
    """A genome with its splits, and the VCFs of real mutations of it."""

    genome: Genome
    splits: Splits
    vcfs: tuple[Path, ...]
    labelled: Mapping[str, tuple[LabelledVariant, ...]] = field(default_factory=dict)
    """By split, the labelled variants of a task that has such."""
    trained_on: bool = True
    """False where a saved model was trained on another genome, so that nothing of this one was shown to it."""


def open_data_source(data: DataSettings, task: Task, seed: int, about: Mapping | None = None) -> DataSource:
    """The genome that the config names, or the one that ships with its VCFs, split for windows of this task.

    `about` describes a saved model: what its training held out of this genome is held out, whatever the config says.
    """
    _check_shortest(data, task)
    folder = genomes_dir()
    fastas = _paths(data.fasta) or [folder / BUNDLED_GENOME[0]]
    shipped = data.fasta is None and data.vcf is None
    vcfs = [folder / name for name in BUNDLED_GENOME[1]] if shipped else _paths(data.vcf)
    genome = open_genome(fastas, Path(data.cache) if data.cache else None, data.soft_mask)
    known = about is None or [record.sha256 for record in genome.records] == about["genome"]
    cut = (data.length, data.split, seed, data.min_length)
    if about is not None and known:
        cut = (about["length"], about["split"], about["seed"], about.get("min_length"))
    unseen = about is not None and not known and isinstance(task, MutationDetection)  # nothing of it is for training
    splits = (
        test_only(genome.names, genome.lengths, task.reference_length(data.length))
        if unseen
        else split_genome(genome, task, *cut)
    )
    source = DataSource(genome, splits, tuple(vcfs), trained_on=known)
    return assign_variants_to_splits(source, task, cut[2], data.length)


def assign_variants_to_splits(source: DataSource, task: Task, seed: int, length: int) -> DataSource:
    """The same source with the labelled variants of the task, where it has such, dealt out to the splits."""
    if not isinstance(task, VariantClassification):
        return source
    genome, splits = source.genome, source.splits
    found, passed_over = read_labelled(Path(task.file), task.label, task.classes, genome, length // 2)
    parts = split_genes(Path(task.split_bed), genome, seed) if task.split_bed else splits[:3]
    dealt = dict(zip(("train", "validation", "test"), (in_intervals(found, part) for part in parts), strict=True))
    left = len(found) - sum(map(len, dealt.values()))
    passed_over |= {"between the splits": left} if left else {}
    told = ", ".join(f"{name} {len(part):,}" for name, part in dealt.items())
    out = "; left out: " + ", ".join(f"{count:,} {why}" for why, count in passed_over.items()) if passed_over else ""
    print(f"{Path(task.file).name}: {told}{out}")
    for name, part in dealt.items():
        if not part:
            raise UserError(f"task.file={task.file} holds no labelled variant for {name}")
    task.set_class_weights(dealt["train"])
    return replace(source, labelled=dealt)


def build_dataset(
    source: DataSource, split: str, data: DataSettings, task: Task, seed: int, total: int, curriculum: Curriculum,
    both_strands: bool = False,
) -> ExampleDataset:  # fmt: skip
    """Examples of a task for one split (train, validation, test): of its windows, or of its labelled variants."""
    if isinstance(task, VariantClassification):
        maker = VariantSampler(source.genome, source.labelled[split], task, both_strands)
        return ExampleDataset(maker, task, data.length, seed, curriculum, total, data.bucket_batches)
    return build_window_dataset(
        source, getattr(source.splits, split), data, task, seed, total, curriculum, both_strands
    )


def split_genome(
    genome: Genome, task: Task, length: int, split: str, seed: int, min_length: int | None = None
) -> Splits:
    """The splits of a genome by `block` or by `record`, for windows of `length` sample bases, or shorter records."""
    span = task.reference_length(length)
    if split == "record":
        return split_records(genome.names, genome.lengths, span, seed=seed, min_length=min_length)
    return split_blocks(genome.lengths, span, names=genome.names, min_length=min_length)


def build_window_dataset(
    source: DataSource, intervals: tuple[Interval, ...], data: DataSettings, task: Task, seed: int, total: int,
    curriculum: Curriculum, both_strands: bool = False,
) -> ExampleDataset:  # fmt: skip
    """Examples of a task from windows within intervals."""
    windows = Windows(
        source.genome, intervals, task.reference_length(data.length), data.max_n_fraction, data.min_length
    )
    maker = WindowSampler(windows, task, both_strands)
    return ExampleDataset(maker, task, data.length, seed, curriculum, total, data.bucket_batches)


def _check_shortest(data: DataSettings, task: Task) -> None:
    if data.min_length is None:
        return
    if not task.accepts_short_records:
        raise UserError(
            f"data.min_length={data.min_length} takes records shorter than a window whole, which task=pretrain can and"
            f" {type(task).__name__} cannot; leave data.min_length=null"
        )
    if data.min_length > data.length:
        raise UserError(f"data.min_length must be at most data.length ({data.length}), got {data.min_length}")


def _paths(value: object) -> list[Path]:
    """The one path, the several, or none that a config names, from the folder where the program was started."""
    if value is None:
        return []
    return [Path(str(one)) for one in ([value] if isinstance(value, str) else list(value))]  # type: ignore[call-overload]


def describe_source(source: DataSource) -> None:
    """Say which genome this is and how it was split."""
    genome = source.genome
    counts = sizes(source.splits)
    passed = f", {counts['passed_over']} records too short" if counts["passed_over"] else ""
    split = ", ".join(f"{name} {counts[name]:,}" for name in ("train", "validation", "test"))
    print(f"genome: {len(genome.records)} record(s), {genome.total:,} bases; {split}{passed}")
