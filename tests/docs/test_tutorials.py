"""Every tutorial runs from top to bottom, with small budgets: its commands and its Python."""

from pathlib import Path

import pytest

from tests.docs.workplace import CHECKOUT, RUN, blocks, commands, newest_run, run, workplace

TUTORIALS = sorted((CHECKOUT / "docs/tutorials").glob("*.md"))
DEFINITIONS = "class "
"""Blocks that show a file are not run: the file has tests of its own."""


@pytest.mark.parametrize("page", TUTORIALS, ids=lambda page: page.stem)
def test_tutorial_runs(page: Path, tmp_path: Path) -> None:
    names: dict[str, object] = {}
    with workplace(tmp_path) as patch:
        for block in blocks(page):
            if block.language == "bash":
                for words in commands(block.code):
                    run(words, patch)
            elif DEFINITIONS not in block.code:
                code = block.code.replace(RUN, newest_run()) if RUN in block.code else block.code
                exec(compile(code, str(page), "exec"), names)
