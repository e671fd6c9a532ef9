"""The check of a composed config: every setting is held to the type that the code takes, all mistakes at once."""

import inspect
import json
import pkgutil
import re
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union

from pydantic import BaseModel, ConfigDict, Field, ValidationError, create_model

from genoattn.config.schema import Settings, Target
from genoattn.errors import did_you_mean, nearest, shorten

HYDRA_KEYS = frozenset({"_target_", "_partial_", "_args_", "_recursive_", "_convert_"})
SUPPLIED = ("dim", "causal")
"""Arguments of a layer that the model gives it, so that no config holds them."""
LONGEST = 80
"""Characters of a wrong value that a sentence shows."""
EXPECTED = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "finite_number": "a finite number",
    "bool_type": "true or false",
    "string_type": "a string",
    "list_type": "a list",
    "sequence_type": "a list",
    "tuple_type": "a list",
    "dict_type": "a mapping",
    "mapping_type": "a mapping",
    "model_type": "a mapping",
    "greater_than": "more than {gt}",
    "greater_than_equal": "at least {ge}",
    "less_than_equal": "at most {le}",
    "literal_error": "{expected}",
}
"""The end of "expected …", by pydantic's type of the error; other errors keep pydantic's words."""

Place = tuple[str | int, ...]


def find_errors(config: dict[str, Any], schema: type[Settings]) -> list[str]:
    """Find the mistakes of a config: one sentence each, with its key.

    Settings dataclasses (modules called `settings`) are checked first, because they are found without importing torch.

    Args:
        config: Plain values, interpolations resolved.
        schema: The settings of the program.
    """
    errors = list(_compare(config, schema, "", "this program"))
    nodes = list(_nodes(config, ""))
    for is_cheap in (True, False):
        for path, node in nodes:
            if is_cheap == (".settings." in str(node["_target_"])):
                errors += _node_errors(path, node)
        if errors:
            break
    return errors


def _nodes(value: object, path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every mapping with a `_target_`, with its path."""
    if isinstance(value, dict):
        if "_target_" in value:
            yield path, value
        for key, item in value.items():
            yield from _nodes(item, f"{path}.{key}" if path else str(key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _nodes(item, f"{path}[{index}]")


def _node_errors(path: str, node: dict[str, Any]) -> Iterator[str]:
    """Sentences about one node: its `_target_`, and its settings beside the signature of the target."""
    where, name = f"{path}._target_", node["_target_"]
    try:
        target = pkgutil.resolve_name(name) if isinstance(name, str) else name
    except AttributeError as error:
        yield f"{where}: {name} does not exist ({error}){did_you_mean(error.name or '', _public(error.obj))}"
        return
    except (ImportError, ValueError) as error:
        yield f"{where}: {name} cannot be imported ({error})"
        return
    if not callable(target):
        yield f"{where}: expected the dotted name of a class or function, got {_show(name)}"
        return
    if isinstance(target, type) and inspect.isabstract(target):
        yield f"{where}: {name} lacks {', '.join(sorted(target.__abstractmethods__))}, which its base class requires"
    partial = node.get("_partial_", False)
    if not isinstance(partial, bool):
        yield f"{path}._partial_: expected true or false, got {_show(partial)}"
    model = _settings_model(target, bool(partial) or "_args_" in node)
    if model is None:
        return
    if partial and path.partition(".")[0] in ("attention", "control"):
        if not isinstance(target, type):
            yield f"{where}: expected a class, because a saved model names its layers by their classes, got {name}"
        missing = [argument for argument in SUPPLIED if argument not in _names(model)]
        if missing and model.model_config.get("extra") == "forbid":
            yield f"{where}: the constructor of {name} must take {' and '.join(missing)}, which the model gives a layer"
    settings = {key: value for key, value in node.items() if key not in HYDRA_KEYS}
    yield from _compare(settings, model, path, str(name))


def argument_errors(
    target: Callable[..., object], arguments: dict[str, Any], path: str, owner: str, all_optional: bool = False
) -> Iterator[str]:
    """Sentences about arguments that do not fit the signature of a class or function.

    Args:
        target: The class or function.
        arguments: Plain values by name; a mapping with a `_target_` stands for an object.
        path: The key of the arguments, with which every sentence begins.
        owner: The name of the target in sentences.
        all_optional: True if arguments may be missing.
    """
    if model := _settings_model(target, all_optional):
        yield from _compare(arguments, model, path, owner)


@cache
def _settings_model(target: Callable[..., object], all_optional: bool) -> type[BaseModel] | None:
    """A model of the arguments of a callable; None if its signature is not known, as of some built-in functions."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except ValueError:
        return None
    hints = argument_types(target)
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    fields: dict[str, Any] = {}
    for number, parameter in enumerate(each for each in parameters if each.kind not in variable):
        required = parameter.default is parameter.empty and not all_optional
        # An alias, because pydantic reserves some names of fields.
        field = Field(... if required else None, alias=parameter.name)
        fields[f"field_{number}"] = (_plain(hints.get(parameter.name, Any)), field)
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters)
    config = ConfigDict(extra="allow" if takes_any else "forbid", strict=True)
    return create_model("Arguments", __config__=config, **fields)


def argument_types(target: Callable[..., object]) -> dict[str, Any]:
    """The annotations of the arguments of a class or function by name."""
    function = target.__init__ if isinstance(target, type) else target
    try:
        return typing.get_type_hints(function, include_extras=True)
    except (NameError, TypeError):  # a library may annotate with names that it imports for type checkers only
        parameters = inspect.signature(target).parameters
        hints = {name: parameter.annotation for name, parameter in parameters.items()}
        return {name: hint for name, hint in hints.items() if hint is not inspect.Parameter.empty}


def _plain(annotation: Any) -> Any:
    """An annotation with `Target` in place of every type that a yaml file cannot write."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return Annotated[(_plain(inner[0]), *annotation.__metadata__)]
    if origin in (Union, types.UnionType):
        return Union[tuple(map(_plain, inner))]  # noqa: UP007  (members are known only here)
    if (origin or annotation) in (list, tuple, Sequence, dict, Mapping):
        return origin[tuple(item if item is ... else _plain(item) for item in inner)] if origin else annotation
    if origin is Literal or annotation in (int, float, str, bool, types.NoneType, Any):
        return annotation
    return Any if annotation is object or isinstance(annotation, (TypeVar, str)) else Target


def _compare(settings: dict[str, Any], model: type[BaseModel], path: str, owner: str) -> Iterator[str]:
    """Sentences about the settings of one node that a model refuses."""
    try:
        model.model_validate_json(json.dumps(settings))  # in JSON a list may stand for a tuple
    except ValidationError as error:
        groups: dict[Place, list[Any]] = {}
        for problem in error.errors(include_url=False):
            groups.setdefault(_place(problem["loc"], settings, problem["type"]), []).append(problem)
        for place, problems in groups.items():
            if not any(len(other) > len(place) and other[: len(place)] == place for other in groups):
                yield _sentence(_text(path, place), problems, owner, _names(model) if len(place) == 1 else [])


def _place(location: tuple[Any, ...], value: Any, kind: str) -> Place:
    """The place of an error in the config, without pydantic's names for the members of a union."""
    place: Place = ()
    for step in location:
        inside = range(len(value)) if isinstance(value, list) else value if isinstance(value, dict) else ()
        if step in inside:
            value, place = value[step], (*place, step)
    return (*place, location[-1]) if kind == "missing" else place


def _sentence(key: str, problems: list[Any], owner: str, names: list[str]) -> str:
    """One sentence about one wrong value; each member of a union has its own problem."""
    kind, value = problems[0]["type"], problems[0]["input"]
    if kind == "extra_forbidden":
        near = did_you_mean(shorten(key.rpartition(".")[2]), names) if names else ""
        return f"Key '{shorten(key)}' is not a setting of {owner}{near}"
    if kind == "missing":
        return f"Key '{key}' is missing: {owner} needs it"
    words = [
        str(EXPECTED.get(problem["type"], problem["msg"])).format(**problem.get("ctx", {})) for problem in problems
    ]
    expected = " or ".join(dict.fromkeys(word.removeprefix("Input should be ") for word in words))
    near = nearest(value, re.findall(r"'(.*?)'", expected)) if isinstance(value, str) else None
    return f"{key}: expected {expected}, got {_show(value)}" + (f"; did you mean {near}?" if near else "")


def _text(path: str, place: Place) -> str:
    steps = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in place)
    return f"{path}{steps}".lstrip(".")


def _names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items()]


def _public(owner: object) -> list[str]:
    return [name for name in dir(owner) if not name.startswith("_")]


def _show(value: object) -> str:
    """A value as yaml writes it, cut if it is long."""
    text = json.dumps(value) if value is None or isinstance(value, bool) else repr(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"
