"""Examples become tokens, and tokens padded tensors that know where the answer of each base stands."""

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Integer, UInt8
from torch import Tensor

from genoattn.data.curriculum import CurriculumStage
from genoattn.data.example import (
    DEFAULT_FORMAT,
    MASK,
    RANDOM,
    VISIBLE,
    ContextFormat,
    Example,
    reverse_complement_example,
)
from genoattn.data.targets import IGNORE_INDEX
from genoattn.data.tokenizers.base import Encoded, Tokenizer, id_dtype
from genoattn.genome.mutations import Event


@final
@dataclass(frozen=True)
class Batch:
    """Examples as a model takes them; ids stay as small as they are until they are embedded."""

    ids: Integer[Tensor, "batch tokens"]
    reference_window: Integer[Tensor, "batch wide"] | None
    padding_mask: Bool[Tensor, "batch tokens"]
    targets: dict[str, Int[Tensor, "batch asked"]]
    """For each output what is asked of each base, each token, or the window."""
    events: tuple[tuple[Event, ...], ...]
    stage: CurriculumStage | None = None
    base_to_answer: Int[Tensor, "batch bases"] | None = None
    """Where the answer of each base stands among those of all tokens, `span` a token; -1 where there is no base.
    None: the answer of base i is that of token i."""
    position_ids: Int[Tensor, "batch tokens"] | None = None
    segment_ids: Int[Tensor, "batch tokens"] | None = None
    pooling_weights: Float[Tensor, "batch 2 tokens"] | None = None
    """What a verdict looks at, in each of the two sequences: weights of tokens, 1 in all."""
    bases: int = 0
    """Bases in all of the contexts."""
    reverse_complement: "Batch | None" = None
    """The same windows as the other strand shows them."""

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """The same batch on another device."""
        moved = {
            field.name: value.to(device, non_blocking=non_blocking)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        targets = {name: target.to(device, non_blocking=non_blocking) for name, target in self.targets.items()}
        other = None if self.reverse_complement is None else self.reverse_complement.to(device, non_blocking)
        return replace(self, **moved, targets=targets, reverse_complement=other)


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
    stage: CurriculumStage | None = None,
    context_format: ContextFormat = DEFAULT_FORMAT,
    frame: int = 0,
    both_strands: bool = False,
) -> Batch:
    """Stacks examples of one task, padding the shorter at their ends; with `strands` the other strand's batch too."""
    rows = [_row(example, tokenizer, context_format, frame) for example in examples]
    beside = [
        tokenizer.encode(example.reference_window).ids for example in examples if example.reference_window is not None
    ]
    targets = {name: _stack([one.targets[name] for one in examples], IGNORE_INDEX) for name in examples[0].targets}
    if context_format.token_objective:
        targets["token"] = _stack([row.asked for row in rows], IGNORE_INDEX)
    paired = any(example.reference is not None for example in examples)
    plain = tokenizer.max_token_length == 1 and not paired
    turned = [reverse_complement_example(example) for example in examples] if both_strands else []
    return Batch(
        ids=_stack([row.ids for row in rows], tokenizer.pad_id),
        reference_window=_stack(beside, tokenizer.pad_id) if beside else None,
        padding_mask=_stack([np.ones(len(row.ids), np.bool_) for row in rows], False),
        targets=targets,
        events=tuple(example.events for example in examples),
        stage=stage,
        base_to_answer=None if plain else _stack([row.places for row in rows], -1),
        position_ids=_stack([row.positions for row in rows], 0) if context_format.restart_positions else None,
        segment_ids=_stack([row.segments for row in rows], 0) if paired else None,
        pooling_weights=None if examples[0].allele_spans is None else _stack_sites([row.sites for row in rows]),
        bases=sum(len(one.bases) + (0 if one.reference is None else len(one.reference)) for one in examples),
        reverse_complement=collate(turned, tokenizer, None, context_format, frame) if both_strands else None,
    )


def _row(example: Example, tokenizer: Tokenizer, framing: ContextFormat, phase: int) -> _Row:
    encoded = tokenizer.encode(example.bases, phase)
    ids, asked = _hide(encoded, example.masking, tokenizer, framing)
    starts, length = encoded.token_starts, len(example.bases)
    owner = np.repeat(np.arange(len(starts)), np.diff(starts, append=length))
    if example.reference is None:
        places = owner * tokenizer.max_token_length + np.arange(length) - starts[owner]
        return _Row(ids, starts, np.zeros_like(starts), places, asked, np.zeros((2, 0)))
    first = tokenizer.encode(example.reference, phase)
    lead = 0 if example.sample_first else len(first.ids) + 1
    places = (owner + lead) * tokenizer.max_token_length + np.arange(length) - starts[owner]
    # Ids, positions, segments and what is asked; the separator's id is the one after the tokenizer's own.
    other = first.ids, first.token_starts, np.zeros_like(first.token_starts), np.full(len(first.ids), IGNORE_INDEX)
    separator = [tokenizer.vocabulary_size], [len(example.reference)], [0], [IGNORE_INDEX]
    own = ids, starts, np.ones_like(starts), asked
    order = (own, separator, other) if example.sample_first else (other, separator, own)
    joined, positions, segments, asked = (np.concatenate(column) for column in zip(*order, strict=True))
    kind = id_dtype(tokenizer.vocabulary_size + 1)
    sites = _sites(example, first.token_starts, starts, lead)
    return _Row(joined.astype(kind), positions, segments, places, asked, sites)


def _sites(example: Example, first: np.ndarray, second: np.ndarray, lead: int) -> Float[np.ndarray, "2 tokens"]:
    """The tokens that own a base of each site, or the base before it where it is empty."""
    weights = np.zeros((2, lead + len(second)))
    if example.allele_spans is None:
        return weights
    for row, (start, stop), starts, offset in zip(
        weights, example.allele_spans, (first, second), (0, lead), strict=True
    ):
        low = max(int(np.searchsorted(starts, start, side="right")) - 1, 0)
        high = max(int(np.searchsorted(starts, max(stop, start + 1))), low + 1)
        row[offset + low : offset + high] = 1 / (high - low)
    return weights


def _hide(
    encoded: Encoded, hidden: UInt8[np.ndarray, "length"] | None, tokenizer: Tokenizer, framing: ContextFormat
) -> tuple[Integer[np.ndarray, "tokens"], Int[np.ndarray, "tokens"]]:
    """The ids that are shown, and for each token the id that is asked for, IGNORE where none is."""
    ids, nothing = encoded.ids, np.full(len(encoded.ids), IGNORE_INDEX, np.int64)
    if framing.token_objective == "next":
        return ids, np.append(ids[1:].astype(np.int64), IGNORE_INDEX)
    if hidden is None or not hidden.any():
        return ids, nothing
    # A token that only reads a hidden base must not give it away; it is as the first hidden base it reads is.
    code = np.full(len(ids), VISIBLE, np.uint8)
    bases = np.flatnonzero(hidden)[::-1]
    owner = np.searchsorted(encoded.token_starts, bases, side="right") - 1
    for before in range(tokenizer.overlap, -1, -1):
        reader = owner - before
        code[reader[reader >= 0]] = hidden[bases[reader >= 0]]
    shown = np.where(code == MASK, np.array(tokenizer.mask_id, ids.dtype), ids)
    # "Another token" is the one seven further on, so that it is as common as tokens of this window are.
    shown = np.where(code == RANDOM, np.roll(ids, -7), shown).astype(ids.dtype)
    asked = np.where(code == VISIBLE, IGNORE_INDEX, ids.astype(np.int64))
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
