"""What a user writes after a program's name, such as `attention=linear model.dim=64`, and in words what is wrong."""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path

import hydra
import yaml
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException, MissingConfigException, OverrideParseException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from genoattn.errors import UserError, hint

# what composing raises over a user's words; ValueError is what Hydra says of `group=null`
FAULTS = (HydraException, OmegaConfBaseException, yaml.YAMLError, ValueError)


def jobs(overrides: list[str]) -> Iterator[list[str]]:
    """The overrides of each job of a sweep such as `attention=full,linear`."""
    words = []
    for override in overrides:
        parsed = _parsed(override)
        if parsed is not None and parsed.is_sweep_override():
            words.append([f"{parsed.get_key_element()}={value}" for value in parsed.sweep_string_iterator()])
        else:
            words.append([override])
    return map(list, itertools.product(*words))


def bring_layers(overrides: list[str], folder: Path) -> list[str]:
    """The overrides with the yaml of every layer that `….wrapped=window` or `….layers=[window,full]` names brought in.

    Every setting of such a layer is then in the config, to be read, changed and checked as those of any choice.
    `folder` holds the configs.
    """
    there = {file.stem for file in (folder / "attention").glob("*.yaml")}
    written: list[str] = []
    for override in overrides:
        parsed = _parsed(override)
        place, _, last = parsed.key_or_group.rpartition(".") if parsed is not None else ("", "", "")
        if parsed is None or last not in ("wrapped", "layers") or not place:
            written.append(override)
            continue
        _, _, words = override.partition("=")
        if last == "wrapped":
            for word in words.split(","):
                if word not in there:
                    raise UserError(f"{place}.wrapped: there is no layer {word}{hint(word, there)}")
            written.append(f"attention@{place}.wrapped={words}")
            continue
        written.append(override)
        held = _kinds(overrides, place, folder)
        brought = [
            f"+attention@{place}.kinds.{name}={name}" for name in sorted(set(re.findall(r"\w+", words)) & there - held)
        ]
        written += [one for one in brought if one not in overrides]
    return written


def _kinds(overrides: list[str], place: str, folder: Path) -> set[str]:
    """The layers that the choice made for `attention` (or `attention@control`) brings by itself."""
    key = "attention=" if place == "attention" else f"attention@{place}="
    chosen = [override.removeprefix(key) for override in overrides if override.startswith(key)]
    file = folder / "attention" / f"{chosen[-1] if chosen else ''}.yaml"
    if not file.is_file():
        return set()
    defaults = yaml.safe_load(file.read_text("utf-8")).get("defaults", [])
    return {str(name).rpartition("kinds.")[2] for one in defaults if isinstance(one, dict) for name in one}


def conflicts(overrides: list[str], config: DictConfig) -> list[str]:
    """Sentences on overrides that Hydra would settle in silence."""
    found: list[str] = []
    seen: dict[str, str] = {}
    for override in overrides:
        parsed = _parsed(override)
        if parsed is None:
            continue
        key = f"{parsed.key_or_group}@{parsed.package}" if parsed.package else parsed.key_or_group
        if key in seen:
            found.append(f"{key} is given twice: {seen[key]} and {override}")
        seen[key] = override
        chosen = config[key] if isinstance(parsed.value(), list) and key in config else None
        if isinstance(chosen, DictConfig) and "_target_" in chosen:
            found.append(f"{override}: expected one choice, got a list, of which only the last would count")
    return found


def faults(program: str, overrides: list[str], error: Exception, folder: Path) -> list[str]:
    """A sentence for each override that cannot be composed; they are tried one by one, in any order that works.

    `error` is what composing them together raised and `folder` the configs'; Hydra must be initialised.
    """
    try:
        config = hydra.compose(program, return_hydra_config=True)
    except FAULTS:  # the configs themselves are at fault, or leave a choice open
        return [first_line(error) if isinstance(error, HydraException) else " ".join(str(error).split())]
    good: list[str] = []
    errors: dict[str, Exception] = {}
    for _ in overrides:
        for override in [one for one in overrides if one not in good]:
            try:
                config = hydra.compose(program, [*good, override], return_hydra_config=True)
            except FAULTS as fault:
                errors[override] = fault
            else:
                good.append(override)
    bad = [override for override in overrides if override not in good]
    return [_sentence(override, errors[override], config, folder) for override in bad] or [first_line(error)]


def first_line(error: Exception) -> str:
    """A library's complaint without the advice and addresses that follow it."""
    return str(error).strip().partition("\n")[0].rstrip(".")


def _parsed(override: str) -> Override | None:
    try:
        return OverridesParser.create().parse_override(override)
    except HydraException:
        return None  # composing says what is wrong with it


def _sentence(override: str, error: Exception, config: DictConfig, folder: Path) -> str:
    """What is wrong with one override, and the nearest right name."""
    key, _, value = override.partition("=")
    parsed = _parsed(override)
    if not key.lstrip("+~") or ("=" not in override and not override.startswith("~")):
        return f"{override!r}: expected key=value, such as attention=linear"
    if parsed is None or isinstance(error, OverrideParseException):
        return f"{override!r} cannot be read as key=value; quote a value with special characters: \"{key}='…'\""
    key = parsed.key_or_group
    if isinstance(error, MissingConfigException):
        return f"{override}: {_unknown_choice(error.missing_cfg_file or '', folder)}"
    if isinstance(error, ValueError):  # a number, or null
        return f"{override}: {_unknown_choice(f'{key}/{value}', folder)}"
    if parsed.is_sweep_override():
        return f"{override}: expected one value, got several; write [{value}] for a list, --multirun for a run each"
    known = {one for one in _keys(config) if one.startswith("hydra.") == key.startswith("hydra.")}
    known |= {str(one) for one in config.hydra.runtime.choices}
    if override.startswith("+") and key in known:
        return f"{override}: {key} is in the config already; write {key}={value}"
    if key in known or key in GlobalHydra.instance().config_loader().list_groups(""):
        return f"{override}: {first_line(error)}"
    there = ", ".join(sorted(str(one) for one in config if one != "hydra"))
    return f"Key '{key}' is not in the config" + (hint(key, known) or f"; there are {there}")


def _unknown_choice(path: str, folder: Path) -> str:
    group, _, choice = path.rpartition("/")
    there = sorted(file.stem for file in (folder / group).glob("*.yaml"))
    near = hint(choice, there) if choice != "null" else ""
    return f"there is no conf/{path}.yaml{near}; there are {', '.join(there) or 'none'}"


def _keys(config: DictConfig, path: str = "") -> Iterator[str]:
    """The dotted keys of a config, inner nodes too; interpolations are left alone."""
    for key in map(str, config):
        yield f"{path}{key}"
        inner = None if OmegaConf.is_missing(config, key) or OmegaConf.is_interpolation(config, key) else config[key]
        if isinstance(inner, DictConfig):
            yield from _keys(inner, f"{path}{key}.")
