"""Rotary positions of queries and keys, and the slopes of ALiBi."""

import math
from typing import Any, Literal, NamedTuple, TypeAlias

import torch
from jaxtyping import Float, Int
from torch import Tensor

from genoattn.attention.modules import fused

ROTARY = "rotary positions turn queries and keys by what lies before them"
"""Reason of the asymmetry of a layer with rotated features."""


VALUES_ROTARY = "rotated values tell a token before from a token after"
"""Reason of the asymmetry of a layer with rotated values."""


Turns: TypeAlias = tuple[Tensor, Tensor]
"""Cosine and sine of a rotation, from `turns`."""


class Rope(NamedTuple):
    """Frequencies of rotary positions, stretched for sequences longer than those of the training.

    Papers: RoPE, arXiv:2104.09864; "linear" interpolation, arXiv:2306.15595; "yarn", and "ntk" as described there,
    arXiv:2309.00071.
    """

    base: float = 10000.0
    scaling: Literal["none", "linear", "ntk", "yarn"] = "none"
    factor: float = 1.0
    """The length of the longest sequences, in multiples of that in training."""
    trained_length: int = 0
    """Positions of the training; "yarn" keeps the channels that turned often within them."""

    def frequencies(self, half: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "half"]:
        """Radians for each position of `half` channel pairs: base^(-c / half), stretched."""
        base = self.base
        if self.scaling == "ntk" and half > 1:
            base = base * self.factor ** (half / (half - 1))  # the slowest pair is stretched whole, the fastest not
        turn = base ** (-torch.arange(half, device=device, dtype=dtype) / half)
        if self.scaling == "linear" or (self.scaling == "ntk" and half == 1):
            return turn / self.factor
        if self.scaling == "yarn":
            rounds = self.trained_length * turn / (2 * math.pi)
            kept = ((rounds - FEWEST_ROUNDS) / (MOST_ROUNDS - FEWEST_ROUNDS)).clamp(0, 1)
            return turn * (kept + (1 - kept) / self.factor)
        return turn

    @property
    def temperature(self) -> float:
        """Factor of queries and of keys by which "yarn" sharpens the scores."""
        return 0.1 * math.log(self.factor) + 1 if self.scaling == "yarn" else 1.0


FEWEST_ROUNDS, MOST_ROUNDS = 1, 32
"""Rounds within the trained length up to which "yarn" stretches a channel pair whole, and from which not at all."""


VALUE_ROPE = Rope(256.0)
"""Rotation of values: half of the channels turn by a sixteenth of a radian or more for each token, so that neighbouring
distances differ."""


def position_ids_of(
    x: Float[Tensor, "batch length ..."], positions: Int[Tensor, "batch length"] | None
) -> Int[Tensor, "#batch length"]:
    """The given positions, or 0, 1, 2, … for every sequence."""
    return torch.arange(x.shape[1], device=x.device)[None] if positions is None else positions


def rotate(
    x: Float[Tensor, "batch length heads dim_head"], positions: Int[Tensor, "#batch length"], rope: Rope = Rope()
) -> Float[Tensor, "batch length heads dim_head"]:
    """`x` with channel pairs (c, c + dim_head / 2) turned by position · frequency c radians.

    The dot product of two turned vectors depends on their positions by the difference alone.
    """
    return rotated(x, turns(positions, x.shape[-1], rope, torch.promote_types(x.dtype, torch.float32)))


def rotated(
    x: Float[Tensor, "batch length heads dim_head"], turned: Turns, factor: float = 1.0
) -> Float[Tensor, "batch length heads dim_head"]:
    """`rotate` by the cosine and sine that `turns` gives, times a factor."""
    if fused.fuses(x):
        from genoattn.attention.kernels.heads import turned_heads  # late: it imports triton

        return turned_heads(x, None, turned, norm=False, factor=factor)
    y: Tensor = _Rotate.apply(x.to(turned[0].dtype), *turned)  # pyright: ignore[reportAssignmentType]
    y = y.to(x.dtype)
    return y if factor == 1 else y * factor


def rotated_at(
    x: Float[Tensor, "batch tokens heads dim_head"],
    turned: tuple[Tensor, Tensor] | None,
    tokens: slice,
    back: bool = False,
) -> Float[Tensor, "batch tokens heads dim_head"]:
    """`x`, which are these of all tokens, turned by the part of what `turns` gives for all; None: not at all."""
    if turned is None:
        return x
    cos, sin = turned
    return rotated(x, (cos[:, tokens], (-sin if back else sin)[:, tokens]))


def turns(
    positions: Int[Tensor, "batch length"], channels: int, rope: Rope, dtype: torch.dtype
) -> tuple[Float[Tensor, "sequences length 1 half"], Float[Tensor, "sequences length 1 half"]]:
    """Cosine and sine of the angle by which `rotate` turns each channel pair; of one sequence if all are alike."""
    on_host = positions.device.type == "cpu" and not torch.compiler.is_compiling()
    if on_host and len(positions) > 1 and torch.equal(positions[:-1], positions[1:]):
        positions = positions[:1]
    # A million radians leave bfloat16 no digit of the angle and float32 two; only MPS lacks float64.
    wide = torch.float32 if positions.device.type == "mps" else torch.float64
    turn = rope.frequencies(channels // 2, positions.device, wide)
    angle = (positions[..., None, None].to(wide) * turn).remainder(2 * math.pi).to(dtype)
    return angle.cos(), angle.sin()


class _Rotate(torch.autograd.Function):
    """Written half by half into one tensor, which is several times faster on CPU; backward turns the other way."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        y = torch.empty_like(x)
        for heads in head_groups(x):
            turn_into(y[:, :, heads], x[:, :, heads], cos, sin)
        return y

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor) -> tuple[Any, None, None]:
        cos, sin = ctx.saved_tensors
        return _Rotate.apply(upstream[0], cos, -sin), None, None  # itself a rotation, so it has all derivatives


def head_groups(x: Float[Tensor, "batch length heads channels"]) -> list[slice]:
    """Heads that are computed together: one on a CPU, which so has long rows and its numbers in the cache, else all."""
    return [slice(at, at + 1) for at in range(x.shape[2])] if x.device.type == "cpu" else [slice(None)]


def heads_first(x: Float[Tensor, "batch length heads channels"]) -> Float[Tensor, "batch length heads channels"]:
    """`x` with all tokens of a head next to each other in memory."""
    return x.permute(2, 0, 1, 3).contiguous().permute(1, 2, 0, 3)


def turn_into(y: Tensor, x: Tensor, cos: Tensor, sin: Tensor) -> None:
    """Write `x` to `y`, turned."""
    (first, second), (turned_first, turned_second) = x.chunk(2, dim=-1), y.chunk(2, dim=-1)
    for turned, one, other, sign in ((turned_first, cos, sin, -1), (turned_second, sin, cos, 1)):
        if torch.compiler.is_compiling():  # which does not trace `out=` a part of a tensor
            turned.copy_(first * one)
        else:
            torch.mul(first, one, out=turned)
        turned.addcmul_(second, other, value=sign)


def slopes(heads: int, device: torch.device, dtype: torch.dtype) -> Float[Tensor, "heads"]:
    """ALiBi's: what a token of distance costs each head's score, 2^-8 at the last and evenly spread powers before."""
    return 2.0 ** (-8 * torch.arange(1, heads + 1, device=device, dtype=dtype) / heads)
