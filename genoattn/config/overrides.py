"""The overrides that a user writes, such as `attention=linear model.dim=64`, and sentences about those that fail."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genoattn.errors import QUOTED, did_you_mean, nearest, shorten

# Raised by composing a wrong override: ValueError for `group=null`, TypeError for `group=[1]`, OSError for a choice
# whose name is longer than that of a file may be, UserWarning for a missing search path.
COMPOSITION_ERRORS = (
    *(HydraException, OmegaConfBaseException, yaml.YAMLError),
    *(ValueError, TypeError, OSError, UserWarning),
)


def sweep_jobs(overrides: Sequence[str]) -> list[list[str]]:
    """Overrides of single runs in which every value of a sweep such as `attention=full,linear` occurs once or more.

    An override that only a search can sweep, such as `optimizer.lr=interval(1e-4,1e-2)`, is left out.
    """
    values: list[list[str]] = []
    for override in overrides:
        parsed = _parse(override)
        if parsed is None or not parsed.is_sweep_override():
            values.append([override])
        elif not parsed.is_interval_sweep():
            values.append([f"{parsed.get_key_element()}={value}" for value in parsed.sweep_string_iterator()])
    count = max(map(len, values), default=1)
    return [[words[min(index, len(words) - 1)] for words in values] for index in range(count)]


def quote(value: object) -> str:
    """A value as the right side of an override, whatever quotes, blanks, commas and other signs it holds."""
    text = re.sub(r"(\\*)\$\{", r"\1\1\\${", str(value))  # otherwise ${…} refers to another setting
    return QuotedString(text, Quote.single).with_quotes()


def override(key: str, value: object) -> str:
    """The override that sets a setting to a number, a text, a truth value, null, or a list of such values."""

    def text(value: object) -> str:
        if value is None or isinstance(value, bool):
            return {None: "null", True: "true", False: "false"}[value]
        if isinstance(value, Sequence) and not isinstance(value, str):
            return f"[{','.join(map(text, value))}]"
        return quote(value) if isinstance(value, str) else str(value)

    return f"{key}={text(value)}"


def value_in(override: str) -> Any:
    """The value of an override that sets one setting; the inverse of `override`."""
    parsed = OverridesParser.create().parse_override(override)
    plain: Any = OmegaConf.to_container(OmegaConf.create({"value": parsed.value()}), resolve=True)
    return plain["value"]


def explain(program: str, overrides: Sequence[str], error: Exception) -> list[str]:
    """One sentence about each override that cannot be composed; Hydra must be running.

    Args:
        program: Name of the config.
        overrides: All overrides.
        error: Raised by composing them.
    """
    errors: dict[str, Exception] = {}
    rest = list(overrides)
    config = None
    while config is None:
        wrong = next((override for override in rest if _is_about(error, override)), None)
        if wrong is None:
            sentences = [*(_sentence(wrong, errors[wrong], None) for wrong in errors), _no_override(error)]
            return [_cut(sentence, overrides) for sentence in sentences]
        errors[wrong] = error
        rest = [override for override in rest if override != wrong]
        try:
            config = hydra.compose(program, rest, return_hydra_config=True)
        except COMPOSITION_ERRORS as next_error:
            error = next_error
    sentences = [_sentence(override, errors[override], config) for override in overrides if override in errors]
    return [_cut(sentence, overrides) for sentence in sentences]


def _cut(sentence: str, overrides: Sequence[str]) -> str:
    """The sentence with long overrides, and long keys and values of them, cut."""
    words = [word for override in overrides for word in (override, *override.partition("="))]
    parts = {part for word in words for part in (word, word.lstrip("+~")) if len(part) > QUOTED}
    for part in sorted(parts, key=len, reverse=True):
        for text in (part, repr(part)[1:-1], ascii(part)[1:-1]):
            sentence = sentence.replace(text, shorten(part))
    return sentence


def first_line(error: Exception) -> str:
    """The message of a library without the advice and addresses that follow it."""
    return str(error).strip().partition("\n")[0].rstrip(".")


def _parse(override: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        return None  # composing reports the error


def _is_about(error: Exception, override: str) -> bool:
    """True if an error of composing several overrides comes from this one."""
    parsed = _parse(override)
    if parsed is None or not parsed.key_or_group or isinstance(error, OverrideParseException):
        return parsed is None or not parsed.key_or_group
    key, value = parsed.key_or_group, parsed.value()
    if isinstance(error, MissingConfigException):
        values = value if isinstance(value, list) else [value]
        return any(error.missing_cfg_file == f"{key}/{choice}" for choice in values)
    if "Config group override" in str(error) or isinstance(error, TypeError):
        names = value if isinstance(value, list) else [value]
        return not all(
            isinstance(name, str) for name in names
        ) and key in GlobalHydra.instance().config_loader().list_groups("")
    text = first_line(error)
    return f"'{key}'" in text or f"'{override}'" in text or f"for {key}." in text


def _sentence(override: str, error: Exception, config: DictConfig | None) -> str:
    """A sentence about one wrong override; `config` is composed without the wrong overrides, if that is possible."""
    key, _, value = override.partition("=")
    parsed = _parse(override)
    if not key.lstrip("+~") or ("=" not in override and not override.startswith("~")):
        return f"{override!r}: expected key=value, such as attention=linear"
    if parsed is None:
        return f"{override!r} cannot be read as key=value; quote a value with special characters: \"{key}='…'\""
    key = parsed.key_or_group
    if isinstance(error, MissingConfigException):
        return f"{override}: {_missing(error)}"
    if "Config group override" in str(error) or isinstance(error, TypeError):
        options = GlobalHydra.instance().config_loader().get_group_options(key)
        return f"{override}: there is no conf/{key}/{value}.yaml; there are {', '.join(options)}"
    if first_line(error).startswith("Could not override") and config is not None:
        keys = [name for name in _keys(config) if name.startswith("hydra") == key.startswith("hydra")]
        near = nearest(key, keys)
        others = ", ".join(sorted(str(name) for name in config if name != "hydra"))
        return f"Key '{key}' is not in the config; " + (f"did you mean {near}?" if near else f"there are {others}")
    if first_line(error).startswith("Ambiguous value"):
        return f"{override}: expected one value, got several; write [{value}] for a list, --multirun for a run each"
    return f"{override}: {first_line(error)}"


def _no_override(error: Exception) -> str:
    """A sentence about an error that lies in the configs themselves."""
    if isinstance(error, MissingConfigException):
        return _missing(error)
    return first_line(error) if isinstance(error, HydraException) else " ".join(str(error).split())


def _missing(error: MissingConfigException) -> str:
    """A sentence about a choice that does not exist: the nearest one, and the folders that were searched."""
    group, _, choice = str(error.missing_cfg_file).rpartition("/")
    if group in ("hydra/sweeper", "hydra/launcher"):
        package = f"hydra-{choice.partition('_')[0]}-{group.rpartition('/')[2]}"
        return f"this needs a plugin of Hydra; pip install {package}"
    folders = re.findall(r"path=file://(.+)", str(error))
    searched = f" (searched in {', '.join(folders)})" if folders else ""
    return f"there is no conf/{error.missing_cfg_file}.yaml{searched}{did_you_mean(choice, error.options or ())}"


def _keys(config: DictConfig, path: str = "") -> Iterator[str]:
    """The dotted keys of a config, inner nodes too, and its groups; interpolations are left alone."""
    if not path:
        yield from map(str, config.hydra.runtime.choices)
    for key in map(str, config):
        yield f"{path}{key}"
        inner = None if OmegaConf.is_missing(config, key) or OmegaConf.is_interpolation(config, key) else config[key]
        if isinstance(inner, DictConfig):
            yield from _keys(inner, f"{path}{key}.")
