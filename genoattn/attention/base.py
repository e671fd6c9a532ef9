"""The contract of an attention layer: inputs, outputs and the properties that it declares."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeAlias

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from genoattn.attention.layout import Span, TokenLayout
from genoattn.attention.parallel.shards import halo, tied
from genoattn.errors import UserError

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
    shard_multiple: int = 1
    """Tokens that a shard of a sequence must be a multiple of, if several processes hold the sequence."""

    def __call__(self, x: Tensor, layout: TokenLayout = TokenLayout(), **words: Any) -> Tensor:
        """`forward`, or `forward_span` for a part of a sequence that several processes hold together."""
        if layout.span is None:
            return super().__call__(x, layout, **words)
        return self.forward_span(x, layout.alone, layout.span, **words)

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

    def forward_span(
        self, x: Float[Tensor, "batch shard dim"], layout: TokenLayout, span: Span
    ) -> Float[Tensor, "batch shard dim"]:
        """Mix the tokens of a sequence of which this process holds one shard; all of its processes call this together.

        A layer with a receptive field fetches the neighbours of its shard. Any other layer writes this itself, with
        what `genoattn.attention.parallel` offers. Every process must take part in every exchange, forwards and
        backwards, whatever its shard needs: see `genoattn.attention.parallel.shards.tied`.

        Args:
            x: Tokens of the shard `[batch, shard, dim]`.
            layout: Their layout, with positions in the whole sequence and without a span.
            span: The shard, and the layout of the whole sequence.

        Returns:
            The outputs of `forward` at the tokens of the shard.

        Raises:
            UserError: The layer cannot be computed so.
        """
        if self.receptive_field is None:
            raise UserError(
                f"{self._name} cannot be computed by several processes together: it has no receptive field and no "
                "forward_span of its own"
            )
        wide = halo(x, span, *self.receptive_field)
        return tied(wide.inner(self(wide.x, wide.layout)), wide.x)

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
