"""Draw what a token sees in every layer, and tabulate what each layer costs: `python docs/drawings.py`.

The drawings come from the gradients of a layer's own reference, the costs from its `flops` and `state_bytes`. In a
drawing a row is the token that is answered, a column a token that it may see. A dark square is a token that counts by
itself, a pale bar a pooled cell, whose tokens all have the same gradient. Content decides what `sparse`, `nsa` and
`topk` choose; here it is random.
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from hydra.utils import instantiate

from genoattn.attention.base import Attention
from genoattn.config.compose import compose

LENGTH = 32
"""Tokens of a drawing."""

DIM = 8
SIDE = 7
"""Pixels of a square."""

GAP = 40
COST_LENGTHS = (1024, 16_384, 262_144)
COST_DIM = 64
"""Channels of the default model, model=small."""

TOP = 34
SEEN, POOLED, GRID, TEXT = "#00796b", "#80cbc4", "#eceff1", "#607d8b"
FOLDER = Path(__file__).parent / "concepts" / "layers"

SETTINGS: dict[str, tuple[str, ...]] = {
    "full": (),
    "flash": (),
    "window": ("attention.left=4", "attention.right=4"),
    "linear": (),
    "delta": (),
    "ssd": (),
    "hyena": (),
    "sparse": ("attention.block_size=4", "attention.blocks_per_query=4", "attention.pool=4"),
    "nsa": (
        "attention.cell_size=2",
        "attention.block_size=4",
        "attention.blocks_per_query=3",
        "attention.window=2",
    ),
    "topk": ("attention.k=6",),
    "hierarchical": ("attention.block_size=2",),
    "pyramid": ("attention.pool_sizes=[1,4,8]", "attention.left=2", "attention.right=2"),
    "gated": ("attention.kinds.window.left=4", "attention.kinds.window.right=4"),
    "hybrid": ("attention.layers=[window,full]", "attention.kinds.window.left=4", "attention.kinds.window.right=4"),
    "based": ("attention.kinds.window.left=4", "attention.kinds.window.right=4"),
    "striped": (),
    "conv": ("attention.left=3", "attention.right=3"),
    "none": (),
}
"""The layers that are drawn, with settings that are small enough for a drawing of 32 tokens."""

HYBRIDS = ("hybrid", "based", "striped")
"""Lists of layers, taken in turn over the depth."""

HEADS = ("heads.count=1", "heads.positions=none", "heads.qk_norm=false")
"""One head, since each head chooses for itself; keys as they are, so that the tokens of a pooled cell stay equal."""


class Bar(NamedTuple):
    """Neighbouring tokens [start, stop) that a token sees with the same gradient."""

    start: int
    stop: int


def bars(layer: Attention) -> list[list[Bar]]:
    """Return what each of `LENGTH` random tokens sees, by the gradient of `naive`."""
    x = torch.randn(1, LENGTH, DIM, dtype=torch.float64, requires_grad=True)
    answers = layer.naive(x)
    pull = torch.randn(DIM, dtype=torch.float64)
    rows = []
    for token in range(LENGTH):
        (gradient,) = torch.autograd.grad(answers[0, token] @ pull, x, retain_graph=True)
        rows.append(list(_runs(gradient[0], token)))
    return rows


def _runs(gradient: torch.Tensor, token: int) -> Iterator[Bar]:
    """Runs of equal gradients; the token itself stands alone, since its query has a gradient too."""
    start = 0
    for at in range(1, LENGTH + 1):
        equal = at < LENGTH and at != token and at - 1 != token and torch.allclose(gradient[at], gradient[at - 1])
        if not equal:
            if gradient[start].abs().max() > 1e-12:
                yield Bar(start, at)
            start = at


def panel(rows: Sequence[Sequence[Bar]], title: str, left: int) -> Iterator[str]:
    """Yield the elements of one square of tokens by tokens."""
    size = LENGTH * SIDE
    yield f'<text x="{left}" y="{TOP - 14}" fill="{TEXT}">{title}</text>'
    yield f'<rect x="{left}" y="{TOP}" width="{size}" height="{size}" fill="{GRID}"/>'
    for pooled, color in ((False, SEEN), (True, POOLED)):
        path = ""
        for row, line in enumerate(rows):
            for start, stop, is_pooled in _joined(line):
                if is_pooled == pooled:
                    width = (stop - start) * SIDE - pooled  # a line of background between two cells
                    path += f"M{left + start * SIDE} {TOP + row * SIDE}h{width}v{SIDE}h-{width}z"
        if path:
            yield f'<path fill="{color}" d="{path}"/>'


def _joined(line: Sequence[Bar]) -> Iterator[tuple[int, int, bool]]:
    """Single tokens that touch as one rectangle, and each pooled cell as a rectangle of its own."""
    start = stop = None
    for bar in line:
        pooled = bar.stop - bar.start > 1
        if start is not None and stop is not None and (pooled or bar.start != stop):
            yield start, stop, False
            start = None
        if pooled:
            yield bar.start, bar.stop, True
        else:
            start, stop = (bar.start if start is None else start), bar.stop
    if start is not None and stop is not None:
        yield start, stop, False


def drawing(name: str) -> str:
    """Return the picture of a layer: looking both ways and causal; every kind of a hybrid."""
    node = compose("check-layer", [f"attention={name}", *HEADS, *SETTINGS[name]]).attention
    kinds: Sequence[str] = list(node.layers) if name in HYBRIDS else [""]
    factories: Sequence[Callable[..., Attention]] = instantiate(node) if name in HYBRIDS else [instantiate(node)]
    parts, left = [], 8
    for kind, factory in zip(kinds, factories, strict=True):
        for causal in (False, True):
            torch.manual_seed(0)
            layer = factory(dim=DIM, causal=causal).double()
            title = [kind] * bool(kind) + ["causal" if causal else "both ways"]
            parts += panel(bars(layer), ", ".join(title), left)
            left += LENGTH * SIDE + GAP
    width, height = left - GAP + 8, TOP + LENGTH * SIDE + 8
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return "\n".join([f'{head} font-family="sans-serif" font-size="13">', *parts, "</svg>\n"])


def costs() -> str:
    """Return a table of the FLOPs and the cache of one layer of the default model, by length."""
    heads = [f"{length:,}" for length in COST_LENGTHS]
    rows = [
        f"| `attention=` | {' | '.join(f'GFLOP, {head}' for head in heads)} | cache, {heads[0]} | cache, {heads[-1]} |"
    ]
    rows.append("| --- |" + " ---: |" * (len(heads) + 2))
    for name in SETTINGS:
        if name in HYBRIDS:
            continue
        factory = instantiate(compose("check-layer", [f"attention={name}"]).attention)
        both_ways, causal = (factory(dim=COST_DIM, causal=causal) for causal in (False, True))
        flops = [_short(both_ways.flops(length) / 1e9) for length in COST_LENGTHS]
        caches = [_bytes(causal.state_bytes(length)) for length in (COST_LENGTHS[0], COST_LENGTHS[-1])]
        rows.append(f"| [`{name}`]({name}.md) | {' | '.join([*flops, *caches])} |")
    return "\n".join(rows) + "\n"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _bytes(size: int) -> str:
    return f"{_short(size / 2**10)} KiB" if size < 2**20 else f"{_short(size / 2**20)} MiB"


def main() -> None:
    """Draw every layer and write the table of costs."""
    for name in SETTINGS:
        (FOLDER / f"{name}.svg").write_text(drawing(name), "utf-8")
    (FOLDER / "costs.txt").write_text(costs(), "utf-8")


if __name__ == "__main__":
    main()
