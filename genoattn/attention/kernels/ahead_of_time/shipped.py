"""Configurations of the kernels: devices, dtypes, widths and masks for which they are compiled and checked."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from genoattn.attention.kernels import blocks, delta, features, flash, heads, launch, linear
from genoattn.attention.kernels.ahead_of_time.compile import Statistics, compile_launch, statistics
from genoattn.attention.kernels.launch import Launch

NVIDIA = ("sm_80", "sm_86", "sm_90", "sm_100")


LENGTH = 4096


MODES = {
    "flash": ("full", "causal", "window", "narrow", "padded", "alibi", "segments"),
    "linear": ("full", "causal", "decay", "ssd"),
    "delta": ("own", "past"),
    "blocks": ("sparse", "hierarchical"),
    "heads": ("normed", "turned", "both", "features"),
}


class Configuration(NamedTuple):
    """Device family, operator, dtype, width and mask of a compilation.

    `narrow` is a window of 128 tokens on either side, `padded` causal with padding, `alibi` a window with padding and
    costs of distance, `segments` full attention to other segments, `decay` both ways with padding, `ssd` causal with
    decay, shared keys and twice as many channels, `own` and `past` the state that a token of the delta rule reads,
    `sparse` a table by head of blocks of 64 and `hierarchical` one table for all heads of blocks of 8 keys for blocks
    of 16 queries, both causal with padding. The modes of `heads` are what is done to them.
    """

    family: str
    operator: str
    dtype: str
    width: int
    mode: str

    def __str__(self) -> str:
        return " ".join(map(str, self))


def configurations() -> Iterator[Configuration]:
    """All configurations, including gfx942, whose tiles were chosen only to fit."""
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
        for width, mode in ((32, "own"), (64, "own"), (64, "past"), (128, "past")):
            yield Configuration(family, "delta", "bfloat16", width, mode)
        yield Configuration(family, "delta", "float32", 64, "own")
        for width in (32, 64):
            yield Configuration(family, "linear", "float32", width, "decay")
            for mode in MODES["blocks"]:
                yield Configuration(family, "blocks", "float32", width, mode)
        for mode in MODES["heads"]:
            for dtype, width in (("bfloat16", 64), ("bfloat16", 128), ("float32", 64)):
                yield Configuration(family, "heads", dtype, width, mode)


def tested() -> Iterator[Configuration]:
    """Configurations that every test run compiles: each kernel, each family of devices, the masks of most registers."""
    yield Configuration("sm_80", "flash", "bfloat16", 64, "padded")
    yield Configuration("sm_86", "linear", "float32", 32, "decay")
    yield Configuration("sm_90", "flash", "bfloat16", 128, "window")
    yield Configuration("sm_90", "flash", "bfloat16", 64, "narrow")
    yield Configuration("sm_90", "linear", "bfloat16", 64, "decay")
    yield Configuration("sm_90", "delta", "bfloat16", 64, "own")
    yield Configuration("sm_90", "blocks", "bfloat16", 64, "sparse")
    yield Configuration("sm_100", "flash", "bfloat16", 64, "causal")
    yield Configuration("sm_100", "blocks", "bfloat16", 64, "hierarchical")
    yield Configuration("gfx942", "flash", "bfloat16", 32, "full")
    yield Configuration("sm_80", "heads", "float32", 64, "normed")
    yield Configuration("sm_90", "heads", "bfloat16", 64, "both")


def launches(configuration: Configuration, descriptors: bool = True) -> list[Launch]:
    """Launches of the forward and the backward pass, each kernel once; `descriptors` as in `record_launches`."""
    family, operator, dtype, width, mode = configuration
    q, k, v = (torch.empty(2, LENGTH, 8, width, dtype=getattr(torch, dtype), device="meta") for _ in range(3))
    bare = mode in ("full", "causal", "window", "narrow", "ssd")
    padding_mask = None if bare else torch.ones(2, LENGTH, dtype=torch.bool, device="meta")
    with launch.record_launches(family, descriptors) as recordings:
        by = {"flash": _flash, "linear": _linear, "delta": _delta, "blocks": _blocks, "heads": _heads}[operator]
        by(q, k, v, padding_mask, mode)
    distinct = {}
    for recorded in recordings:
        distinct.setdefault(_label(recorded), recorded)
    return list(distinct.values())


def _label(recorded: Launch) -> str:
    """Name of the kernel, and its constants if one pass launches it in several ways."""
    options = [name.lower() for name in ("WEIGHTS",) if recorded.constants.get(name)]
    return " ".join([recorded.kernel.__name__.removesuffix("_kernel"), *options])


def labelled(configuration: Configuration, descriptors: bool = True) -> dict[str, Launch]:
    """Launches of a configuration by label."""
    return {_label(recorded): recorded for recorded in launches(configuration, descriptors)}


def _flash(q: Tensor, k: Tensor, v: Tensor, padding_mask: Tensor | None, mode: str) -> None:
    sides = {"full": LENGTH, "segments": LENGTH, "window": 512, "alibi": 512, "narrow": 128}
    left, right = sides.get(mode, LENGTH), sides.get(mode, 0)
    marks = None if padding_mask is None else padding_mask.view(torch.uint8)
    costs = torch.empty(q.shape[2], device="meta") if mode == "alibi" else None
    masks, settings = (marks, marks, costs), (mode == "segments", left, right, 0, 0.125)
    out, lse = flash.forward(q, k, v, *masks, *settings)
    flash.backward(out, lse, q, k, v, *masks, out, lse, *settings)


def _linear(q: Tensor, k: Tensor, v: Tensor, padding_mask: Tensor | None, mode: str) -> None:
    log_decay = torch.empty(q.shape[:3], device="meta") if mode in ("decay", "ssd") else None
    if mode == "ssd":
        q, k, v = q[:, :, :1].expand_as(q), k[:, :, :1].expand_as(k), torch.cat([v, v], -1)
    settings = (padding_mask, log_decay, mode in ("causal", "ssd"), 0.0, mode != "ssd")
    out, total = linear.forward(q, k, v, *settings)
    linear.backward(out, total, q, k, v, *settings, log_decay is not None)


def _delta(q: Tensor, k: Tensor, v: Tensor, padding_mask: Tensor | None, mode: str) -> None:
    numbers = torch.empty(q.shape[:3], device="meta")
    y = delta.forward(q, k, v, numbers, numbers, mode == "own")
    delta.backward(y, q, k, v, numbers, numbers, mode == "own")


def _blocks(q: Tensor, k: Tensor, v: Tensor, padding_mask: Tensor | None, mode: str) -> None:
    sizes = (64, 64) if mode == "sparse" else (16, 8)
    heads, slots = (q.shape[2], 16) if mode == "sparse" else (1, 48)
    table = torch.empty(
        2 if mode == "sparse" else 1, heads, LENGTH // sizes[0], slots, dtype=torch.int32, device="meta"
    )
    bias, ends = torch.empty(2, LENGTH, device="meta"), torch.empty(LENGTH, dtype=torch.int32, device="meta")
    counts = None if mode == "sparse" else torch.empty(1, 1, LENGTH // sizes[0], dtype=torch.int32, device="meta")
    given, settings = (table, counts, None, None, None, bias, ends, padding_mask), (sizes[0], sizes[1], 0.125)
    out, lse = blocks.forward(q, k, v, *given, *settings)
    blocks.backward(out, lse, q, k, v, *given, out, lse, *settings)


def _heads(q: Tensor, k: Tensor, v: Tensor, padding_mask: Tensor | None, mode: str) -> None:
    if mode == "features":
        cos = torch.empty(1, LENGTH, 1, q.shape[3] // 2, device="meta")
        phi, _ = features.forward(q, cos, cos, "elu")
        features.backward(k, k, phi, cos, cos, "elu")
        return
    scale = None if mode == "turned" else torch.empty(q.shape[2], device="meta")
    cos = None if mode == "normed" else torch.empty(1, LENGTH, 1, q.shape[3] // 2, device="meta")
    y, gain = heads.forward(q, scale, cos, cos, mode != "turned", 1.0)
    heads.backward(k, y, gain, scale, cos, cos, 1.0)


KERNELS = ("forward", "dkv")


def ablations(family: str) -> Iterator[tuple[str, Statistics]]:
    """Statistics of flash attention in bfloat16, heads of 64, as shipped and without one design choice at a time."""
    whole = Configuration(family, "flash", "bfloat16", 64, "full")
    described, pointed = labelled(whole), labelled(whole, descriptors=False)
    padded = labelled(whole._replace(mode="padded"))
    for kernel in KERNELS:
        recorded = described[kernel]
        half = recorded._replace(constants={**recorded.constants, "num_warps": recorded.constants["num_warps"] // 2})
        variants = {"as it ships": (recorded, True)}
        if recorded.constants["C"].DESCRIPTORS:
            variants["tiles by pointers, not by descriptors"] = (pointed[kernel], True)
        variants["strides not known to be divisible by 16"] = (pointed[kernel], False)
        variants["half the warps"] = (half, True)
        variants["a mask in every tile, as with padding"] = (padded[kernel], True)
        for name, (variant, hints) in variants.items():
            yield f"{family} {kernel}, {name}", statistics(compile_launch(variant, family, hints), family)
