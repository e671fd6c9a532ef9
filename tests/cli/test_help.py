"""`--help` and `--cfg` describe every program by the comments of its yaml files."""

import re
import subprocess
import sys

import pytest

from genoattn.cli.help import WIDTH, program_help
from genoattn.cli.main import PROGRAMS, main
from genoattn.config import documentation
from genoattn.config.documentation import Group, groups, settings, with_comments
from genoattn.config.schema import SCHEMAS
from genoattn.paths import conf_dir


def test_every_program_has_settings_and_a_config() -> None:
    assert set(PROGRAMS) <= set(SCHEMAS)
    assert {file.stem for file in conf_dir().glob("*.yaml")} == set(PROGRAMS)


def test_the_list_of_programs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == main(["--help"]) == 0
    assert "check-layer" in capsys.readouterr().out
    assert main(["trian"]) == 2
    assert capsys.readouterr().err == "genoattn trian: there is no such program; did you mean train?\n"


@pytest.mark.parametrize("program", PROGRAMS)
def test_help_has_every_setting_in_100_columns(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([program, "--help"]) == 0
    text = capsys.readouterr().out
    assert max(map(len, text.splitlines())) <= WIDTH
    assert f"Examples:\n  genoattn {program} " in text
    for setting in SCHEMAS[program].model_fields:
        assert re.search(rf"^( *|attention@){setting}\b", text, re.MULTILINE), setting


def test_a_setting_stands_beside_its_default_and_comment() -> None:
    text = program_help("train", PROGRAMS["train"])
    assert re.search(r"^  data.fasta +null +FASTA file, a pattern such as", text, re.MULTILINE)
    assert re.search(r"^  hierarchical +Hierarchical attention", text, re.MULTILINE)
    assert "checkpoint" in program_help("evaluate", PROGRAMS["evaluate"]).partition("data=genome")[0]
    order = [text.index(f"\n{group}=") for group in ("attention", "task", "data", "model", "trainer", "experiment")]
    assert order == sorted(order)


def test_help_lists_the_layers_of_other_packages(tmp_path, monkeypatch) -> None:
    (tmp_path / "attention").mkdir()
    (tmp_path / "attention" / "mine.yaml").write_text("# A layer of mine.\n_target_: a.B\n")
    monkeypatch.setattr(documentation, "package_folders", lambda: [tmp_path])
    described: dict[str, Group] = {group.name: group for group in groups("check-layer")}
    assert "mine" in [file.stem for file in described["attention"].files]


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"]])
def test_help_does_not_import_hydra(arguments: list[str]) -> None:
    program = f"import sys; from genoattn.cli.main import main; main({arguments}); print('hydra' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert ended.stdout.endswith("False\n"), ended.stderr


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_config_of_every_program_is_printed(program: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([program, "--cfg", "job"]) == 0
    text = capsys.readouterr().out
    assert "hydra:" not in text
    if program in ("evaluate", "context"):
        assert "checkpoint: ??? # a run folder" in text


def test_a_printed_config_keeps_comments_and_resolves(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "attention=window", "+x='${seed}'", "--cfg", "job"]) == 0
    text = capsys.readouterr().out
    assert "x: ${seed}" in text
    assert re.search(r"^  left: 128$", text, re.MULTILINE)
    assert re.search(r"^  batch: 8 # windows per batch, over all devices$", text, re.MULTILINE)
    assert main(["train", "+x='${seed}'", "--cfg", "job", "--resolve"]) == 0
    assert "\nx: 0\n" in capsys.readouterr().out
    assert main(["train", "--cfg", "all"]) == 0
    assert "hydra:\n  run:" in capsys.readouterr().out
    assert main(["train", "attention=liner", "--cfg", "job"]) == 2
    assert main(["train", "seed=${sed}", "--cfg", "job", "--resolve"]) == 2
    assert capsys.readouterr().err.count("\n") == 2


@pytest.mark.parametrize(
    "flags", [["--multirn"], ["--resolve"], ["--cfg", "all", "--resolve"], ["-m", "--cfg", "job"], ["--cfg", "jop"]]
)
def test_a_misspelt_or_stray_flag_ends_with_status_2(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["train", *flags])
    assert ended.value.code == 2
    assert "genoattn train: error: " in capsys.readouterr().err


def test_settings_of_a_yaml_file(tmp_path) -> None:
    file = tmp_path / "x.yaml"
    file.write_text("# X.\n_target_: a.B\none: 1\ntwo: # of two\n  three: null # words\n")
    assert [(row.key, row.value, row.comment) for row in settings(file, "x")] == [
        ("x.one", "1", ""),
        ("x.two", "", "of two"),
        ("x.two.three", "null", "words"),
    ]
    assert with_comments("two:\n  three: 3", {"two.three": "words"}) == "two:\n  three: 3 # words"
