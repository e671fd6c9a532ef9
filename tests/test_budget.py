"""Size limits: lines of code of each folder, lines of each file and of each function.

A line of code holds more than a comment and is not part of a docstring: explanations are not to be saved. A change that
needs a higher limit raises it here and gives the reason in its commit message.
"""

import ast
import io
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "genoattn"

BUDGET = {
    "genome": 3_695,  # two assemblies: k-mers, placement, copies, alignment, calls; rows of a VCF; .fai, GFF3, names
    "data": 2_510,  # lists of FASTA files, splits by file and group; tokenizers; interleaved; folds; strands, frames
    "attention": 3_655,  # options of heads in every layer; hyena, ssd, nsa; registers; shards of a sequence
    "attention/ops": 2_760,  # a state for each segment, chunked forms of the new layers
    "attention/kernels": 3_260,  # windows of every kind, other segments, padding by spans; decays; delta
    "attention/conformance": 700,  # learning far away, capacity, float32, second derivatives; several processes
    "attention/parallel": 645,  # one sequence over several processes: exchanges, states, processes for the checks
    "models": 2_415,  # windows of blocks; models that come along; scores of variants; steps; exported folders
    "training": 1_865,  # several devices: how processes begin, agree and end; shards of weights, checkpoints in parts
    "evaluation": 3_885,  # calls against a VCF, by the sequences that they spell; strains, context mixing and copies
    "comparison": 2_950,  # ladders with their measures, plots and tables; which runs learned; power before the runs
    "config, cli and single files": 2_940,  # `detect`, `score`, `scan`, `export`; shards; pages; --quiet
}
"""Lines of code by folder: about 31,200 in all. The line of attention leaves out its sub-folders listed here."""

LINES_OF_A_FILE = 300
LINES_OF_A_FUNCTION = 60


NO_CODE = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def docstring_lines(tree: ast.Module) -> set[int]:
    """Numbers of the lines of all docstrings of a module."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            match node.body:
                case [ast.Expr(value=ast.Constant(value=str())) as docstring, *_]:
                    lines.update(range(docstring.lineno, (docstring.end_lineno or docstring.lineno) + 1))
    return lines


def lines_of_code(source: str) -> int:
    """Number of lines of a file that hold code."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    code = {line for token in tokens if token.type not in NO_CODE for line in range(token.start[0], token.end[0] + 1)}
    return len(code - docstring_lines(ast.parse(source)))


def folder_of(file: Path) -> str:
    """The line of the budget that a file of the package counts for."""
    first, *rest = file.relative_to(PACKAGE).parts[:-1] or ("",)
    if rest and f"{first}/{rest[0]}" in BUDGET:
        return f"{first}/{rest[0]}"
    return first if first in BUDGET else "config, cli and single files"


def long_functions(source: str) -> Iterator[tuple[str, int]]:
    """Name and number of lines of each function that is longer than allowed."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            lines = (node.end_lineno or node.lineno) - node.lineno + 1
            if lines > LINES_OF_A_FUNCTION:
                yield node.name, lines


def sources() -> dict[Path, str]:
    return {file: file.read_text("utf-8") for file in sorted(PACKAGE.rglob("*.py"))}


def test_each_folder_keeps_to_its_budget() -> None:
    lines: Counter[str] = Counter()
    for file, source in sources().items():
        lines[folder_of(file)] += lines_of_code(source)
    over = {folder: (count, BUDGET[folder]) for folder, count in lines.items() if count > BUDGET[folder]}
    assert not over, f"lines and limit by folder: {over}"
    assert set(lines) == set(BUDGET)


def test_no_file_and_no_function_is_too_long() -> None:
    files = {file.name: n for file, source in sources().items() if (n := source.count("\n")) > LINES_OF_A_FILE}
    functions = {f"{file.name}: {name}": n for file, source in sources().items() for name, n in long_functions(source)}
    assert not files
    assert not functions


def test_the_top_of_the_package_shows_the_pipeline() -> None:
    names = {path.name for path in PACKAGE.iterdir()} - {"__pycache__"}
    folders = {"genome", "data", "attention", "models", "training", "evaluation", "comparison", "config", "cli"}
    assert names == folders | {"__init__.py", "__main__.py", "errors.py", "files.py", "paths.py"}


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ('"""A module.\n\nIts text.\n"""\n\nx = 1\n', 1),
        ('def f():\n    """Text."""\n    return 1  # a comment\n', 2),
        ('x = """a\nb"""\n', 2),
        ("# a comment\n\n", 0),
    ],
)
def test_lines_of_code(source: str, lines: int) -> None:
    assert lines_of_code(source) == lines


def test_a_long_function_is_named() -> None:
    body = "    x = 1\n" * LINES_OF_A_FUNCTION
    assert list(long_functions(f"def f():\n{body}")) == [("f", LINES_OF_A_FUNCTION + 1)]
    assert not list(long_functions("def f():\n" + body[: -len("    x = 1\n")]))
