"""The nodes of a card: nothing that they name is called before all of it is known to be what its place asks for.

A card may come from a stranger, so it is not given to Hydra, which calls whatever a `_target_` names.
"""

import importlib
import inspect
import math
import pkgutil
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, is_dataclass
from functools import cache, partial
from typing import Any, NamedTuple

from genoattn.attention.base import Attention
from genoattn.attention.hybrid import cycle
from genoattn.config.validate import argument_errors, argument_types
from genoattn.errors import UserError, shorten
from genoattn.models.sequence_model import SequenceModel

PACKAGE = "genoattn"

HYBRID = "genoattn.attention.hybrid.cycle"
"""The only function that a card may name, as its attention layer."""

SUPPLIED: Mapping[type, frozenset[str]] = {
    Attention: frozenset({"dim", "causal"}),
    SequenceModel: frozenset(
        {
            *("vocabulary_size", "token_heads", "sequence_heads", "sites", "max_shift", "segment_count"),
            *("interleaved", "attention"),
        }
    ),
}
"""Arguments that `build_model` gives to a class, so that no card holds them."""

WITHOUT_EFFECT = frozenset({"backend"})
"""Settings that change no result: a model that was saved before its layer had them is read with their defaults."""

DEEPEST = 20
"""Levels of lists and mappings in a card."""


class Place(NamedTuple):
    """The class that a place of a card asks for, and true if a factory of it stands there, false for an object."""

    kind: type
    is_factory: bool


@dataclass(frozen=True)
class CheckedNode:
    """A class with settings that fit it; settings may hold further nodes."""

    target: Callable[..., Any]
    settings: Mapping[str, Any]
    is_factory: bool

    def build(self) -> Any:
        """The object, or a factory that still lacks the arguments of `SUPPLIED`."""
        settings = {name: _built(value) for name, value in self.settings.items()}
        return partial(self.target, **settings) if self.is_factory else self.target(**settings)

    def names(self) -> Iterator[str]:
        """The dotted names of this class and of those in its settings."""
        yield f"{self.target.__module__}.{self.target.__qualname__}"
        yield from _names(self.settings)


def check_plain(value: object, key: str, level: int = 0) -> None:
    """Raises UserError if a value is not plain: an interpolation, a number that is not finite, or nested deeply."""
    if level > DEEPEST:
        raise UserError(f"{shorten(key)}: lists and mappings are nested in more than {DEEPEST} levels")
    if isinstance(value, float) and not math.isfinite(value):
        raise UserError(f"{key}: expected a finite number, got {value}")
    if isinstance(value, str) and ("${" in value or value == "???" or not _is_text(value)):
        raise UserError(f"{key}: expected plain text without ${{…}} and ???, got {shorten(value)}")
    if isinstance(value, list):
        for number, item in enumerate(value):
            check_plain(item, f"{key}[{number}]", level + 1)
    if isinstance(value, Mapping):
        for name, item in value.items():
            check_plain(name, f"{key}: a name", level + 1)
            check_plain(item, f"{key}.{shorten(name)}" if key else shorten(name), level + 1)


def check_node(node: Any, place: Place, key: str, packages: Sequence[str]) -> CheckedNode:
    """Find the class that a node names, and check its settings, without calling anything.

    Args:
        node: Plain values that `check_plain` has checked.
        place: The class that must be found.
        key: The key of the node, for messages.
        packages: Packages that may be imported.

    Raises:
        UserError: The node names anything but a class of `packages` that its place asks for, or its settings do not
            fit the signature of that class.
    """
    if not isinstance(node, dict) or "_target_" not in node:
        raise UserError(f"{key}: expected a mapping with a _target_, got {shorten(repr(node))}")
    is_hybrid = key == "attention" and node["_target_"] == HYBRID
    target: Any = cycle if is_hybrid else find_class(node["_target_"], place.kind, f"{key}._target_", packages)
    is_factory = place.is_factory and not is_hybrid
    if node.get("_partial_") is not (True if is_factory else None):
        expected = "true" if is_factory else "no such key"
        raise UserError(f"{key}._partial_: expected {expected}, got {shorten(repr(node.get('_partial_')))}")
    settings = {name: value for name, value in node.items() if name not in ("_target_", "_partial_")}
    for error in _setting_errors(target, settings, key, str(node["_target_"])):
        raise UserError(error)
    types = argument_types(target)
    checked = {
        name: _check_value(value, types.get(name, Any), f"{key}.{name}", packages) for name, value in settings.items()
    }
    return CheckedNode(target, checked, is_factory)


def find_class(name: object, kind: type, key: str, packages: Sequence[str]) -> type:
    """The class of a dotted name, which must be defined in one of the packages and be a subclass of `kind`."""
    if not isinstance(name, str) or not all(part.isidentifier() and part[:2] != "__" for part in name.split(".")):
        raise UserError(f"{key}: expected the dotted name of a class, got {shorten(repr(name))}")
    package, module, short = name.partition(".")[0], *name.rpartition(".")[::2]
    if package not in packages:
        raise UserError(
            f"{key}: {shorten(name)} is not of genoattn, and opening this model would run its code; if you know and"
            f" trust the package {shorten(package)}, give trust=[{shorten(package)}]"
        )
    try:
        target = vars(importlib.import_module(module or package)).get(short)
    except ImportError as error:
        raise UserError(f"{key}: {shorten(name)} cannot be imported ({shorten(error)})") from None
    if not isinstance(target, type) or not issubclass(target, kind) or target.__module__.partition(".")[0] != package:
        raise UserError(f"{key}: expected a class of {package} that is a {kind.__name__}, got {shorten(name)}")
    if inspect.isabstract(target):
        raise UserError(f"{key}: {shorten(name)} lacks {', '.join(sorted(target.__abstractmethods__))}")
    return target


def complete_node(node: Mapping[str, Any]) -> dict[str, Any]:
    """A node of a checked config, with the default of every setting that it lacks.

    A saved model then stays the same when a later version has other defaults.
    """
    target = pkgutil.resolve_name(node["_target_"])
    completed = {name: _complete_value(value) for name, value in node.items()}
    return completed | {name: value for name, value in _defaults(target) if name not in node}


def _complete_value(value: Any) -> Any:
    if isinstance(value, list):
        return [_complete_value(item) for item in value]
    if isinstance(value, Mapping):
        inside = {name: _complete_value(item) for name, item in value.items()}
        return complete_node(value) if "_target_" in value else inside
    return value


def _setting_errors(target: Callable[..., Any], settings: dict[str, Any], key: str, owner: str) -> Iterator[str]:
    """Sentences about settings that are supplied, of another type, not known, or missing."""
    owner = shorten(owner)
    for name in settings:
        if name.startswith("_"):
            yield f"{key}.{shorten(name)}: a saved model may not hold this key"
        if name in _supplied(target):
            yield f"{key}.{name}: a saved model may not hold this key, because tokenizer, task and model determine it"
    yield from argument_errors(target, settings, key, owner, all_optional=True)
    required = [parameter.name for parameter in _parameters(target) if parameter.default is inspect.Parameter.empty] + [
        name for name, _ in _defaults(target)
    ]
    for name in required:
        if name not in settings and name not in _supplied(target) and name not in WITHOUT_EFFECT:
            yield f"Key '{key}.{name}' is missing: {owner} needs it"


@cache
def _parameters(target: Callable[..., Any]) -> list[inspect.Parameter]:
    """The parameters that can be given by name."""
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    return [parameter for parameter in inspect.signature(target).parameters.values() if parameter.kind in by_name]


def _supplied(target: Callable[..., Any]) -> frozenset[str]:
    """Arguments of a class that `build_model` gives it."""
    kinds = [kind for kind in SUPPLIED if isinstance(target, type) and issubclass(target, kind)]
    return SUPPLIED[kinds[0]] if kinds else frozenset()


def _defaults(target: Callable[..., Any]) -> Iterator[tuple[str, Any]]:
    """The settings of a class with a default that a card can hold, and that default."""
    for parameter in _parameters(target):
        if parameter.default is not inspect.Parameter.empty and parameter.name not in _supplied(target):
            with suppress(TypeError):
                yield parameter.name, _plain(parameter.default)


def _plain(value: object) -> Any:
    """A default as plain values; raises TypeError if a card cannot hold it."""
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if is_dataclass(value) and not isinstance(value, type):
        settings = {field.name: _plain(getattr(value, field.name)) for field in fields(value)}
        return {"_target_": f"{type(value).__module__}.{type(value).__qualname__}", **settings}
    raise TypeError(f"{value!r} is no plain value")


def _check_value(value: Any, annotation: Any, key: str, packages: Sequence[str]) -> Any:
    """A setting with a checked node in place of every node, which may stand only where its annotation names a class."""
    if isinstance(value, dict) and "_target_" in value:
        place = next(_places(annotation), None)
        if place is None:
            raise UserError(f"{key}: expected a plain value, got a mapping with a _target_")
        return check_node(value, place, key, packages)
    if isinstance(value, dict):
        inner = _item_type(annotation)
        return {name: _check_value(item, inner, f"{key}.{shorten(name)}", packages) for name, item in value.items()}
    if isinstance(value, list):
        inner = _item_type(annotation)
        return [_check_value(item, inner, f"{key}[{number}]", packages) for number, item in enumerate(value)]
    return value


def _places(annotation: Any) -> Iterator[Place]:
    """The classes that an annotation such as `HeadOptions` or `Callable[..., Attention] | None` names."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Callable:
        if isinstance(inner[-1], type):
            yield Place(inner[-1], True)
    elif origin is not None:
        if not _is_container(origin):
            for member in inner:
                yield from _places(member)
    elif isinstance(annotation, type) and annotation not in (object, Any):
        yield Place(annotation, False)


def _item_type(annotation: Any) -> Any:
    """The annotation of the items of a list or mapping; Any if there is none."""
    members = [annotation, *typing.get_args(annotation)]  # of a union, or of Annotated
    for member in members:
        inner = typing.get_args(member)
        if _is_container(typing.get_origin(member)) and inner:
            return inner[0] if inner[-1] is ... else inner[-1]
    return Any


def _is_container(origin: Any) -> bool:
    return isinstance(origin, type) and issubclass(origin, (Sequence, Mapping))


def _built(value: Any) -> Any:
    if isinstance(value, CheckedNode):
        return value.build()
    if isinstance(value, list):
        return [_built(item) for item in value]
    if isinstance(value, dict):
        return {name: _built(item) for name, item in value.items()}
    return value


def _names(value: Any) -> Iterator[str]:
    if isinstance(value, CheckedNode):
        yield from value.names()
    elif isinstance(value, (list, Mapping)):
        for item in value if isinstance(value, list) else value.values():
            yield from _names(item)


def _is_text(value: str) -> bool:
    """False for a text that cannot be written as UTF-8."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
