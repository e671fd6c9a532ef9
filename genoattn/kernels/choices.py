"""What each choice in the design of a kernel gave: the same kernel compiled without it."""

from collections.abc import Iterator

import genoattn.kernels.shipped as shipped
from genoattn.kernels.compilation import Statistics, compile_start, statistics
from genoattn.kernels.shipped import Configuration

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
