"""A layer of another package, found by hydra.searchpath or by an entry point, is a choice wherever a layer is named."""

import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from genoattn import paths
from genoattn.cli.compare import settings_of, window_counts
from genoattn.comparison.composition import compose_run
from genoattn.comparison.grid import parse
from genoattn.config.compose import available_layers, check, compose, config_of_run, run_program
from genoattn.config.layers import layer_name
from genoattn.errors import UserError

MINE = "# A layer of another package.\n_target_: other_layers.MyOwnAttention\n_partial_: true\nleft: 3\nright: 128\n"
CODE = "from genoattn.attention.window import WindowAttention\nclass MyOwnAttention(WindowAttention): pass\n"


@pytest.fixture(params=["searchpath", "entry point"])
def found_by(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A package with a layer called `mine`; the value is the overrides that a user adds to find it."""
    folder = tmp_path / "other_layers"
    (folder / "conf" / "attention").mkdir(parents=True)
    (folder / "__init__.py").write_text(CODE)
    (folder / "conf" / "attention" / "mine.yaml").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "other_layers", raising=False)  # of an earlier test
    monkeypatch.chdir(tmp_path)
    if request.param == "searchpath":
        return [f"hydra.searchpath=[file://{folder}/conf]"]
    point = EntryPoint("mine", "other_layers.conf", paths.ENTRY_POINTS)
    monkeypatch.setattr(paths, "entry_points", lambda group: [point] if group == paths.ENTRY_POINTS else [])
    return []


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["attention=mine"], "attention"),
        (["attention@control=mine"], "control"),
        (["attention=hybrid", "attention.layers=[window,mine]"], "attention.kinds.mine"),
        (["attention=gated", "attention.wrapped=mine"], "attention.wrapped"),
    ],
)
def test_it_is_a_choice_of_training(overrides: list[str], key: str, found_by: list[str]) -> None:
    config = compose("train", [*overrides, *found_by])
    assert OmegaConf.select(config, key)["_target_"] == "other_layers.MyOwnAttention"
    check(config, "train")


def test_its_settings_inside_another_layer_are_overrides(found_by: list[str]) -> None:
    words = ["attention=hybrid", "attention.layers=[mine,window]", "+attention.kinds.mine.left=5", *found_by]
    kinds = compose("train", words).attention.kinds
    assert (list(kinds), kinds.mine.left, kinds.mine.right) == (["window", "mine"], 5, 128)


def test_it_is_a_choice_of_comparisons_and_their_runs(found_by: list[str]) -> None:
    names: list[str] = []
    lefts: list[int] = []

    def program(config: DictConfig) -> None:
        overrides = ["layers=[full,mine]", *VARIANT]
        grid = parse(settings_of(config), overrides, window_counts)
        names.extend(grid.layers)
        lefts.append(compose_run("train", grid.layers["mine"]).attention.left)
        lefts.append(compose_run("train", grid.layers["wide"]).attention.left)
        assert "mine" in available_layers()

    assert run_program("compare", program, ["layers=[full,mine]", *VARIANT, *found_by]) == 0
    assert names == ["full", "mine", "wide", "none", "conv"]
    assert lefts == [3, 512]


VARIANT = ['+variants.wide=["attention=window","attention.left=512"]']
"""The form that conf/compare.yaml documents."""


def test_the_documented_variant_is_the_tested_one() -> None:
    assert f"'{VARIANT[0]}'" in (paths.conf_dir() / "compare.yaml").read_text("utf-8")


def test_a_run_folder_and_reports_have_its_own_name(found_by: list[str]) -> None:
    assert config_of_run("train", ["attention=mine", *found_by]).hydra.run.dir.endswith("_mine")
    config = config_of_run("train", ["attention=none", "attention._target_=other_layers.MyOwnAttention", *found_by])
    assert config.hydra.runtime.choices.attention == "my_own"
    assert config.hydra.run.dir.endswith("_my_own")


def test_a_misspelt_name_is_looked_for_in_its_folder_too(found_by: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"there is no conf/attention/mne.yaml") as caught:
        compose("train", ["attention=mne", *found_by])
    assert f"{tmp_path}/other_layers/conf); did you mean mine?" in str(caught.value)


@pytest.mark.parametrize(
    ("target", "name"),
    [("a.RingAttention", "ring"), ("a.LSHAttention", "lsh"), ("a.Attention", "attention"), ("a.b.make_it", "make_it")],
)
def test_a_layer_without_a_yaml_is_named_after_its_class(target: str, name: str) -> None:
    assert layer_name("none", {"_target_": target}) == name
    assert layer_name("none", {"_target_": "genoattn.attention.none.NoAttention"}) == "none"
