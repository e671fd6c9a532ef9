"""The contract of an attention layer: inputs, outputs and the properties that it declares."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from genoattn.attention.modules.rotary import Rope, Turns, position_ids_of, turns
from genoattn.errors import UserError


@dataclass(frozen=True)
class TokenLayout:
    """Padding, positions and segments of the tokens of a batch; every tensor is `[batch, length]` or None."""

    padding_mask: Bool[Tensor, "batch length"] | None = None
    """True at real tokens, False at padding (None: all tokens are real)."""
    position_ids: Int[Tensor, "batch length"] | None = None
    """Positions for rotary embeddings (None: 0, 1, 2, …). The bounds of a window count indices, not positions."""
    segment_ids: Int[Tensor, "batch length"] | None = None
    """The sequence of the context that a token belongs to: reference 0, sample 1 (None: one sequence)."""
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
        parts = (self.padding_mask, self.position_ids, self.segment_ids)
        host = None if self.host is None else self.host.turned
        return TokenLayout(*(None if t is None else t.flip(1) for t in parts), host=host, keeps=self.keeps)

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


State: TypeAlias = tuple[Tensor, ...]
"""The memory of a causal layer of the tokens so far: numbers in at least float32, and counts."""


ChunkReader: TypeAlias = Callable[[int, int], tuple[Tensor, TokenLayout]]
"""`read(start, stop)` returns tokens [start, stop) of a long sequence, `[batch, stop - start, dim]`, and their layout.
The layout always holds the positions of the tokens in the whole sequence."""


class Attention(nn.Module, ABC):
    """A layer that mixes information along a sequence and keeps its shape.

    A layer is built as `factory(dim=…, causal=…)`. It returns zeros at padding. The values at padding, NaN included,
    change no other output and no gradient. `genoattn.attention.conformance.check` checks all of this.
    """

    complexity: Literal["linear", "n log n", "quadratic"]
    """Growth of time and memory with the length."""
    causal: bool
    """True if a token sees only itself and the tokens before it."""
    weights_sum_to_one: bool
    """True if values of 1 everywhere give outputs of 1 everywhere."""
    receptive_field: tuple[int, int] | None = None
    """Number of tokens that are seen to the left and to the right (None: no bound but causality)."""
    stride: int = 1
    """Within the receptive field, only tokens at multiples of this distance are seen."""
    asymmetry: str | None = None
    """Reason why reversing the input does not reverse the output of a bidirectional layer; None if it does."""

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        """Mix the tokens of each sequence.

        Args:
            x: Tokens `[batch, length, dim]`.
            layout: Padding, positions and segments of the tokens.

        Returns:
            One output for each token, `[batch, length, dim]`, 0 at padding.
        """

    @abstractmethod
    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        """`forward` written in the slow and obvious way; the checks compare the two, gradients included."""

    def init_state(self, batch: int) -> State:
        """Return the state of a causal layer before the first token of `batch` sequences.

        Raises:
            UserError: The layer is bidirectional or has no state.
        """
        raise UserError(f"{self._name} cannot be computed step by step: it keeps no state from one step to the next")

    def step(
        self, x: Float[Tensor, "batch length dim"], state: State, layout: TokenLayout = TokenLayout()
    ) -> tuple[Float[Tensor, "batch length dim"], State]:
        """Compute the next tokens of a causal layer; steps of any length give the outputs of `forward`.

        Args:
            x: The next tokens `[batch, length, dim]`.
            state: The state after the tokens before them.
            layout: Their layout. Without positions they follow those of the tokens before.

        Returns:
            The outputs `[batch, length, dim]` and the new state.

        Raises:
            UserError: The layer is bidirectional or has no state.
        """
        raise UserError(f"{self._name} cannot be computed step by step: it keeps no state from one step to the next")

    def forward_chunked(self, read_chunk: ChunkReader, length: int, chunk: int) -> Iterator[tuple[int, int, Tensor]]:
        """Compute a long sequence in chunks, so that memory grows with the chunk where the layer allows it.

        Args:
            read_chunk: Returns the tokens of any part of the sequence.
            length: Tokens of the sequence.
            chunk: Tokens of a chunk, about.

        Yields:
            Start, stop and outputs `[batch, stop - start, dim]` of the chunks in order. The caller may then overwrite
            these tokens: the layer reads nothing before `stop` afterwards.
        """
        yield 0, length, self(*read_chunk(0, length))

    def describe_backend(self, device: torch.device, dtype: torch.dtype = torch.float32) -> str:
        """Name the backend of `forward` for queries of this dtype on a device, with its reason if there is a choice.

        A run prints the sentence at its start.
        """
        return "torch"

    @property
    def _name(self) -> str:
        return f"{type(self).__name__} ({'causal' if self.causal else 'bidirectional'})"

    @abstractmethod
    def flops(self, length: int) -> int:
        """FLOPs of `forward` for one sequence, projections included; a multiply-add counts as 2."""

    @abstractmethod
    def state_bytes(self, length: int) -> int:
        """Size in bytes (float32) of the state that a causal layer keeps after `length` tokens."""


def contract_error(layer: object) -> str | None:
    """A sentence that says what a built layer lacks of the contract; None if nothing."""
    name = f"{type(layer).__module__}.{type(layer).__qualname__}"
    if not isinstance(layer, Attention):
        return f"{name} is no attention layer: it does not inherit from genoattn.attention.base.Attention"
    missing = [key for key in ("complexity", "causal", "weights_sum_to_one") if getattr(layer, key, None) is None]
    return f"{name} must set {' and '.join(missing)}, see genoattn.attention.base.Attention" if missing else None


def zero_padding(x: Float[Tensor, "batch length *rest"], padding_mask: Bool[Tensor, "batch length"] | None):
    """Return `x` with zeros at padding; NaN there is gone and no gradient flows into it."""
    if padding_mask is None:
        return x
    return x.masked_fill(~padding_mask.view(*padding_mask.shape, *(1,) * (x.dim() - 2)), 0)
