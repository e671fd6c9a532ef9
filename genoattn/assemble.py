"""From a config to live parts: the genome and its splits, tokenizer, task, model, and examples of a task."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from genoattn.checkpoint import load_weights
from genoattn.config import genomes_dir
from genoattn.data import Examples, VariantMaker, WindowMaker
from genoattn.errors import UserError
from genoattn.genome.labels import Labelled, read_labelled, split_genes, within
from genoattn.genome.regions import Interval, Splits, Windows, held_out, split_blocks, split_records
from genoattn.genome.store import Genome, open_genome
from genoattn.parts import Parts
from genoattn.tasks.base import Comparison, Task
from genoattn.tasks.curriculum import Curriculum
from genoattn.tasks.variant import VariantEffect
from genoattn.tokenizers.contract import Tokenizer

SHIPPED = ("NCTC8325.fa.gz", ("RN4220.vcf.gz", "N315.vcf.gz"))
LEARNED_FROM = 4096
"""Bases of a stretch from which a tokenizer learns."""

NEEDED = (
    "tokenizer",
    "task",
    "model",
    "attention",
    "name",
    "kept",
    "untrained",
    "length",
    "split",
    "seed",
    "genome",
    "rc",
)
"""What a model's description says besides its weights."""


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


def build(config: Mapping, task: Task, tokenizer: Tokenizer, attention: str = "attention") -> Parts:
    """The model that a config (or a saved description) names; `attention` is the key of the layer's node."""
    node = OmegaConf.create({name: config[name] for name in ("model", attention)})
    sizes = {
        name: output.classes * (tokenizer.span if output.level == "base" else 1) or tokenizer.vocabulary
        for name, output in task.outputs.items()
    }
    model = instantiate(node.model)(
        vocabulary=tokenizer.vocabulary + (task.segments > 1),  # the separator comes after the tokenizer's ids
        outputs={name: size for name, size in sizes.items() if task.outputs[name].level != "window"},
        verdicts={name: size for name, size in sizes.items() if task.outputs[name].level == "window"},
        reach=task.reach if task.side_by_side else None,
        segments=task.segments,
        attention=instantiate(node[attention]),
    )
    if reason := task.refuse(tokenizer.span, model.causal, tokenizer.overlap):
        raise UserError(f"this task cannot be set to this model: {reason}")
    return Parts(tokenizer, task, model)


def load(home: Path, about: dict) -> Parts:
    """The parts of a saved model, its weights in place."""
    missing = [key for key in NEEDED if key not in about]
    if missing:
        raise UserError(f"{home} lacks {', '.join(missing)} in its description")
    parts = build(about, instantiate(about["task"]), build_tokenizer(about["tokenizer"], None, about["seed"]))
    load_weights(home, parts.model)
    return parts


def build_tokenizer(node: Mapping, source: Source | None, seed: int) -> Tokenizer:
    """The tokenizer of a config; one that must learn does so from the training blocks."""
    tokenizer: Tokenizer = instantiate(node)
    if not tokenizer.trained:
        assert source is not None, "a saved tokenizer has learned"
        tokenizer.train(stretches(source, seed))
    return tokenizer


def stretches(source: Source, seed: int):
    """Stretches of the training blocks in random order, each block cut into stretches of equal length."""
    whole = [
        Interval(block.record, start, min(start + LEARNED_FROM, block.stop))
        for block in source.splits.train
        for start in range(block.start, block.stop, LEARNED_FROM)
    ]
    for number in np.random.default_rng(seed).permutation(len(whole)).tolist():
        yield source.genome.bases(*whole[number])


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
