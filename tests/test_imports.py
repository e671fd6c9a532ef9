"""Imports point one way: each folder of the package knows the folders that its line names, and no other."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "genoattn"

KNOWS = {
    "genome": {"errors", "files"},
    "attention": {"errors"},
    "config": {"errors", "paths"},
    "data": {"genome", "errors", "paths", "files"},
    "models": {"config", "data", "attention", "genome", "errors", "files", "paths"},
    "training": {"models", "data", "attention", "errors", "files"},
    "evaluation": {"models", "data", "genome", "errors", "files"},
    "comparison": {"evaluation", "models", "data", "config", "errors", "paths", "files"},
    "cli": {
        "comparison",
        "evaluation",
        "training",
        "models",
        "data",
        "attention",
        "genome",
        "config",
        "errors",
        "files",
    },
    "errors": set(),
    "paths": set(),
    "files": {"errors"},
    "__main__": {"cli"},
}
"""Nine folders in the order of the pipeline, then the leaves and the entry point."""

ONLY = {
    "Bio": {"genome", "evaluation"},
    "pysam": {"genome"},
    "lightning": {"data", "training", "cli"},
    "hydra": {"config", "comparison", "cli"},
    "peft": {"training"},
    "wandb": {"training"},
    "triton": {"attention"},
    "huggingface_hub": {"models"},
}
"""The folders that may import a library."""


def part(module: str) -> str:
    """The file or folder of the package that a dotted name begins with: genome, of genoattn.genome.sequence_store."""
    return module.split(".")[1] if "." in module else ""


def imported(source: str, module: str) -> Iterator[tuple[int, str]]:
    """Line and dotted name of everything that a module imports, in functions too."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = module.split(".")[: -node.level] if node.level else []
            name = ".".join([*above, *filter(None, [node.module])])
            names = [f"{name}.{alias.name}" for alias in node.names] if name == "genoattn" else [name]
            yield from ((node.lineno, name) for name in names)


def complaints(source: str, module: str) -> Iterator[str]:
    """A sentence on every import of a module that its folder may not make."""
    here = part(module)
    if here not in KNOWS:
        yield f"{module} stands in no known folder: say in tests/test_imports.py what {here} may import"
        return
    for line, name in imported(source, module):
        library, there = name.split(".")[0], part(name)
        if library == "genoattn" and there != here and there not in KNOWS[here]:
            yield f"{module}, line {line}, imports {name}: {here} knows nothing of {there}"
        if here not in ONLY.get(library, {here}):
            yield f"{module}, line {line}, imports {name}, which only {', '.join(sorted(ONLY[library]))} may"
        if library == "triton" and not module.startswith("genoattn.attention.kernels"):
            yield f"{module}, line {line}, imports triton, which only genoattn.attention.kernels may"


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
        ("genoattn.genome.sequence_store", "import genoattn.data.datamodule", "genome knows nothing of data"),
        (
            "genoattn.evaluation.report",
            "def f():\n    from genoattn import training",
            "line 2, imports genoattn.training: evaluation knows nothing of training",
        ),
        ("genoattn.data.tasks.paired", "from ...models.block import Block", "data knows nothing of models"),
        ("genoattn.data.datamodule", "from Bio import SeqIO", "line 1, imports Bio, which only evaluation, genome may"),
        ("genoattn.attention.full", "import triton", "imports triton, which only genoattn.attention.kernels may"),
        ("genoattn.helpers", "", "genoattn.helpers stands in no known folder"),
        ("genoattn.training.loggers", "import wandb\nfrom genoattn import data\nfrom ..errors import UserError", None),
    ],
)
def test_what_it_says(module: str, source: str, sentence: str | None) -> None:
    found = list(complaints(source, module))
    assert [sentence is not None and sentence in one for one in found] == [True] * (sentence is not None)
