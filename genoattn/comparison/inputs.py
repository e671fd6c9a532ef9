"""Everything that decides the results of a run: settings, files, versions and code; they tell one run from another."""

import hashlib
import json
import math
import platform
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from genoattn.comparison.code import CodeReader
from genoattn.comparison.composition import search_path
from genoattn.config.compose import compose
from genoattn.config.overrides import value_in
from genoattn.data.genome_list import fasta_paths
from genoattn.data.source import BUNDLED_GENOME
from genoattn.errors import UserError, shorten
from genoattn.files import file_sha256, input_paths, path_and_type, write_json
from genoattn.paths import genomes_dir

INPUTS = "inputs.json"
"""The inputs of a run, in its folder."""

FILES = ("data.fasta", "data.vcf", "data.strains", "task.file", "task.split_bed")
"""Settings that name files; the content of the files counts, not their folder."""

IRRELEVANT = ("logger", "data.cache", "trainer.log_every", "trainer.memory_check", "trainer.resume", "checkpoint")
"""Settings without effect on results; the model of `checkpoint` counts, not its folder."""

MEASURED = ("trainer.threads", "data.workers")
"""Settings that only the measured cost depends on."""

OWN = (
    *("optimizer.lr", "seed", "trainer.max_steps", "trainer.validate_every", "schedule.warmup"),
    *("test.windows", "test.threshold_windows", "test.resamples", "test.lengths", "checkpoint", "data.length"),
)
"""Single values in which the runs of a layer differ: the rest of their config is composed once."""

REASONS = 3
"""Reasons that a sentence names."""


@dataclass(frozen=True)
class RunInputs:
    """The inputs of a run. Runs with equal inputs have equal results."""

    overrides: Sequence[str]
    """As the run is started; other words with the same meaning make no other run."""
    settings: Mapping[str, Any]
    """Values of the composed config by dotted key."""
    files: Mapping[str, Sequence[Sequence[str]]]
    """By setting, name and sha256 of each file."""
    versions: Mapping[str, str]
    code: Mapping[str, str]
    """Digest by module."""

    @property
    def digest(self) -> str:
        """One text that stands for all inputs."""
        parts = {key: value for key, value in asdict(self).items() if key != "overrides"}
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def differences(self, earlier: "RunInputs") -> list[str]:
        """A clause on every input that was another one in an earlier run."""
        clauses = [
            f"{key} was {shorten(old)} and is {shorten(new)}"
            for key, old, new in _changed(earlier.settings, self.settings)
        ]
        clauses += [f"the content of {key} changed" for key, _, _ in _changed(earlier.files, self.files)]
        versions = [f"{name} was {old} and is {new}" for name, old, new in _changed(earlier.versions, self.versions)]
        if not versions:  # another version has other code
            clauses += [f"{name} was edited" for name, _, _ in _changed(earlier.code, self.code)]
        return clauses + versions

    def write(self, folder: Path) -> None:
        """Write inputs.json into the folder of the run."""
        write_json(folder / INPUTS, {"digest": self.digest, **asdict(self)}, indent=1)

    @staticmethod
    def read(folder: Path) -> "RunInputs | None":
        """The inputs of the run in a folder; None if they are missing or damaged."""
        try:
            plain = json.loads((folder / INPUTS).read_text("utf-8"))
            inputs = RunInputs(*(plain[key] for key in ("overrides", "settings", "files", "versions", "code")))
            return inputs if inputs.digest == plain["digest"] else None
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return None

    def as_of_now(self) -> "RunInputs":
        """The same inputs with the code as its files are now: a layer may be edited while a comparison runs."""
        return replace(self, code=CodeReader().reread(self.code))


def _changed(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    for key in dict.fromkeys([*old, *new]):
        if old.get(key, "missing") != new.get(key, "missing"):
            yield key, old.get(key, "missing"), new.get(key, "missing")


def sentence(clauses: Sequence[str]) -> str:
    """The reasons in a row: the first ones, and the number of the others."""
    more = [f"{len(clauses) - REASONS} more inputs changed"] if len(clauses) > REASONS else []
    return "; ".join([*clauses[:REASONS], *more])


class InputReader:
    """Determines the inputs of runs; reads every config, file and module once."""

    def __init__(self) -> None:
        self._code = CodeReader()
        self._configs: dict[tuple[str, ...], tuple[dict[str, Any], dict[str, str]]] = {}
        self._versions = {name: version(name) for name in ("genoattn", "torch")}
        self._versions["python"] = ".".join(platform.python_version_tuple()[:2])

    def read(self, program: str, overrides: Sequence[str]) -> RunInputs:
        """The inputs of a run of a program.

        Raises:
            UserError: A wrong override, or a file that cannot be read.
        """
        shared = [word for word in overrides if word.partition("=")[0] not in OWN]
        settings, code = self._compose(program, shared)
        settings = settings | {word.partition("=")[0]: value_in(word) for word in overrides if word not in shared}
        files = {key: [[name, file_digest(path, key)] for name, path in _named_files(settings, key)] for key in FILES}
        irrelevant = (*IRRELEVANT, *FILES, *(MEASURED if program != "plan" else ()))
        kept = {key: value for key, value in settings.items() if not _is_part(key, irrelevant)}
        if "checkpoint" in settings:
            home = Path(settings["checkpoint"])
            trained = RunInputs.read(home)
            files["checkpoint"] = [["run", trained.digest if trained else ""]]
            weights = home / "model" / "weights.safetensors"
            files["checkpoint"] += [["weights", file_digest(weights, "checkpoint")]] if weights.is_file() else []
        return RunInputs(list(overrides), kept, files, self._versions, code)

    def _compose(self, program: str, shared: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
        """Values and code of the config under the overrides that a layer's runs share."""
        if (program, *shared) not in self._configs:
            words = ["checkpoint=''"] if program in ("context", "evaluate") else []
            config = compose(program, [*shared, *words, *search_path()])
            values = dict(_flat(OmegaConf.to_container(config, resolve=True)))
            targets = [str(value) for key, value in values.items() if key.endswith("_target_")]
            self._configs[program, *shared] = values, self._code.digests([f"genoattn.cli.{program}", *targets])
        return self._configs[program, *shared]


def file_digest(path: Path, key: str) -> str:
    """The sha256 of a file that a setting names; raises UserError if it cannot be read."""
    try:
        status = path.stat()
        return _sha256(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    except OSError as error:
        raise UserError(f"{key}={shorten(path)} cannot be read: {error.strerror}") from None


@lru_cache(1024)
def _sha256(path: Path, *stamp: int) -> str:
    """The sha256 of a file, computed once for each stamp: numbers that change when the file does."""
    return file_sha256(path)


def _named_files(settings: Mapping[str, Any], key: str) -> list[tuple[str, Path]]:
    """The files that a setting names, those of the bundled genome if it names none, with their names."""
    value = settings.get(key)
    if value is not None and key == "task.split_bed":
        return [(Path(value).name, path_and_type(value)[0])]  # the type of a GFF3 is a part of its name
    if value is not None:
        return [(path.name, path) for path in (fasta_paths if key == "data.fasta" else input_paths)(value, key)]
    fasta, vcfs = BUNDLED_GENOME
    bundled = key == "data.vcf" and settings.get("data.fasta") is None
    names = [fasta] if key == "data.fasta" else vcfs if bundled else []
    return [(name, genomes_dir() / name) for name in names]


def _is_part(key: str, of: Sequence[str]) -> bool:
    return any(key == name or key.startswith(f"{name}.") for name in of)


def _flat(node: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a config by dotted key, as JSON can hold them."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _flat(value, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list) and any(isinstance(value, dict) for value in node):
        for number, value in enumerate(node):
            yield from _flat(value, f"{path}.{number}")
    elif isinstance(node, float) and not math.isfinite(node):
        yield path, str(node)
    else:
        yield path, node
