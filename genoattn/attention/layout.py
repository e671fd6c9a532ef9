"""Layout of the tokens of a batch, and the part of a sequence that one of several processes holds."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.modules.rotary import Rope, Turns, position_ids_of, turns


@dataclass(frozen=True)
class TokenLayout:
    """Padding, positions and segments of the tokens of a batch; each tensor is `[batch, length]` or None."""

    padding_mask: Bool[Tensor, "batch length"] | None = None
    """True at real tokens, False at padding (None: all tokens are real)."""
    position_ids: Int[Tensor, "batch length"] | None = None
    """Positions for rotary embeddings (None: 0, 1, 2, …). The bounds of a window count indices, not positions."""
    segment_ids: Int[Tensor, "batch length"] | None = None
    """The sequence of the context that a token belongs to: reference 0, sample 1 (None: one sequence)."""
    span: "Span | None" = None
    """The part of a sequence that these tokens are, if several processes hold it together (None: all of it)."""
    host: "TokenLayout | None" = field(default=None, kw_only=True)
    """The same on the CPU, if the tensors are on another device: what Python asks of them need not wait for that."""
    keeps: bool = field(default=False, kw_only=True)
    """Keep what a layer computes of it for the next layers; for the layout of one batch, which goes with it."""

    @cached_property
    def segments(self) -> tuple[int, ...]:
        """The segments of the batch; empty without `segment_ids`. Read on the host, once for all layers."""
        return () if self._host_segments is None else tuple(self._host_segments.unique().tolist())

    @cached_property
    def alternating(self) -> bool:
        """True if every sequence has two segments that take turns token by token, the same one first."""
        return self._are_two(lambda ids: (ids[:, ::2], ids[:, 1::2]))

    @cached_property
    def boundary(self) -> int | None:
        """Index of the first token of the second segment, if every sequence has two, one after the other."""
        ids = self._host_segments
        if ids is None or not ids.numel():
            return None
        index = int((ids[0] == ids[0, 0]).sum())
        return index if self._are_two(lambda ids: (ids[:, :index], ids[:, index:])) else None

    @cached_property
    def positions_in_pairs(self) -> bool:
        """True if tokens 0 and 1 share a position, and so do 2 and 3, and so on, as in interleaved sequences."""
        ids = self.position_ids if self.host is None else self.host.position_ids
        return ids is not None and ids.shape[1] % 2 == 0 and torch.equal(ids[:, ::2], ids[:, 1::2])

    @cached_property
    def turned(self) -> "TokenLayout":
        """The layout of the same tokens from right to left; made once for all layers."""
        mask, positions, segments = (
            None if t is None else t.flip(1) for t in (self.padding_mask, self.position_ids, self.segment_ids)
        )
        host = None if self.host is None else self.host.turned
        return TokenLayout(mask, positions, segments, host=host, keeps=self.keeps)

    def turns(self, x: Float[Tensor, "batch length ..."], channels: int, rope: Rope) -> Turns:
        """Cosine and sine that turn `channels` channels of the tokens x by their positions, in at least float32."""
        exact = torch.promote_types(x.dtype, torch.float32)
        if not self.keeps or torch.compiler.is_compiling():
            return turns(position_ids_of(x, self.position_ids), channels, rope, exact)
        key = x.shape[1], channels, rope, exact, x.device, torch.is_inference_mode_enabled()
        if key not in self._turns:
            self._turns[key] = turns(position_ids_of(x, self.position_ids), channels, rope, exact)
        return self._turns[key]

    @cached_property
    def _turns(self) -> dict[tuple, Turns]:
        return {}

    @cached_property
    def alone(self) -> "TokenLayout":
        """The layout of the same tokens without a span; made once for all layers."""
        return replace(self, span=None)

    def part(self, x: Float[Tensor, "batch part ..."], start: int) -> "TokenLayout":
        """The layout of the tokens x, which begin at token `start` of these, with explicit positions."""
        stop = start + x.shape[1]
        mask, positions, segments = (
            None if t is None else t[:, start:stop] for t in (self.padding_mask, self.position_ids, self.segment_ids)
        )
        if positions is None:
            positions = torch.arange(start, stop, device=x.device).expand(len(x), -1)
        return TokenLayout(mask, positions, segments)

    def at(self, x: Float[Tensor, "batch tokens ..."], index: Int[Tensor, "tokens"]) -> "TokenLayout":
        """The layout of the tokens x, which stand at these indices, with explicit positions."""
        mask, positions, segments = (
            None if t is None else t[:, index] for t in (self.padding_mask, self.position_ids, self.segment_ids)
        )
        return TokenLayout(mask, index.expand(len(x), -1) if positions is None else positions, segments)

    @cached_property
    def _host_segments(self) -> Tensor | None:
        if self.host is not None:
            return self.host.segment_ids
        return None if self.segment_ids is None else self.segment_ids.cpu()

    def _are_two(self, split: Callable[[Tensor], tuple[Tensor, Tensor]]) -> bool:
        """True if the two parts of the segment ids hold one id each, and not the same."""
        if self._host_segments is None or len(self.segments) != 2:
            return False
        first, second = split(self._host_segments)
        if not first.numel() or not second.numel():
            return False
        a, b = first[0, 0], second[0, 0]
        return bool(a != b and (first == a).all() and (second == b).all())


@dataclass(frozen=True)
class Span:
    """Tokens [start, stop) of a sequence that `world` processes hold in shards of the same length, in order of rank.

    Every process knows the layout of the whole sequence, because it makes the whole batch: bytes beside activations.
    """

    group: Any
    """The processes, as torch.distributed names them: a ProcessGroup, or one dimension of a DeviceMesh."""
    rank: int
    """Number of this process among them, from 0."""
    world: int
    """Number of processes."""
    length: int
    """Tokens of a shard."""
    whole: TokenLayout
    """The layout of all tokens `[batch, total]`."""

    @property
    def start(self) -> int:
        """Index of the first token of this shard in the sequence."""
        return self.rank * self.length

    @property
    def stop(self) -> int:
        """Index after its last token."""
        return self.start + self.length

    @property
    def total(self) -> int:
        """Tokens of the whole sequence, padding of the shards included."""
        return self.world * self.length
