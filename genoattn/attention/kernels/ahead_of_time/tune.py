"""Tiles of flash attention chosen by time on the GPU of this machine, each compared with float64 before it counts."""

import datetime
import statistics
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from genoattn.attention.kernels import available, launch
from genoattn.attention.kernels.configurations import Tiles, forced_tiles, tile_key
from genoattn.attention.kernels.flash import flash_attention
from genoattn.errors import UserError

CANDIDATES = {
    "forward": [(128, 128, 8, 3), (128, 128, 8, 2), (128, 64, 8, 3), (128, 64, 4, 3), (64, 128, 4, 3), (64, 64, 4, 3)],
    "dq": [(128, 64, 8, 2), (128, 64, 4, 3), (64, 64, 4, 3), (64, 64, 8, 2), (64, 128, 8, 2)],
    "dkv": [(64, 128, 8, 2), (32, 128, 8, 2), (64, 64, 8, 2), (64, 64, 4, 3), (64, 64, 4, 2), (32, 64, 8, 2)],
}
"""Queries, keys, warps and stages to try, beside those of the table. Some let two programs share a multiprocessor."""


WINDOWS = {"plain": None, "marked": None, "narrow": (128, 128)}


LENGTH, CHECKED, REPEATS = 16_384, 1_024, 7
"""Tokens of a timed and of a checked sequence, and times that a call is timed."""


TOLERANCE = 2e-2
"""Largest error in half precision relative to the largest value of the reference."""


class Case(NamedTuple):
    """A kernel to find tiles for, in bfloat16."""

    kernel: str
    width: int
    mode: str

    def key(self) -> str:
        """The name of its row in the table."""
        return tile_key(self.kernel, self.width, 2, self.mode)


Measure = Callable[[Case, Tiles], float]
"""Milliseconds of a case with such tiles; an exception says why there are none."""


def cases() -> Iterator[Case]:
    """Every kernel, width and mode."""
    for width in (32, 64, 128):
        for mode in WINDOWS:
            for kernel in CANDIDATES:
                yield Case(kernel, width, mode)


def tune(chosen: Iterable[Case], measure: Measure, say: Callable[[str], object]) -> dict[str, dict[str, Any]]:
    """The fastest tiles of each case, by `Case.key`; a candidate that fails is said and left out."""
    table = {}
    for case in chosen:
        found: list[tuple[float, Tiles]] = []
        for numbers in CANDIDATES[case.kernel]:
            tiles = Tiles(*numbers)
            try:
                found.append((measure(case, tiles), tiles))
                say(f"{case.key()}: {tuple(tiles)} {found[-1][0]:.3f} ms")
            except Exception as error:  # triton's errors have no common class but this one
                said = str(error).strip().splitlines() or [type(error).__name__]
                say(f"{case.key()}: {tuple(tiles)} is left out: {said[0][:100]}")
        if found:
            milliseconds, tiles = min(found)
            table[case.key()] = {"tiles": list(tiles), "ms": round(milliseconds, 4)}
    return table


def tune_here(say: Callable[[str], object]) -> dict[str, dict[str, Any]]:
    """The table of the family of this machine's GPU, to go into timed_tiles.json.

    Raises:
        UserError: There is no GPU.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    runs, why = available(device)
    if device.type != "cuda" or not runs:
        raise UserError(f"tune=true times kernels on a GPU: {why}")
    about = {"card": torch.cuda.get_device_name(device), "date": str(datetime.date.today())}
    about |= {"triton": triton.__version__, "length": LENGTH}
    return {launch.family(device): {**about, "tiles": tune(cases(), on_the_gpu, say)}}


def on_the_gpu(case: Case, tiles: Tiles) -> float:
    """The `Measure` of a GPU: the median of several passes, after a check of answers and gradients."""
    with forced_tiles(case.kernel, tiles):
        check(case, torch.device("cuda"), torch.bfloat16, CHECKED)
        inputs = _inputs(LENGTH, case.width, torch.device("cuda"), torch.bfloat16)
        leaves = [tensor.requires_grad_() for tensor in inputs]
        words = _settings(case, LENGTH, leaves[0].device)
        out = _attend(leaves, words)
        if case.kernel == "forward":
            return _milliseconds(lambda: _attend([leaf.detach() for leaf in leaves], words))
        return _milliseconds(lambda: torch.autograd.grad(out, leaves, out, retain_graph=True))


def check(case: Case, device: torch.device, dtype: torch.dtype, length: int) -> None:
    """Raises ValueError unless the answers and gradients are those of float64."""
    inputs, words = _inputs(length, case.width, device, dtype), _settings(case, length, device)
    found = []
    for function, wide in ((_attend, dtype), (_dense, torch.float64)):
        leaves = [tensor.to(wide).requires_grad_() for tensor in inputs]
        out = function(leaves, words)
        found.append([out.detach(), *torch.autograd.grad(out, leaves, inputs[0].to(wide))])
    for name, fast, right in zip(("out", "dq", "dk", "dv"), *found, strict=True):
        off = float((fast.double() - right).abs().max() / right.abs().max())
        if not off <= TOLERANCE:
            raise ValueError(f"{name} is off by {off:.1e}")


def _inputs(length: int, width: int, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
    draw, heads = torch.Generator().manual_seed(0), 2048 // width if length == LENGTH else 2
    return [torch.randn(1, length, heads, width, generator=draw).to(device, dtype) for _ in "qkv"]


def _settings(case: Case, length: int, device: torch.device) -> dict[str, Any]:
    window = WINDOWS[case.mode]
    sides = window and tuple(min(side, length // 4) for side in window)
    mask = (torch.arange(length, device=device) < length - 5)[None] if case.mode == "marked" else None
    return {"window": sides, "padding_mask": mask}


def _attend(tensors: list[Tensor], words: dict[str, Any]) -> Tensor:
    out = flash_attention(*tensors, **words)
    assert isinstance(out, Tensor)
    return out


def _dense(tensors: list[Tensor], words: dict[str, Any]) -> Tensor:
    """Attention over the whole square."""
    q, k, v = (tensor.transpose(1, 2) for tensor in tensors)
    index = torch.arange(q.shape[2], device=q.device)
    left, right = words["window"] or (len(index), len(index))
    visible = (index >= index[:, None] - left) & (index <= index[:, None] + right)
    real = torch.ones_like(index, dtype=torch.bool) if words["padding_mask"] is None else words["padding_mask"][0]
    scores = (q @ k.mT * q.shape[-1] ** -0.5).masked_fill(~(visible & real), float("-inf"))
    return ((scores.softmax(-1) @ v) * real[:, None]).transpose(1, 2)


def _milliseconds(act: Callable[[], object]) -> float:
    """By the events of the GPU, several calls between two of them, so that gaps between launches do not count."""
    act()
    times = []
    for _ in range(REPEATS):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        act()
        act()
        stop.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(stop) / 2)
    return statistics.median(times)
