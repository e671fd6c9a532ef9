"""The identity of a run: the settings and inputs that determine its weights, which its checkpoints carry."""

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from genoattn.data.source import DataSource
from genoattn.errors import shorten

FREE = {
    *(f"trainer.{name}" for name in ("max_steps", "max_seconds", "validate_every", "log_every", "threads")),
    *("trainer.memory_check", "trainer.resume", "data.workers", "data.cache", "data.vcf"),
    *("trainer.strategy", "trainer.devices", "trainer.num_nodes", "trainer.requeue", "trainer.sequence_parallel"),
    "trainer.sharded_checkpoints",
}
"""Settings that may differ when a run is resumed: budget, logging, workers, devices and evaluation."""

FREE_GROUPS = ("logger.", "test.")
"""Groups of settings that may differ; the seed of the validation windows, `test.seed`, may not."""

CONTENT = {
    "genome": "data.fasta",
    "weights": "data.fasta",
    "strains": "data.strains",
    "labelled": "task.file",
    "items": "task.file",
    "pretrained": "checkpoint",
}
"""The setting that names each input: its file may be moved, but its content may not differ."""

PACKAGES = ("genoattn", "torch", "lightning")


@dataclass(frozen=True)
class RunIdentity:
    """Settings and inputs of a run.

    Attributes:
        config: The resolved config.
        inputs: By name, the sha256 of every part of an input: of each record of the genome, of the strains, of the
            labelled variants and of the pretrained weights.
    """

    config: Mapping[str, Any]
    inputs: Mapping[str, list[str]]

    def state(self, model: str) -> dict[str, str]:
        """The content of a checkpoint about its run; `model` is the name of the model that it holds."""
        versions = {package: version(package) for package in PACKAGES}
        return {
            "model": model,
            **{key: json.dumps(value) for key, value in (("config", self.config), ("inputs", self.inputs))},
            "versions": json.dumps(versions),
        }


def identify(config: Mapping[str, Any], source: DataSource, pretrained: str | None = None) -> RunIdentity:
    """The identity of a run on a source; `pretrained` is the sha256 of the weights that it begins with."""
    inputs = {"genome": [record.sha256 for record in source.genome.records]}
    if any(file[1:] != (None, "") for file in source.files):  # groups, and weights beside the genome of each
        inputs["weights"] = [hashlib.sha256(repr([file[1:] for file in source.files]).encode()).hexdigest()]
    if source.items is not None:
        inputs["items"] = [hashlib.sha256(repr(source.items).encode()).hexdigest()]
    if source.strains:
        bases = [block.sample.bases.tobytes() for strain in source.strains for block in strain.blocks]
        inputs["strains"] = [hashlib.sha256(b"".join(bases)).hexdigest()]
    if source.labelled:
        inputs["labelled"] = [hashlib.sha256(repr(source.labelled).encode()).hexdigest()]
    if pretrained is not None:
        inputs["pretrained"] = [pretrained]
    return RunIdentity(config, inputs)


def differences(state: Mapping[str, str], identity: RunIdentity, model: str) -> list[str]:
    """A line for every difference between the run of a checkpoint and the run that would go on from it.

    Args:
        state: The content of the checkpoint about its run.
        identity: The run that would go on.
        model: The model that would be trained.
    """
    lines = [f"model: {state['model']} → {model}"] if state["model"] != model else []
    before, now = (dict(_flat(config)) for config in (json.loads(state["config"]), identity.config))
    for key in dict.fromkeys([*now, *before]):
        free = key in FREE or key.startswith(FREE_GROUPS) or key in CONTENT.values()
        if (not free or key == "test.seed") and (key in before, before.get(key)) != (key in now, now.get(key)):
            lines.append(f"{key}: {_show(before, key)} → {_show(now, key)}")
    inputs = json.loads(state["inputs"])
    for name, setting in CONTENT.items():
        old, new = inputs.get(name, []), list(identity.inputs.get(name, []))
        if old != new:
            lines.append(f"{setting}: sha256 {_digest(old)} → {_digest(new)}")
    return lines


def other_versions(state: Mapping[str, str]) -> list[str]:
    """Packages whose version is not that of a checkpoint's run, with both versions."""
    before = json.loads(state["versions"])
    pairs = {package: (before.get(package), version(package)) for package in PACKAGES}
    return [f"{package} {old} → {new}" for package, (old, new) in pairs.items() if old != new]


def _flat(config: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", json.loads(json.dumps(value))


def _show(settings: Mapping[str, Any], key: str) -> str:
    return shorten(json.dumps(settings[key], ensure_ascii=False)) if key in settings else "(not set)"


def _digest(parts: list[str]) -> str:
    whole = parts[0] if len(parts) == 1 else hashlib.sha256("".join(parts).encode()).hexdigest()
    return whole[:12] if parts else "(none)"
