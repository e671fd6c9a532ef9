"""Layers of several kinds in one model: a list of their names, cycled over the depth."""

from collections.abc import Callable, Mapping, Sequence

from genoattn.attention.base import Attention
from genoattn.errors import UserError, did_you_mean


def cycle(layers: Sequence[str], kinds: Mapping[str, Callable[..., Attention]]) -> list[Callable[..., Attention]]:
    """A factory for each name of the list; a model takes them in turn, block by block, and begins again at the end.

    `kinds` holds the factory of every name that the list may use.
    """
    if not layers:
        raise UserError("attention.layers must name at least one layer, got []")
    for name in layers:
        if name not in kinds:
            raise UserError(f"attention.layers names {name}, which attention.kinds lacks{did_you_mean(name, kinds)}")
    return [kinds[name] for name in layers]
