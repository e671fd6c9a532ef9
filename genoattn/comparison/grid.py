"""The grid of a comparison: its layers and lengths, and the overrides of every run."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

from genoattn.comparison.record import BASELINE_LAYERS, Run, Stage
from genoattn.comparison.settings import Budget, ComparisonSettings, Number
from genoattn.config.compose import available_layers
from genoattn.config.overrides import quote
from genoattn.errors import UserError

COMPARISON_KEYS = (
    *("layers", "variants", "learning_rates", "seeds", "budget", "sweep", "match_size", "extrapolate"),
    *("cost_lengths", "cost_limit", "hypotheses", "name", "again", "report", "data.length"),
    *("ladder", "ladder_ceiling", "take_off", "former"),
)
"""Settings of the comparison that no run has."""


CONTROLLED_KEYS = {
    "attention": "layers=[…]",
    "control": "layers=[…]; none is always in",
    "seed": "seeds=[…]",
    "optimizer.lr": "learning_rates=[…]",
    "test.lengths": "ladder=[…] or extrapolate=[…]",
    "trainer.max_steps": "budget.steps=…",
    "trainer.max_seconds": "budget.seconds=…",
    "trainer.resume": "the same command, which goes on where it stopped",
}
"""Settings of a run that the comparison sets itself, and the words to use instead."""


OF_A_LADDER = ("data.length", "curriculum.length", "curriculum.lengths", "data.validation_lengths")
"""Settings that a ladder decides."""


MIN_WINDOWS = 16
"""Least number of test windows at any length."""


@dataclass(frozen=True)
class WindowCounts:
    """Settings of a run that count windows."""

    batch: int
    accumulate_batches: int
    validation: int
    test: int
    thresholds: int

    def overrides(self, scale: float) -> tuple[str, ...]:
        """The overrides for windows that are 1 / `scale` times as long: fewer windows, as many bases."""

        def scaled(count: int) -> int:
            return max(min(count, MIN_WINDOWS), round(count * scale))

        return (
            f"data.batch={max(1, round(self.batch * scale))}",
            f"data.validation_windows={scaled(self.validation)}",
            f"test.windows={scaled(self.test)}",
            f"test.threshold_windows={scaled(self.thresholds)}",
        )


@dataclass(frozen=True)
class PlannedRun(Run):
    """A training run, finished or not."""

    overrides: tuple[str, ...]
    """Overrides of `genoattn train`."""


@dataclass(frozen=True)
class ExperimentGrid:
    """The layers and lengths of a comparison, and the overrides that all runs share."""

    layers: Mapping[str, tuple[str, ...]]
    """By name, the overrides that choose a layer."""
    lengths: tuple[int, ...]
    common: tuple[str, ...]
    windows: WindowCounts
    """Those of the shortest length."""
    group: str | None = None
    """Group in Weights & Biases; None: runs are not logged there."""
    tested: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    """By training length, further lengths of test windows."""
    validations: int = 10
    """Validations of a run."""

    def layer_overrides(self, layer: str, length: int) -> tuple[str, ...]:
        """The overrides of a layer at a length, without seed, learning rate and steps."""
        counts = self.windows.overrides(min(self.lengths) / length)
        return (*self.common, *self.layers[layer], f"data.length={length}", *counts)

    def run(self, layer: str, length: int, learning_rate: Number, seed: int, stage: Stage, steps: int) -> PlannedRun:
        """A training run. A run of the sweep is ranked by its validation loss, so it is tested on few windows only."""
        overrides = [
            *self.layer_overrides(layer, length),
            *("control=null", f"optimizer.lr={learning_rate:g}", f"seed={seed}", f"trainer.max_steps={steps}"),
            f"trainer.validate_every={max(1, steps // self.validations)}",
            f"test.lengths={list(self.tested.get(length, ()))}".replace(" ", ""),
            f"schedule.warmup={min(50, max(1, steps // 10))}",
        ]
        if stage == "sweep":
            few: dict[str, object] = {"test.windows": MIN_WINDOWS, "test.threshold_windows": MIN_WINDOWS}
            few |= {"test.resamples": 1, "test.lengths": "[]"}
            overrides = [word for word in overrides if _key(word) not in few]
            overrides += [f"{key}={value}" for key, value in few.items()]
        if self.group:
            overrides.append(f"logger.wandb.group={quote(self.group)}")
            overrides.append(f"logger.wandb.name={quote(f'{layer} {length} {stage} {learning_rate:g} {seed}')}")
        folder = f"runs/{length}/{layer}/{stage}-lr{learning_rate:g}-seed{seed}"
        return PlannedRun(layer, length, learning_rate, seed, stage, steps, folder, tuple(overrides))

    def bases_per_step(self, length: int) -> int:
        """Sample bases of a training step."""
        return max(1, round(self.windows.batch * min(self.lengths) / length)) * self.windows.accumulate_batches * length


def parse(
    settings: ComparisonSettings,
    overrides: Sequence[str],
    compose: Callable[[Sequence[str]], WindowCounts],
    group: str | None = None,
) -> ExperimentGrid:
    """The grid of a comparison.

    Args:
        settings: Settings of the comparison.
        overrides: All overrides of the user; those of a run are passed on.
        compose: Composes and checks the config of a training run under overrides.
        group: Group in Weights & Biases.

    Returns:
        The grid; the config of every layer was composed once.

    Raises:
        UserError: Every mistake in the settings, or the first in the config of a run.
    """
    if errors := _find_errors(settings, overrides):
        raise UserError("\n".join(errors))
    names = dict.fromkeys([*settings.layers, *settings.variants, *BASELINE_LAYERS])
    layers = {name: settings.variants.get(name, (f"attention={name}",)) for name in names}
    passed = [word for word in overrides if _is_of_run(_key(word))]
    if not {"data.vcf", "data.fasta"} & {_key(word) for word in passed}:
        passed.append("data.vcf=[]")
    passed += _mixture(settings)
    windows = compose([*passed, *layers[next(iter(layers))], f"data.length={min(settings.lengths)}"])
    counts = {_key(word) for word in windows.overrides(1.0)}
    common = tuple(word for word in passed if _key(word) not in counts)
    tested = {length: tuple(at for at in settings.tested(length) if at != length) for length in settings.lengths}
    grid = ExperimentGrid(layers, settings.lengths, common, windows, group, tested, 20 if settings.ladder else 10)
    for name in layers:
        compose(grid.layer_overrides(name, min(settings.lengths)))
    return grid


def _mixture(settings: ComparisonSettings) -> list[str]:
    """The overrides by which all runs of a ladder train on its lengths, and validate at each."""
    if not settings.ladder:
        return []
    lengths = f"data.validation_lengths={list(settings.ladder)}".replace(" ", "")
    return [f"++curriculum.length={settings.ladder[0]}", "++curriculum.lengths=mixed", lengths]


def _find_errors(settings: ComparisonSettings, overrides: Sequence[str]) -> list[str]:
    errors = [
        f"{word}: a comparison sets {key} itself; write {CONTROLLED_KEYS[key]}"
        for word in overrides
        if (key := _key(word)) in CONTROLLED_KEYS
    ]
    errors += [*_budget_errors("budget", settings.budget), *_budget_errors("sweep", settings.sweep)]
    lists = {"layers": settings.layers, "learning_rates": settings.learning_rates, "seeds": settings.seeds}
    for name, values in lists.items():
        if not values or len(set(values)) < len(values):
            errors.append(f"{name}: expected one or more, each once, got {list(values)}")
    errors += _ladder_errors(settings, overrides) if settings.ladder else []
    for name in settings.variants:
        if not re.fullmatch(r"[\w-]+", name):
            errors.append(f"variants.{name}: expected letters, digits, - and _ as its name")
        elif name in available_layers() or name in settings.layers:
            errors.append(f"variants.{name}: there is a layer of this name already; name the variant otherwise")
    return errors


def _ladder_errors(settings: ComparisonSettings, overrides: Sequence[str]) -> list[str]:
    errors = [
        f"{word}: a ladder decides {key} by its lengths; leave it out"
        for word in overrides
        if (key := _key(word)) in OF_A_LADDER
    ]
    if len(settings.ladder) < 2:
        errors.append(f"ladder: expected two or more lengths, got {list(settings.ladder)}")
    if settings.take_off.length not in (None, *settings.ladder):
        errors.append(f"take_off.length: expected a length of the ladder, got {settings.take_off.length}")
    budgets = (
        {"budget": settings.budget, "sweep": settings.sweep}
        if len(settings.learning_rates) > 1
        else {"budget": settings.budget}
    )
    for name, budget in budgets.items():
        if budget.seconds is not None:
            errors.append(
                f"{name}.seconds: layers of a ladder read equally many tokens; write {name}.bases=… {name}.seconds=null"
            )
    return errors


def _budget_errors(name: str, budget: Budget) -> list[str]:
    given = [f"{name}.{unit}" for unit, amount in asdict(budget).items() if amount is not None]
    error = (
        f"{name}: expected one of {name}.steps, {name}.bases and {name}.seconds, got {', '.join(given) or 'none'};"
        f" set the others to null, as in {name}.steps=300 {name}.seconds=null"
    )
    return [error] * (len(given) != 1)


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0].removeprefix("attention@")


def _is_of_run(key: str) -> bool:
    """True for a setting that is passed on to the runs; of Hydra's own settings only the search path is."""
    if key.startswith("hydra"):
        return key == "hydra.searchpath"
    return not any(key == own or key.startswith(f"{own}.") for own in COMPARISON_KEYS)
