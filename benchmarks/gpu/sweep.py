"""Part `tune`: the time of every kernel of softmax attention with each of its tiles that was found right."""

from contextlib import nullcontext
from typing import Any, NamedTuple

from benchmarks.gpu import candidates
from benchmarks.gpu.candidates import Candidate
from benchmarks.gpu.clock import timed
from benchmarks.gpu.judge import drawn
from benchmarks.gpu.record import DRY, Part, read_rows

PRODUCTS = {"forward": 2, "dq": 3, "dkv": 4}
"""Products of matrices in a kernel."""


class Mode(NamedTuple):
    """A case that is timed: tokens, and the bounds of the window."""

    name: str
    length: int
    left: int | None
    right: int | None

    def pairs(self) -> int:
        """Pairs of a query and a key that it sees; the ends of a sequence count in full."""
        n = self.length
        left, right = (n // 2 if side is None else side for side in (self.left, self.right))
        return n * min(n, left + right + 1)


MODES = (
    Mode("window 512", 131_072, 512, 512),
    Mode("causal", 16_384, None, 0),
    Mode("full", 16_384, None, None),
    Mode("window 128", 262_144, 128, 128),
)


def run(part: Part) -> None:
    """The tiles that ship, and every candidate that was right with and without a window, mode by mode."""
    tested = {_key(row): row.get("good", False) for row in read_rows(part.out) if row["part"] == "correct"}
    asked = list(candidates.every())
    wrong = {_of(one) for one in asked if not tested.get((*_of(one), one.edge))}
    modes = [Mode("window", 40, 9, 5)] if DRY else MODES
    shapes = dict.fromkeys((one.kernel, one.dim) for one in asked)
    for mode in modes:
        for kernel, dim in shapes:
            tried = dict.fromkeys(one._replace(edge=mode.left is not None) for one in asked)
            for one in [None, *(one for one in tried if (one.kernel, one.dim) == (kernel, dim))]:
                if one is None or _of(one) not in wrong:
                    labels = {
                        "kernel": kernel,
                        "dim": dim,
                        "mode": mode.name,
                        "tiles": "ships" if one is None else one.tiles,
                    }
                    part.case(lambda k=kernel, d=dim, m=mode, o=one: kernel_time(k, d, m, o), **labels)


def _key(row: dict[str, Any]) -> tuple:
    case = row.get("case", {})
    return (case["kernel"], case["dim"], *case["tiles"], case["edge"]) if case.get("kind") == "tiles" else ()


def _of(one: Candidate) -> tuple:
    return (one.kernel, one.dim, *one.tiles)


def kernel_time(kernel: str, dim: int, mode: Mode, candidate: Candidate | None) -> dict[str, Any]:
    """Milliseconds and TFLOP/s of one launch of a kernel."""
    import torch

    from genoattn.attention.kernels import flash_launch, launch

    dtype = torch.float32 if DRY else torch.bfloat16
    q, k, v, dout = (drawn(seed, 1, mode.length, candidates.HEADS, dim, dtype=dtype) for seed in range(4))
    left, right = (mode.length if side is None else min(side, mode.length) for side in (mode.left, mode.right))
    scale = dim**-0.5
    unmasked, window = (q, k, v, None, None, None), (False, left, right, 0, scale)
    out, lse = flash_launch.forward(*unmasked, *window)
    started: list[launch.Launch] = []
    real = launch.launch

    def listen(code: Any, programs: int, arguments: Any, constants: Any) -> None:
        if code.__name__ == f"{kernel}_kernel":
            started.append(launch.Launch(code, programs, arguments, constants))
        real(code, programs, arguments, constants)

    launch.launch = listen
    try:
        with nullcontext() if candidate is None else candidate.used():
            if kernel == "forward":
                flash_launch.forward(*unmasked, *window)
            else:
                flash_launch.backward(dout, torch.zeros_like(lse), *unmasked, out, lse, *window)
    finally:
        launch.launch = real
    one = started[-1]
    times = timed(lambda: one.kernel[(one.programs,)](*one.arguments, **one.constants), 0.1)
    flops = 2 * PRODUCTS[kernel] * mode.pairs() * dim * candidates.HEADS
    return times | {"tflops": flops / times["ms"] / 1e9}
