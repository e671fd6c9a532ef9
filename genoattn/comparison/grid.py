"""The design of a comparison: which layers at which lengths, and the words of every run that it is made of."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from omegaconf import DictConfig

from genoattn.errors import UserError

BASELINES = ("none", "conv")
"""Layers that are always in: no mixing, and neighbours alone."""


COMPARISON_KEYS = (
    *("layers", "variants", "learning_rates", "seeds", "budget", "sweep", "match_size", "extrapolate"),
    *("cost_lengths", "cost_limit"),
    *("hypotheses", "name", "data.length"),
)
"""Settings that are the comparison's and no run's."""


CONTROLLED_KEYS = {
    "attention": "layers=[…]",
    "control": "layers=[…]; none is always in",
    "seed": "seeds=[…]",
    "optimizer.lr": "learning_rates=[…]",
    "trainer.max_steps": "budget.steps=…",
    "trainer.max_seconds": "budget.seconds=…",
    "trainer.resume": "the same command, which goes on where it stopped",
}
"""Settings of a run that a comparison makes itself, and what to write instead."""


MIN_WINDOWS = 16
"""Windows that are tested at least, however long they are."""


Stage = Literal["sweep", "final"]


@dataclass(frozen=True)
class Run:
    """One training run: a layer at a length, with a learning rate and a seed."""

    layer: str
    length: int
    learning_rate: float
    seed: int
    stage: Stage
    steps: int
    overrides: tuple[str, ...]
    """What `genoattn train` is given."""

    @property
    def run_dir(self) -> str:
        """Its folder within the comparison's."""
        return f"runs/{self.length}/{self.layer}/{self.stage}-lr{self.learning_rate:g}-seed{self.seed}"


@dataclass(frozen=True)
class ExperimentGrid:
    """What is compared, and how a training run of it is written."""

    layers: Mapping[str, tuple[str, ...]]
    """By name, the words that choose a layer."""
    lengths: tuple[int, ...]
    learning_rates: tuple[float, ...]
    seeds: tuple[int, ...]
    common: tuple[str, ...]
    """Words of every run."""
    windows: Mapping[str, int]
    """Counts of windows at the shortest length, by setting: a longer window is fewer of them, of as many bases."""
    group: str | None = None
    """Of Weights & Biases, where runs are logged to it."""

    def layer_overrides(self, layer: str, length: int) -> tuple[str, ...]:
        """The words of a layer at a length, before seed, rate and steps."""
        scale = min(self.lengths) / length
        counts = (
            f"{key}={max(1 if key == 'data.batch' else min(count, MIN_WINDOWS), round(count * scale))}"
            for key, count in self.windows.items()
        )
        return (*self.common, *self.layers[layer], f"data.length={length}", *counts)

    def run(self, layer: str, length: int, rate: float, seed: int, stage: Stage, steps: int) -> Run:
        """A training run; a sweep's is judged by its validation loss and hardly tested."""
        words = [
            *self.layer_overrides(layer, length), "control=null", f"optimizer.lr={rate:g}", f"seed={seed}",
            f"trainer.max_steps={steps}", f"trainer.validate_every={max(1, steps // 10)}",
            f"schedule.warmup={min(50, max(1, steps // 10))}",
        ]  # fmt: skip
        if stage == "sweep":
            told = {"test.windows": MIN_WINDOWS, "test.threshold_windows": MIN_WINDOWS, "test.resamples": 1}
            words = [word for word in words if word.partition("=")[0] not in told]
            words += [f"{key}={value}" for key, value in told.items()]
        if self.group:
            words += [f"logger.group='{self.group}'", f"logger.name='{layer} {length} {stage} {rate:g} {seed}'"]
        return Run(layer, length, rate, seed, stage, steps, tuple(words))

    def bases(self, layer: str, length: int, config: Callable[[Sequence[str]], DictConfig]) -> int:
        """Sample bases of a step."""
        composed = config(self.layer_overrides(layer, length))
        return composed.data.batch * composed.trainer.accumulate_batches * length


def parse(
    config: DictConfig, overrides: Sequence[str], compose: Callable[[Sequence[str]], DictConfig]
) -> ExperimentGrid:
    """The design that a user's overrides name; `compose` makes and checks the config of a training run.

    Raises UserError with all that is wrong with it.
    """
    _refuse(config, overrides)
    layers: dict[str, tuple[str, ...]] = {}
    variants = {str(name): tuple(map(str, words)) for name, words in config.variants.items()}
    for name in dict.fromkeys([*config.layers, *variants, *BASELINES]):
        layers[name] = variants.get(name, (f"attention={name}",))
    asked = config.data.length
    lengths = (asked,) if isinstance(asked, int) else tuple(sorted(set(asked)))
    passed = [word for word in overrides if not _is_own(_key(word)) and not _key(word).startswith("hydra")]
    given = {_key(word) for word in passed}
    common = [word for word in passed if _key(word) not in WINDOW_COUNTS]
    if "data.vcf" not in given and "data.fasta" not in given:
        common.append("data.vcf=[]")
    shown = compose([*common, *layers[next(iter(layers))], f"data.length={min(lengths)}"])
    windows = {key: int(_select(config if key in given else shown, key)) for key in WINDOW_COUNTS}
    group = config.name if config.logger else None
    design = ExperimentGrid(
        layers, lengths, tuple(config.learning_rates), tuple(config.seeds), tuple(common), windows, group
    )
    for name in layers:
        compose(design.layer_overrides(name, min(lengths)))
    return design


WINDOW_COUNTS = ("data.batch", "data.validation_windows", "test.windows", "test.threshold_windows")
"""Settings that count windows."""


def _refuse(config: DictConfig, overrides: Sequence[str]) -> None:
    found = [
        f"{word}: a comparison settles {key} itself; write {CONTROLLED_KEYS[key]}"
        for word in overrides
        if (key := _key(word)) in CONTROLLED_KEYS
    ]
    for name in ("budget", "sweep"):
        given = [unit for unit, amount in config[name].items() if amount is not None]
        if len(given) != 1:
            told = ", ".join(f"{name}.{unit}" for unit in given) or "none"
            found.append(
                f"{name}: expected one of {name}.steps, {name}.bases and {name}.seconds, got {told};"
                f" set the others to null, as in {name}.steps=300 {name}.seconds=null"
            )
    for name in ("layers", "learning_rates", "seeds"):
        held = list(config[name])
        if not held or len(set(held)) < len(held):
            found.append(f"{name}: expected one or more, each once, got {held}")
    found += [
        f"variants.{name}: expected letters, digits, - and _ as its name"
        for name in map(str, config.variants)
        if not re.fullmatch(r"[\w-]+", name)
    ]
    if found:
        raise UserError("\n".join(found))


def _key(word: str) -> str:
    return word.lstrip("+~").partition("=")[0].removeprefix("attention@")


def _is_own(key: str) -> bool:
    return any(key == one or key.startswith(f"{one}.") for one in COMPARISON_KEYS)


def _select(config: DictConfig, key: str) -> int:
    group, _, name = key.partition(".")
    return config[group][name]
