"""A model folder from a stranger: it names classes of genoattn and nothing else, or it is refused in a sentence."""

import copy
import itertools
import json
import math
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import genoattn
from genoattn.cli.main import main
from genoattn.data.tasks.base import Task
from genoattn.errors import UserError
from genoattn.models.build import build_from_card, load_predictor
from genoattn.models.card import DESCRIPTION, WEIGHTS, ModelCard
from genoattn.models.checkpoint import save_model
from genoattn.models.nodes import Place, check_node, complete_node

LAYERS = "genoattn.attention"
TASKS = "genoattn.data.tasks"
TOKENIZERS = "genoattn.data.tokenizers"
MODEL = {"_target_": "genoattn.models.sequence_model.SequenceModel", "_partial_": True, "dim": 8, "depth": 2}

WINDOW = {"_target_": f"{LAYERS}.window.WindowAttention", "_partial_": True, "left": 4, "right": 4}
FULL = {"_target_": f"{LAYERS}.full.FullAttention", "_partial_": True}

KINDS: dict[str, dict[str, dict[str, Any]]] = {
    "window": {"attention": WINDOW},
    "hybrid": {
        "attention": {
            "_target_": f"{LAYERS}.hybrid.cycle",
            "layers": ["window", "full"],
            "kinds": {"window": WINDOW, "full": FULL},
        },
        "task": {"_target_": f"{TASKS}.language_modeling.LanguageModeling"},
        "tokenizer": {"_target_": f"{TOKENIZERS}.kmer.KmerTokenizer", "k": 2},
    },
    "gated": {
        "attention": {"_target_": f"{LAYERS}.gated.GatedAttention", "_partial_": True, "wrapped": WINDOW},
        "task": {"_target_": f"{TASKS}.paired.Paired"},
        "tokenizer": {
            "_target_": f"{TOKENIZERS}.bpe.BpeTokenizer",
            "vocabulary_size": 20,
            "merges": ["A C", "AC G"],
        },
    },
    "pyramid": {
        "attention": {"_target_": f"{LAYERS}.pyramid.PyramidAttention", "_partial_": True, "pool_sizes": [1, 2]},
        "task": {
            "_target_": f"{TASKS}.variant_classification.VariantClassification",
            "file": "a.vcf",
            "classes": {"benign": ["B"], "pathogenic": ["P", "LP"]},
        },
    },
    "topk": {
        "attention": {"_target_": f"{LAYERS}.topk.TopKAttention", "_partial_": True},
        "task": {"_target_": f"{TASKS}.associative_recall.AssociativeRecall"},
    },
}
"""Nodes of cards by a name: tokenizer nucleotide and task side_by_side where they name none."""


def card_of(kind: str) -> ModelCard:
    nodes = {
        "tokenizer": {"_target_": f"{TOKENIZERS}.nucleotide.NucleotideTokenizer"},
        "task": {"_target_": f"{TASKS}.side_by_side.SideBySide"},
        "model": MODEL,
        **KINDS[kind],
    }
    thresholds = {"thresholds": {"substitution": 0.5, "insertion": 0.5, "deletion": 0.5}}
    return ModelCard(
        name=kind,
        **{name: complete_node(node) for name, node in nodes.items()},
        reverse_complement="none",
        length=64,
        split="block",
        min_length=None,
        seed=1,
        genome=("aa",),
        calibration=thresholds,
        untrained_calibration=thresholds,
    )


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A saved model of every kind, with its folder."""
    folders = {kind: tmp_path_factory.mktemp(kind) for kind in KINDS}
    for kind, folder in folders.items():
        save_model(folder, build_from_card(card_of(kind), seed=0).model, card_of(kind))
    return folders


@pytest.fixture
def folder(models: Mapping[str, Path], tmp_path: Path) -> Path:
    """A copy of the folder of the kind window."""
    for name in (DESCRIPTION, WEIGHTS):
        (tmp_path / name).write_bytes((models["window"] / name).read_bytes())
    return tmp_path


def rewrite(folder: Path, **changes: Any) -> None:
    values = json.loads((folder / DESCRIPTION).read_text())
    (folder / DESCRIPTION).write_text(json.dumps(values | changes))


@pytest.mark.parametrize("kind", KINDS)
def test_models_of_every_kind_are_opened(kind: str, models: Mapping[str, Path]) -> None:
    loaded, built = load_predictor(models[kind], "cpu"), build_from_card(card_of(kind), seed=0)
    state = loaded.predictor.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in built.model.state_dict().items())
    assert loaded.predictor.tokenizer.describe() == loaded.card.tokenizer
    assert json.loads((models[kind] / DESCRIPTION).read_text())["attention"] == loaded.card.attention


TOUCH = "stolen"
"""Name of the file that an exploit would leave in the working folder."""

EXPLOITS: dict[str, dict[str, Any]] = {
    "popen": {"_target_": "psutil.Popen", "args": ["touch", TOUCH]},
    "shell": {"_target_": "torch.utils.collect_env.run", "command": f"touch {TOUCH}"},
    "eval": {"_target_": "sympy.sympify", "a": f"open({TOUCH!r}, 'w')"},
    "method": {"_target_": "pathlib.Path.write_text", "self": {"_target_": "pathlib.Path"}, "data": "x"},
    "copy": {"_target_": "shutil.copyfile", "src": "/etc/hostname", "dst": TOUCH},
    "own function": {"_target_": "genoattn.files.write_text", "file": TOUCH, "text": "x"},
    "system": {"_target_": "os.system", "command": f"touch {TOUCH}"},
    "alias": {"_target_": "genoattn.files.os.system", "command": f"touch {TOUCH}"},
    "class of an alias": {"_target_": "genoattn.files.Path", "_args_": [TOUCH]},
    "entry point": {"_target_": "genoattn.__main__.main"},
    "builtin": {"_target_": "builtins.exec", "_args_": [f"open({TOUCH!r}, 'w')"]},
    "no module": {"_target_": "eval"},
    "no name": {"_target_": ".."},
    "no text": {"_target_": {"_target_": "os.system"}},
    "abstract": {"_target_": "genoattn.data.tasks.base.Task"},
    "another kind": {"_target_": "genoattn.models.predictor.Predictor"},
    "hybrid elsewhere": {"_target_": f"{LAYERS}.hybrid.cycle", "layers": [], "kinds": {}},
}
"""Nodes that run code, or would, where their `_target_` is called."""


@pytest.mark.parametrize("place", ["tokenizer", "task", "model", "attention"])
@pytest.mark.parametrize("exploit", EXPLOITS)
def test_nothing_that_a_card_names_is_run(
    exploit: str, place: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if exploit == "hybrid elsewhere" and place == "attention":
        return
    monkeypatch.chdir(folder)
    for name in ("psutil.Popen", "os.system", "subprocess.Popen"):
        monkeypatch.setattr(name, called)
    for node in (EXPLOITS[exploit], {**EXPLOITS[exploit], "_partial_": True}):
        rewrite(folder, **{place: node})
        (folder / WEIGHTS).unlink(missing_ok=True)  # an exploit needs none
        with pytest.raises(UserError, match=rf"model\.json: {place}\._target_: "):
            genoattn.load(folder)
    assert sorted(file.name for file in folder.iterdir()) == [DESCRIPTION]


def called(*_: object, **__: object) -> None:
    raise AssertionError("was called")


HEADS = {"_target_": "genoattn.attention.modules.projections.HeadOptions", "count": 2}


@pytest.mark.parametrize(
    ("node", "change", "sentence"),
    [
        ("attention", {"_args_": [8]}, r"attention\._args_: a saved model may not hold this key"),
        ("attention", {"_recursive_": False}, r"attention\._recursive_: a saved model may not hold this key"),
        ("task", {"_convert_": "all"}, r"task\._convert_: a saved model may not hold this key"),
        ("task", {"_partial_": True}, r"task\._partial_: expected no such key, got True"),
        ("attention", {"_partial_": 1}, r"attention\._partial_: expected true, got 1"),
        ("attention", {"dim": 8}, r"attention\.dim: a saved model may not hold this key, because tokenizer, task and"),
        ("model", {"attention": FULL}, r"model\.attention: a saved model may not hold this key, because"),
        ("attention", {"left": {"_target_": "os.getcwd"}}, r"attention\.left: expected an integer, got {'_target_'"),
        ("attention", {"backend": "${oc.env:HOME}"}, r"attention\.backend: expected plain text without"),
        ("attention", {"backend": "???"}, r"attention\.backend: expected plain text without"),
        ("attention", {"heads": {"_target_": "os.getcwd"}}, r"attention\.heads\._target_: os\.getcwd is not of genoat"),
        (
            "attention",
            {"heads": {"_target_": f"{LAYERS}.none.NoAttention"}},
            "expected a class of genoattn that is a H",
        ),
        (
            "attention",
            {"heads": {**HEADS, "count": 0}},
            r"attention\.heads\.count|Key 'attention.heads.positions' is m",
        ),
        ("attention", {"heads": 4}, r"attention\.heads: expected a mapping with a _target_, got 4"),
        ("tokenizer", {"unknown": "\ud800"}, r"tokenizer\.unknown: expected plain text .*got \\ud800"),
    ],
)
def test_a_node_holds_only_settings(node: str, change: dict[str, Any], sentence: str, folder: Path) -> None:
    values = json.loads((folder / DESCRIPTION).read_text())
    rewrite(folder, **{node: values[node] | change})
    with pytest.raises(UserError, match=rf"model\.json: .*{sentence}"):
        genoattn.load(folder)


def test_a_model_of_a_time_without_backends_is_read(folder: Path) -> None:
    values = json.loads((folder / DESCRIPTION).read_text())["attention"]
    rewrite(folder, attention={name: value for name, value in values.items() if name != "backend"})
    assert genoattn.load(folder)
    rewrite(folder, attention={name: value for name, value in values.items() if name != "left"})
    with pytest.raises(UserError, match=r"Key 'attention\.left' is missing"):
        genoattn.load(folder)


class Plain(Task):
    """Takes whatever it is given, as a class of a trusted package may; no node may stand in it."""

    def __init__(self, items: Any, by_name: Mapping[str, Any] | None, layers: list[Any], **rest: Any):
        pass

    reference_length = example = lambda *_: 0  # type: ignore[assignment]


@pytest.mark.parametrize(
    "settings",
    [
        {"items": {"_target_": "os.getcwd"}},
        {"items": [{"inner": {"_target_": "os.getcwd"}}]},
        {"by_name": {"a": {"_target_": f"{LAYERS}.none.NoAttention"}}},
        {"layers": [{"_target_": "os.getcwd"}]},
        {"other": {"_target_": "os.getcwd"}},
    ],
)
def test_no_node_stands_in_a_plain_value(settings: dict[str, Any]) -> None:
    node = {"_target_": f"{__name__}.Plain", "items": 1, "by_name": None, "layers": [], **settings}
    with pytest.raises(UserError, match="expected a plain value, got a mapping with a _target_"):
        check_node(node, Place(Task, False), "task", [__name__.partition(".")[0]])


def plain_nodes(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every key of a card, of those in nodes and lists too."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield (*path, key)
        yield from plain_nodes(item, (*path, key))


def edits(values: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """A card without one of its keys, and with another edit of that key, in turn, for every key."""
    others = itertools.cycle(["rename", "add", None, True, -1, 0, 10**12 + 1, 1.5, "word", [], [None], {}, {"a": 1}])
    for path in plain_nodes(values):
        if values["name"] != "window" and path[0] not in KINDS[values["name"]]:
            continue  # as in the card of the kind window
        *above, last = path
        for edit in ("drop", next(others)):
            changed = copy.deepcopy(values)
            inside: Any = changed
            for step in above:
                inside = inside[step]
            if edit in ("drop", "rename"):
                value = inside.pop(last)
            if edit in ("rename", "add") and isinstance(inside, dict):
                inside[f"{last}x"] = value if edit == "rename" else 1
            elif edit not in ("drop", "rename"):
                inside[last] = edit
            yield f"{'.'.join(map(str, path))}: {edit}", changed


@pytest.mark.parametrize("kind", KINDS)
def test_an_edited_card_is_a_sentence_or_a_model(kind: str, models: Mapping[str, Path], tmp_path: Path) -> None:
    (tmp_path / WEIGHTS).write_bytes((models[kind] / WEIGHTS).read_bytes())
    values = json.loads((models[kind] / DESCRIPTION).read_text())
    opened = []
    for edit, changed in edits(values):
        (tmp_path / DESCRIPTION).write_text(json.dumps(changed))
        with suppress(UserError):
            load_predictor(tmp_path, "cpu")
            opened.append(edit)
    # Lists and mappings of any length, and a setting that changes no result.
    free = re.compile(r"genome|calibration|classes|merges|kinds|layers|pool_sizes|backend: drop")
    assert not [edit for edit in opened if edit.endswith((": drop", ": rename", ": add")) and not free.search(edit)]
    assert len(opened) < len(list(edits(values))) / 4


def test_deep_nesting_is_a_sentence(folder: Path) -> None:
    for depth in (30, 900, 100_000):
        text = (folder / DESCRIPTION).read_text().replace('"aa"', "[" * depth + "]" * depth)
        (folder / DESCRIPTION).write_text(text)
        with pytest.raises(UserError, match=r"model\.json.* nested "):
            genoattn.load(folder)


LARGER = r"model\.json: it describes a model far larger than weights\.safetensors beside it, which holds"


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("dim", 2**22, LARGER),
        ("depth", 2**40, LARGER),
        ("mlp_ratio", 1e6, LARGER),
        ("alignment_kernel", 2**24 + 1, LARGER),
        ("alignment_filters", 2**24, LARGER),
        ("dim", 2**50, "no model can be built of these settings"),
        ("dim", 16, r"weights\.safetensors does not fit this model: it holds embed\.weight of shape \[17, 8\] where"),
        ("depth", 3, r"weights\.safetensors does not fit this model: it lacks blocks"),
        ("mlp_ratio", math.inf, r"model\.mlp_ratio: expected a finite number"),
    ],
)
def test_no_number_of_a_card_fills_the_memory(key: str, value: Any, sentence: str, folder: Path) -> None:
    values = json.loads((folder / DESCRIPTION).read_text())
    rewrite(folder, model=values["model"] | {key: value})
    with pytest.raises(UserError, match=sentence):
        genoattn.load(folder)


EXAMPLE = Path(__file__).parents[2] / "docs/examples/my_layers"

OTHER_LAYERS = """
import os, sys
from my_layers.moving_average import MovingAverageAttention

class Fake:
    pass

def factory(dim: int, causal: bool):
    return MovingAverageAttention(dim, causal)
"""


@pytest.fixture
def other_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A saved model whose layer is of the package my_layers, which is not imported yet."""
    (tmp_path / "unrelated.py").write_text(OTHER_LAYERS)
    for path in (EXAMPLE, tmp_path):
        monkeypatch.syspath_prepend(str(path))
    node = {"_target_": "my_layers.moving_average.MovingAverageAttention", "_partial_": True}
    card = replace(card_of("window"), attention=complete_node(node))
    save_model(tmp_path / "model", build_from_card(card, 0, ["my_layers"]).model, card)
    forget()
    yield tmp_path / "model"
    forget()


def forget() -> None:
    for name in ("my_layers", "my_layers.moving_average", "unrelated"):
        sys.modules.pop(name, None)


def test_a_layer_of_another_package_needs_trust(other_package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for trust in ([], ["unrelated", "my_layers.moving_average"]):
        with pytest.raises(UserError, match=r"my_layers\..* is not of genoattn, .* trust the package my_layers, g"):
            genoattn.load(other_package, trust=trust)
    assert "my_layers" not in sys.modules and capsys.readouterr().out == ""
    with pytest.raises(UserError, match=r"trust: expected a list of packages, got my_layers; write \[my_layers\]"):
        genoattn.load(other_package, trust="my_layers")
    genoattn.load(other_package, trust=["my_layers"])
    said = "trust: this model uses my_layers.moving_average.MovingAverageAttention, whose code is run\n"
    assert capsys.readouterr().out == said


@pytest.mark.parametrize("name", ["factory", "Fake", "os.system", "sys", "MovingAverageAttention", "no_such", "a.b"])
def test_trust_in_a_package_is_for_its_own_layers(name: str, other_package: Path) -> None:
    rewrite(other_package, attention={"_target_": f"unrelated.{name}", "_partial_": True})
    with pytest.raises(UserError, match=r"attention\._target_: (expected a class of unrelated that is a Att|unre)"):
        genoattn.load(other_package, trust=["unrelated", "my_layers"])


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("program", ["evaluate", "context", "tokenizer-report", "finetune"])
def test_every_program_refuses_what_a_stranger_names(
    program: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(folder)
    rewrite(folder, task=EXPLOITS["shell"])
    assert main([program, f"checkpoint={folder}", f"hydra.run.dir={folder}/out"]) == 2
    assert "task._target_: torch.utils.collect_env.run is not of genoattn" in capsys.readouterr().err
    assert not (folder / TOUCH).exists()


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("sibling", ["control", "pretrained"])
def test_evaluate_refuses_what_a_sibling_names(
    sibling: str, models: Mapping[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("model", f"{sibling}/model"):
        shutil.copytree(models["window"], tmp_path / name)
    rewrite(tmp_path / sibling / "model", attention=EXPLOITS["popen"])
    (tmp_path / "a.fa").write_text(f">a\n{'ACGTTGCA' * 1500}\n")
    words = (f"checkpoint={tmp_path}", f"data.fasta={tmp_path}/a.fa", f"hydra.run.dir={tmp_path}/out")
    assert main(["evaluate", *words]) == 2
    assert f"{sibling}/model/model.json: attention._target_: psutil.Popen is not of gen" in capsys.readouterr().err


@pytest.mark.usefixtures("alone")
def test_programs_take_packages_to_trust(other_package: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("context", f"checkpoint={other_package}", f"hydra.run.dir={other_package}/out", "data.length=100000000")
    assert main([*words]) == 2
    assert "is not of genoattn" in capsys.readouterr().err
    assert main([*words, "trust=[my_layers]"]) == 2
    output = capsys.readouterr()
    assert "trust: this model uses my_layers" in output.out and "data.length" in output.err
