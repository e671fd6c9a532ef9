"""Examples become tokens, and tokens padded tensors that know where the answer of each base stands."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Integer, UInt8
from torch import Tensor

from genoattn.data.curriculum import Stage
from genoattn.data.example import MASKED, PLAIN, REPLACED, SHOWN, Example, Framing, other_strand
from genoattn.data.targets import IGNORE
from genoattn.data.tokenizers.base import Encoded, Tokenizer, kind_of_ids
from genoattn.genome.mutations import Event


@final
@dataclass(frozen=True)
class Batch:
    """Examples as a model takes them; ids stay as small as they are until they are embedded."""

    ids: Integer[Tensor, "batch tokens"]
    beside: Integer[Tensor, "batch wide"] | None
    keep: Bool[Tensor, "batch tokens"]
    targets: dict[str, Int[Tensor, "batch asked"]]
    """For each output what is asked of each base, each token, or the window."""
    events: tuple[tuple[Event, ...], ...]
    stage: Stage | None = None
    places: Int[Tensor, "batch bases"] | None = None
    """Where the answer of each base stands among those of all tokens, `span` a token; -1 where there is no base.
    None: the answer of base i is that of token i."""
    positions: Int[Tensor, "batch tokens"] | None = None
    segments: Int[Tensor, "batch tokens"] | None = None
    sites: Float[Tensor, "batch 2 tokens"] | None = None
    """What a verdict looks at, in each of the two sequences: weights of tokens, 1 in all."""
    bases: int = 0
    """Bases in all of the contexts."""
    other: "Batch | None" = None
    """The same windows as the other strand shows them."""

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """The same batch on another device."""
        moved = {
            field.name: value.to(device, non_blocking=non_blocking)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        targets = {name: target.to(device, non_blocking=non_blocking) for name, target in self.targets.items()}
        other = None if self.other is None else self.other.to(device, non_blocking)
        return replace(self, **moved, targets=targets, other=other)


class _Row(NamedTuple):
    """One example in tokens."""

    ids: Integer[np.ndarray, "tokens"]
    positions: Int[np.ndarray, "tokens"]
    segments: Int[np.ndarray, "tokens"]
    places: Int[np.ndarray, "bases"]
    asked: Int[np.ndarray, "tokens"]
    sites: Float[np.ndarray, "2 tokens"]


def collate(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    stage: Stage | None = None,
    framing: Framing = PLAIN,
    phase: int = 0,
    strands: bool = False,
) -> Batch:
    """Stacks examples of one task, padding the shorter at their ends; with `strands` the other strand's batch too."""
    rows = [_row(example, tokenizer, framing, phase) for example in examples]
    beside = [tokenizer.encode(example.beside).ids for example in examples if example.beside is not None]
    targets = {name: _stack([one.targets[name] for one in examples], IGNORE) for name in examples[0].targets}
    if framing.asks:
        targets["token"] = _stack([row.asked for row in rows], IGNORE)
    paired = any(example.before is not None for example in examples)
    plain = tokenizer.span == 1 and not paired
    turned = [other_strand(example) for example in examples] if strands else []
    return Batch(
        ids=_stack([row.ids for row in rows], tokenizer.pad),
        beside=_stack(beside, tokenizer.pad) if beside else None,
        keep=_stack([np.ones(len(row.ids), np.bool_) for row in rows], False),
        targets=targets,
        events=tuple(example.events for example in examples),
        stage=stage,
        places=None if plain else _stack([row.places for row in rows], -1),
        positions=_stack([row.positions for row in rows], 0) if framing.restart else None,
        segments=_stack([row.segments for row in rows], 0) if paired else None,
        sites=None if examples[0].sites is None else _stack_sites([row.sites for row in rows]),
        bases=sum(len(one.bases) + (0 if one.before is None else len(one.before)) for one in examples),
        other=collate(turned, tokenizer, None, framing, phase) if strands else None,
    )


def _row(example: Example, tokenizer: Tokenizer, framing: Framing, phase: int) -> _Row:
    encoded = tokenizer.encode(example.bases, phase)
    ids, asked = _hide(encoded, example.hidden, tokenizer, framing)
    starts, length = encoded.starts, len(example.bases)
    owner = np.repeat(np.arange(len(starts)), np.diff(starts, append=length))
    if example.before is None:
        places = owner * tokenizer.span + np.arange(length) - starts[owner]
        return _Row(ids, starts, np.zeros_like(starts), places, asked, np.zeros((2, 0)))
    first = tokenizer.encode(example.before, phase)
    lead = 0 if example.leads else len(first.ids) + 1
    places = (owner + lead) * tokenizer.span + np.arange(length) - starts[owner]
    # Ids, positions, segments and what is asked; the separator's id is the one after the tokenizer's own.
    other = first.ids, first.starts, np.zeros_like(first.starts), np.full(len(first.ids), IGNORE)
    separator = [tokenizer.vocabulary], [len(example.before)], [0], [IGNORE]
    own = ids, starts, np.ones_like(starts), asked
    order = (own, separator, other) if example.leads else (other, separator, own)
    joined, positions, segments, asked = (np.concatenate(column) for column in zip(*order, strict=True))
    kind = kind_of_ids(tokenizer.vocabulary + 1)
    sites = _sites(example, first.starts, starts, lead)
    return _Row(joined.astype(kind), positions, segments, places, asked, sites)


def _sites(example: Example, first: np.ndarray, second: np.ndarray, lead: int) -> Float[np.ndarray, "2 tokens"]:
    """The tokens that own a base of each site, or the base before it where it is empty."""
    weights = np.zeros((2, lead + len(second)))
    if example.sites is None:
        return weights
    for row, (start, stop), starts, offset in zip(weights, example.sites, (first, second), (0, lead), strict=True):
        low = max(int(np.searchsorted(starts, start, side="right")) - 1, 0)
        high = max(int(np.searchsorted(starts, max(stop, start + 1))), low + 1)
        row[offset + low : offset + high] = 1 / (high - low)
    return weights


def _hide(
    encoded: Encoded, hidden: UInt8[np.ndarray, "length"] | None, tokenizer: Tokenizer, framing: Framing
) -> tuple[Integer[np.ndarray, "tokens"], Int[np.ndarray, "tokens"]]:
    """The ids that are shown, and for each token the id that is asked for, IGNORE where none is."""
    ids, nothing = encoded.ids, np.full(len(encoded.ids), IGNORE, np.int64)
    if framing.asks == "next":
        return ids, np.append(ids[1:].astype(np.int64), IGNORE)
    if hidden is None or not hidden.any():
        return ids, nothing
    # A token that only reads a hidden base must not give it away; it is as the first hidden base it reads is.
    code = np.full(len(ids), SHOWN, np.uint8)
    bases = np.flatnonzero(hidden)[::-1]
    owner = np.searchsorted(encoded.starts, bases, side="right") - 1
    for before in range(tokenizer.overlap, -1, -1):
        reader = owner - before
        code[reader[reader >= 0]] = hidden[bases[reader >= 0]]
    shown = np.where(code == MASKED, np.array(tokenizer.mask, ids.dtype), ids)
    # "Another token" is the one seven further on, so that it is as common as tokens of this window are.
    shown = np.where(code == REPLACED, np.roll(ids, -7), shown).astype(ids.dtype)
    asked = np.where(code == SHOWN, IGNORE, ids.astype(np.int64))
    return shown, asked


def _stack(rows: Sequence[np.ndarray], filler: int | bool) -> Tensor:
    table = np.full((len(rows), max(map(len, rows))), filler, rows[0].dtype)
    for row, values in zip(table, rows, strict=True):
        row[: len(values)] = values
    return torch.from_numpy(table)


def _stack_sites(rows: Sequence[np.ndarray]) -> Float[Tensor, "batch 2 tokens"]:
    table = np.zeros((len(rows), 2, max(row.shape[1] for row in rows)), np.float32)
    for row, values in zip(table, rows, strict=True):
        row[:, : values.shape[1]] = values
    return torch.from_numpy(table)
