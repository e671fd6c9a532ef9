"""Mistakes read well: each is a sentence with its path, what was expected, what came and the nearest right name."""

import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import hydra.utils
import pytest
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ReadonlyConfigError

from genoattn import paths
from genoattn.cli.main import main
from genoattn.config import compose as configs
from genoattn.config import schema as spines
from genoattn.config.compose import check, choices, compose, run_program
from genoattn.config.validate import Between, Node, mistakes
from genoattn.errors import UserError, nearest
from genoattn.paths import conf_dir, genomes_dir

CHECKOUT = Path(__file__).parents[2]


class Layer:
    """What the small configs build; refuses a prime number of heads, as a constructor may."""

    def __init__(
        self,
        dim: int,
        heads: int = 4,
        scale: float | None = None,
        kind: Literal["soft", "hard"] = "soft",
        reaches: Sequence[int] = (),
        betas: tuple[float, float] = (0.9, 0.99),
        gate: bool = False,
        rate: Annotated[float, Between(above=0, maximum=1)] = 0.5,
        inner: Node | None = None,
    ):
        if heads == 7:
            raise UserError(f"heads must not be prime, got {heads}")


@dataclass
class Trainer:
    max_steps: Annotated[int, Between(minimum=0)]
    max_seconds: Annotated[float, Between(above=0)] | None
    devices: int | str


@dataclass
class Run:
    seed: int
    attention: Node
    trainer: Trainer
    checkpoint: str | None = None


TREE = {
    "train": """
defaults: [_self_, attention: linear, trainer: short, experiment: null]
seed: 1
checkpoint: null
hydra: {job: {chdir: false}, run: {dir: "runs/train/${now:%Y}"}, sweep: {dir: "runs/sweep"}}
""",
    "attention/linear": "# Linear attention.\n_target_: tests.config.test_validate.Layer\n_partial_: true\nheads: 4\n",
    "attention/full": "_target_: tests.config.test_validate.Layer\n_partial_: true\nheads: 4\nscale: null\n",
    "attention/none": "_target_: tests.config.test_validate.Layer\n_partial_: true\n",
    "trainer/short": "max_steps: 3\nmax_seconds: null\ndevices: 1\n",
    "experiment/typo": "# @package _global_\ntrainer: {max_stepz: 3}\n",
    "experiment/stale": "# @package _global_\ndefaults: [override /attention: liner]\n",
    "broken": "defaults: [_self_\n",
    "open": "defaults: [_self_, attention: '???']\n",
}


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "conf"
    for name, text in TREE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yaml").write_text(text)
    monkeypatch.setattr(configs, "conf_dir", lambda: folder)
    monkeypatch.setitem(spines.SPINE, "train", Run)
    monkeypatch.chdir(tmp_path)
    return folder


def complaint(overrides: list[str], program: str = "train") -> str:
    with pytest.raises(UserError) as caught:
        check(compose(program, overrides), Run)
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("trainer.max_stes=3", "Key 'trainer.max_stes' is not in the config; nearest is trainer.max_steps"),
        ("max_steps=3", "Key 'max_steps' is not in the config; nearest is trainer.max_steps"),
        ("zebra=3", "Key 'zebra' is not in the config; there are attention, checkpoint, seed, trainer"),
        ("seed.x=3", "Key 'seed.x' is not in the config; nearest is seed"),
        ("~trainer.max_stes", "Key 'trainer.max_stes' is not in the config; nearest is trainer.max_steps"),
        ("hydra.rn.dir=x", "Key 'hydra.rn.dir' is not in the config; nearest is hydra.run.dir"),
        ("atention=full", "Key 'atention' is not in the config; nearest is attention"),
        (
            "attention=liner",
            "attention=liner: there is no conf/attention/liner.yaml; nearest is linear; there are full, linear, none",
        ),
        ("attention=null", "attention=null: there is no conf/attention/null.yaml; there are full, linear, none"),
        ("attention=3", "attention=3: there is no conf/attention/3.yaml; there are full, linear, none"),
        ("experiment=stale", "experiment=stale: there is no conf/attention/liner.yaml; nearest is linear; there are"),
        ("+attention=full", "+attention=full: attention is in the config already; write attention=full"),
        ("+seed=2", "+seed=2: seed is in the config already; write seed=2"),
        ("attention=[full,linear]", "attention=[full,linear]: expected one choice, got a list"),
        ("attention", "'attention': expected key=value, such as attention=linear"),
        ("=3", "'=3': expected key=value"),
        ("checkpoint=~/x", "'checkpoint=~/x' cannot be read as key=value; quote a value with special characters: \""),
        ("trainer.max_steps=[1", "'trainer.max_steps=[1' cannot be read as key=value"),
        ("seed=1,2", "seed=1,2: expected one value, got several; write [1,2] for a list, --multirun for a run each"),
        ("seed=${sed}", "seed: Interpolation key 'sed' not found"),
        ("hydra.run.dir=${sed}", "Interpolation key 'sed' not found"),
        ("checkpoint=???", "checkpoint must be given: checkpoint=…"),
        ("~attention", "Key 'attention' is missing: a run needs it (a mapping with a _target_)"),
        ("+sed=3", "Key 'sed' is not a setting of a run; nearest is seed"),
        ("seed=abc", "seed: expected int, got the string 'abc'"),
        ("seed=1.0", "seed: expected int, got 1.0"),
        ("seed=true", "seed: expected int, got true"),
        ("seed=null", "seed: expected int, got null"),
        ("checkpoint=3", "checkpoint: expected str or null, got 3"),
        ("trainer.devices=[1]", "trainer.devices: expected int or str, got [1]"),
        ("trainer=3", "trainer=3: there is no conf/trainer/3.yaml; there are short"),
        ("trainer.max_steps=-1", "trainer.max_steps: expected at least 0, got -1"),
        ("trainer.max_seconds=0", "trainer.max_seconds: expected more than 0, got 0"),
        ("trainer.max_seconds=soon", "trainer.max_seconds: expected float or null, got the string 'soon'"),
        ("experiment=typo", "Key 'trainer.max_stepz' is not a setting of trainer; nearest is trainer.max_steps"),
        ("attention.heads=four", "attention.heads: expected int, got the string 'four'"),
        (
            "+attention.heds=4",
            "Key 'attention.heds' is not a setting of tests.config.test_validate.Layer; nearest is attention.heads",
        ),
        ("attention._partial_=yep", "attention._partial_: expected true or false, got the string 'yep'"),
        (
            "attention._partial_=false",
            "Key 'attention.dim' is missing: tests.config.test_validate.Layer needs it (int)",
        ),
        ("attention._target_=3", "attention._target_: expected the dotted name of a class or function, got 3"),
        ("attention._target_=tests.config.test_validate.Layr", "tests.config.test_validate.Layr is not there"),
        ("attention._target_=tests.config.test_validate.Layr", "; nearest is Layer"),
        ("attention._target_=no_such.Layer", "attention._target_: no_such.Layer cannot be imported (No module named"),
        (
            "attention._target_=tests.config.test_validate.TREE",
            "tests.config.test_validate.TREE is neither a class nor a function",
        ),
    ],
)
def test_a_mistake_is_a_sentence(tree: Path, override: str, sentence: str) -> None:
    assert sentence in complaint([override])


def test_all_mistakes_are_told_at_once(tree: Path) -> None:
    unread = complaint(["attention=liner", "seed=4", "modle.dim=3", "trainer.max_stes=3", "x=["])
    assert [line.split(" ")[0] for line in unread.splitlines()] == ["attention=liner:", "Key", "Key", "'x=['"]
    assert "seed" not in unread.replace("checkpoint, seed", "")
    unfit = complaint(["seed=abc", "attention.heads=abc", "+attention.rate=2", "trainer.max_steps=-1"])
    assert [line.partition(":")[0] for line in unfit.splitlines()] == [
        "seed",
        "attention.heads",
        "attention.rate",
        "trainer.max_steps",
    ]


def test_what_is_given_twice_is_told(tree: Path) -> None:
    assert complaint(["seed=1", "seed=2"]) == "seed is given twice: seed=1 and seed=2"
    assert "attention is given twice" in complaint(["attention=full", "attention=linear"])


def test_a_setting_of_the_choice_may_come_before_the_choice(tree: Path) -> None:
    overrides = ["attention.scale=0.5", "attention=full"]
    assert compose("train", overrides).attention.scale == 0.5
    assert complaint([*overrides, "seeed=1"]).count("\n") == 0


def test_what_is_wrong_with_the_configs_themselves(tree: Path) -> None:
    assert "broken.yaml" in complaint([], "broken")
    assert "attention" in complaint([], "open")
    assert compose("open", ["attention=full"]).attention.heads == 4
    assert "evaluate" in complaint([], "evaluate")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"scale": 1}, None),
        ({"scale": None}, None),
        ({"scale": True}, "layer.scale: expected float or null, got true"),
        ({"kind": "hrad"}, "layer.kind: expected 'soft' or 'hard', got the string 'hrad'; nearest is hard"),
        ({"kind": True}, "layer.kind: expected 'soft' or 'hard', got true"),
        ({"reaches": [1, 2]}, None),
        ({"reaches": [1, "a"]}, "layer.reaches: expected a list of int, got [1, 'a']"),
        ({"reaches": 3}, "layer.reaches: expected a list of int, got 3"),
        ({"betas": [0.9, 1]}, None),
        ({"betas": [0.9]}, "layer.betas: expected a list of 2, got [0.9]"),
        ({"gate": 1}, "layer.gate: expected bool, got 1"),
        ({"rate": 0}, "layer.rate: expected more than 0, got 0"),
        ({"rate": math.nan}, "layer.rate: expected a number, got nan"),
        ({"inner": {"_target_": "tests.config.test_validate.Layer", "dim": 3}}, None),
        (
            {"inner": {"_target_": "tests.config.test_validate.Layer", "dim": "3"}},
            "layer.inner.dim: expected int, got the string '3'",
        ),
        ({"inner": {"dim": 3}}, "layer.inner: expected a mapping with a _target_ or null, got {'dim': 3}"),
        ({"heads": {"_target_": "tests.config.test_validate.Layer", "dim": 3}}, "layer.heads: expected int, got {"),
    ],
)
def test_a_constructor_is_held_to_its_signature(settings: dict[str, object], sentence: str | None) -> None:
    found = list(mistakes({"layer": {"_target_": "tests.config.test_validate.Layer", "dim": 8, **settings}}))
    assert len(found) == (sentence is not None)
    assert sentence is None or found[0].startswith(sentence)


def test_a_list_of_nodes_is_walked() -> None:
    nodes = [
        {"_target_": "tests.config.test_validate.Layer", "dim": 8},
        {"_target_": "tests.config.test_validate.Layer", "dmi": 8},
    ]
    assert [sentence.partition(" is ")[0] for sentence in mistakes({"stack": nodes})] == [
        "Key 'stack[1].dmi'",
        "Key 'stack[1].dim'",
    ]


def test_other_peoples_constructors() -> None:
    optimiser = {"_target_": "torch.optim.AdamW", "_partial_": True, "lr": "fast", "weight_decy": 0.1}
    first, second = mistakes(optimiser, "optimizer")
    assert first.startswith("optimizer.lr: expected float")
    assert second.endswith("nearest is optimizer.weight_decay")
    assert not list(mistakes({**optimiser, "lr": 1, "weight_decy": 0} | {"_target_": "builtins.dict"}, "optimizer"))


def test_nearest() -> None:
    assert nearest("model.dmi", ["model.dim", "model.depth", "dim"]) == "model.dim"
    assert nearest("lenght", ["data.length", "length.data", "model.dim"]) == "data.length"
    assert nearest("zebra", ["data.length", "model.dim"]) is None
    assert nearest("x", []) is None


def test_nothing_edits_a_config(tree: Path) -> None:
    with pytest.raises(ReadonlyConfigError):
        compose("train", []).seed = 3


def run(overrides: list[str], flags: Sequence[str] = (), raises: BaseException | None = None) -> tuple[int, list]:
    """The exit status of a run whose program notes the seed and folder it was given, then raises."""
    seen = []

    def program(config: DictConfig) -> None:
        seen.append((config.seed, Path(OmegaConf.select(config, "folder", default=".")).exists()))
        with pytest.raises(ReadonlyConfigError):
            config.seed = 3
        if raises is not None:
            raise raises

    return run_program("train", program, overrides, list(flags)), seen


def test_a_run_has_a_folder_and_an_exit_status(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest"])
    assert run(["seed=5"]) == (0, [(5, True)])
    (folder,) = (tmp_path / "runs" / "train").iterdir()
    assert OmegaConf.load(folder / ".hydra" / "overrides.yaml") == ["seed=5"]
    quoted = tmp_path / "it's a run"
    assert run([f'hydra.run.dir="{quoted}"'])[0] == 0
    assert (quoted / ".hydra").is_dir()
    assert run(["seed=1,2"], ["--multirun"]) == (0, [(1, True), (2, True)])
    assert run(["seed=1,x"], ["--multirun"]) == (2, [])
    assert "seed: expected int, got the string 'x'" in capfd.readouterr().err
    assert run([], raises=UserError("chr1:5 holds G"))[0] == 2
    assert capfd.readouterr().err.endswith("chr1:5 holds G\n")
    assert run([], raises=KeyboardInterrupt())[0] == 130
    assert run([], raises=RuntimeError("our own mistake"))[0] == 1
    assert "our own mistake" in capfd.readouterr().err
    (tmp_path / "file").touch()
    assert run(["hydra.run.dir=file"])[0] == run(["hydra.run.dir=file/x"])[0] == 2
    first, second = capfd.readouterr().err.splitlines()
    assert first == "hydra.run.dir: the run folder file cannot be made (File exists)"
    assert second == "hydra.run.dir: the run folder file/x cannot be made (Not a directory)"


def test_what_a_constructor_refuses_is_told(
    tree: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest"])

    def program(config: DictConfig) -> None:
        hydra.utils.instantiate(config.attention, _partial_=False, dim=8)

    assert run_program("train", program, ["attention.heads=7"], []) == 2
    assert capfd.readouterr().err == "heads must not be prime, got 7\n"


def test_help_lists_programs_and_choices(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["--help"]) == 0
    assert "train" in capsys.readouterr().out
    assert main(["train", "--help"]) == 0
    said = capsys.readouterr().out
    assert "attention=linear" in said
    assert "Linear attention." in said
    assert "@package" not in said
    assert main(["trian"]) == 2
    assert "there is no such program; nearest is train" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--multirn"], ["--resolve"], ["-m", "--cfg", "job"], ["--cfg", "jop"]])
def test_a_misspelt_or_stray_flag_ends_with_status_2(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", *flags])
    assert ended.value.code == 2
    assert "genoattn train: error: " in capsys.readouterr().err


def test_configs_and_genomes_are_found_in_a_checkout_and_in_a_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (conf_dir(), genomes_dir()) == (CHECKOUT / "conf", CHECKOUT / "data")
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "genoattn")
    assert (conf_dir(), genomes_dir()) == (tmp_path / "genoattn" / "conf", tmp_path / "genoattn" / "genomes")


PROGRAMS = sorted(file.stem for file in (CHECKOUT / "conf").glob("*.yaml"))
CHOICES = sorted((file.parent.name, file.stem) for file in (CHECKOUT / "conf").glob("*/*.yaml"))
REQUIRED = {"evaluate": ["checkpoint=a.ckpt"], "context": ["checkpoint=a.ckpt"], "finetune": ["checkpoint=a.ckpt"]}


@cache
def groups_of(program: str) -> frozenset[str]:
    return frozenset(choices(program))


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_composes_and_checks(program: str) -> None:
    check(compose(program, REQUIRED.get(program, [])), spines.SPINE[program])


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_checks_and_builds(group: str, choice: str) -> None:
    takers = [program for program in PROGRAMS if group in groups_of(program)]
    assert takers, f"no program's defaults list names the group {group}"
    for program in takers:
        own = ["task.file=x.vcf"] if choice == "variant" else []  # there is none that would fit all
        config = compose(program, [f"{group}={choice}", *own, *REQUIRED.get(program, [])])
        check(config, spines.SPINE[program])
        node = config.get(group)
        if OmegaConf.is_config(node) and "_target_" in node:
            assert callable(hydra.utils.instantiate(node)) or not node.get("_partial_")


@pytest.mark.parametrize(
    ("overrides", "sentences"),
    [
        (["attention=liner", "traner.max_steps=3"], ["nearest is linear", "nearest is trainer.max_steps"]),
        (["hydra.run.dir=/dev/null/x"], ["hydra.run.dir: the run folder /dev/null/x cannot be made"]),
    ],
)
def test_a_mistake_ends_the_script_with_status_2(overrides: list[str], sentences: list[str], tmp_path: Path) -> None:
    command = [sys.executable, str(CHECKOUT / "scripts" / "train.py"), *overrides]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 2, ended.stderr
    told = ended.stderr.splitlines()
    assert [sentence in line for sentence, line in zip(sentences, told, strict=True)] == [True] * len(sentences)
    assert not list(tmp_path.iterdir())
