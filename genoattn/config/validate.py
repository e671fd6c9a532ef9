"""A config held to what the code takes: names and plain types of constructors and dataclasses, all mistakes at once."""

import inspect
import math
import pkgutil
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, is_dataclass
from typing import Annotated, Any, Literal, Union

from annotated_types import Ge, Gt, Le

from genoattn.errors import _join, hint

RESERVED = frozenset({"_target_", "_partial_", "_args_", "_recursive_", "_convert_"})


PLAIN = (int, float, str, bool, type(None))


class Node:
    """Annotates a field that holds a mapping with a `_target_`: something for Hydra to build. Never built itself."""


@dataclass(frozen=True)
class Between:
    """Bounds of a number, as in `Annotated[int, Between(minimum=1)]`; `above` is not itself within."""

    minimum: int | float = -math.inf
    maximum: int | float = math.inf
    above: int | float = -math.inf

    def broken(self, value: int | float) -> str:
        """The bound that a number breaks, in words; empty where it breaks none."""
        if math.isnan(value):
            return "a number"
        if value < self.minimum:
            return f"at least {self.minimum}"
        if value > self.maximum:
            return f"at most {self.maximum}"
        return f"more than {self.above}" if value <= self.above else ""


def mistakes(value: object, path: str = "", taker: object = None) -> Iterator[str]:
    """Sentences on every node below `path` that its `_target_` (or `taker`, a dataclass) would not take.

    `value` is plain: what OmegaConf.to_container gives for a config whose interpolations are resolved.
    """
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from mistakes(item, f"{path}[{index}]")
    if not isinstance(value, dict):
        return
    hints: dict[str, Any] = {}
    if "_target_" in value:
        taker, sentence = _locate(value["_target_"], path)
        if sentence:
            yield sentence
    if callable(taker):
        hints = _hints(taker)
        yield from _against(value, taker, hints, path)
    for key, item in value.items():
        inner = [one for one in _alternatives(hints.get(key)) if is_dataclass(one)]
        yield from mistakes(item, _join(path, key), inner[0] if inner else None)


def _locate(target: object, path: str) -> tuple[object, str]:
    """What a `_target_` names, or a sentence on why nothing can be built from it."""
    where = _join(path, "_target_")
    if not isinstance(target, str):
        return None, f"{where}: expected the dotted name of a class or function, got {_show(target)}"
    try:
        found = pkgutil.resolve_name(target)
    except AttributeError as error:
        return None, f"{where}: {target} is not there ({error}){hint(error.name or '', dir(error.obj), '')}"
    except (ImportError, ValueError) as error:
        return None, f"{where}: {target} cannot be imported ({error})"
    return (found, "") if callable(found) else (None, f"{where}: {target} is neither a class nor a function")


def _hints(taker: Callable[..., object]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(taker.__init__ if isinstance(taker, type) else taker, include_extras=True)
    except (NameError, TypeError):  # a library may annotate with names that it imports for type checkers only
        annotations = {key: one.annotation for key, one in inspect.signature(taker).parameters.items()}
        return {
            key: one
            for key, one in annotations.items()
            if not isinstance(one, str) and one is not inspect.Parameter.empty
        }


def _against(node: dict[str, Any], taker: Callable[..., object], hints: dict[str, Any], path: str) -> Iterator[str]:
    """Sentences on the keys and values of one node, for one callable."""
    try:
        parameters = inspect.signature(taker).parameters
    except ValueError:  # some built-ins have none
        return
    built = "_target_" in node
    name = f"{taker.__module__}.{taker.__qualname__}" if built else path or "a run"
    named = {key: one for key, one in parameters.items() if one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)}
    open_ended = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    for key, value in node.items():
        if key in RESERVED and built:
            if key == "_partial_" and not isinstance(value, bool):
                yield f"{_join(path, key)}: expected true or false, got {_show(value)}"
        elif key not in named and not open_ended:
            near = hint(str(key), named, path) or f"; there are {', '.join(named) or 'none'}"
            yield f"Key '{_join(path, key)}' is not a setting of {name}{near}"
        elif not fits(value, hints.get(key, Any)):
            near = hint(value, _choices(hints[key])) if isinstance(value, str) else ""
            yield f"{_join(path, key)}: expected {describe(hints[key])}, got {_show(value)}{near}"
        elif isinstance(value, (int, float)):
            for bound in filter(None, (one.broken(value) for one in _bounds(hints.get(key)))):
                yield f"{_join(path, key)}: expected {bound}, got {_show(value)}"
    if not node.get("_partial_") and "_args_" not in node:
        for key, parameter in named.items():
            if parameter.default is parameter.empty and key not in node:
                wanted = f" ({describe(hints[key])})" if key in hints else ""
                yield f"Key '{_join(path, key)}' is missing: {name} needs it{wanted}"


def _show(value: object) -> str:
    """A value as yaml writes it, and its type where the two could be confused."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return f"the string {value!r}" if isinstance(value, str) else repr(value)


def _alternatives(annotation: Any) -> list[Any]:
    """The members of a union, or the one annotation that is none."""
    if typing.get_origin(annotation) in (Union, types.UnionType):
        return [leaf for one in typing.get_args(annotation) for leaf in _alternatives(one)]
    return [annotation]


def _bounds(annotation: Any) -> list[Between]:
    annotated = [one for one in _alternatives(annotation) if typing.get_origin(one) is Annotated]
    found = [bound for one in annotated for bound in one.__metadata__]
    return [
        bound
        if isinstance(bound, Between)
        else Between(
            minimum=bound.ge if isinstance(bound, Ge) else -math.inf,  # type: ignore[arg-type]
            maximum=bound.le if isinstance(bound, Le) else math.inf,  # type: ignore[arg-type]
            above=bound.gt if isinstance(bound, Gt) else -math.inf,  # type: ignore[arg-type]
        )
        for bound in found
    ]


def _choices(annotation: Any) -> list[str]:
    """The words that the Literals of an annotation allow."""
    literals = [one for one in _alternatives(annotation) if typing.get_origin(one) is Literal]
    return [word for one in literals for word in typing.get_args(one) if isinstance(word, str)]


def fits(value: object, annotation: Any) -> bool:
    """Whether a plain value may stand where an annotation is; what cannot be judged from plain values may."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in inner)
    if origin is Annotated:
        return fits(value, inner[0])
    if origin is Literal:
        return any(value == one and type(value) is type(one) for one in inner)
    if isinstance(value, dict) and "_target_" in value:
        return annotation not in PLAIN
    if annotation in (Any, object):
        return True
    if (origin or annotation) in (list, tuple, Sequence):
        if not isinstance(value, list):
            return False
        fixed = origin is tuple and inner[-1:] != (...,)
        wanted = list(inner) if fixed else list(inner[:1] or [Any]) * len(value)
        return len(value) == len(wanted) and all(map(fits, value, wanted))
    if (origin or annotation) in (dict, Mapping):
        return isinstance(value, dict) and all(fits(one, inner[1] if inner else Any) for one in value.values())
    if annotation in PLAIN:
        accepted = (int, float) if annotation is float else annotation
        return isinstance(value, accepted) and (annotation is bool or not isinstance(value, bool))
    if is_dataclass(annotation):
        return isinstance(value, dict)
    return not isinstance(annotation, type) and origin is None  # a type variable, say, tells nothing


def describe(annotation: Any) -> str:
    """An annotation in the words of a yaml file."""
    origin, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if origin in (Union, types.UnionType):
        return " or ".join(map(describe, inner))
    if origin is Annotated:
        return describe(inner[0])
    if origin is Literal:
        return " or ".join(map(repr, inner))
    if (origin or annotation) in (list, tuple, Sequence):
        items = [one for one in inner if one is not ...]
        counted = f" of {len(items)}" if origin is tuple and ... not in inner else ""
        return f"a list{counted}" + (f" of {describe(items[0])}" if items and not counted else "")
    if annotation is Node or origin is Callable:
        return "a mapping with a _target_"
    if (origin or annotation) in (dict, Mapping) or is_dataclass(annotation):
        return "a mapping"
    return "null" if annotation is type(None) else getattr(annotation, "__name__", str(annotation))
