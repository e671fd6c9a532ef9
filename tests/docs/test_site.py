"""The documentation has a page and a drawing for every layer, and its generated parts are up to date."""

import sys
from pathlib import Path

import pytest
import yaml

from genoattn.cli.main import PROGRAMS
from genoattn.config.documentation import settings
from tests.docs.workplace import CHECKOUT, blocks, check_settings, commands, program

DOCS = CHECKOUT / "docs"
LAYERS = sorted(path.stem for path in (CHECKOUT / "conf/attention").glob("*.yaml"))
PAGES = [*sorted((DOCS / "how_to").glob("*.md")), *sorted((DOCS / "concepts").rglob("*.md"))]
COMMANDS = [
    words
    for page in PAGES
    for block in blocks(page)
    if block.language == "bash"
    for words in commands(block.code)
    if program(words)
]


@pytest.fixture
def drawings(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(DOCS)
    monkeypatch.setattr(sys, "argv", ["pytest"])
    import drawings

    return drawings


@pytest.mark.parametrize("layer", LAYERS)
def test_every_layer_has_a_page_with_an_up_to_date_drawing(layer: str, drawings) -> None:
    page = (DOCS / f"concepts/layers/{layer}.md").read_text("utf-8")
    assert f"<!-- settings: attention/{layer} -->" in page and f"({layer}.svg)" in page
    assert (DOCS / f"concepts/layers/{layer}.svg").read_text("utf-8") == drawings.drawing(layer), (
        "run python docs/drawings.py"
    )


def test_the_table_of_costs_is_up_to_date(drawings) -> None:
    assert (DOCS / "concepts/layers/costs.txt").read_text("utf-8") == drawings.costs(), "run python docs/drawings.py"


def test_every_layer_is_in_the_navigation() -> None:
    text = (CHECKOUT / "mkdocs.yml").read_text("utf-8")
    assert not [layer for layer in LAYERS if f"concepts/layers/{layer}.md" not in text]


def test_the_page_of_settings_has_every_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(DOCS)
    import settings_tables

    page = settings_tables.reference(CHECKOUT)
    assert "| `attention.left` | integer | `128` |" in page
    assert "| `logger.wandb.offline` | true or false | `false` | true: " in page
    assert not [name for name in PROGRAMS if f"## genoattn {name}\n" not in page]
    for file in (CHECKOUT / "conf").glob("*/*.yaml"):
        keys = [setting.key for setting in settings(file, settings_tables._prefix(file))]
        assert not [key for key in keys if f"| `{key}` |" not in page], file


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_the_commands_of_how_to_and_concepts_are_right(words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["pytest"])
    if not {"-m", "-h", "--help"} & set(words):
        check_settings(words)


def test_the_snippets_are_files() -> None:
    for page in DOCS.rglob("*.md"):
        for line in page.read_text("utf-8").splitlines():
            if line.startswith("--8<--"):
                assert Path(DOCS, line.split('"')[1]).is_file(), (page, line)


def test_mkdocs_reads_its_config() -> None:
    nav = yaml.safe_load((CHECKOUT / "mkdocs.yml").read_text("utf-8"))["nav"]
    assert [next(iter(entry)) for entry in nav] == [
        *("Home", "Tutorials", "How-to", "Concepts", "Results", "Reference", "Project"),
    ]
