"""genome + splits + VCFs"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from omegaconf import DictConfig

from genoattn.data.curriculum import Curriculum
from genoattn.data.dataset import Examples, VariantMaker, WindowMaker
from genoattn.data.tasks.base import Comparison, Task
from genoattn.data.tasks.variant_classification import VariantEffect
from genoattn.errors import UserError
from genoattn.genome.intervals import Interval, split_genes
from genoattn.genome.labelled_variants import Labelled, read_labelled, within
from genoattn.genome.sequence_store import Genome, open_genome
from genoattn.genome.splits import Splits, held_out, sizes, split_blocks, split_records
from genoattn.genome.windows import Windows
from genoattn.paths import genomes_dir

SHIPPED = ("NCTC8325.fa.gz", ("RN4220.vcf.gz", "N315.vcf.gz"))


@dataclass(frozen=True)
class Source:
    """A genome with its splits, and the VCFs of real mutations of it."""

    genome: Genome
    splits: Splits
    vcfs: tuple[Path, ...]
    labelled: Mapping[str, tuple[Labelled, ...]] = field(default_factory=dict)
    """By split, the labelled variants of a task that has such."""
    known: bool = True
    """False where a saved model was trained on another genome, so that nothing of this one was shown to it."""


def open_source(data: DictConfig, task: Task, seed: int, about: Mapping | None = None) -> Source:
    """The genome that the config names, or the one that ships with its VCFs, split for windows of this task.

    `about` describes a saved model: what its training held out of this genome is held out, whatever the config says.
    """
    _check_shortest(data, task)
    folder = genomes_dir()
    fastas = _paths(data.fasta) or [folder / SHIPPED[0]]
    shipped = data.fasta is None and data.vcf is None
    vcfs = [folder / name for name in SHIPPED[1]] if shipped else _paths(data.vcf)
    genome = open_genome(fastas, Path(data.cache) if data.cache else None, data.soft_mask)
    known = about is None or [record.sha256 for record in genome.records] == about["genome"]
    cut = (data.length, data.split, seed, data.shortest)
    if about is not None and known:
        cut = (about["length"], about["split"], about["seed"], about.get("shortest"))
    unseen = about is not None and not known and isinstance(task, Comparison)  # nothing of it is for training
    splits = held_out(genome.names, genome.lengths, task.span(data.length)) if unseen else divide(genome, task, *cut)
    source = Source(genome, splits, tuple(vcfs), known=known)
    return deal(source, task, cut[2], data.length)


def deal(source: Source, task: Task, seed: int, length: int) -> Source:
    """The same source with the labelled variants of the task, where it has such, dealt out to the splits."""
    if not isinstance(task, VariantEffect):
        return source
    genome, splits = source.genome, source.splits
    found, passed_over = read_labelled(Path(task.file), task.label, task.classes, genome, length // 2)
    parts = split_genes(Path(task.split_bed), genome, seed) if task.split_bed else splits[:3]
    dealt = dict(zip(("train", "validation", "test"), (within(found, part) for part in parts), strict=True))
    left = len(found) - sum(map(len, dealt.values()))
    passed_over |= {"between the splits": left} if left else {}
    told = ", ".join(f"{name} {len(part):,}" for name, part in dealt.items())
    out = "; left out: " + ", ".join(f"{count:,} {why}" for why, count in passed_over.items()) if passed_over else ""
    print(f"{Path(task.file).name}: {told}{out}")
    for name, part in dealt.items():
        if not part:
            raise UserError(f"task.file={task.file} holds no labelled variant for {name}")
    task.weigh(dealt["train"])
    return replace(source, labelled=dealt)


def examples_of(
    source: Source, split: str, data: DictConfig, task: Task, seed: int, total: int, curriculum: Curriculum,
    both_strands: bool = False,
) -> Examples:  # fmt: skip
    """Examples of a task for one split (train, validation, test): of its windows, or of its labelled variants."""
    if isinstance(task, VariantEffect):
        maker = VariantMaker(source.genome, source.labelled[split], task, both_strands)
        return Examples(maker, task, data.length, seed, curriculum, total, data.bucket)
    return window_examples(source, getattr(source.splits, split), data, task, seed, total, curriculum, both_strands)


def divide(genome: Genome, task: Task, length: int, split: str, seed: int, shortest: int | None = None) -> Splits:
    """The splits of a genome by `block` or by `record`, for windows of `length` sample bases, or shorter records."""
    span = task.span(length)
    if split == "record":
        return split_records(genome.names, genome.lengths, span, seed=seed, shortest=shortest)
    return split_blocks(genome.lengths, span, names=genome.names, shortest=shortest)


def window_examples(
    source: Source, intervals: tuple[Interval, ...], data: DictConfig, task: Task, seed: int, total: int,
    curriculum: Curriculum, both_strands: bool = False,
) -> Examples:  # fmt: skip
    """Examples of a task from windows within intervals."""
    windows = Windows(source.genome, intervals, task.span(data.length), data.max_unknown, data.shortest)
    maker = WindowMaker(windows, task, both_strands)
    return Examples(maker, task, data.length, seed, curriculum, total, data.bucket)


def _check_shortest(data: DictConfig, task: Task) -> None:
    if data.shortest is None:
        return
    if not task.elastic:
        raise UserError(
            f"data.shortest={data.shortest} takes records shorter than a window whole, which task=pretrain can and"
            f" {type(task).__name__} cannot; leave data.shortest=null"
        )
    if data.shortest > data.length:
        raise UserError(f"data.shortest must be at most data.length ({data.length}), got {data.shortest}")


def _paths(value: object) -> list[Path]:
    """The one path, the several, or none that a config names, from the folder where the program was started."""
    if value is None:
        return []
    return [Path(str(one)) for one in ([value] if isinstance(value, str) else list(value))]  # type: ignore[call-overload]


def announce(source: Source) -> None:
    """Say which genome this is and how it was split."""
    genome = source.genome
    counts = sizes(source.splits)
    passed = f", {counts['passed_over']} records too short" if counts["passed_over"] else ""
    split = ", ".join(f"{name} {counts[name]:,}" for name in ("train", "validation", "test"))
    print(f"genome: {len(genome.records)} record(s), {genome.total:,} bases; {split}{passed}")
