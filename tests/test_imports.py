"""Imports point one way: the modules stand in layers, and each knows its own layer and those below alone."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "genoattn"

LAYERS = (
    {"errors"},
    {"genome", "tokenizers", "attention", "kernels", "metrics", "objective", "laws", "signature", "student", "verdict"},
    {"tasks", "stem", "block", "tokenwise", "checkpoint", "spine", "overrides", "frontier"},
    {"batch", "model", "config", "trials", "strata"},
    {"data", "predict"},
    {"parts"},
    {"learner", "cost", "assemble", "callbacks", "evaluation", "influence", "tracking", "report"},
    {"fitting", "measuring", "planning", "exams", "tuning", "loaded", "comparison", "matching"},
    {"design", "launching"},
    {"collected"},
    {"train", "evaluate", "context", "tokenizer", "doctor", "compare"},
    {"plan"},
    {"cli"},
    {"__main__"},
)
"""From the bottom up; a folder is one part. A module may import from its own layer and from those below."""

ONLY = {
    "Bio": {"genome"},
    "pysam": {"genome"},
    "lightning": {"data", "learner", "callbacks", "fitting", "tracking", "report", "train", "measuring", "plan"},
    "hydra": {
        *("config", "overrides", "assemble", "launching", "matching"),
        *("train", "evaluate", "context", "tokenizer", "doctor", "compare", "plan"),
    },
    "peft": {"tuning"},
    "wandb": {"tracking"},
    "triton": {"kernels"},
}
"""Which parts may import a library that the rest must not know."""


def part(module: str) -> str:
    """The file or folder of the package that a dotted name begins with: genome, of genoattn.genome.store."""
    return module.split(".")[1] if "." in module else ""


def imported(source: str, module: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a module imports, in functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, one.name) for one in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            name = ".".join([*above, *filter(None, [node.module])])
            names = [f"{name}.{one.name}" for one in node.names] if name == "genoattn" else [name]
            yield from ((node.lineno, one) for one in names)


def complaints(source: str, module: str) -> Iterator[str]:
    """A sentence on every import of a module that points upwards, or at a library that is not for it."""
    heights = {name: height for height, layer in enumerate(LAYERS) for name in layer}
    here = part(module)
    if here not in heights:
        yield f"{module} stands in no layer: say in tests/test_imports.py where {here} belongs"
        return
    for line, name in imported(source, module):
        library, there = name.split(".")[0], part(name)
        if library == "genoattn" and heights.get(there, -1) > heights[here]:
            yield f"{module}, line {line}, imports {name}, which stands above it: {here} knows nothing of {there}"
        if here not in ONLY.get(library, {here}):
            yield f"{module}, line {line}, imports {name}, which only {', '.join(sorted(ONLY[library]))} may"


def modules() -> dict[str, str]:
    """Dotted name and source of every module of the package."""
    files = [file for file in PACKAGE.rglob("*.py") if file != PACKAGE / "__init__.py"]
    dotted = [".".join(("genoattn", *file.relative_to(PACKAGE).with_suffix("").parts)) for file in files]
    return {name.removesuffix(".__init__"): file.read_text("utf-8") for name, file in zip(dotted, files, strict=True)}


def test_imports_point_one_way() -> None:
    found = [sentence for module, source in modules().items() for sentence in complaints(source, module)]
    assert not found, "\n".join(found)


def test_no_two_modules_import_each_other() -> None:
    sources = modules()
    graph = {
        module: [name for _, name in imported(source, module) if name in sources and name != module]
        for module, source in sources.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail("these import each other: " + " → ".join(error.args[1]))


@pytest.mark.parametrize(
    ("module", "source", "sentence"),
    [
        ("genoattn.genome.store", "import genoattn.data", "genome knows nothing of data"),
        ("genoattn.metrics", "def f():\n    from genoattn import train", "metrics, line 2, imports genoattn.train"),
        ("genoattn.tasks.aligned", "from ..model import Model", "imports genoattn.model, which stands above it"),
        ("genoattn.data", "from Bio import SeqIO", "data, line 1, imports Bio, which only genome may"),
        (
            "genoattn.model",
            "import lightning.pytorch as pl",
            "which only callbacks, data, fitting, learner, measuring, plan, report, tracking, train may",
        ),
        ("genoattn.helpers", "", "genoattn.helpers stands in no layer"),
        ("genoattn.tracking", "import wandb\nfrom genoattn import data\nfrom .errors import UserError", None),
    ],
)
def test_what_it_says(module: str, source: str, sentence: str | None) -> None:
    found = list(complaints(source, module))
    assert [sentence is not None and sentence in one for one in found] == [True] * (sentence is not None)
