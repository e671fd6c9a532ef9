"""One softmax over a multi-resolution partition of the keys: exact nearby, pooled cells at doubling distance."""

from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.base import Attention, Layout, blank
from genoattn.attention.heads import ROTARY, Heads, check_positions, positions_of, rotate
from genoattn.attention.segments import HIDDEN
from genoattn.errors import UserError


class Cells(NamedTuple):
    """Sums over the real tokens of each cell, and how many those are; cells [batch, cells, …]."""

    k: Tensor
    v: Tensor
    positions: Tensor
    count: Tensor

    def padded(self, cells: int) -> "Cells":
        """With empty cells at the end, to a multiple of so many."""
        tail = -self.count.shape[1] % cells
        return Cells(*(F.pad(t, (0, 0) * (t.dim() - 2) + (0, tail)) for t in self))

    def halved(self) -> "Cells":
        """Two neighbours made one."""
        return Cells(*(t.unflatten(1, (-1, 2)).sum(2) for t in self))

    def means(self, rotary: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Mean keys, turned by the mean position, mean values, and the logarithm of the count; HIDDEN where empty."""
        present = self.count.clamp_min(1)
        k, v = self.k / present[..., None, None], self.v / present[..., None, None]
        bias = torch.where(self.count > 0, present.to(k.dtype).log(), HIDDEN)
        return (rotate(k, self.positions // present) if rotary else k), v, bias


class Part(NamedTuple):
    """A softmax not yet divided: the largest score, and sums of exp(score - largest) times values and alone."""

    largest: Tensor
    sums: Tensor
    total: Tensor


def hierarchical_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    *,
    causal: bool,
    block: int,
    positions: Int[Tensor, "#batch length"] | None = None,
    keep: Bool[Tensor, "batch length"] | None = None,
) -> Float[Tensor, "batch length heads dim_head"]:
    """Softmax attention over tokens nearby and cells of 2^l of them farther away; 0 at padding.

    Blocks of level l are `block` cells of 2^l tokens. A query reads the tokens of its block and of those beside it;
    then, level by level, of the blocks beside its own what it has not read yet, in that level's cells. Every token is
    so read once. A cell stands for its real tokens by their mean key, mean value and the logarithm of their count.
    With `positions` queries and means are turned. At padding q, k and v may hold anything finite.
    """
    length = q.shape[1]
    real = torch.ones(q.shape[:2], dtype=torch.bool, device=q.device) if keep is None else keep
    turns = torch.zeros_like(real).long() if positions is None else positions.expand_as(real)
    rotary = positions is not None
    if positions is not None:
        q = rotate(q, positions)
    cells = Cells(blank(k, keep), blank(v, keep), turns * real, real.long())
    parts = [_near(q, cells, block, causal, rotary)]
    for level in range(1, levels(length, block)):
        cells = cells.padded(block).halved()
        parts.append(_far(q, cells, block, level, causal, rotary))
    largest = torch.stack([part.largest for part in parts]).amax(0).detach()
    weights = [(part.largest - largest).exp() for part in parts]
    sums = sum(part.sums * weight for part, weight in zip(parts, weights, strict=True))
    total = sum(part.total * weight for part, weight in zip(parts, weights, strict=True))
    assert isinstance(sums, Tensor) and isinstance(total, Tensor)
    return blank(sums / total, keep)


def levels(length: int, block: int) -> int:
    """How many levels it takes until the blocks beside one's own are all there are."""
    count = 1
    while -(-length // (block << (count - 1))) > 2:
        count += 1
    return count


def _near(q: Tensor, cells: Cells, block: int, causal: bool, rotary: bool) -> Part:
    """The tokens of a query's own block and of those beside it."""
    length = q.shape[1]
    k, v, bias = cells.padded(block).means(rotary)
    rows = F.pad(q, (0, 0, 0, 0, 0, -length % block)).unflatten(1, (-1, block))
    sides = (-1, 0) if causal else (-1, 0, 1)
    beside = [_shifted(t, block, sides, fill) for t, fill in ((k, 0.0), (v, 0.0), (bias, HIDDEN))]
    if causal:
        index = torch.arange(block, device=q.device)
        ahead = F.pad(index[None, :] > index[:, None], (block, 0))
        return _read(rows, beside[0], beside[1], beside[2][:, :, None, None, :].masked_fill(ahead, HIDDEN), length)
    return _read(rows, beside[0], beside[1], beside[2][:, :, None, None, :], length)


def _shifted(x: Tensor, block: int, sides: tuple[int, ...], fill: float) -> Tensor:
    """For each block, itself and the blocks so far to the side, one after another: [batch, blocks, keys, …]."""
    x = x.unflatten(1, (-1, block))
    wide = F.pad(x, (0, 0) * (x.dim() - 2) + (1, 1), value=fill)
    return torch.cat([wide[:, 1 + side : 1 + side + x.shape[1]] for side in sides], dim=2)


def _far(q: Tensor, cells: Cells, block: int, level: int, causal: bool, rotary: bool) -> Part:
    """Of the blocks of a level beside a query's own, the halves that lower levels have not read, in its cells."""
    length, half = q.shape[1], block // 2
    span = block << level
    k, v, bias = cells.padded(block).means(rotary)
    rows = F.pad(q, (0, 0, 0, 0, 0, -length % span)).unflatten(1, (-1, 2, span // 2))
    halves = [
        F.pad(t.unflatten(1, (-1, 2, half)), (0, 0) * t.dim() + (1, 1), value=fill)
        for t, fill in ((k, 0.0), (v, 0.0), (bias, HIDDEN))
    ]
    blocks = rows.shape[1]
    parts = []
    # A query in the first half of its block has read the second half of the block before it, one in the second half
    # the first half of the block after it.
    for parity, reads in ((0, ((0, 0), (2, 0), (2, 1))), (1, ((0, 0), (0, 1), (2, 1)))):
        seen = [(side, part) for side, part in reads if side == 0 or not causal]
        keys, values, biases = (
            torch.cat([t[:, side : side + blocks, part] for side, part in seen], dim=2) for t in halves
        )
        parts.append(_read(rows[:, :, parity], keys, values, biases[:, :, None, None, :], None))
    return Part(*(torch.stack(pair, dim=2).flatten(1, 3)[:, :length] for pair in zip(*parts, strict=True)))


def _read(q: Tensor, k: Tensor, v: Tensor, bias: Tensor, length: int | None) -> Part:
    """q [batch, blocks, queries, heads, channels]; k and v the keys of each block. Flat where a length is given."""
    scores = torch.einsum("bnqhd,bnkhd->bnhqk", q, k) * q.shape[-1] ** -0.5 + bias
    largest = scores.amax(-1, keepdim=True).detach()
    weights = (scores - largest).exp()
    sums = torch.einsum("bnhqk,bnkhd->bnqhd", weights, v)
    part = Part(largest.transpose(2, 3), sums, weights.sum(-1, keepdim=True).transpose(2, 3))
    return part if length is None else Part(*(t.flatten(1, 2)[:, :length] for t in part))


def naive_hierarchical_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    *,
    causal: bool,
    block: int,
    positions: Int[Tensor, "#batch length"] | None = None,
    keep: Bool[Tensor, "batch length"] | None = None,
) -> Float[Tensor, "batch length heads dim_head"]:
    """The same from the whole square: full attention in which a far key is replaced by the mean of its cell."""
    length = q.shape[1]
    index = torch.arange(length, device=q.device)
    real = torch.ones(q.shape[:2], dtype=torch.bool, device=q.device) if keep is None else keep
    turns = torch.zeros_like(real).long() if positions is None else positions.expand_as(real)
    scores = q.new_zeros(q.shape[0], q.shape[2], length, length)
    turned_q = q if positions is None else rotate(q, positions)
    unread = torch.ones(length, length, dtype=torch.bool, device=q.device)
    for level in range(levels(length, block)):
        same = ((index[:, None] >> level) == (index[None, :] >> level)) & real[:, None, :]
        count = same.sum(-1).clamp_min(1)
        mean = torch.einsum("bij,bjhd->bihd", same.to(k.dtype), k) / count[..., None, None]
        if positions is not None:
            mean = rotate(mean, (same * turns[:, None, :]).sum(-1) // count)
        own = index // (block << level)
        beside = (own[:, None] - own[None, :]).abs() <= 1
        score = torch.einsum("bqhd,bkhd->bhqk", turned_q, mean) * q.shape[-1] ** -0.5
        scores = torch.where(unread & beside, score, scores)
        unread = unread & ~beside
    visible = real[:, None, None, :] & ((index[:, None] >= index) | (not causal))
    weights = scores.masked_fill(~visible, HIDDEN).softmax(-1).masked_fill(~visible, 0)
    return blank(torch.einsum("bhqk,bkhd->bqhd", weights, v), keep)


@final
class HierarchicalAttention(Attention):
    """Each token looks at its neighbours one by one and at what is far in ever larger cells, all in one softmax.

    Cells begin at multiples of their size from the left, so a sequence turned round is seen in the same cells only
    where its length is a multiple of the largest.
    """

    cost = "n log n"

    def __init__(
        self,
        dim: int,
        causal: bool,
        heads: int = 4,
        block: int = 16,
        positions: str = "rotary",
        qk_norm: bool = True,
        sharpness: float = 1.0,
    ):
        super().__init__()
        if block < 2 or block % 2:
            raise UserError(f"attention.block must be an even number of tokens from 2, got {block}")
        self.heads = Heads(dim, heads, qk_norm, sharpness)
        self.causal = causal
        self.averages = True
        self.block = block
        self.rotary = check_positions(positions, self.heads)
        self.sided = ROTARY if self.rotary else None

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: Layout = Layout()
    ) -> Float[Tensor, "batch length dim"]:
        q, k, v = self.heads.split(blank(x, layout.keep))
        turns = positions_of(x, layout.positions) if self.rotary else None
        y = hierarchical_attention(q, k, v, causal=self.causal, block=self.block, positions=turns, keep=layout.keep)
        return self.heads.merge(y)

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: Layout = Layout()
    ) -> Float[Tensor, "batch length dim"]:
        q, k, v = self.heads.split(blank(x, layout.keep))
        turns = positions_of(x, layout.positions) if self.rotary else None
        y = naive_hierarchical_attention(
            q, k, v, causal=self.causal, block=self.block, positions=turns, keep=layout.keep
        )
        return self.heads.merge(y)

    def flops(self, length: int) -> int:
        """Projections, three blocks of tokens for each query, and a block and a half of cells at each level."""
        width = self.heads.count * self.heads.dim_head
        near = -(-length // self.block) * self.block * (2 if self.causal else 3) * self.block
        far = 0
        for level in range(1, levels(length, self.block)):
            padded = -(-length // (self.block << level)) * (self.block << level)
            far += padded * self.block * (3 if self.causal else 6) // 4
        return self.heads.flops(length) + 4 * (near + far) * width

    def state_bytes(self, length: int) -> int:
        """The keys and values of two blocks of tokens, and of three blocks of cells at each level."""
        cells = min(length, 2 * self.block + 3 * self.block * (levels(length, self.block) - 1))
        return 4 * 2 * cells * self.heads.count * self.heads.dim_head
