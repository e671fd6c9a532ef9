"""The contract of an attention layer: what it is given, what it answers and what it says about itself."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from genoattn.errors import UserError


@dataclass(frozen=True)
class TokenLayout:
    """Where each token stands; every field is [batch, length] or None."""

    padding_mask: Bool[Tensor, "batch length"] | None = None
    """True at real tokens, False at padding (None: all real)."""
    position_ids: Int[Tensor, "batch length"] | None = None
    """What rotary positions turn by (None: 0, 1, 2, …); a window's reach counts indices, not these."""
    segment_ids: Int[Tensor, "batch length"] | None = None
    """Which sequence of the context a token belongs to (reference 0, sample 1; None: one)."""


State: TypeAlias = tuple[Tensor, ...]
"""What a causal layer keeps of the tokens before: numbers in at least float32, and counts."""


ChunkReader: TypeAlias = Callable[[int, int], tuple[Tensor, TokenLayout]]
"""`read(start, stop)`: tokens [start, stop) of a long sequence, [batch, stop - start, dim], and their layout, which
holds their positions whatever the whole one holds."""


class Attention(nn.Module, ABC):
    """Mix information along a sequence, leaving its shape alone.

    A layer is built as `factory(dim=…, causal=…)`. It answers zeros at padding, and what padding holds (NaN
    included) touches neither the other answers nor any gradient.
    """

    complexity: Literal["linear", "n log n", "quadratic"]
    """How time and memory grow with the length."""
    causal: bool
    """True when a token sees itself and what lies before it, False when it looks both ways."""
    weights_sum_to_one: bool
    """True when values of 1 everywhere mix to 1 everywhere."""
    receptive_field: tuple[int, int] | None = None
    """The farthest indices seen to the left and to the right, inclusive (None: no bound but causality)."""
    stride: int = 1
    """Within the reach, the indices at multiples of this distance are seen."""
    asymmetry: str | None = None
    """Why, looking both ways, it answers a sequence turned round otherwise than turned round (None: it does not)."""

    @abstractmethod
    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        """Each token's answer from the tokens it sees."""

    @abstractmethod
    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: TokenLayout = TokenLayout()
    ) -> Float[Tensor, "batch length dim"]:
        """The same answer, written the slow and obvious way; the tests hold `forward` to it."""

    def init_state(self, batch: int) -> State:
        """What `step` is given before the first token."""
        raise UserError(f"{self._name} cannot be fed piece by piece: it keeps no state from one piece to the next")

    def step(
        self, x: Float[Tensor, "batch length dim"], state: State, layout: TokenLayout = TokenLayout()
    ) -> tuple[Float[Tensor, "batch length dim"], State]:
        """The answers of a causal layer at the next tokens, and the state after them; any cut into pieces is equal.

        Where the layout holds no positions they go on from those before.
        """
        raise UserError(f"{self._name} cannot be fed piece by piece: it keeps no state from one piece to the next")

    def forward_chunked(self, read_chunk: ChunkReader, length: int, chunk: int) -> Iterator[tuple[int, int, Tensor]]:
        """The answers [start, stop) of a long sequence in order, without holding what grows with it where that can be.

        As soon as answers are given, their tokens may be overwritten: nothing before `stop` is read after that.
        """
        yield 0, length, self(*read_chunk(0, length))

    def describe_backend(self, device: torch.device) -> str:
        """What computes the layer on a device, and why where there is a choice; a run says so at its start."""
        return "torch"

    @property
    def _name(self) -> str:
        return f"{type(self).__name__} ({'causal' if self.causal else 'bidirectional'})"

    @abstractmethod
    def flops(self, length: int) -> int:
        """FLOPs of one sequence forward as it runs, projections included; a multiply-add counts as 2."""

    @abstractmethod
    def state_bytes(self, length: int) -> int:
        """Bytes, at 4 a number, of what a next token on the right would read of `length` tokens before it."""


def contract_error(layer: object) -> str | None:
    """A sentence that says what a built layer lacks of the contract; None if nothing."""
    name = f"{type(layer).__module__}.{type(layer).__qualname__}"
    if not isinstance(layer, Attention):
        return f"{name} is no attention layer: it does not inherit from genoattn.attention.base.Attention"
    missing = [key for key in ("complexity", "causal", "weights_sum_to_one") if getattr(layer, key, None) is None]
    return f"{name} must set {' and '.join(missing)}, see genoattn.attention.base.Attention" if missing else None


def zero_padding(x: Float[Tensor, "batch length *rest"], padding_mask: Bool[Tensor, "batch length"] | None):
    """`x` with zeros at padding; no gradient flows into padding, and NaN there is gone."""
    if padding_mask is None:
        return x
    return x.masked_fill(~padding_mask.view(*padding_mask.shape, *(1,) * (x.dim() - 2)), 0)
