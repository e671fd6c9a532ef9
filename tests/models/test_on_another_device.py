"""Every task and every layer on a device that is not the CPU: no tensor stays behind, and Python asks nothing of it.

Tensors on `meta` have no numbers, so that what a GPU would have to be waited for is an error here. Operators are
watched: none may be given tensors of two devices, forward, in the loss and in the backward pass.
"""

import contextlib
from collections.abc import Iterator
from functools import cache, partial
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from genoattn.attention.base import TokenLayout
from genoattn.cli.values import recipe_of, value_of
from genoattn.config.compose import compose
from genoattn.data.batch import Batch
from genoattn.data.curriculum import Curriculum
from genoattn.data.source import build_dataset, open_data_source
from genoattn.data.tasks.base import Task
from genoattn.data.tasks.variant_classification import VariantClassification
from genoattn.data.tokenizers.base import Tokenizer
from genoattn.genome.alphabet import decode_bases
from genoattn.models import predictor
from genoattn.models.build import build_model
from genoattn.paths import conf_dir
from genoattn.training.loss import loss

META = torch.device("meta")
LAYERS = sorted(path.stem for path in (conf_dir() / "attention").glob("*.yaml"))
TASKS = {path.stem: [f"task={path.stem}"] for path in sorted((conf_dir() / "task").glob("*.yaml"))}
TASKS["causal"] = ["task=pretrain", "task.objective=causal", "model.causal=true"]
TASKS["recall"] += ["task.pairs=1", "task.key=6", "task.value=2"]
TASKS["conditional"] += ["model.causal=true"]
TASKS["frame"] += ["task.shortest=60"]
TASKS["both strands"] = ["task=interleaved", "reverse_complement=equivariant"]
OF_EVERY_TASK = ("window", "linear", "full", "hyena")
STACKS = ("based", "hybrid", "striped")
CASES = [
    *(("interleaved", layer) for layer in LAYERS),
    *((task, layer) for task in TASKS for layer in OF_EVERY_TASK if task != "interleaved"),
]
WAIT = {("interleaved", layer) for layer in ("nsa", "pyramid", "sparse", "topk")} | {
    (task, "window") for task in ("paired", "variant")
}
"""Cases whose operators, computed by torch, still ask the device for a number."""
SMALL = ("experiment=smoke", "model.block_conv=3", "data.batch=2")


class OneDevice(TorchDispatchMode):
    """Raises if an operator is given tensors of two devices; a number may come from the CPU."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        tensors = [leaf for leaf in tree_leaves((args, kwargs or {})) if isinstance(leaf, Tensor) and leaf.dim()]
        assert len({tensor.device for tensor in tensors}) < 2, f"{func} is given tensors of two devices"
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """By task the words of its data: a genome, labelled regions and labelled variants."""
    folder = tmp_path_factory.mktemp("device")
    bases = decode_bases(np.random.default_rng(0).integers(0, 4, 9000, np.uint8))
    (folder / "a.fa").write_text(f">chr\n{bases}\n")
    rows = [
        f"chr\t{at + 1}\t{bases[at]}\t{'ACGT'['CGTA'.index(bases[at])]}\t{'xy'[at // 7 % 2]}"
        for at in range(0, 9000, 7)
    ]
    (folder / "a.bed").write_text("\n".join(f"chr\t{at}\t{at + 40}\t{'xy'[at // 70 % 2]}" for at in range(0, 8900, 70)))
    (folder / "a.tsv").write_text("\n".join(["chrom\tpos\tref\talt\tkind", *rows]) + "\n")
    variants = [f"task.file={folder / 'a.tsv'}", "task.label=kind", "task.classes={benign: [x], pathogenic: [y]}"]
    given = {"region": [f"task.file={folder / 'a.bed'}", "task.classes=[x,y]"], "variant": variants}
    return {task: [f"data.fasta={folder / 'a.fa'}", *given.get(task, [])] for task in TASKS}


@pytest.fixture
def no_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    """Autocast knows no `meta`."""
    real = torch.autocast
    monkeypatch.setattr(
        torch,
        "autocast",
        lambda kind, *given, **words: contextlib.nullcontext() if kind == "meta" else real(kind, *given, **words),
    )
    enabled = torch.is_autocast_enabled
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda kind="cuda": kind != "meta" and enabled(kind))


def asked_on_the_cpu(layout: TokenLayout, real: TokenLayout) -> TokenLayout:
    """A layout with what Python asks of it, read from the same one on the CPU."""
    for name in ("segments", "alternating", "boundary", "positions_in_pairs", "_host_segments"):
        layout.__dict__[name] = getattr(real, name)
    if "turned" not in layout.__dict__:
        turned, back = layout.turned, real.turned
        turned.__dict__["turned"] = layout
        asked_on_the_cpu(turned, back)
    return layout


@contextlib.contextmanager
def on_meta(batch: Batch) -> Iterator[Batch]:
    """The batch on `meta`; within it, its layout knows what a batch on a GPU is asked once."""
    moved, real = batch.to(META), predictor.token_layout
    if getattr(moved, "host", None) is not None:
        yield moved
        return
    known = {id(moved): batch, id(moved.reverse_complement): batch.reverse_complement}

    def layout(one: Batch) -> TokenLayout:
        mine = known[id(one)]
        assert mine is not None
        answers = real(mine)
        mask = None if answers.padding_mask is None else one.padding_mask
        return asked_on_the_cpu(TokenLayout(mask, one.position_ids, one.segment_ids), answers)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(predictor, "token_layout", layout)
        yield moved


class Shown(NamedTuple):
    """A task with a batch of it on the CPU, and what builds a model for it."""

    task: Task
    tokenizer: Tokenizer
    model: Any
    batch: Batch


@cache
def shown_by(task: str, words: tuple[str, ...]) -> Shown:
    """The task of these words; made once for all layers."""
    config = compose("train", [*SMALL, *TASKS[task], *words])
    recipe, of_task, tokenizer = recipe_of(config), value_of(config.task), value_of(config.tokenizer)
    source = open_data_source(recipe.data, of_task, recipe.seed)
    if isinstance(of_task, VariantClassification):
        of_task.set_targets(source.labelled["train"])
    both = recipe.reverse_complement == "equivariant"
    dataset = build_dataset(source, "train", recipe.data, of_task, 0, 2, Curriculum())
    return Shown(of_task, tokenizer, value_of(config.model), dataset.batch(0, 2, tokenizer, both))


@cache
def attention_of(layer: str, causal: bool) -> Any:
    """What builds a layer, as its config says with the heads of the default task."""
    return value_of(compose("train", [*SMALL, f"attention={layer}", f"model.causal={causal}"]).attention)


@pytest.mark.usefixtures("no_autocast")
@pytest.mark.parametrize(("task", "layer"), CASES)
def test_a_step(task: str, layer: str, labels: dict[str, list[str]]) -> None:
    shown = shown_by(task, tuple(labels[task]))
    build = partial(shown.model, depth=1 + (layer in STACKS))
    causal = TASKS[task][-1] == "model.causal=true"
    model = build_model(build, attention_of(layer, causal), shown.task, shown.tokenizer, 0).model
    model.to(META).train()
    try:
        with on_meta(shown.batch) as moved, OneDevice():
            logits = predictor.predict(model, moved, shown.task.outputs)
            loss(logits, moved.targets, shown.task.outputs).total.backward()
    except RuntimeError as error:
        if (task, layer) in WAIT and "item() cannot be called on meta" in str(error):
            pytest.skip("asks the device for a number")
        raise
    assert all(value.device == META for value in logits.values())
    weights = dict(model.named_parameters())
    assert any(weight.grad is not None for weight in weights.values())
    assert all(weight.grad is None or weight.grad.device == META for weight in weights.values())


def test_two_devices_are_an_error() -> None:
    with OneDevice(), pytest.raises(AssertionError, match="two devices"):
        torch.zeros(3, device=META)[torch.arange(2)]
    with OneDevice():
        assert (torch.zeros(3, device=META) + torch.tensor(1.0)).device == META


def test_every_task_and_layer_is_there() -> None:
    assert {task for task, _ in CASES} == set(TASKS) and {layer for _, layer in CASES} == set(LAYERS)
    assert len(CASES) >= 60 and len(set(CASES)) == len(CASES)
