"""Hooks of mkdocs: pages made from files outside docs/, generated references, links, formulas and settings tables.

The pages of the site have the paths of the repository, so that a link works in both: README.md is the home page,
results/STUDY/README.md a page of its own. The folder docs/ itself is left out of the address.
"""

import contextlib
import io
import os
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import settings_tables  # a neighbour in docs/, which mkdocs puts on the path while it loads this file
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]

PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "data/README.md")
"""Pages of the site that lie outside docs/."""

FILES = ("LICENSE", "CITATION.cff")
"""Files that pages link to."""

RESULTS = ("*.md", "*/*.md", "*/*.svg", "*/*.png", "*/*.txt", "*/*.csv", "*/*.json")
"""Files of results/ that belong to the site."""

LINK = re.compile(r"(\]\(|\bsrc=\"|\bhref=\")(?![a-z]+:|#|/)([^)\"\s#]+)")
"""A relative link of Markdown or HTML: its opening and its path."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """List the pages of results/ in the navigation, and set formulas as MathML, which needs no script."""
    for section in config.nav or []:
        if "Results" in section:
            section["Results"] = _result_pages()
    fence = {"name": "math", "class": "math", "format": _formula}
    config.mdx_configs.setdefault("pymdownx.superfences", {})["custom_fences"] = [fence]
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages and pictures from outside docs/, and the generated references."""
    for path in [*PAGES, *FILES]:
        files.append(File.generated(config, path, abs_src_path=str(ROOT / path)))
    for pattern in RESULTS:
        for path in sorted((ROOT / "results").glob(pattern)):
            files.append(File.generated(config, _relative(path), abs_src_path=str(path)))
    if not (ROOT / "results/README.md").is_file():
        files.append(File.generated(config, "results/README.md", content="# Results\n\nNo study is in results/ yet.\n"))
    files.append(File.generated(config, "reference/settings.md", content=settings_tables.reference(ROOT)))
    files.append(File.generated(config, "reference/cli.md", content=_command_line()))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Point relative links at the pages of the site, and fill in the tables of settings."""
    uri = page.file.src_uri
    outside = uri in PAGES or uri.startswith("results/")
    folder = posixpath.dirname(uri if outside else f"docs/{uri}")

    def moved(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(folder, link[2])).removeprefix("docs/")
        return link[1] + posixpath.relpath(target, posixpath.dirname(uri) or ".")

    lines = [LINK.sub(moved, line) if prose else line for line, prose in _lines(markdown)]
    return re.sub(r"<!-- settings: (\S+) -->", lambda mark: settings_tables.table(ROOT, mark[1]), "\n".join(lines))


def _lines(markdown: str) -> Iterator[tuple[str, bool]]:
    """Yield each line, and True where it is outside fenced code."""
    fenced = False
    for line in markdown.split("\n"):
        fence = line.lstrip().startswith("```")
        yield line, not (fenced or fence)
        fenced ^= fence


def _formula(source: str, *_: Any, **__: Any) -> str:
    """A block of LaTeX as MathML."""
    return f'<div class="math">{convert(source.strip(), display="block")}</div>'


def _result_pages() -> list[str]:
    """The table of studies, the page of each study, and the other pages of results/."""
    folder = ROOT / "results"
    pages = [folder / "README.md", *sorted(folder.glob("*/README.md")), *sorted(folder.glob("*.md"))]
    return list(dict.fromkeys(map(_relative, pages)))


def _relative(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def _command_line() -> str:
    """The page of the command line: what `genoattn` and each of its programs print for --help."""
    from genoattn.cli.main import PROGRAMS

    page = ["# Command line\n", "`genoattn PROGRAM --help` prints the same.\n", f"```text\n{_help()}\n```\n"]
    for program in PROGRAMS:
        page.append(f"## genoattn {program}\n\n```text\n{_help(program)}\n```\n")
    return "\n".join(page)


def _help(*program: str) -> str:
    from genoattn.cli.main import main

    printed = io.StringIO()
    os.environ["COLUMNS"] = "100"
    with contextlib.redirect_stdout(printed):
        if main([*program, "--help"]) != 0:
            raise RuntimeError(f"genoattn {' '.join(program)} --help failed")
    return printed.getvalue().strip()
