"""Words of a command line: each config is composed and checked, or its mistakes are sentences."""

from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import OmegaConf

from genoattn.config.compose import check, compose
from genoattn.errors import UserError
from genoattn.paths import conf_dir
from tests.fuzz.cases import Files, Kind, Maker, Trial, chance, insert_odd, pick, words_of

GROUPS = words_of("attention task tokenizer model data experiment optimizer trainer control hydra x")
CHOICES = (*words_of("linear full none null paired bpe kmer smoke liner [a,b] [1,2] a/b .."), "")
VALUES = (
    *words_of("1 0 -1 1.5 1e9 1e400 nan inf true null abc '' \"\" [1,2] [] {} {a:1} {a:{b:2}} ${seed} ${x} ${ ???"),
    *words_of("1,2 range(1,3) choice(1,2) interval(0,1) glob(*) int(1) sort(1) shuffle(1) a=b 'a \\ [[[[1]]]] {a a:b"),
    *("${oc.env:HOME}", "a b", "{a: 1}", "é", "\0", "\n", "9" * 400, "x" * 2_000, "[" * 300, "{" * 300),
)
SIGNS = ("", "", "", "", "+", "++", "~", "-", "@", "+ ")
OWN = words_of("hydra.run.dir hydra.searchpath hydra.job.name attention._target_ task._target_ model._partial_ a.b.c")
PROGRAMS = ("train", "train", "train", "plan", "compare", "evaluate")


def leaves(config: Any, path: str = "") -> dict[str, Any]:
    """All values of a config by their dotted names."""
    if not isinstance(config, dict):
        return {path: config}
    inside = [leaves(value, f"{path}.{key}" if path else str(key)) for key, value in config.items()]
    return {name: value for values in inside for name, value in values.items()}


def prepare(folder: Path) -> tuple[Maker, Trial]:
    """Collect the settings that words may change, and the right choices of each group."""
    settings = leaves(OmegaConf.to_container(compose("train"), resolve=False))
    keys = list(settings)
    choices = [f"{file.parent.name}={file.stem}" for file in sorted(conf_dir().glob("*/*.yaml"))]

    def word(rng: np.random.Generator) -> bytes:
        key, sign = pick(rng, keys), pick(rng, SIGNS)
        match int(rng.integers(10)):
            case 0 | 1:
                return pick(rng, choices).encode()
            case 2 | 3:
                return f"{key}={settings[key]}".encode()
            case 4:
                text = f"{pick(rng, GROUPS)}={pick(rng, CHOICES)}"
            case 5:
                text = f"{pick(rng, OWN)}={pick(rng, VALUES)}"
            case 6:
                text = f"{key}{pick(rng, ['', 'x', '.x', '[0]', '@y'])}={pick(rng, VALUES)}"
            case 7:
                text = key
            case _:
                text = f"{key}={pick(rng, VALUES)}"
        encoded = (sign + text).encode()
        return insert_odd(rng, encoded) if chance(rng, 0.1) else encoded

    def make(rng: np.random.Generator) -> Files:
        words = [word(rng) for _ in range(int(rng.integers(1, 3)))]
        return {"words": b"\0\n".join([pick(rng, PROGRAMS).encode(), *words])}

    return make, run


def run(folder: Path) -> str:
    """Compose and check the config of a program."""
    program, *words = (folder / "words").read_bytes().decode("utf-8", "replace").split("\0\n")
    try:
        check(compose(program, words), program)
    except UserError as error:  # one sentence for each mistake
        raise UserError(str(error).replace("\n", " ")) from None
    return "right"


KIND = Kind("overrides", 0.01, prepare)
