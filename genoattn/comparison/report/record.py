"""What a comparison holds, by name; what it lacks is empty."""

import json
from collections.abc import Mapping, Sequence
from typing import Any


def plain(comparison: Mapping) -> dict[str, Any]:
    """The comparison as json holds it: keys are words, and what is not a number is None."""
    return json.loads(json.dumps(comparison), parse_constant=lambda _: None)


def of(comparison: Mapping, section: str, length: int) -> Mapping[str, Any]:
    """A section's part on one length."""
    return (comparison.get(section) or {}).get(str(length)) or {}


def lengths(comparison: Mapping) -> list[int]:
    """The lengths trained at, in bases."""
    return list(comparison.get("lengths") or [])


def layers(comparison: Mapping) -> list[str]:
    """Every layer that was to be compared, each once, baselines last."""
    plain = comparison.get("baseline_layers") or []
    return list(dict.fromkeys([*(one for one in comparison.get("layers") or [] if one not in plain), *plain]))


def measure(comparison: Mapping) -> str:
    """What quality is called."""
    return comparison.get("measure") or comparison.get("headline") or "quality"


def runs(comparison: Mapping, stage: str, length: int, layer: str) -> list[Mapping[str, Any]]:
    """The finished runs of a layer at a length, of a stage: sweep or final."""
    found = comparison.get("runs") or []
    return [one for one in found if (one.get("stage"), one.get("length"), one.get("layer")) == (stage, length, layer)]


def estimates(comparison: Mapping, length: int) -> Mapping[str, Mapping[str, Any]]:
    """By layer: mean, low, high, seeds and values of the headline."""
    return of(comparison, "verdicts", length).get("estimates") or {}


def ranks(comparison: Mapping, length: int, layer: str) -> list[int]:
    """The numbers of the groups that a layer stands in, 1 being the best; not told apart, it may be in several."""
    groups = of(comparison, "verdicts", length).get("groups") or []
    return [number for number, group in enumerate(groups, 1) if layer in group]


def ranked(comparison: Mapping, length: int) -> list[str]:
    """Every layer, the best first; those without a figure last, as they were named."""
    found = {layer: (estimates(comparison, length).get(layer) or {}).get("mean") for layer in layers(comparison)}
    known = {layer: mean for layer, mean in found.items() if mean is not None}
    return [*sorted(known, key=lambda layer: -known[layer]), *(layer for layer in found if layer not in known)]


def seeds(comparison: Mapping, length: int, layer: str) -> list[int]:
    """The seeds of a layer's final runs that left a figure."""
    return sorted({one["seed"] for one in runs(comparison, "final", length, layer) if one.get("value") is not None})


def missing(comparison: Mapping) -> list[str]:
    """A sentence on every layer that lacks a run that was asked for."""
    sentences: list[str] = []
    for length in lengths(comparison):
        for layer in layers(comparison):
            there = seeds(comparison, length, layer)
            lacking = [seed for seed in comparison.get("seeds") or [] if seed not in there]
            tried = {one.get("lr") for one in runs(comparison, "sweep", length, layer)}
            untried = [rate for rate in comparison.get("learning_rates") or [] if rate not in tried]
            if not there:
                sentences.append(f"{layer} at {length:,} bases: no final run left a figure.")
            elif lacking:
                sentences.append(f"{layer} at {length:,} bases: no figure for seed {listed(lacking)}.")
            if untried and len(comparison.get("learning_rates") or []) > 1:
                sentences.append(f"{layer} at {length:,} bases: learning rate {listed(untried)} was not tried.")
    return sentences + [f"{place}: this run ended badly." for place in comparison.get("failed") or []]


def listed(values: Sequence[object]) -> str:
    """Values in a row of words."""
    return ", ".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
