"""The settings of a program with the comments of their yaml files, read as text: no library of configs is imported."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from genoattn.paths import conf_dir, package_folders

LINE = re.compile(r"(?P<indent> *)(?P<key>\w+):(?: +(?P<value>[^#\s].*?))?(?: +# *(?P<comment>.*))?")
DEFAULT = re.compile(r"  - (?P<group>\w+)(?:@(?P<package>\w+))?: (?P<choice>\w+|\[[\w,]*\])(?: +# *(?P<comment>.*))?")


class Setting(NamedTuple):
    """A setting: its dotted key, its default as yaml writes it, and the comment beside it."""

    key: str
    value: str
    comment: str


class Group(NamedTuple):
    """A config group of a program, such as `attention`, with the settings of its default choice."""

    name: str
    """Its key in a config, such as `control`."""
    override: str
    """The key that chooses, such as `attention@control`."""
    default: str
    comment: str
    files: list[Path]
    """The choices."""
    settings: list[Setting]


def program_files(program: str) -> list[Path]:
    """The yaml file of a program, after that of the program whose settings it has as well."""
    file = conf_dir() / f"{program}.yaml"
    return [*(program_files("train") if "  - train\n" in file.read_text("utf-8") else []), file]


def groups(program: str) -> list[Group]:
    """The groups of a program in the order of its defaults, with the choices that other packages add.

    The first group has no name: the settings of the program itself.
    """
    folders, program_yaml = [conf_dir(), *package_folders()], program_files(program)
    own = {setting.key: setting for file in reversed(program_yaml) for setting in settings(file, "")}
    described = {"": Group("", "", "", "", [], list(own.values()))}
    for file in program_yaml:
        for match in filter(None, map(DEFAULT.fullmatch, file.read_text("utf-8").splitlines())):
            files = sorted(path for folder in folders for path in (folder / match["group"]).glob("*.yaml"))
            name = match["package"] or match["group"]
            chosen = [path for path in files if path.stem in re.findall(r"\w+", match["choice"])]
            rows = [row for path in chosen for row in settings(path, name)]
            override = f"{match['group']}@{name}" if match["package"] else name
            described[name] = Group(name, override, match["choice"], match["comment"] or "", files, rows)
    return list(described.values())


def settings(file: Path, prefix: str) -> Iterator[Setting]:
    """The settings of a yaml file; their keys begin with `prefix`, or with nothing in a file of `_global_` settings."""
    lines = file.read_text("utf-8").splitlines()
    parents = [] if "# @package _global_" in lines else [prefix] if prefix else []
    depth = len(parents)
    for line in lines:
        match = LINE.fullmatch(line)
        if match is None:
            continue
        parents = [*parents[: depth + len(match["indent"]) // 2], match["key"]]
        is_setting = parents[0] not in ("hydra", "defaults") and not match["key"].startswith("_")
        if is_setting and (match["value"] or match["comment"]):
            yield Setting(".".join(parents), match["value"] or "", match["comment"] or "")


def first_comment(file: Path) -> str:
    """The first comment of a yaml file, which says what the choice is."""
    comments = (line[1:].strip() for line in file.read_text("utf-8").splitlines() if line.startswith("#"))
    return next((comment for comment in comments if not comment.startswith("@package")), "")


def with_comments(text: str, comments: dict[str, str]) -> str:
    """A config that OmegaConf wrote as yaml, with the comment of each dotted key."""
    parents: list[str] = []
    lines = []
    for line in text.splitlines():
        if match := LINE.fullmatch(line):
            parents = [*parents[: len(match["indent"]) // 2], match["key"]]
            comment = comments.get(".".join(parents))
            line = f"{line} # {comment}" if comment else line
        lines.append(line)
    return "\n".join(lines)
