"""Folders of saved models as a stranger may send them: nothing that they name may run, and nothing may crash."""

import copy
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from genoattn.config.compose import compose
from genoattn.models.build import build_from_card, load_predictor
from genoattn.models.card import ModelCard
from genoattn.models.checkpoint import save_model
from genoattn.models.exported import CONFIG, TOKENIZER, WEIGHTS, config_values
from tests.fuzz.cases import Files, Kind, Maker, Trial, Wrong, chance, damage, insert_odd, pick

WORDS = ["experiment=smoke", "model.dim=8", "model.depth=1", "heads.count=2"]
TARGETS = (
    *("tests.fuzz.models.trap", "tests.fuzz.models.Trap", "builtins.list", "collections.Counter", "torch.nn.Linear"),
    *("genoattn.errors.shorten", "genoattn.models.sequence_model.torch.nn.Identity", "genoattn.data.tasks.base.Task"),
    *("genoattn.attention.full.FullAttention", "genoattn.data.tokenizers.nucleotide.NucleotideTokenizer", "genoattn"),
    *("no.such.module", "json", "", "..", "é.à"),
)
NUMBERS = (0, 1, -1, 2, 7, 10**6, 10**12, 10**400, 0.5, -0.0, 1e308)
TEXTS = ("", "x", "???", "${seed}", "${x}", "${oc.env:HOME}", "${", "[/b]", "\0", "é" * 200)
NODES = ({}, {"a": 1}, {"_target_": "tests.fuzz.models.trap"}, {"_target_": 5}, {"_args_": [1]})
VALUES: tuple[Any, ...] = (None, True, False, [], [1], [[]], *NUMBERS, *TEXTS, *NODES)
KEYS = ("_target_", "_args_", "_partial_", "_recursive_", "_convert_", "dim", "classes", "x", "", "é", "weights")

ran: list[str] = []
"""Names of the traps that ran."""


def trap(*_: object, **__: object) -> None:
    """A function that a card may not have called."""
    ran.append("trap")


class Trap:
    """A class that a card may not have built."""

    def __init__(self, *_: object, **__: object) -> None:
        ran.append("Trap")


def nodes(value: object) -> list[Any]:
    """All lists and mappings in a value, itself included."""
    inside = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else None
    return [] if inside is None else [value, *(node for item in inside for node in nodes(item))]


def change(rng: np.random.Generator, about: dict[str, Any]) -> None:
    """Leave out, add, rename or replace one value anywhere in a description."""
    node = pick(rng, nodes(about))
    keys: list[Any] = list(node) if isinstance(node, dict) else list(range(len(node)))
    value = copy.deepcopy(pick(rng, VALUES))
    if isinstance(node, list):
        if keys and chance(rng, 0.5):
            node[pick(rng, keys)] = value
        else:
            node.append(value)
        return
    match int(rng.integers(5)):
        case 0 if keys:
            del node[pick(rng, keys)]
        case 1:
            node[pick(rng, KEYS)] = value
        case 2 if keys:
            node[pick(rng, KEYS)] = node.pop(pick(rng, keys))
        case 3:
            node["_target_"] = pick(rng, TARGETS)
        case _ if keys:
            node[pick(rng, keys)] = value


def exported(rng: np.random.Generator, description: bytes, numbers: bytes) -> Files:
    """The same model as an exported folder, if its description is a mapping; now and then it is damaged as well."""
    tokenizer = b"{}"
    try:
        config = json.dumps(config_values(json.loads(description), tokenizer)).encode()
    except (ValueError, RecursionError):
        config = description
    if chance(rng, 0.3):
        config = pick(rng, [damage, insert_odd])(rng, config)
    return {CONFIG: config, WEIGHTS: numbers, TOKENIZER: tokenizer if chance(rng, 0.9) else damage(rng, tokenizer)}


def prepare(folder: Path) -> tuple[Maker, Trial]:
    """Save a tiny model; its folder is what inputs are changes of."""
    settings: Any = OmegaConf.to_container(compose("train", WORDS), resolve=True)
    keys = ("tokenizer", "task", "model", "attention", "reverse_complement", "seed")
    card = ModelCard(
        "linear", **{key: settings[key] for key in keys}, length=64, split="block", min_length=None, genome=("aa",)
    )
    save_model(folder / "saved", build_from_card(card).model, card)
    original = {file.name: file.read_bytes() for file in (folder / "saved").iterdir()}
    text, weights = original["model.json"], original["weights.safetensors"]

    def make(rng: np.random.Generator) -> Files:
        description, numbers = text, weights
        if chance(rng, 0.25):
            numbers = damage(rng, weights[:2_000]) + weights[2_000:] if chance(rng, 0.7) else damage(rng, weights)
        match int(rng.integers(8)):
            case 0:
                description = damage(rng, text)
            case 1:
                description = insert_odd(rng, text)
            case 2:
                description = pick(rng, [b"", b"[]", b"null", b"[" * 100_000, b'{"format": 3}', b'{"a":' * 50_000])
            case 3:
                pass
            case _:
                about = json.loads(text)
                for _ in range(int(rng.integers(1, 4))):
                    change(rng, about)
                if "weights" in about and chance(rng, 0.8):
                    about["weights"] = hashlib.sha256(numbers).hexdigest()
                description = json.dumps(about).encode()
        if chance(rng, 0.3):
            return exported(rng, description, numbers)
        return {"model.json": description, "weights.safetensors": numbers}

    return make, run


def run(folder: Path) -> str:
    """Load the model; raises Wrong if it ran code of another package or holds numbers that are not finite."""
    ran.clear()
    try:
        loaded = load_predictor(folder, "cpu")
    finally:
        if ran:
            raise Wrong(f"{ran[0]} was run")
    if not all(parameter.isfinite().all() for parameter in loaded.predictor.model.parameters()):
        raise Wrong("the model holds numbers that are not finite")
    return "read"


KIND = Kind("model", 0.05, prepare)
