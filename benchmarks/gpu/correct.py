"""Part `correct`: what ships, in the numbers in which it ships, against float64, at lengths that fill pipelines."""

import copy
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu import candidates, layers
from benchmarks.gpu.judge import WITHIN, answered, band, distances, drawn, softmax, sums, verdict
from benchmarks.gpu.record import DEVICE, DRY, Part

HALVES = ("bfloat16", "float16")
SMALL = 1e-3
"""Added to twice the distance of plain bfloat16 code, which a layer by the kernels may be away."""


class Softmax(NamedTuple):
    """A case of the kernels of softmax attention; `left` and `right` in tokens, None without a bound."""

    length: int
    dim: int
    dtype: str = "bfloat16"
    left: int | None = None
    right: int | None = None
    padded: bool = False
    heads: int = 4
    kv_heads: int = 2


class Linear(NamedTuple):
    """A case of the kernels of linear attention."""

    length: int
    dim: int
    dtype: str = "bfloat16"
    causal: bool = True
    padded: bool = False


class Blocks(NamedTuple):
    """A case of the kernels over lists of key blocks: every query block reads `slots` of them, drawn at random."""

    length: int
    dim: int
    dtype: str = "bfloat16"
    block: int = 64
    slots: int = 8


def cases() -> Iterator[Softmax | Linear | Blocks]:
    """The cases of a GPU, or tiny ones of every kind."""
    if DRY:
        yield from (Softmax(40, 16, "float32", 9, 5, heads=2, kv_heads=1), Linear(40, 16, "float32"))
        yield Blocks(32, 16, "float32", 16, 2)
        return
    widths = [(dim, dtype) for dtype in HALVES for dim in (64, 128)]
    for dim, dtype in [*widths, (32, "bfloat16"), (72, "bfloat16"), (64, "float32")]:
        yield Softmax(4096, dim, dtype)
        yield Softmax(3999, dim, dtype, None, 0)
        yield Softmax(4096, dim, dtype, 512, 512)
        yield Softmax(2000, dim, dtype, 128, 128)
        yield Softmax(2111, dim, dtype, None, 0, padded=True)
        yield Softmax(1515, dim, dtype, 40, 90, padded=True)
    for dim, dtype in [*widths, (64, "float32")]:
        yield from (Linear(4096, dim, dtype, causal, dim == 64) for causal in (True, False))
    for dim, dtype in widths:
        yield from (Blocks(4096, dim, dtype, block, 8) for block in (16, 64))


def run(part: Part) -> None:
    """All cases; tensors of more than 2³¹ numbers last, when other workers have given their memory back."""
    for case in cases():
        part.case(lambda case=case: kernel(case), kind=type(case).__name__.lower(), **case._asdict())
    for candidate in candidates.every():
        part.case(lambda one=candidate: tiles(one), **candidate.labels())
    for name in layers.NAMES[:1] if DRY else layers.NAMES:
        for causal in (False,) if DRY else (False, True):
            part.case(lambda name=name, causal=causal: layer(name, causal), kind="layer", layer=name, causal=causal)
    part.case(packed, kind="packed")
    part.case(huge, kind="huge")


def kernel(case: Softmax | Linear | Blocks) -> dict[str, Any]:
    """Distance of all answers and gradients of a kernel from float64."""
    act, reference, tensors, upstream = {Softmax: _softmax, Linear: _linear, Blocks: _blocks}[type(case)](case)
    found = answered(act, tensors, upstream)
    right = answered(reference, [t.double() for t in tensors], [t.double() for t in upstream])
    return verdict(found, right, WITHIN[getattr(torch, case.dtype)])


Problem = tuple[Callable[..., Any], Callable[..., Any], list[Tensor], list[Tensor]]
"""The kernel, slow torch code for the same, inputs, and gradients of the answers."""


def _softmax(case: Softmax) -> Problem:
    from genoattn.attention.kernels.flash import flash_attention

    length, dtype = case.length, getattr(torch, case.dtype)
    q, dout = (drawn(seed, 1, length, case.heads, case.dim, dtype=dtype) for seed in (0, 1))
    k, v = (drawn(seed, 1, length, case.kv_heads, case.dim, dtype=dtype) for seed in (2, 3))
    dlse, seen, mask = drawn(4, 1, case.heads, length), band(length, case.left, case.right)[None, None], None
    if case.padded:
        mask = torch.rand(1, length, generator=torch.Generator(DEVICE).manual_seed(5), device=DEVICE) < 0.8
        seen = seen & mask[:, None, None, :] & mask[:, None, :, None]
        dlse = dlse.masked_fill(~seen.any(-1), 0)
    settings = {"window": (case.left, case.right), "padding_mask": mask, "return_lse": True}
    return lambda *t: flash_attention(*t, **settings), lambda q, k, v: softmax(q, k, v, seen), [q, k, v], [dout, dlse]


def _linear(case: Linear) -> Problem:
    from genoattn.attention.kernels.linear import linear_sums

    length, dtype = case.length, getattr(torch, case.dtype)
    q, k = (drawn(seed, 1, length, 2, case.dim).exp().clamp_max(4).to(dtype) for seed in (0, 1))
    v, mask = drawn(2, 1, length, 2, case.dim, dtype=dtype), None
    seen = band(length, None, 0 if case.causal else None)[None, None]
    if case.padded:
        mask = torch.rand(1, length, generator=torch.Generator(DEVICE).manual_seed(5), device=DEVICE) < 0.8
        seen = seen & mask[:, None, None, :] & mask[:, None, :, None]
    upstream = [drawn(3, 1, length, 2, case.dim), drawn(4, 1, length, 2)]
    settings = {"causal": case.causal, "padding_mask": mask}
    return lambda *t: linear_sums(*t, **settings), lambda q, k, v: sums(q, k, v, seen), [q, k, v], upstream


def _blocks(case: Blocks) -> Problem:
    from genoattn.attention.kernels.blocks import block_attention

    length, heads, block, dtype = case.length, 2, case.block, getattr(torch, case.dtype)
    count = -(-length // block)
    order = torch.rand(1, heads, count, count, generator=torch.Generator(DEVICE).manual_seed(5), device=DEVICE)
    table = order.argsort(-1)[..., : case.slots].contiguous()
    listed = torch.zeros(order.shape, dtype=torch.bool, device=DEVICE).scatter(-1, table, True)
    seen = listed.repeat_interleave(block, 2).repeat_interleave(block, 3)[..., :length, :length]
    tensors = [drawn(seed, 1, length, heads, case.dim, dtype=dtype) for seed in range(4)]
    settings = {"query_block": block, "key_block": block, "return_lse": True}
    upstream = [tensors.pop(), drawn(4, 1, heads, length)]
    return (
        lambda q, k, v: block_attention(q, k, v, table, **settings),
        lambda q, k, v: softmax(q, k, v, seen),
        tensors,
        upstream,
    )


def tiles(candidate: "candidates.Candidate") -> dict[str, Any]:
    """Distance of a kernel with other tiles than those that ship."""
    case = Softmax(40, 16, "float32", 9, 5) if DRY else Softmax(1024, candidate.dim, left=512, right=512)
    case = case._replace(heads=candidates.HEADS, kv_heads=candidates.HEADS)
    with candidate.used():
        return kernel(case if candidate.edge else case._replace(left=None, right=None))


def layer(name: str, causal: bool) -> dict[str, Any]:
    """A layer under autocast against its slow code in float64: at most twice as far off as that under autocast."""
    length, dim = (48, 32) if DRY else (2048, 256)
    built = layers.build(name, dim, causal).to(DEVICE)
    x, dout = (drawn(seed, 1, length, dim) for seed in (0, 1))

    def gradients(act: Callable[[Tensor], Tensor], x: Tensor, layer: torch.nn.Module) -> list[Tensor]:
        weights = [weight for weight in layer.parameters() if weight.requires_grad]
        x = x.detach().requires_grad_()
        y = act(x)
        given = torch.autograd.grad(y, [x, *weights], dout.to(y.dtype), allow_unused=True)
        return [
            y.detach(),
            *(torch.zeros_like(t) if g is None else g for t, g in zip([x, *weights], given, strict=True)),
        ]

    def narrow(act: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
        def under_autocast(x: Tensor) -> Tensor:
            with torch.autocast(DEVICE.type, torch.bfloat16):
                return act(x)

        return under_autocast

    exact = copy.deepcopy(built).double()
    right = gradients(exact.naive, x.double(), exact)
    ours, plain = (distances(gradients(narrow(act), x, built), right) for act in (built, built.naive))
    good = all(one <= 2 * other + SMALL for one, other in zip(ours, plain, strict=True))
    short = [[float(f"{far:.2g}") for far in row[:2]] for row in (ours, plain)]
    backend = built.describe_backend(DEVICE, torch.bfloat16)
    return {"off": short[0], "plain_off": short[1], "worst": max(ours), "backend": backend, "good": good}


def packed() -> dict[str, Any]:
    """Causal attention with padding and shared keys by torch's `varlen_attn`, as `attention.backend=varlen` has it."""
    from genoattn.attention.ops.varlen import full_attention

    length, dim, dtype = (40, 16, torch.float32) if DRY else (2111, 64, torch.bfloat16)
    tensors = [drawn(seed, 3, length, heads, dim, dtype=dtype) for seed, heads in enumerate((4, 2, 2))]
    given = drawn(3, 3, length, 4, dim, dtype=dtype)
    real = torch.rand(3, length, generator=torch.Generator(DEVICE).manual_seed(5), device=DEVICE) < 0.8
    real[1] = False
    seen = band(length, None, 0)[None, None] & real[:, None, None, :] & real[:, None, :, None]
    right = answered(lambda q, k, v: softmax(q, k, v, seen)[0], [t.double() for t in tensors], [given.double()])
    try:
        found = answered(lambda *t: full_attention(*t, causal=True, padding_mask=real), tensors, [given])
    except Exception as error:  # what torch cannot do is no fault
        return {"optional": True, "refused": f"{type(error).__name__}: {error}"[:200]}
    return verdict(found, right, WITHIN[dtype])


def huge() -> dict[str, Any]:
    """Tensors of more than 2³¹ numbers: the last answers and gradients against float64 on the last tokens alone."""
    from genoattn.attention.kernels.flash import flash_attention

    length, dim, tail, left = (128, 16, 64, 8) if DRY else (2**25 + 4096, 64, 4096, 64)
    dtype = torch.float32 if DRY else torch.bfloat16
    tensors = [torch.randn(1, length, 1, dim, device=DEVICE, dtype=dtype) for _ in range(3)]
    given = [torch.randn(1, length, 1, dim, device=DEVICE, dtype=dtype)]
    found = answered(lambda *t: flash_attention(*t, window=(left, 0)), tensors, given)
    last = [tensor[:, -tail:].double() for tensor in (*tensors, *given)]
    seen = band(tail, left, 0)[None, None]
    right = answered(lambda q, k, v: softmax(q, k, v, seen)[0], last[:3], last[3:])
    within = WITHIN[dtype]
    half = tail // 2  # the first of the tail see tokens before it
    row = verdict([t[:, -half:] for t in found], [t[:, -half:] for t in right], within)
    return row | {"numbers": length * dim}
