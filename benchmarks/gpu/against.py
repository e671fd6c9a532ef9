"""Part `bench`: attention beside torch's own (SDPA by flash and cuDNN, varlen, FlexAttention), judged by float64."""

from collections.abc import Callable
from itertools import product
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu.clock import named, timed
from benchmarks.gpu.judge import WITHIN, band, drawn, softmax, verdict
from benchmarks.gpu.record import DEVICE, DRY, Part
from benchmarks.gpu.sweep import Mode

Attend = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Attention of q, k and v, each [batch, length, heads, channels]."""

CASES = (
    (Mode("window 128", 131_072, 128, 128), 64, 16),
    (Mode("causal", 16_384, None, 0), 128, 16),
    (Mode("causal", 16_384, None, 0), 64, 32),
    (Mode("full", 16_384, None, None), 128, 16),
    (Mode("window 512", 131_072, 512, 512), 128, 16),
    (Mode("causal", 2_048, None, 0), 64, 32),
    (Mode("window 128", 1_048_576, 128, 128), 64, 8),
    (Mode("full", 65_536, None, None), 64, 8),
)
"""Mode, channels of a head, heads."""

CHECKED = 64
"""Queries in the middle whose answers and gradients are checked."""

FLEX_MOST = 262_144
"""Longest sequence for FlexAttention, whose mask of blocks grows with the square of the length."""


def cases() -> tuple[tuple[Mode, int, int], ...]:
    """The cases of a GPU, or a tiny one."""
    return ((Mode("causal", 40, None, 0), 16, 1),) if DRY else CASES


def run(part: Part) -> None:
    """Every contender in every case; FlexAttention, which compiles for long, after all others."""
    for flexible in (False, True):
        for (mode, dim, heads), name in product(cases(), CONTENDERS):
            if (name == "FlexAttention") != flexible:
                continue
            labels = {"by": name, "mode": mode.name, "length": mode.length, "dim": dim, "heads": heads}
            part.case(lambda n=name, m=mode, d=dim, h=heads: measured(n, m, d, h), **labels)


def warm(part: Part) -> None:
    """Part `flex`: FlexAttention's code, compiled into the cache on disk while other parts leave cores idle."""
    for mode, dim, heads in cases():
        if mode.length <= FLEX_MOST:
            part.case(lambda m=mode, d=dim, h=heads: _compiled(m, d, h), mode=mode.name, length=mode.length, dim=dim)


def _compiled(mode: Mode, dim: int, heads: int) -> dict[str, Any]:
    q, k, v, dout = _inputs(mode, dim, heads)
    try:
        y = flex(mode)(q, k, v)
        torch.autograd.grad(y, [q, k, v], dout)
    except Exception as error:  # what another package cannot do is no fault
        return {"optional": True, "refused": f"{type(error).__name__}: {error}"[:200]}
    return {}


def _inputs(mode: Mode, dim: int, heads: int) -> list[Tensor]:
    dtype = torch.float32 if DRY else torch.bfloat16
    return [drawn(seed, 1, mode.length, heads, dim, dtype=dtype).requires_grad_(seed < 3) for seed in range(4)]


def measured(name: str, mode: Mode, dim: int, heads: int) -> dict[str, Any]:
    """Times forward and with the backward pass, TFLOP/s, peak memory, and how far off it is; or why it does not run."""
    row: dict[str, Any] = {"optional": name != "ours"}
    q, k, v, dout = _inputs(mode, dim, heads)
    leaves, flops = [q, k, v], 4 * mode.pairs() * dim * heads
    try:
        attend = CONTENDERS[name](mode)
        alone = [leaf.detach() for leaf in leaves]
        row |= named("forward", times := timed(lambda: attend(*alone)))
        row["forward_tflops"] = flops / times["ms"] / 1e9
        row |= _right(attend, mode, leaves, dout)
        row |= named("both", times := timed(lambda: torch.autograd.grad(attend(*leaves), leaves, dout)))
        row["both_tflops"] = 3.5 * flops / times["ms"] / 1e9
    except Exception as error:
        if name == "ours":
            raise
        row["refused"] = f"{type(error).__name__}: {error}"[:200]
    return row


def _right(attend: Attend, mode: Mode, leaves: list[Tensor], dout: Tensor) -> dict[str, Any]:
    """Distances from float64 of answers and gradients of the queries in the middle; dk and dv where these are alone."""
    middle = mode.length // 2
    count = min(CHECKED, mode.length - middle)
    at = slice(middle, middle + count)
    alone = torch.zeros_like(dout)  # only these queries pass gradients to keys and values
    alone[:, at] = dout[:, at]
    y = attend(*leaves)
    found = [y[:, at].detach(), *torch.autograd.grad(y, leaves, alone)]
    exact = [leaf.detach().double().requires_grad_() for leaf in leaves]
    seen = band(mode.length, mode.left, mode.right, middle, count)[None, None]
    right = softmax(exact[0][:, at], exact[1], exact[2], seen)[0]
    gradients = torch.autograd.grad(right, exact, dout[:, at].double())
    return verdict(found, [right.detach(), *gradients], WITHIN[leaves[0].dtype])


def ours(mode: Mode) -> Attend:
    from genoattn.attention.kernels.flash import flash_attention

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        y = flash_attention(q, k, v, window=(mode.left, mode.right))
        assert isinstance(y, Tensor)
        return y

    return attend


def sdpa(backend: str) -> Callable[[Mode], Attend]:
    """Torch's scaled_dot_product_attention by one of its backends."""

    def contender(mode: Mode) -> Attend:
        from torch.nn.attention import SDPBackend, sdpa_kernel

        if mode.left is not None:
            raise ValueError("knows a window only as a mask of the square of the length")

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
            with sdpa_kernel(getattr(SDPBackend, backend)):
                return F.scaled_dot_product_attention(q, k, v, is_causal=mode.right == 0).transpose(1, 2)

        return attend

    return contender


def varlen(mode: Mode) -> Attend:
    """Torch's FlashAttention-2 for sequences of several lengths."""
    from torch.nn.attention.varlen import varlen_attn

    ends = torch.tensor([0, mode.length], dtype=torch.int32, device=DEVICE)
    sides = (-1 if mode.left is None else mode.left, -1 if mode.right is None else mode.right)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        y = varlen_attn(q[0], k[0], v[0], ends, ends, mode.length, mode.length, window_size=sides)
        assert isinstance(y, Tensor)
        return y[None]

    return attend


def flex(mode: Mode) -> Attend:
    """FlexAttention, compiled anew for each case: after eight compilations dynamo would fall back to eager code."""
    import torch._dynamo
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    if mode.length > FLEX_MOST:
        raise ValueError(f"its mask of blocks would be too large at more than {FLEX_MOST:,} tokens")
    torch._dynamo.reset()
    n = mode.length
    left, right = (n if side is None else side for side in (mode.left, mode.right))

    def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
        return (query - key <= left) & (key - query <= right)

    whole = mode.left is None and mode.right is None
    mask = None if whole else create_block_mask(visible, None, None, n, n, device=str(DEVICE), _compile=not DRY)
    run: Any = flex_attention if DRY else torch.compile(flex_attention, dynamic=False)

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        y = run(*(tensor.transpose(1, 2) for tensor in (q, k, v)), block_mask=mask)
        assert isinstance(y, Tensor)
        return y.transpose(1, 2)

    return attend


CONTENDERS: dict[str, Callable[[Mode], Attend]] = {
    "ours": ours,
    "SDPA flash": sdpa("FLASH_ATTENTION"),
    "SDPA cuDNN": sdpa("CUDNN_ATTENTION"),
    "varlen": varlen,
    "FlexAttention": flex,
}
