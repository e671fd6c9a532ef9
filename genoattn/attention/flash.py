"""Softmax attention over every token by this package's Triton kernel: full attention, tiled on a GPU."""

from typing import final

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from genoattn import kernels
from genoattn.attention.base import Attention, Layout, blank
from genoattn.attention.full import full_attention
from genoattn.attention.heads import ROTARY, Heads, check_positions, positions_of, rotate, visible_pairs
from genoattn.attention.segments import attend_by_segment, crossing_heads, dense_by_segment, extra_channels
from genoattn.errors import UserError

BACKENDS = ("auto", "torch", "triton")


def triton_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    *,
    causal: bool,
    keep: Bool[Tensor, "batch length"] | None = None,
    scale: float | None = None,
) -> Float[Tensor, "batch length heads dim_head"]:
    """What `full_attention` computes, by the Triton kernel; under autocast in the dtype that torch's would take."""
    from genoattn.kernels.flash import flash_attention  # late: the rest of the package does without triton

    device = q.device.type
    if torch.is_autocast_enabled(device):
        q, k, v = (one.to(torch.get_autocast_dtype(device)) for one in (q, k, v))
    y = flash_attention(q, k, v, causal=causal, keep=keep, scale=scale)
    assert isinstance(y, Tensor)
    return y


@final
class FlashAttention(Attention):
    """Each token looks at every token, or at every token before it and itself; `full`, by Triton where there is a GPU.

    `backend` auto takes the kernel where it runs and torch's elsewhere, which computes the same.
    """

    cost = "quadratic"

    def __init__(
        self,
        dim: int,
        causal: bool,
        heads: int = 4,
        kv_heads: int | None = None,
        positions: str = "rotary",
        qk_norm: bool = True,
        sharpness: float = 1.0,
        alike: bool = False,
        cross: float = 0.0,
        backend: str = "auto",
    ):
        super().__init__()
        if backend not in BACKENDS:
            raise UserError(f"attention.backend must be one of {', '.join(BACKENDS)}, got {backend}")
        if backend == "triton":
            there, why = kernels.available(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
            if not there:
                raise UserError(f"attention.backend=triton: {why}; auto takes torch's kernel there")
        self.heads = Heads(dim, heads, qk_norm, sharpness, alike, kv_heads)
        self.causal = causal
        self.crossing = crossing_heads(cross, heads)
        self.averages = not self.crossing
        self.rotary = check_positions(positions, self.heads)
        self.sided = ROTARY if self.rotary else None
        self.asked = backend

    def backend(self, device: torch.device) -> str:
        if self.asked == "torch":
            return "torch, as asked"
        if self.asked == "triton":
            return "triton, as asked"
        there, why = kernels.available(device)
        return f"triton: {why}" if there else f"torch, which computes the same: {why}"

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: Layout = Layout()
    ) -> Float[Tensor, "batch length dim"]:
        def attend(q: Tensor, k: Tensor, v: Tensor, scale: float | None) -> Tensor:
            by = triton_attention if self._by_triton(q) else full_attention
            return by(q, k, v, causal=self.causal, keep=layout.keep, scale=scale)

        q, k, v = self._split(x, layout)
        return self.heads.merge(attend_by_segment(attend, q, k, v, crossing=self.crossing, layout=layout))

    def _by_triton(self, q: Tensor) -> bool:
        """Asked for, or nothing against it; what is asked for and cannot be had says why when it is tried."""
        return self.asked == "triton" or (
            self.asked == "auto" and kernels.flash_refusal(q.device, q.dtype, q.shape[-1]) is None
        )

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: Layout = Layout()
    ) -> Float[Tensor, "batch length dim"]:
        q, k, v = self._split(x, layout)
        length = x.shape[1]
        visible = visible_pairs(length, length, 0 if self.causal else length, layout.keep, x.device)
        y = dense_by_segment(q, k, v, visible=visible, crossing=self.crossing, segments=layout.segments)
        return self.heads.merge(y)

    def _split(self, x: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = self.heads.split(blank(x, layout.keep))
        if self.rotary:
            positions = positions_of(x, layout.positions)
            q, k = rotate(q, positions), rotate(k, positions)
        return q, k, v

    def flops(self, length: int) -> int:
        """Projections and the whole square of scores; a causal kernel may skip up to half of that square."""
        own, width = self.heads.count - self.crossing, self.heads.dim_head
        channels = own * width + self.crossing * (width + extra_channels(width, 1))
        return self.heads.flops(length) + 4 * length**2 * channels

    def state_bytes(self, length: int) -> int:
        """Every key and value."""
        return 4 * 2 * length * self.heads.kv_count * self.heads.dim_head
