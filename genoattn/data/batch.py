"""A batch: the tokens of several examples as padded tensors, with their labels."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import NamedTuple, final

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Integer, Shaped, UInt8
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
from genoattn.data.targets import IGNORE_INDEX, TargetSpec
from genoattn.data.tokenizers.base import Encoded, Tokenizer, id_dtype
from genoattn.genome.mutations import Event


@final
@dataclass(frozen=True)
class Batch:
    """Examples as the input of a model. Ids keep the smallest integer type until they are embedded.

    Attributes:
        ids: The ids of the tokens; a separator is the id after those of the tokenizer.
        reference_window: The ids of the reference beside the bases; None if the task has none there.
        padding_mask: True for real tokens, False for padding.
        targets: By output the class (or number) of each base, each token or the window; `IGNORE_INDEX` without a label.
        events: The mutations of each example.
        stage: The stage of the curriculum, which is logged.
        base_to_answer: The index of the prediction for each base, -1 for padding; every token has `max_token_length`
            predictions. None: base i belongs to token i.
        position_ids: The position of each token in its sequence, in bases; None: its index.
        segment_ids: 0 for the reference and the separator, 1 for the sample; None if there is one sequence.
        pooling_weights: For each site that a window is classified by (the allele in either sequence, or a stretch of
            the only one) the weights of its tokens, which sum to 1; None if the task has no sites.
        bases: Bases of all examples together.
        reverse_complement: The same examples on the reverse strand.
        host: The same batch on the CPU, if this one is on another device.
        step_labels: By output, the labels of all batches of a step; None: they are those of this batch.
    """

    ids: Integer[Tensor, "batch tokens"]
    reference_window: Integer[Tensor, "batch wide"] | None
    padding_mask: Bool[Tensor, "batch tokens"]
    targets: dict[str, Shaped[Tensor, "batch labels"]]
    events: tuple[tuple[Event, ...], ...]
    stage: CurriculumStage | None = None
    base_to_answer: Int[Tensor, "batch bases"] | None = None
    position_ids: Int[Tensor, "batch tokens"] | None = None
    segment_ids: Int[Tensor, "batch tokens"] | None = None
    pooling_weights: Float[Tensor, "batch sites tokens"] | None = None
    bases: int = 0
    reverse_complement: "Batch | None" = None
    host: "Batch | None" = None
    step_labels: Int[Tensor, "outputs"] | None = None

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        """The same batch on another device."""
        moved = self._map(lambda tensor: tensor.to(device, non_blocking=non_blocking))
        return moved if device.type == "cpu" else moved._from(self)

    def pin_memory(self) -> "Batch":
        """The same batch in pinned memory, from where it goes to a GPU while the GPU computes; a loader calls this."""
        return self._map(Tensor.pin_memory)

    def _map(self, change: Callable[[Tensor], Tensor]) -> "Batch":
        changed = {
            field.name: change(value)
            for field in fields(self)
            if isinstance(value := getattr(self, field.name), Tensor)
        }
        targets = {name: change(target) for name, target in self.targets.items()}
        reverse = None if self.reverse_complement is None else self.reverse_complement._map(change)
        return replace(self, **changed, targets=targets, reverse_complement=reverse, host=None)

    def _from(self, source: "Batch") -> "Batch":
        """This batch, which was moved from `source`, with the one on the CPU."""
        reverse, host = self.reverse_complement, source if source.ids.device.type == "cpu" else source.host
        if reverse is not None and source.reverse_complement is not None:
            reverse = reverse._from(source.reverse_complement)
        return replace(self, reverse_complement=reverse, host=host)


def count_labels(targets: Mapping[str, Tensor], outputs: Mapping[str, TargetSpec]) -> Int[Tensor, "outputs"]:
    """By output, the number of bases, tokens or windows that have a label; every number counts."""
    counts = [
        torch.ones_like(targets[name]).sum() if output.number else (targets[name].long() != IGNORE_INDEX).sum()
        for name, output in outputs.items()
    ]
    return torch.stack([count.long() for count in counts])


class _Row(NamedTuple):
    """The tokens of an example; the fields are those of `Batch`."""

    ids: Integer[np.ndarray, "tokens"]
    position_ids: Int[np.ndarray, "tokens"]
    segment_ids: Int[np.ndarray, "tokens"]
    token_targets: Int[np.ndarray, "tokens"]
    base_to_answer: Int[np.ndarray, "bases"]
    pooling_weights: Float[np.ndarray, "sites tokens"]
    padding_mask: Bool[np.ndarray, "tokens"]


def collate(
    examples: Sequence[Example],
    tokenizer: Tokenizer,
    stage: CurriculumStage | None = None,
    context_format: ContextFormat = DEFAULT_FORMAT,
    frame: int = 0,
    both_strands: bool = False,
) -> Batch:
    """Encode examples of one task and stack them, padded at their ends.

    Args:
        examples: The examples.
        tokenizer: Makes tokens of the bases.
        stage: The stage of the curriculum that the examples were made at.
        context_format: The token labels and positions of the task.
        frame: The frame of the tokenizer.
        both_strands: Add the same examples on the reverse strand.

    Returns:
        The batch.
    """
    rows = [_encode(example, tokenizer, context_format, frame) for example in examples]
    windows = [
        tokenizer.encode(example.reference_window).ids for example in examples if example.reference_window is not None
    ]
    targets = {
        name: _stack([example.targets[name] for example in examples], IGNORE_INDEX) for name in examples[0].targets
    }
    if context_format.token_objective:
        targets["token"] = _stack([row.token_targets for row in rows], IGNORE_INDEX)
    paired = any(example.reference is not None for example in examples)
    one_per_base = tokenizer.max_token_length == 1 and not paired
    classified = len(_sites(examples[0])) > 0
    reverse = [reverse_complement_example(example) for example in examples] if both_strands else []
    return Batch(
        ids=_stack([row.ids for row in rows], tokenizer.pad_id),
        reference_window=_stack(windows, tokenizer.pad_id) if windows else None,
        padding_mask=_stack([row.padding_mask for row in rows], False),
        targets=targets,
        events=tuple(example.events for example in examples),
        stage=stage,
        base_to_answer=None if one_per_base else _stack([row.base_to_answer for row in rows], -1),
        position_ids=_stack([row.position_ids for row in rows], 0) if context_format.restart_positions else None,
        segment_ids=_stack([row.segment_ids for row in rows], 0) if paired else None,
        pooling_weights=_stack([row.pooling_weights for row in rows], 0) if classified else None,
        bases=sum(map(_context_bases, examples)),
        reverse_complement=collate(reverse, tokenizer, None, context_format, frame) if both_strands else None,
    )


def _encode(example: Example, tokenizer: Tokenizer, context_format: ContextFormat, frame: int) -> _Row:
    encoded = tokenizer.encode(example.bases, frame)
    ids, token_targets = _mask(encoded, example.masking, tokenizer, context_format)
    starts, length = encoded.token_starts, len(example.bases)
    if tokenizer.max_token_length == 1:
        owner, base_to_answer = starts, starts.copy()
    else:
        owner = np.repeat(np.arange(len(starts)), np.diff(starts, append=length))
        base_to_answer = owner * tokenizer.max_token_length + np.arange(length) - starts[owner]
    no_pooling, real = np.zeros((0, 0)), np.ones(len(ids), np.bool_)
    if example.reference is None:
        weights = _pooling_weights(_sites(example), [starts], [0], len(ids))
        return _Row(ids, starts, np.zeros_like(starts), token_targets, base_to_answer, weights, real)
    reference = tokenizer.encode(example.reference, frame)
    if context_format.interleaved:
        ids, segments, real = _interleave(reference.ids, ids, tokenizer.pad_id)
        positions = np.repeat(np.arange(len(ids) // 2), 2)
        answers = np.maximum(2 * (owner - int(context_format.answer_before)) + 1, 0)
        return _Row(ids, positions, segments, np.full(len(ids), IGNORE_INDEX), answers, no_pooling, real)
    offset = 0 if example.sample_first else len(reference.ids) + 1  # the first token of the sample
    # Ids, positions, segments and token targets of the three pieces.
    sample = ids, starts, np.ones_like(starts), token_targets
    separator = [tokenizer.vocabulary_size], [len(example.reference)], [0], [IGNORE_INDEX]
    ignored = np.full(len(reference.ids), IGNORE_INDEX)
    other = *reference, np.zeros_like(reference.token_starts), ignored
    order = (sample, separator, other) if example.sample_first else (other, separator, sample)
    ids, positions, segments, token_targets = (np.concatenate(column) for column in zip(*order, strict=True))
    ids = ids.astype(id_dtype(tokenizer.vocabulary_size + 1))
    base_to_answer += offset * tokenizer.max_token_length - int(context_format.answer_before)
    weights = _pooling_weights(_sites(example), [reference.token_starts, starts], [0, offset], len(ids))
    return _Row(ids, positions, segments, token_targets, base_to_answer, weights, np.ones(len(ids), np.bool_))


def _interleave(
    reference: Integer[np.ndarray, "reference"], sample: Integer[np.ndarray, "sample"], pad_id: int
) -> tuple[Integer[np.ndarray, "tokens"], Int[np.ndarray, "tokens"], Bool[np.ndarray, "tokens"]]:
    """Ids of both in turn, the shorter one padded; 0 at the reference and 1 at the sample; False at padding."""
    pairs = max(len(reference), len(sample))
    ids = np.full((pairs, 2), pad_id, sample.dtype)
    ids[: len(reference), 0], ids[: len(sample), 1] = reference, sample
    real = np.arange(pairs)[:, None] < (len(reference), len(sample))
    return ids.ravel(), np.tile([0, 1], pairs), real.ravel()


def _sites(example: Example) -> Sequence[tuple[int, int]]:
    """The sites that a window is classified by, one in each sequence; empty if there are none."""
    return example.allele_spans or ([] if example.site is None else [example.site])


def _pooling_weights(
    sites: Sequence[tuple[int, int]], token_starts: Sequence[np.ndarray], firsts: Sequence[int], tokens: int
) -> Float[np.ndarray, "sites tokens"]:
    """Equal weights for the tokens that own bases of a site; for each sequence its tokens' starts, and the first."""
    weights = np.zeros((len(sites), tokens), np.float32)
    for row, (start, stop), starts, first in zip(weights, sites, token_starts, firsts, strict=False):
        low = max(int(np.searchsorted(starts, start, side="right")) - 1, 0)
        high = max(int(np.searchsorted(starts, max(stop, start + 1))), low + 1)
        row[first + low : first + high] = 1 / (high - low)
    return weights


def _mask(
    encoded: Encoded, masking: UInt8[np.ndarray, "length"] | None, tokenizer: Tokenizer, context_format: ContextFormat
) -> tuple[Integer[np.ndarray, "tokens"], Int[np.ndarray, "tokens"]]:
    """The ids that the model reads, and the id that is the label of each token, `IGNORE_INDEX` without a label."""
    ids, no_targets = encoded.ids, np.full(len(encoded.ids), IGNORE_INDEX, np.int64)
    if context_format.token_objective == "next":
        return ids, np.append(ids[1:].astype(np.int64), IGNORE_INDEX)
    if masking is None or not masking.any():
        return ids, no_targets
    # Every token that reads a masked base is masked like the first masked base that it reads: it would show the base.
    code = np.full(len(ids), VISIBLE, np.uint8)
    bases = np.flatnonzero(masking)[::-1]
    owner = np.searchsorted(encoded.token_starts, bases, side="right") - 1
    for before in range(tokenizer.overlap, -1, -1):
        reader = owner - before
        code[reader[reader >= 0]] = masking[bases[reader >= 0]]
    masked = np.where(code == MASK, np.array(tokenizer.mask_id, ids.dtype), ids)
    # The random token is the one seven tokens further on, so that it is as common as the tokens of this window.
    masked = np.where(code == RANDOM, np.roll(ids, -7), masked).astype(ids.dtype)
    return masked, np.where(code == VISIBLE, IGNORE_INDEX, ids.astype(np.int64))


def _context_bases(example: Example) -> int:
    return len(example.bases) + (0 if example.reference is None else len(example.reference))


def _stack(rows: Sequence[np.ndarray], padding: int | bool) -> Tensor:
    """Rows as a tensor, padded at the end of their last dimension."""
    table = np.full((len(rows), *rows[0].shape[:-1], max(row.shape[-1] for row in rows)), padding, rows[0].dtype)
    for padded, row in zip(table, rows, strict=True):
        padded[..., : row.shape[-1]] = row
    return torch.from_numpy(table)
