"""Overrides become a config and a run; a wrong one is a sentence, and nothing is left of a run that was refused."""

import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import hydra.utils
import pytest
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ReadonlyConfigError

from genoattn import paths
from genoattn.config.compose import check, compose, config_of_run, run_program
from genoattn.config.documentation import groups
from genoattn.config.overrides import override, quote, value_in
from genoattn.errors import UserError
from genoattn.paths import conf_dir, genomes_dir

CHECKOUT = Path(__file__).parents[2]


def complaint(overrides: list[str], program: str = "train") -> str:
    with pytest.raises(UserError) as caught:
        check(compose(program, overrides), "train")
    return str(caught.value)


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("trainer.max_stes=3", "Key 'trainer.max_stes' is not in the config; did you mean trainer.max_steps?"),
        ("max_steps=3", "Key 'max_steps' is not in the config; did you mean trainer.max_steps?"),
        ("zebra=3", "Key 'zebra' is not in the config; there are attention, checkpoint, seed, trainer"),
        ("seed.x=3", "Key 'seed.x' is not in the config; did you mean seed?"),
        ("~trainer.max_stes", "~trainer.max_stes: Could not delete from config. 'trainer.max_stes' does not exist"),
        ("hydra.rn.dir=x", "Key 'hydra.rn.dir' is not in the config; did you mean hydra.run.dir?"),
        ("atention=full", "Key 'atention' is not in the config; did you mean attention?"),
        ("attention=liner", "attention=liner: there is no conf/attention/liner.yaml (searched in {conf}); did you"),
        ("attention=null", "attention=null: there is no conf/attention/null.yaml; there are full, linear, none"),
        ("attention=3", "attention=3: there is no conf/attention/3.yaml; there are full, linear, none"),
        ("attention=[1,2]", "attention=[1,2]: there is no conf/attention/[1,2].yaml; there are full, linear, none"),
        ("experiment=stale", "there is no conf/attention/liner.yaml (searched in {conf}); did you mean linear?"),
        ("+attention=full", "+attention=full: Multiple values for attention. To override a value use"),
        ("+seed=2", "+seed=2: Could not append to config. An item is already at 'seed'"),
        ("attention", "'attention': expected key=value, such as attention=linear"),
        ("=3", "'=3': expected key=value"),
        ("checkpoint=~/x", "'checkpoint=~/x' cannot be read as key=value; quote a value with special characters: \""),
        ("trainer.max_steps=[1", "'trainer.max_steps=[1' cannot be read as key=value"),
        ("seed=1,2", "seed=1,2: expected one value, got several; write [1,2] for a list, --multirun for a run each"),
        ("seed=${sed}", "seed: Interpolation key 'sed' not found"),
        ("hydra.run.dir=${sed}", "Interpolation key 'sed' not found"),
        ("hydra/sweeper=ax", "hydra/sweeper=ax: this needs a plugin of Hydra; pip install hydra-ax-sweeper"),
        ("hydra/launcher=rq", "this needs a plugin of Hydra; pip install hydra-rq-launcher"),
        ("hydra.searchpath=[file:///nowhere]", "path=/nowhere is not available"),
        ("checkpoint=???", "checkpoint must be given: checkpoint=…"),
        ("~attention", "Key 'attention' is missing: this program needs it"),
        ("+sed=3", "Key 'sed' is not a setting of this program; did you mean seed?"),
        ("seed=abc", "seed: expected an integer, got 'abc'"),
        ("checkpoint=3", "checkpoint: expected a string, got 3"),
        ("trainer.devices=[1]", "trainer.devices: expected an integer or a string, got [1]"),
        ("trainer=3", "trainer=3: there is no conf/trainer/3.yaml; there are short"),
        ("trainer.max_steps=-1", "trainer.max_steps: expected at least 0, got -1"),
        (
            "experiment=typo",
            "Key 'trainer.max_stepz' is not a setting of tests.config.trees.Trainer; did you mean max_",
        ),
        ("+attention.heds=4", "Key 'attention.heds' is not a setting of tests.config.trees.Layer; did you mean heads?"),
        ("attention._partial_=false", "Key 'attention.dim' is missing: tests.config.trees.Layer needs it"),
    ],
)
def test_a_mistake_is_a_sentence(tree: Path, override: str, sentence: str) -> None:
    assert sentence.replace("{conf}", str(tree)) in complaint([override])


def test_all_mistakes_are_reported_at_once(tree: Path) -> None:
    unread = complaint(["attention=liner", "seed=4", "modle.dim=3", "trainer.max_stes=3", "x=["])
    assert [line.split(" ")[0] for line in unread.splitlines()] == ["attention=liner:", "Key", "Key", "'x=['"]
    unfit = complaint(["seed=abc", "checkpoint=3"])
    assert [line.partition(":")[0] for line in unfit.splitlines()] == ["seed", "checkpoint"]
    unfit = complaint(["attention.heads=abc", "+attention.rate=2", "trainer.max_steps=-1"])
    assert [line.partition(":")[0] for line in unfit.splitlines()] == [
        "attention.heads",
        "attention.rate",
        "trainer.max_steps",
    ]


def test_the_last_of_two_overrides_counts_and_a_setting_may_precede_its_choice(tree: Path) -> None:
    assert compose("train", ["seed=1", "seed=2"]).seed == 2
    overrides = ["attention.scale=0.5", "attention=full"]
    assert compose("train", overrides).attention.scale == 0.5
    assert complaint([*overrides, "seeed=1"]).count("\n") == 0


def test_mistakes_in_the_configs_themselves(tree: Path) -> None:
    assert "broken.yaml" in complaint([], "broken")
    assert "attention" in complaint([], "open")
    assert compose("open", ["attention=full"]).attention.heads == 4
    assert "evaluate" in complaint([], "evaluate")


def test_a_config_cannot_be_edited(tree: Path) -> None:
    with pytest.raises(ReadonlyConfigError):
        compose("train", []).seed = 3


def run(overrides: list[str], multirun: bool = False, raises: BaseException | None = None) -> tuple[int, list[int]]:
    """The exit status of a run, and the seeds of the runs that were made; each then raises an exception."""
    seeds: list[int] = []

    def program(config: DictConfig) -> None:
        seeds.append(config.seed)
        with pytest.raises(ReadonlyConfigError):
            config.seed = 3
        if raises is not None:
            raise raises

    return run_program("train", program, overrides, multirun), seeds


def test_a_run_has_a_folder_and_an_exit_status(
    tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    arguments = ["pytest", "--with", "words=of its own"]
    monkeypatch.setattr(sys, "argv", arguments)
    assert run(["seed=5"]) == (0, [5])
    (folder,) = (tmp_path / "runs" / "train").iterdir()
    assert OmegaConf.load(folder / ".hydra" / "overrides.yaml") == ["seed=5"]
    assert OmegaConf.load(folder / ".hydra" / "config.yaml").seed == 5
    quoted = tmp_path / "it's a run"
    assert run([f'hydra.run.dir="{quoted}"'])[0] == 0
    assert (quoted / ".hydra").is_dir()
    assert run([], raises=UserError("chr1:5 holds G"))[0] == 2
    assert capfd.readouterr().err == "chr1:5 holds G\n"
    assert run([], raises=KeyboardInterrupt())[0] == 130
    assert run([], raises=SystemExit(3))[0] == 3
    with pytest.raises(RuntimeError, match="our own mistake"):
        run([], raises=RuntimeError("our own mistake"))
    assert sys.argv is arguments  # Lightning starts the processes of other devices from it


def test_a_sweep_is_checked_before_its_first_run(tree: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert run(["seed=1,2"], True) == (0, [1, 2])
    assert sorted(path.name for path in (tmp_path / "runs" / "sweep").iterdir()) == ["0", "1", "multirun.yaml"]
    capfd.readouterr()
    assert run(["seed=1,x"], True) == (2, [])
    assert capfd.readouterr().err == "seed: expected an integer, got 'x'\n"
    assert run(["attention=linear,fll", "seed=range(1,4)"], True) == (2, [])
    assert "attention=fll: there is no conf/attention/fll.yaml" in capfd.readouterr().err
    assert run(["+attention.rate=interval(0.1,1)"], True) == (2, [])
    assert capfd.readouterr().err.endswith("INTERVAL_SWEEP; a search needs hydra/sweeper=optuna\n")
    assert run(["seed=1,2"], True, raises=UserError("chr1:5 holds G")) == (2, [1, 2])


def test_a_run_folder_that_cannot_be_made(tree: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert run(["hydra.run.dir=file"])[0] == run(["hydra.sweep.dir=file/x", "seed=1,2"], True)[0] == 2
    first, second = capfd.readouterr().err.splitlines()
    assert first == "hydra.run.dir: the run folder file cannot be made (File exists)"
    assert second == "hydra.sweep.dir: the run folder file/x cannot be made (Not a directory)"


def test_the_refusal_of_a_constructor_is_a_sentence(tree: Path, capfd: pytest.CaptureFixture[str]) -> None:
    def program(config: DictConfig) -> None:
        hydra.utils.instantiate(config.attention, _partial_=False, dim=8)

    assert run_program("train", program, ["attention.heads=7"]) == 2
    assert capfd.readouterr().err == "heads must not be prime, got 7\n"


def test_configs_and_genomes_are_found_in_a_checkout_and_in_a_wheel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert (conf_dir(), genomes_dir()) == (CHECKOUT / "conf", CHECKOUT / "data")
    monkeypatch.setattr(paths, "PACKAGE", tmp_path / "genoattn")
    assert (conf_dir(), genomes_dir()) == (tmp_path / "genoattn" / "conf", tmp_path / "genoattn" / "genomes")


PROGRAMS = sorted(file.stem for file in (CHECKOUT / "conf").glob("*.yaml"))
CHOICES = sorted((file.parent.name, file.stem) for file in (CHECKOUT / "conf").glob("*/*.yaml"))
REQUIRED = {name: ["checkpoint=a.ckpt"] for name in ("evaluate", "context", "finetune")}
REQUIRED["detect"] = ["checkpoint=a.ckpt", "reference=a.fa", "sample=b.fa", "out=c.vcf"]
REQUIRED["score"] = ["checkpoint=a.ckpt", "fasta=a.fa", "vcf=b.vcf", "out=c.vcf"]
REQUIRED["scan"] = ["checkpoint=a.ckpt", "fasta=a.fa", "region=b:1-2", "out=c"]
REQUIRED["export"] = ["checkpoint=a.ckpt", "out=a"]


@cache
def groups_of(program: str) -> frozenset[str]:
    return frozenset(group.override for group in groups(program))


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_program_composes_and_checks(program: str) -> None:
    check(compose(program, REQUIRED.get(program, [])), program)


def test_a_run_folder_names_its_layer() -> None:
    folder = config_of_run("train", ["attention=window"]).hydra.run.dir
    assert folder.startswith("runs/train/") and folder.endswith("_window")
    assert config_of_run("plan", []).hydra.run.dir.startswith("runs/plan/")
    assert config_of_run("compare", ["name=mine"]).hydra.run.dir == "runs/compare/mine"


def test_an_experiment_may_hold_settings_of_a_comparison() -> None:
    compared = compose("compare", ["experiment=study_gpu", "learning_rates=[0.1]"])
    assert max(compared.ladder) == 8192 and compared.learning_rates == [0.1] and compared.task.shift == 8
    check(compared, "compare")
    assert "ladder" not in compose("train", ["experiment=study_gpu"])


@pytest.mark.parametrize(("group", "choice"), CHOICES)
def test_every_choice_composes_checks_and_builds(group: str, choice: str) -> None:
    programs = [program for program in PROGRAMS if group in groups_of(program)]
    assert programs, f"no program's defaults list names the group {group}"
    for program in programs:
        own = ["task.file=x.vcf"] if choice in ("variant", "region") else []  # no default would fit all
        value = f"[{choice}]" if group == "logger" else choice  # several loggers may be chosen
        config = compose(program, [f"{group}={value}", *own, *REQUIRED.get(program, [])])
        check(config, program)
        node = config.get(group)
        if OmegaConf.is_config(node) and "_target_" in node:
            assert callable(hydra.utils.instantiate(node)) or not node.get("_partial_")


@pytest.mark.parametrize(
    ("overrides", "sentences"),
    [
        (["attention=liner", "traner.max_steps=3"], ["did you mean linear?", "did you mean trainer.max_steps?"]),
        (["hydra.run.dir=/dev/null/x"], ["hydra.run.dir: the run folder /dev/null/x cannot be made"]),
    ],
)
def test_a_mistake_ends_the_script_with_status_2(
    overrides: Sequence[str], sentences: list[str], tmp_path: Path
) -> None:
    command = [sys.executable, str(CHECKOUT / "scripts" / "train.py"), *overrides]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert ended.returncode == 2, ended.stderr
    lines = ended.stderr.splitlines()
    assert [sentence in line for sentence, line in zip(sentences, lines, strict=True)] == [True] * len(sentences)
    assert not list(tmp_path.iterdir())


@pytest.mark.filterwarnings("ignore")  # of optuna and what it imports
def test_a_search_reads_the_metric_that_main_returns(tree: Path, tmp_path: Path) -> None:
    rates: list[float] = []

    def program(config: DictConfig) -> float:
        rates.append(config.attention.rate)
        return config.attention.rate

    search = ["hydra/sweeper=optuna", "hydra.sweeper.n_trials=2", "hydra.sweeper.n_jobs=1"]
    assert run_program("train", program, [*search, "+attention.rate=interval(0.1,1)"], multirun=True) == 0
    assert len(rates) == 2
    assert all(0.1 <= rate <= 1 for rate in rates)
    best = OmegaConf.load(tmp_path / "runs" / "sweep" / "optimization_results.yaml")
    assert best.best_value == min(rates)


@pytest.mark.parametrize("text", ["bob's data, x=1", "back\\slash\\", "\\'", "${seed}", "\\${x}", 'a "b" #[c]{d}', ""])
def test_a_quoted_value_is_read_as_it_was(text: str) -> None:
    assert value_in(f"data.fasta={quote(text)}") == text
    assert value_in(override("data.fasta", [text, "x"])) == [text, "x"]


def test_overrides_of_every_kind_of_value() -> None:
    values = [None, True, 3, 1e-05, "x", []]
    assert [value_in(override("key", value)) for value in values] == values


@pytest.mark.parametrize("word", ["attention={}", "{}=1", "seed={}", "seed=[{}", "+{}=1", "+attention.{}=1"])
def test_a_long_override_is_cut(tree: Path, word: str) -> None:
    assert len(complaint([word.format("x" * 3_000)])) < 600
