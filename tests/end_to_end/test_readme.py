"""The commands that the README shows do run, with a small budget and small files in place of large ones."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from genoattn.cli.main import main
from tests.docs.workplace import (
    BUDGET,
    CHECKOUT,
    MODEL,
    TEST,
    blocks,
    check_settings,
    commands,
    program,
    run,
    workplace,
)

README = CHECKOUT / "README.md"
BLOCKS = blocks(README)
COMMANDS = [words for block in BLOCKS if block.language == "bash" for words in commands(block.code)]
PROGRAMS = [words for words in COMMANDS if program(words)]


def test_the_readme_shows_the_programs() -> None:
    assert {program(words) for words in PROGRAMS} >= {"train", "finetune", "evaluate", "compare", "plan", "check-layer"}
    assert {"setup", "train", "test"} <= {words[1] for words in COMMANDS if words[0] == "make"}


def test_the_readme_is_short() -> None:
    assert len(README.read_text("utf-8").splitlines()) <= 200
    assert len((CHECKOUT / "CONTRIBUTING.md").read_text("utf-8").splitlines()) <= 60


def test_make_has_the_targets() -> None:
    targets = re.findall(r"^([\w-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    used = [word for words in COMMANDS if words[0] == "make" for word in words[1:] if "=" not in word]
    assert not set(used) - set(targets)


def test_links_lead_to_files() -> None:
    for page in (README, CHECKOUT / "CONTRIBUTING.md", CHECKOUT / "CHANGELOG.md"):
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text("utf-8")):
            assert (CHECKOUT / target).exists(), f"{page.name} links to {target}"


def test_python_compiles() -> None:
    for block in BLOCKS:
        if block.language == "python":
            compile(block.code, "README.md", "exec")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pytest.MonkeyPatch]:
    """A folder that looks like the checkout, with a run in it."""
    with workplace(tmp_path_factory.mktemp("readme")) as patch:
        budget = [f"{key}={value}" for key, value in (BUDGET | TEST | MODEL).items()]
        run_dir = f"hydra.run.dir={Path('runs/train/first')}"
        assert main(["train", "experiment=smoke", *budget, "data.fasta=small.fa", run_dir]) == 0
        yield patch


@pytest.mark.parametrize("words", PROGRAMS, ids=" ".join)
def test_command_runs(words: list[str], place: pytest.MonkeyPatch) -> None:
    check_settings(words)
    run(words, place)
