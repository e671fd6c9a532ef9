"""Speed of the kernels on a GPU and of other packages: TFLOP/s and ratios, forward and with the backward pass.

python -m benchmarks.gpu_kernels [--lengths 1024,4096,…] [--dims 64,128] [--masks full,causal,window,linear]
    [--json FILE]
TRITON_INTERPRET=1 python -m benchmarks.gpu_kernels --dry

The second is the same code on tiny shapes without a GPU; its times mean nothing.

FLOPs are counted as FlashAttention's authors count them: 4 · pairs · dim_head · heads · batch forward, 2.5 times that
backward; half the square is counted for causal attention, the band for a window, and for linear attention what chunks
of 64 take. Other packages are measured if they are installed; else the table gives the reason.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from genoattn.attention.kernels import available, interpreted

LENGTHS = tuple(1024 * 4**power for power in range(6))  # to 1 M
TOKENS, CHANNELS, LONG = 16384, 2048, 65536
WINDOW = 512
CHUNK = 64
SECONDS = 10.0
"""An implementation that takes longer than this for one pass is run once."""


class Case(NamedTuple):
    """Case of the benchmark: `mask` is full, causal, window (as far to both sides) or linear (causal, no softmax)."""

    length: int
    dim: int
    mask: str
    batch: int
    heads: int

    def flops(self) -> int:
        """FLOPs of the forward pass."""
        n = self.length
        if self.mask == "linear":
            return 2 * n * (2 * self.dim**2 + 2 * CHUNK * self.dim) * self.heads * self.batch
        pairs = {"full": n * n, "causal": n * n // 2, "window": n * min(n, 2 * WINDOW + 1)}[self.mask]
        return 4 * pairs * self.dim * self.heads * self.batch

    def inputs(self, device: torch.device, dtype: torch.dtype) -> list[Tensor]:
        shape = (self.batch, self.length, self.heads, self.dim)
        draw = torch.Generator(device).manual_seed(0)
        given = [torch.randn(shape, generator=draw, device=device).to(dtype) for _ in range(3)]
        if self.mask == "linear":
            given[:2] = [(F.elu(tensor.float()) + 1).to(dtype) for tensor in given[:2]]
        return [tensor.requires_grad_() for tensor in given]


class Row(NamedTuple):
    """Times of one implementation in milliseconds; None if it was not measured, with the reason `why`."""

    implementation: str
    case: Case
    forward: float | None
    both: float | None
    why: str


Attend = Callable[[Tensor, Tensor, Tensor], Tensor]


class NotMeasured(Exception):
    """Reason why an implementation is not measured."""


def ours(case: Case) -> Attend:
    from genoattn.attention.kernels.flash import flash_attention
    from genoattn.attention.kernels.linear import linear_attention

    if case.mask == "linear":
        return lambda q, k, v: linear_attention(q, k, v, causal=True)
    window = (WINDOW, WINDOW) if case.mask == "window" else None
    return lambda q, k, v: flash_attention(q, k, v, causal=case.mask == "causal", window=window)


def torch_by(backend: SDPBackend) -> Callable[[Case], Attend]:
    """Torch's scaled_dot_product_attention by one of its backends."""

    def implementation(case: Case) -> Attend:
        if case.mask not in ("full", "causal"):
            raise NotMeasured("knows no windows but by a square mask")

        def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
            q, k, v = (tensor.transpose(1, 2) for tensor in (q, k, v))
            with sdpa_kernel(backend):
                return F.scaled_dot_product_attention(q, k, v, is_causal=case.mask == "causal").transpose(1, 2)

        return attend

    return implementation


def flex(case: Case) -> Attend:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    if case.mask == "linear":
        raise NotMeasured("is softmax attention")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rules: dict[str, Any] = {
        "causal": lambda b, h, i, j: i >= j,
        "window": lambda b, h, i, j: (i - j <= WINDOW) & (j - i <= WINDOW),
    }
    n = case.length
    mask = create_block_mask(rules[case.mask], None, None, n, n, device=device) if case.mask in rules else None
    run = torch.compile(flex_attention) if device == "cuda" else flex_attention

    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        output = run(*(tensor.transpose(1, 2) for tensor in (q, k, v)), block_mask=mask)
        assert isinstance(output, Tensor)
        return output.transpose(1, 2)

    return attend


def flash_attn(case: Case) -> Attend:
    if find_spec("flash_attn") is None:
        raise NotMeasured("not installed")
    if case.mask == "linear":
        raise NotMeasured("is softmax attention")
    from flash_attn import flash_attn_func  # pyright: ignore[reportMissingImports]

    window = (WINDOW, WINDOW) if case.mask == "window" else (-1, -1)
    return lambda q, k, v: flash_attn_func(q, k, v, causal=case.mask == "causal", window_size=window)


def fla(case: Case) -> Attend:
    if find_spec("fla") is None:
        raise NotMeasured("not installed")
    if case.mask != "linear":
        raise NotMeasured("is linear attention here")
    from fla.ops.linear_attn import chunk_linear_attn  # pyright: ignore[reportMissingImports]

    return lambda q, k, v: chunk_linear_attn(q, k, v, scale=1.0, normalize=True)[0]


IMPLEMENTATIONS: dict[str, Callable[[Case], Attend]] = {
    "ours": ours,
    "SDPA flash": torch_by(SDPBackend.FLASH_ATTENTION),
    "SDPA cuDNN": torch_by(SDPBackend.CUDNN_ATTENTION),
    "FlexAttention": flex,
    "flash-attn": flash_attn,
    "fla": fla,
}


def milliseconds(act: Callable[[], object], device: torch.device, repeats: int) -> float:
    """The median of several runs, after one that warms up; by the device's own clock."""

    def once() -> float:
        if device.type != "cuda":
            begun = time.perf_counter()
            act()
            return (time.perf_counter() - begun) * 1e3
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        act()
        stop.record()
        torch.cuda.synchronize()
        return start.elapsed_time(stop)

    first = once()  # compiles
    again = once() if first < 2 * SECONDS * 1e3 else first
    return again if again > SECONDS * 1e3 else statistics.median([again, *(once() for _ in range(repeats))])


def measure(name: str, case: Case, device: torch.device, dtype: torch.dtype, repeats: int, right: Tensor | None) -> Row:
    """Time one implementation after a check that its output equals ours."""
    try:
        attend = IMPLEMENTATIONS[name](case)
        tensors = case.inputs(device, dtype)
        with torch.no_grad():
            output = attend(*tensors)
            if right is not None and (far := (output - right).abs().max().item()) > 0.05:
                raise NotMeasured(f"gives another output, different by up to {far:.2g}")
            forward = milliseconds(lambda: attend(*tensors), device, repeats)

        def both() -> None:
            torch.autograd.grad(attend(*tensors), tensors, output)

        return Row(name, case, forward, milliseconds(both, device, repeats), "")
    except NotMeasured as reason:
        return Row(name, case, None, None, str(reason))
    except (RuntimeError, ValueError) as error:  # out of memory, no kernel for these shapes
        return Row(name, case, None, None, str(error).strip().splitlines()[0][:80])


def speed(case: Case, spent: float | None, share: float) -> float | None:
    """TFLOP/s."""
    return None if spent is None else case.flops() * share / spent / 1e9


def table(rows: list[Row], title: str) -> Table:
    """Table with a row for each implementation and case: TFLOP/s, and how many times as fast ours is."""
    drawn = Table("case", "by", "forward TFLOP/s", "ours ×", "with backward TFLOP/s", "ours ×", "", title=title)
    best = {row.case: row for row in rows if row.implementation == "ours"}
    for row in rows:
        cells = []
        for spent, own, share in ((row.forward, best[row.case].forward, 1.0), (row.both, best[row.case].both, 3.5)):
            rate = speed(row.case, spent, share)
            cells += ["–" if rate is None else f"{rate:.3g}", f"{spent / own:.2f}" if spent and own else ""]
        drawn.add_row(f"{row.case.mask} n={row.case.length} dim={row.case.dim}", row.implementation, *cells, row.why)
    return drawn


def cases(lengths: list[int], dims: list[int], masks: list[str], dry: bool) -> list[Case]:
    """Cases of 16 k tokens and 2048 channels in all; four heads if a sequence is longer than 64 k."""
    listed = []
    for mask in masks:
        for dim in dims:
            for length in lengths:
                heads = 1 if dry else 4 if length > LONG else CHANNELS // dim
                listed.append(Case(length, dim, mask, 1 if dry else max(1, TOKENS // length), heads))
    return listed


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lengths", type=lambda text: list(map(int, text.split(","))))
    parser.add_argument("--dims", type=lambda text: list(map(int, text.split(","))))
    parser.add_argument("--masks", type=lambda text: text.split(","), default=["full", "causal", "window", "linear"])
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--dry", action="store_true", help="tiny shapes, by the interpreter")
    options = parser.parse_args()
    options.lengths = options.lengths or ([40] if options.dry else list(LENGTHS))
    options.dims = options.dims or ([16] if options.dry else [64, 128])
    if wrong := set(options.masks) - {"full", "causal", "window", "linear"}:
        parser.error(f"--masks are full, causal, window and linear, got {', '.join(sorted(wrong))}")
    return options


def main() -> int:
    options = parse()
    if options.dry and not interpreted():
        print("--dry runs the kernels by the interpreter: set TRITON_INTERPRET=1", file=sys.stderr)
        return 2
    device = torch.device("cpu" if options.dry or not torch.cuda.is_available() else "cuda")
    runs, why = available(device)
    if not runs or (interpreted() and not options.dry):
        print(f"no speed can be measured here: {why}; --dry with TRITON_INTERPRET=1 tries the code", file=sys.stderr)
        return 2
    dtype = torch.float32 if options.dry else torch.bfloat16
    title = f"dry run, {why}: times mean nothing" if options.dry else f"{torch.cuda.get_device_name()}, bfloat16"
    rows = []
    for case in cases(options.lengths, options.dims, options.masks, options.dry):
        right = None
        if case.length <= min(options.lengths):
            with torch.no_grad():
                right = ours(case)(*case.inputs(device, dtype))
        rows += [
            measure(name, case, device, dtype, 1 if options.dry else options.repeats, right) for name in IMPLEMENTATIONS
        ]
    Console().print(table(rows, title))
    if options.json:
        listed = [{**row._asdict(), "case": row.case._asdict(), "flops": row.case.flops()} for row in rows]
        about = {"device": title, "torch": torch.__version__, "dry": options.dry, "dtype": str(dtype)}
        options.json.write_text(json.dumps({**about, "rows": listed}, indent=1), "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
