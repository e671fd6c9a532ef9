"""The kernels as they ship: for which devices, numbers, widths and masks they are compiled and looked at."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from genoattn.attention.kernels import blocks, flash, launch, linear
from genoattn.attention.kernels.ahead_of_time import shipped
from genoattn.attention.kernels.ahead_of_time.compile import Statistics, compile_start, statistics
from genoattn.attention.kernels.launch import Launch

NVIDIA = ("sm_80", "sm_86", "sm_90", "sm_100")


LENGTH = 4096


MODES = {
    "flash": ("full", "causal", "window", "padded"),
    "linear": ("full", "causal", "decay"),
    "blocks": ("sparse", "hierarchical"),
}


class Configuration(NamedTuple):
    """One way in which an operator ships.

    `padded` is causal with padding, `decay` both ways with padding, `sparse` a table by head of blocks of 64 and
    `hierarchical` one table for all heads of blocks of 8 keys for blocks of 16 queries, both causal with padding.
    """

    family: str
    operator: str
    dtype: str
    width: int
    mode: str

    def __str__(self) -> str:
        return " ".join(map(str, self))


def every() -> Iterator[Configuration]:
    """All that ship, and gfx942, for which tiles were only made to fit."""
    for family in (*NVIDIA, "gfx942"):
        for width in (32, 64, 128):
            for mode in MODES["flash"]:
                yield Configuration(family, "flash", "bfloat16", width, mode)
        yield Configuration(family, "flash", "float16", 64, "causal")
        for width in (32, 64, 128):
            for mode in ("causal", "padded"):
                yield Configuration(family, "flash", "float32", width, mode)
        for operator in ("linear", "blocks"):
            for width in (32, 64, 128):
                for mode in MODES[operator]:
                    yield Configuration(family, operator, "bfloat16", width, mode)
        for width in (32, 64):
            yield Configuration(family, "linear", "float32", width, "decay")
            for mode in MODES["blocks"]:
                yield Configuration(family, "blocks", "float32", width, mode)


def tested() -> Iterator[Configuration]:
    """Those that every test run compiles: the widths and masks that strain registers most."""
    for family in ("sm_80", "sm_90", "sm_100"):
        yield Configuration(family, "flash", "bfloat16", 64, "full")
        yield Configuration(family, "flash", "bfloat16", 64, "padded")
        yield Configuration(family, "flash", "bfloat16", 128, "window")
        yield Configuration(family, "flash", "float16", 64, "causal")
        yield Configuration(family, "blocks", "bfloat16", 64, "sparse")
    yield Configuration("sm_86", "flash", "bfloat16", 128, "causal")
    yield Configuration("sm_80", "linear", "bfloat16", 64, "causal")
    yield Configuration("sm_90", "linear", "bfloat16", 64, "decay")
    yield Configuration("sm_90", "flash", "float32", 64, "causal")
    yield Configuration("sm_90", "blocks", "bfloat16", 64, "hierarchical")
    yield Configuration("gfx942", "flash", "bfloat16", 64, "causal")


def starts(configuration: Configuration, descriptors: bool = True) -> list[Launch]:
    """What the forward and the backward pass would start on such a device, once each; `descriptors` as in launch."""
    family, operator, dtype, width, mode = configuration
    q, k, v = (torch.empty(2, LENGTH, 8, width, dtype=getattr(torch, dtype), device="meta") for _ in range(3))
    keep = torch.ones(2, LENGTH, dtype=torch.bool, device="meta") if mode not in ("full", "causal", "window") else None
    with launch.record_launches(family, descriptors) as recorded:
        {"flash": _flash, "linear": _linear, "blocks": _blocks}[operator](q, k, v, keep, mode)
    distinct = {}
    for start in recorded:
        distinct.setdefault(_label(start), start)
    return list(distinct.values())


def _label(start: Launch) -> str:
    """The kernel's name, and its constants where one pass starts it in several ways."""
    told = [name.lower() for name in ("WEIGHTS", "BACKWARD") if start.constants.get(name)]
    return " ".join([start.kernel.__name__.removesuffix("_kernel"), *told])


def labelled(configuration: Configuration, descriptors: bool = True) -> dict[str, Launch]:
    """The starts of a configuration by name."""
    return {_label(start): start for start in starts(configuration, descriptors)}


def _flash(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None, mode: str) -> None:
    left = 512 if mode == "window" else LENGTH
    right = {"full": LENGTH, "window": 512}.get(mode, 0)
    out, lse = flash.forward(q, k, v, keep, left, right, 0.125)
    flash.backward(out, lse, q, k, v, keep, out, lse, left, right, 0.125)


def _linear(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None, mode: str) -> None:
    rate = torch.empty(q.shape[2], device="meta") if mode == "decay" else None
    out, total = linear.forward(q, k, v, keep, rate, mode == "causal")
    linear.backward(out, total, q, k, v, keep, rate, mode == "causal")


def _blocks(q: Tensor, k: Tensor, v: Tensor, keep: Tensor | None, mode: str) -> None:
    sizes = (64, 64) if mode == "sparse" else (16, 8)
    heads, slots = (q.shape[2], 16) if mode == "sparse" else (1, 48)
    table = torch.empty(
        2 if mode == "sparse" else 1, heads, LENGTH // sizes[0], slots, dtype=torch.int32, device="meta"
    )
    bias, ends = torch.empty(2, LENGTH, device="meta"), torch.empty(LENGTH, dtype=torch.int32, device="meta")
    out, lse = blocks.forward(q, k, v, table, bias, ends, keep, *sizes, 0.125)
    blocks.backward(out, lse, q, k, v, table, bias, ends, keep, out, lse, *sizes, 0.125)


KERNELS = ("forward", "dkv")


def choices(family: str) -> Iterator[tuple[str, Statistics]]:
    """Flash attention in bfloat16, heads of 64, as it ships and without one choice at a time."""
    whole = Configuration(family, "flash", "bfloat16", 64, "full")
    described, pointed = shipped.labelled(whole), shipped.labelled(whole, descriptors=False)
    padded = shipped.labelled(whole._replace(mode="padded"))
    for kernel in KERNELS:
        start = described[kernel]
        half = start._replace(constants={**start.constants, "num_warps": start.constants["num_warps"] // 2})
        variants = {"as it ships": (start, True)}
        if start.constants["DESCRIPTORS"]:
            variants["tiles by pointers, not by descriptors"] = (pointed[kernel], True)
        variants["strides not known to be divisible by 16"] = (pointed[kernel], False)
        variants["half the warps"] = (half, True)
        variants["a mask in every tile, as with padding"] = (padded[kernel], True)
        for what, (one, hints) in variants.items():
            yield f"{family} {kernel}, {what}", statistics(compile_start(one, family, hints), family)
