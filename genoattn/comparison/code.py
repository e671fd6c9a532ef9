"""Digests of the code that a run executes: by module, without comments and docstrings."""

import ast
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

LIBRARIES = ("torch", "lightning", "numpy")
"""Packages that their versions describe."""

UNRELATED = ("cli", "comparison", "config", "errors", "files", "paths")
"""Parts of this package that no result depends on; so are its modules of reports and loggers."""


class CodeReader:
    """Reads each module once.

    Modules are found by their path and never imported. Comments, docstrings and the layout of the text change no
    digest.
    """

    def __init__(self) -> None:
        self._modules: dict[str, tuple[str, tuple[str, ...]]] = {}

    def digests(self, names: Iterable[str]) -> dict[str, str]:
        """Digest by module: of the modules named, and of all that they import from their own top-level package.

        Args:
            names: Dotted names of modules, or of what they define: `genoattn.attention.linear.LinearAttention`.

        Returns:
            The digests; modules without a source file, and those that only draw or print results, are left out.
        """
        todo, reached = list(names), {}
        while todo:
            module = _module_of(todo.pop())
            if module is None or module in reached or module.partition(".")[0] in LIBRARIES:
                continue
            reached[module], imported = self._read(module)
            todo += imported
        return {module: digest for module, digest in sorted(reached.items()) if _counts(module)}

    def reread(self, digests: Mapping[str, str]) -> dict[str, str]:
        """The digests of the same modules as their files are now; empty for a module that is gone."""
        return {name: self._read(name)[0] if _file(name) else "" for name in digests}

    def _read(self, module: str) -> tuple[str, tuple[str, ...]]:
        """The digest of a module, and the names that it imports from its top-level package."""
        if module not in self._modules:
            file = _file(module)
            assert file is not None
            source = file.read_bytes()
            package = module if file.name == "__init__.py" else module.rpartition(".")[0]
            try:
                tree = ast.parse(source)
            except (SyntaxError, ValueError):  # no run can execute it
                tree = ast.Module([ast.Expr(ast.Constant(source))], [])
            top = module.partition(".")[0]
            names = tuple(name for name in _imported(tree, package) if name.partition(".")[0] == top)
            self._modules[module] = hashlib.sha256(_without_docstrings(tree).encode()).hexdigest(), names
        return self._modules[module]


def _counts(module: str) -> bool:
    top, _, inside = module.partition(".")
    if top != "genoattn":
        return True
    return inside.partition(".")[0] not in ("", *UNRELATED) and "report" not in inside and "loggers" not in inside


def _without_docstrings(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            node.body = [
                line
                for line in node.body
                if not (
                    isinstance(line, ast.Expr)
                    and isinstance(line.value, ast.Constant)
                    and isinstance(line.value.value, str)
                )
            ]
    return ast.dump(tree)


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Dotted names of everything that a module imports, in functions too."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            above = parts[: len(parts) - node.level + 1] if node.level else []
            name = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{name}.{alias.name}" for alias in node.names)


def _module_of(name: str) -> str | None:
    """The module that a dotted name stands for or lies in; None without a source file."""
    while name and _file(name) is None:
        name = name.rpartition(".")[0]
    return name or None


def _file(module: str) -> Path | None:
    """The source file of a module, found without importing it."""
    top, *parts = module.split(".")
    try:
        spec = find_spec(top)
    except (ImportError, ValueError):  # a program that runs as __main__
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations is None:
        file = Path(spec.origin or "")
        return file if not parts and file.suffix == ".py" else None
    for folder in spec.submodule_search_locations:
        for file in (Path(folder, *parts, "__init__.py"), Path(folder, *parts).with_suffix(".py") if parts else None):
            if file is not None and file.is_file():
                return file
    return None
