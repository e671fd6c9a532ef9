"""Softmax attention over a sliding window: exact within its reach, blind beyond, linear in the length."""

from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from genoattn.attention.base import Attention, Layout, blank
from genoattn.attention.full import full_attention
from genoattn.attention.heads import ROTARY, Heads, check_positions, positions_of, rotate, slopes, visible_pairs
from genoattn.attention.segments import HIDDEN, attend_by_segment, crossing_heads, dense_by_segment, extra_channels
from genoattn.errors import UserError


class Beside(NamedTuple):
    """Keys that every query sees beside its window, and their values."""

    k: Float[Tensor, "batch few heads dim_head"]
    v: Float[Tensor, "batch few heads dim_head"]
    keep: Bool[Tensor, "batch few"]


def window_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    *,
    left: int,
    right: int,
    keep: Bool[Tensor, "batch length"] | None = None,
    scale: float | None = None,
    slopes: Float[Tensor, "heads"] | None = None,
    beside: Beside | None = None,
) -> Float[Tensor, "batch length heads dim_head"]:
    """Softmax attention of token i over tokens i - left to i + right, both ends included, in blocks of queries.

    A block of queries reads one overlapping view of the keys, and one band mask serves all blocks, so nothing grows
    faster than the length. Scores are multiplied by `scale` (None: divided by sqrt(dim_head)), less a head's slope for
    each token of distance. Keys that are not to `keep` are hidden; a query that sees none answers something finite.
    """
    batch, length, heads, dim_head = q.shape
    factor: float = dim_head**-0.5 if scale is None else scale
    left, right, block, blocks = plan(length, left, right)
    span = left + block + right
    tail = blocks * block - length
    extra = extra_channels(dim_head, 1)
    q = F.pad(q, (0, extra, 0, 0, 0, tail))
    k = F.pad(k, (0, extra, 0, 0, left, right + tail))
    v = F.pad(v, (0, extra, 0, 0, left, right + tail))
    real = torch.ones(batch, length, dtype=torch.bool, device=q.device) if keep is None else keep
    # Keys at padding and beyond the ends are hidden through a channel of their own: as a mask they would take
    # span numbers for every token.
    q[..., dim_head] = 1 / factor
    k[..., dim_head] = torch.where(F.pad(real, (left, right + tail)), 0.0, HIDDEN)[..., None].to(k.dtype)
    # Blocks stand where the kernel expects the batch: the overlapping view then needs no copy.
    q = q.transpose(1, 2).reshape(batch * heads, blocks, block, -1).transpose(0, 1)
    k = k.transpose(1, 2).flatten(0, 1).unfold(1, span, block).permute(1, 0, 3, 2)
    v = v.transpose(1, 2).flatten(0, 1).unfold(1, span, block).permute(1, 0, 3, 2)
    ahead = torch.arange(span, device=q.device) - torch.arange(block, device=q.device)[:, None]
    mask = ((ahead >= 0) & (ahead <= left + right))[None]
    if slopes is not None:
        cost = slopes[:, None, None] * (ahead - left).abs()
        mask = (-cost).masked_fill(~mask, float("-inf")).to(q.dtype).repeat(batch, 1, 1)
    if beside is not None:
        # Copies of the few keys stand at the end of every block's own: one softmax, and each key in it once.
        hidden = torch.where(beside.keep, 0.0, HIDDEN)[..., None, None].to(k.dtype).expand(-1, -1, heads, 1)
        few = F.pad(torch.cat([beside.k, hidden], dim=-1), (0, extra - 1)), F.pad(beside.v, (0, extra))
        k, v = (
            torch.cat([t, more.transpose(1, 2).flatten(0, 1).expand(blocks, -1, -1, -1)], dim=2)
            for t, more in zip((k, v), few, strict=True)
        )
        mask = F.pad(mask, (0, beside.k.shape[1]), value=mask.dtype == torch.bool)
    y = F.scaled_dot_product_attention(q, k, v, attn_mask=mask[None], scale=factor)
    y = y[..., :dim_head].transpose(0, 1).reshape(batch, heads, blocks * block, dim_head)[:, :, :length]
    return y.transpose(1, 2)


def dilated_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    *,
    left: int,
    right: int,
    causal: bool,
    dilation: int = 1,
    global_tokens: int = 0,
    keep: Bool[Tensor, "batch length"] | None = None,
    scale: float | None = None,
    slopes: Float[Tensor, "heads"] | None = None,
) -> Float[Tensor, "batch length heads dim_head"]:
    """Windows of every dilation-th token, and the first `global_tokens` seen by all and seeing all; 0 at padding.

    Each phase of the dilation is a sequence of its own in the batch. `left` and `right` count its tokens.
    """
    length, first = q.shape[1], min(global_tokens, q.shape[1])
    beside, near = None, keep
    if first:
        real = torch.ones(q.shape[:2], dtype=torch.bool, device=q.device) if keep is None else keep
        near = real & (torch.arange(length, device=q.device) >= first)  # globals are seen beside the window alone
        few_k, few_v, few = (_phases(t[:, :first], dilation) for t in (k, v, real))
        beside = Beside(few_k, few_v, few)
    if dilation == 1:
        y = window_attention(q, k, v, left=left, right=right, keep=near, scale=scale, slopes=slopes, beside=beside)
    else:
        tail = -length % dilation
        folded = (F.pad(t, (0, 0, 0, 0, 0, tail)).unflatten(1, (-1, dilation)) for t in (q, k, v))
        fold_q, fold_k, fold_v = (t.transpose(1, 2).flatten(0, 1) for t in folded)
        near = torch.ones(q.shape[:2], dtype=torch.bool, device=q.device) if near is None else near
        fold_near = F.pad(near, (0, tail)).unflatten(1, (-1, dilation)).transpose(1, 2).flatten(0, 1)
        far = None if slopes is None else slopes * dilation
        y = window_attention(
            fold_q, fold_k, fold_v, left=left, right=right, keep=fold_near, scale=scale, slopes=far, beside=beside
        )
        y = y.unflatten(0, (-1, dilation)).transpose(1, 2).flatten(1, 2)[:, :length]
    if first:
        y = torch.cat([_global_answers(q, k, v, first, causal, keep, scale), y[:, first:]], dim=1)
    return blank(y, keep)


def _phases(x: Tensor, dilation: int) -> Tensor:
    """The same for every phase, in the order in which phases stand in the batch."""
    return x if dilation == 1 else x.repeat_interleave(dilation, dim=0)


def _global_answers(
    q: Tensor, k: Tensor, v: Tensor, first: int, causal: bool, keep: Tensor | None, scale: float | None
) -> Tensor:
    """The first tokens' answers from every token, or in a causal layer from those before them and themselves."""
    if causal:
        front = None if keep is None else keep[:, :first]
        return full_attention(q[:, :first], k[:, :first], v[:, :first], causal=True, keep=front, scale=scale)
    q, k, v = q[:, :first].transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    visible = None if keep is None else (keep | ~keep.any(1, keepdim=True))[:, None, None, :]
    return F.scaled_dot_product_attention(q, k, v, attn_mask=visible, scale=scale).transpose(1, 2)


def plan(length: int, left: int, right: int) -> tuple[int, int, int, int]:
    """The reach that matters at this length (left, right), the queries of a block and the number of blocks.

    A block is about half a window, from 64 to 256: shorter ones hold more copies of each key's gradient, longer ones
    score more pairs beyond the reach.
    """
    left, right = min(left, length - 1), min(right, length - 1)
    half = (left + right + 1) // 2
    block = min(256 if half >= 256 else 128 if half >= 128 else 64, length)
    return left, right, block, -(-length // block)


@final
class WindowAttention(Attention):
    """Each token looks `left` tokens back and `right` tokens ahead (a causal one not ahead), counted in indices."""

    cost = "linear"

    def __init__(
        self,
        dim: int,
        causal: bool,
        heads: int = 4,
        left: int = 128,
        right: int = 128,
        dilation: int = 1,
        global_tokens: int = 0,
        kv_heads: int | None = None,
        positions: str = "rotary",
        qk_norm: bool = True,
        sharpness: float = 1.0,
        alike: bool = False,
        cross: float = 0.0,
    ):
        super().__init__()
        for name, value in (("left", left), ("right", right), ("global_tokens", global_tokens)):
            if value < 0:
                raise UserError(f"attention.{name} must be 0 or more tokens, got {value}")
        if dilation < 1:
            raise UserError(f"attention.dilation must be 1 or more tokens, got {dilation}")
        if positions == "alibi" and (cross or global_tokens):
            raise UserError(
                "attention.positions=alibi measures the distance between neighbours, which says nothing of another "
                "segment or of global tokens: with attention.cross or attention.global_tokens take rotary or none"
            )
        self.heads = Heads(dim, heads, qk_norm, sharpness, alike, kv_heads)
        self.causal = causal
        self.crossing = crossing_heads(cross, heads)
        self.averages = not self.crossing
        self.left, self.right = left, 0 if causal else right
        self.global_tokens, self.stride = global_tokens, dilation
        if not global_tokens:
            self.reach = (self.left * dilation, self.right * dilation)
        self.rotary = check_positions(positions, self.heads, ("rotary", "alibi", "none"))
        self.alibi = positions == "alibi"
        if self.rotary:
            self.sided = ROTARY
        elif left != right or global_tokens:
            self.sided = "left and right are not as wide" if left != right else "global tokens are the first ones"

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: Layout = Layout()
    ) -> Float[Tensor, "batch length dim"]:
        costs = slopes(self.heads.count, x.device, x.dtype) if self.alibi else None

        def attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
            return dilated_attention(
                q, k, v, left=self.left, right=self.right, causal=self.causal, dilation=self.stride,
                global_tokens=self.global_tokens, keep=layout.keep, scale=scale, slopes=costs,
            )  # fmt: skip

        q, k, v = self._split(x, layout)
        return self.heads.merge(attend_by_segment(attend, q, k, v, crossing=self.crossing, layout=layout))

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: Layout = Layout()
    ) -> Float[Tensor, "batch length dim"]:
        q, k, v = self._split(x, layout)
        length = x.shape[1]
        index = torch.arange(length, device=x.device)
        ahead = index[None, :] - index[:, None]
        visible = visible_pairs(length, self.left * self.stride, self.right * self.stride, layout.keep, x.device)
        visible = visible & (ahead % self.stride == 0)
        reals = visible_pairs(length, length, 0 if self.causal else length, layout.keep, x.device)
        first = index < self.global_tokens
        visible = visible | (reals & (first[None, :] | first[:, None]))
        costs = slopes(self.heads.count, x.device, x.dtype)[:, None, None] * ahead.abs() if self.alibi else None
        bias = None if costs is None else -costs
        y = dense_by_segment(q, k, v, visible=visible, crossing=self.crossing, segments=layout.segments, bias=bias)
        return self.heads.merge(y)

    def _split(self, x: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.heads.split(blank(x, layout.keep))
        if self.rotary:
            positions = positions_of(x, layout.positions)
            q, k = rotate(q, positions), rotate(k, positions)
        return q, k, v

    def flops(self, length: int) -> int:
        """Projections and the scored band: each query of a block meets left + block + right keys and the global."""
        phase = -(-length // self.stride)
        left, right, block, blocks = plan(phase, self.left, self.right)
        first = min(self.global_tokens, length)
        pairs = self.stride * blocks * block * (left + block + right + first)
        width = self.heads.dim_head + extra_channels(self.heads.dim_head, 1)
        wide = width + extra_channels(width, 1)  # a crossing head has the channels of its segments too
        own = self.heads.count - self.crossing
        channels = own * width + self.crossing * wide
        apart = own * self.heads.dim_head + self.crossing * width  # of global queries, which have no band to hide
        seen = first if self.causal else length
        return self.heads.flops(length) + 4 * pairs * channels + 4 * first * seen * apart

    def state_bytes(self, length: int) -> int:
        """The keys and values within reach to the left, and those of global tokens."""
        held = min(length, self.left * self.stride + self.global_tokens)
        return 4 * 2 * held * self.heads.kv_count * self.heads.dim_head
