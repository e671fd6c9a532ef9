"""The settings of a run that differ from the defaults of its program."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genoattn.config.compose import config_of_run

NONE = "–"
"""Stands for the default of a setting that the default choices do not have."""


class Difference(NamedTuple):
    """A setting, or the choice of a group, with its default and its value as text."""

    setting: str
    default: str
    value: str


def differences(program: str, config: DictConfig, own: Any) -> list[Difference]:
    """The choices of groups that differ from those of the program, then the settings that do.

    A setting that refers to another one differs only if that reference does.

    Args:
        program: Name of the program.
        config: The config of a run, within the running program.
        own: Hydra's own node of this run, with the choice of each group and the search path.
    """
    defaults = config_of_run(program, [word for word in own.overrides.hydra if word.startswith("hydra.searchpath=")])
    chosen, usual = own.runtime.choices, defaults.hydra.runtime.choices
    choices = [
        Difference(str(group), _text(usual.get(group)), _text(choice))
        for group, choice in chosen.items()
        if not str(group).startswith(("hydra/", "experiment/layer")) and choice != usual.get(group)
    ]
    named = tuple(f"{difference.setting.rpartition('@')[2]}." for difference in choices)
    before = dict(_settings(defaults))
    return choices + [
        Difference(key, _shown(defaults, key) if key in before else NONE, _shown(config, key))
        for key, value in _settings(config)
        if (key not in before or before[key] != value) and not (key.endswith("_target_") and key.startswith(named))
    ]


def _settings(config: DictConfig) -> Iterator[tuple[str, Any]]:
    """Dotted keys and values; interpolations as they are written, lists as values, without Hydra's own node."""
    plain: Any = OmegaConf.to_container(config)
    stack = [((str(key),), value) for key, value in reversed(plain.items()) if key != "hydra"]
    while stack:
        path, value = stack.pop()
        if isinstance(value, dict) and value:
            stack += [((*path, str(key)), inner) for key, inner in reversed(value.items())]
        else:
            yield ".".join(path), value


def _shown(config: DictConfig, key: str) -> str:
    """The value of a setting, with what it refers to."""
    try:
        return _text(OmegaConf.select(config, key, throw_on_missing=True))
    except OmegaConfBaseException:
        return "must be given"


def _text(value: Any) -> str:
    """A value as yaml writes it in a line."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if OmegaConf.is_list(value):
        return f"[{', '.join(map(_text, value))}]"
    return str(value)
