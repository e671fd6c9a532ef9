"""Tables of the settings in conf/: names, types, defaults and meanings, read from the yaml files and the sources."""

import ast
import re
from functools import cache
from pathlib import Path

import griffe
import yaml

from genoattn.cli.main import PROGRAMS
from genoattn.config.documentation import settings

GROUPS = (
    *("attention", "heads", "task", "curriculum", "tokenizer", "data"),
    *("model", "optimizer", "schedule", "trainer", "test", "logger", "experiment"),
)

PACKAGE = re.compile(r"^# @package (\S+)$", re.MULTILINE)
WORDS = {"int": "integer", "float": "number", "str": "text", "bool": "true or false", "None": "null", "dict": "mapping"}
BOUNDS = {"Ge": "≥", "Gt": ">", "Le": "≤", "Lt": "<"}


def reference(root: Path) -> str:
    """The page of all settings."""
    page = [
        "# Settings",
        "Every setting of every program. A setting is written as `key=value` after the name of a program, and a choice"
        " of a group as `group=choice`: `genoattn train attention=window attention.left=64`. `--cfg job` prints the"
        " settings of a command.",
    ]
    for program in PROGRAMS:
        file = root / "conf" / f"{program}.yaml"
        if file.is_file():
            page += [f"## genoattn {program}", _title(file), _groups(file), _table(file, "")]
    for group in GROUPS:
        files = sorted((root / "conf" / group).glob("*.yaml"))
        if files:
            page.append(f"## {group}")
        for file in files:
            page += [f"### {group}={file.stem}", _title(file), _table(file, _prefix(file))]
    return "\n\n".join(filter(None, page)) + "\n"


def table(root: Path, choice: str) -> str:
    """The table of one choice of a group, such as `attention/window`."""
    file = root / "conf" / f"{choice}.yaml"
    return _table(file, _prefix(file))


def _prefix(file: Path) -> str:
    """The words before the keys of a choice: those of its `# @package`, or else its group."""
    package = PACKAGE.search(file.read_text("utf-8"))
    name = package[1] if package else file.parent.name
    return "" if name == "_global_" else name


def _title(file: Path) -> str:
    """The first comment of a yaml file, which may go on over several lines."""
    lines = []
    for line in file.read_text("utf-8").splitlines():
        if not line.startswith("#"):
            break
        if not line.startswith("# @package"):
            lines.append(line[1:].strip())
    return " ".join(lines)


def _groups(file: Path) -> str:
    """The groups that a program chooses from, with the choice that it makes by itself."""
    defaults = (yaml.safe_load(file.read_text("utf-8")) or {}).get("defaults", [])
    chosen = [pair for entry in defaults if isinstance(entry, dict) for pair in entry.items()]
    names = [f"`{group.removeprefix('override /')}={'null' if name is None else name}`" for group, name in chosen]
    return f"Groups and their defaults: {', '.join(names)}." if names else ""


def _table(file: Path, prefix: str) -> str:
    described = list(settings(file, prefix))
    if not described:
        return "No settings of its own."
    types = _types((yaml.safe_load(file.read_text("utf-8")) or {}).get("_target_", ""))
    rows = ["| setting | type | default | meaning |", "| --- | --- | --- | --- |"]
    for key, value, comment in described:
        kind = types.get(key.removeprefix(f"{prefix}."), "")
        default = f"`{value}`" if value else ""
        rows.append(f"| `{key}` | {_cell(kind)} | {_cell(default)} | {_cell(comment)} |")
    return "\n".join(rows)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _types(target: str) -> dict[str, str]:
    """The types of a target's parameters in words; empty for a target of another package."""
    if not target.startswith("genoattn."):
        return {}
    parameters = _sources()[target.removeprefix("genoattn.")].parameters
    typed = {parameter.name: str(parameter.annotation) for parameter in parameters if parameter.annotation is not None}
    return {name: _in_words(ast.parse(annotation, mode="eval").body) for name, annotation in typed.items()}


@cache
def _sources() -> griffe.Object | griffe.Alias:
    """The package as it is written; nothing is imported."""
    return griffe.load("genoattn", search_paths=[str(Path(__file__).parents[1])])


def _in_words(node: ast.expr) -> str:
    """A type as a reader who knows no Python would say it."""
    if isinstance(node, ast.BinOp):
        sides = [_in_words(node.left), _in_words(node.right)]
        return "number" if set(sides) == {"integer", "number"} else " or ".join(sides)
    if isinstance(node, ast.Subscript):
        outer = ast.unparse(node.value).rpartition(".")[2]
        inner = node.slice.elts if isinstance(node.slice, ast.Tuple) else [node.slice]
        if outer == "Literal":
            return ", ".join(f"`{ast.literal_eval(word)}`" for word in inner)
        if outer == "Annotated":
            return f"{_in_words(inner[0])} {', '.join(filter(None, map(_bound, inner[1:])))}".strip()
        if outer in ("Sequence", "list", "tuple"):
            return f"list of {_in_words(inner[0])}"
        return "mapping" if outer in ("Mapping", "dict") else outer
    name = ast.unparse(node).rpartition(".")[2]
    return WORDS.get(name, name)


def _bound(node: ast.expr) -> str:
    """`≥ 1` for `Ge(1)`."""
    if isinstance(node, ast.Call) and ast.unparse(node.func) in BOUNDS and node.args:
        return f"{BOUNDS[ast.unparse(node.func)]} {ast.unparse(node.args[0])}"
    return ""
