"""From a config to live parts: the genome and its splits, tokenizer, task, model, and the trials of a detector."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from genoattn.config import genomes_dir
from genoattn.data import Examples
from genoattn.errors import UserError
from genoattn.genome.mutate import Mutation, Rates
from genoattn.genome.regions import Interval, Splits, Windows, split_blocks, split_records
from genoattn.genome.store import Genome, open_genome
from genoattn.genome.variants import read_variants, to_mutations
from genoattn.model import SequenceModel
from genoattn.tasks.aligned import Aligned
from genoattn.tasks.curriculum import Curriculum, Stage
from genoattn.tokenizers.base import BaseTokenizer
from genoattn.trials import Trial, planted, real

SHIPPED = ("NCTC8325.fa.gz", ("RN4220.vcf.gz", "N315.vcf.gz"))
PARTS = ("tokenizer", "task", "model", "attention")


@dataclass(frozen=True)
class Source:
    """A genome with its splits, and the VCFs of real mutations of it."""

    genome: Genome
    splits: Splits
    vcfs: tuple[Path, ...]


@dataclass(frozen=True)
class Parts:
    """What a model is made of and what it is made for."""

    tokenizer: BaseTokenizer
    task: Aligned
    model: SequenceModel


def build(config: Mapping, attention: str = "attention") -> Parts:
    """The parts that a config (or a saved description) names; `attention` is the key of the layer's node."""
    node = OmegaConf.create({name: config[name] for name in {*PARTS, attention}})
    tokenizer, task = instantiate(node.tokenizer), instantiate(node.task)
    model = instantiate(node.model)(
        vocabulary=tokenizer.vocabulary,
        outputs={name: output.classes for name, output in task.outputs.items()},
        reach=task.reach,
        attention=instantiate(node[attention]),
    )
    return Parts(tokenizer, task, model)


def open_source(data: DictConfig, task: Aligned, seed: int) -> Source:
    """The genome that the config names, or the one that ships with its VCFs, split for windows of this task."""
    folder = genomes_dir()
    fastas = _paths(data.fasta) or [folder / SHIPPED[0]]
    shipped = data.fasta is None and data.vcf is None
    vcfs = [folder / name for name in SHIPPED[1]] if shipped else _paths(data.vcf)
    genome = open_genome(fastas, Path(data.cache) if data.cache else None, data.soft_mask)
    return Source(genome, divide(genome, task, data.length, data.split, seed), tuple(vcfs))


def divide(genome: Genome, task: Aligned, length: int, split: str, seed: int) -> Splits:
    """The splits of a genome by `block` or by `record`, for windows of `length` sample bases."""
    span = task.span(length)
    if split == "record":
        return split_records(genome.names, genome.lengths, span, seed=seed)
    return split_blocks(genome.lengths, span, names=genome.names)


def examples(
    source: Source, intervals: tuple[Interval, ...], data: DictConfig, task: Aligned, seed: int, total: int,
    curriculum: Curriculum,
) -> Examples:  # fmt: skip
    """Examples of a task from windows within intervals."""
    windows = Windows(source.genome, intervals, task.span(data.length), data.max_unknown)
    return Examples(windows, task, data.length, seed, curriculum, total)


def validation_trial(source: Source, data: DictConfig, test: DictConfig, task: Aligned) -> Trial:
    """Planted mutations in the validation blocks, on which thresholds are chosen."""
    return _planted("validation", source, source.splits.validation, data, test, task, test.threshold_windows)


def trials(source: Source, data: DictConfig, test: DictConfig, task: Aligned, known: bool) -> list[Trial]:
    """The planted test set, then each VCF on the whole genome and, where the genome is `known`, on its test blocks."""
    tests = [_planted("planted", source, source.splits.test, data, test, task, test.windows)]
    for path in source.vcfs:
        name = path.name.removesuffix(".gz").removesuffix(".vcf").removesuffix(".bcf")
        held_out = source.splits.test if known else ()
        whole, part = real(name, source.genome, task, _mutations(path, source.genome), data.length, held_out)
        tests += [whole, part] if part else [whole]
    return tests


def _planted(
    name: str, source: Source, intervals: tuple[Interval, ...], data: DictConfig, test: DictConfig, task: Aligned,
    count: int,
) -> Trial:  # fmt: skip
    rates = Rates(test.rate, test.snv, test.mnv, test.insertion, test.deletion, test.longest, test.transitions)
    drawn = examples(source, intervals, data, task, test.seed, 1, Curriculum())
    return planted(name, [drawn.make(number, Stage(rates, data.length)) for number in range(count)])


def _mutations(path: Path, genome: Genome) -> dict[int, list[Mutation]]:
    """A VCF's mutations by record; says what was passed over."""
    lengths = dict(zip(genome.names, genome.lengths, strict=True))
    variants = read_variants(path, lengths)
    passed_over = dict(variants.skipped)
    by_record: dict[int, list[Mutation]] = {}
    for contig, found in variants.by_contig.items():
        if found:
            record = genome.index(contig)
            kept = to_mutations(found, genome.bases(record, 0, lengths[contig]), contig, path)
            by_record[record] = kept.mutations
            passed_over["overlapping"] = passed_over.get("overlapping", 0) + kept.overlapping
    left_out = ", ".join(f"{count} {reason}" for reason, count in passed_over.items() if count)
    if not by_record:
        raise UserError(f"{path} holds no mutation to test{f' ({left_out})' if left_out else ''}")
    total = sum(map(len, by_record.values()))
    print(f"{path.name}: {total} mutations{f', passed over: {left_out}' if left_out else ''}")
    return by_record


def _paths(value: object) -> list[Path]:
    """The one path, the several, or none that a config names, from the folder where the program was started."""
    if value is None:
        return []
    return [Path(str(one)) for one in ([value] if isinstance(value, str) else list(value))]  # type: ignore[call-overload]
