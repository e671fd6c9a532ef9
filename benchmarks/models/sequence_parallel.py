"""A training step whose sequence several processes hold: activations and memory of each, and bytes that layers move.

python -m benchmarks.models.sequence_parallel [--length 16384] [--worlds 1 2 4] [--recompute none]
python -m benchmarks.models.sequence_parallel --moved   # bytes that each layer moves, computed and counted
python -m benchmarks.models.sequence_parallel --paper   # times of a layer on 8 and 64 GPUs, computed
python -m benchmarks.models.sequence_parallel --length 1048576 --worlds 4 --recompute block

4 layers of linear attention, dim 128, 4 heads, float32: forward, cross-entropy at every token, backward, a step of
AdamW under DistributedDataParallel. Saved bytes are those of all tensors that the forward pass keeps for the backward
pass, parameters apart, each storage once; memory is the highest resident memory of a process above what it had.
"""

import argparse
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.common.measure import Memory
from benchmarks.models.models import DIM, VOCABULARY, layer, model
from benchmarks.models.sequence_parallel_paper import FLOAT, formula, paper, sent_to_choose
from genoattn.attention.base import TokenLayout
from genoattn.attention.full import FullAttention
from genoattn.attention.nsa import NativeSparseAttention
from genoattn.attention.parallel import shard
from genoattn.attention.parallel.processes import Processes, processes
from genoattn.attention.pyramid import PyramidAttention
from genoattn.attention.sparse import SparseAttention
from genoattn.attention.topk import TopKAttention
from genoattn.evaluation.report import Table

DEPTH, PATIENCE = 4, timedelta(hours=3)

MOVING = ("window", "full", "linear", "ssd", "delta", "topk", "sparse", "nsa", "hierarchical", "pyramid", "hyena")
"""Layers whose bytes are counted."""

OTHERS = {
    "full": FullAttention,
    "topk": TopKAttention,
    "sparse": SparseAttention,
    "nsa": NativeSparseAttention,
    "pyramid": PyramidAttention,
}
"""Those that no other benchmark of models builds."""


class Moved(TorchDispatchMode):
    """Counts the bytes that this process sends in collectives, forwards and backwards.

    A sum is counted as a ring: 2 (P - 1) / P of the tensor; a gather and its gradient send a tensor to all others.
    """

    def __init__(self):
        super().__init__()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = str(func).partition(".")[2].partition(".")[0] if str(func).startswith("_c10d_functional.") else ""
        world, rank = torch.distributed.get_world_size(), torch.distributed.get_rank()
        if name in ("all_reduce", "all_gather_into_tensor", "reduce_scatter_tensor", "all_to_all_single"):
            x: Tensor = args[0]
            size = x.numel() * x.element_size()
            if name == "all_to_all_single":
                given, row = list(args[2]), size // max(1, len(x))
                self.bytes[name] += row * (sum(given) - given[rank])
            else:
                shares = {"all_reduce": 2 * (world - 1) / world, "all_gather_into_tensor": world - 1}
                self.bytes[name] += round(size * shares.get(name, (world - 1) / world))
        return func(*args, **(kwargs or {}))


class Saved:
    """Bytes of the storages that the forward pass keeps for the backward pass."""

    def __init__(self, model: nn.Module):
        self._known = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
        self.bytes = 0

    def keep(self, x: Tensor) -> Tensor:
        """Count a tensor's storage once."""
        storage = x.untyped_storage()
        if storage.data_ptr() not in self._known:
            self._known.add(storage.data_ptr())
            self.bytes += storage.nbytes()
        return x


def step(length: int, recompute: Any) -> dict[str, float]:
    """A training step of one of the processes."""
    torch.manual_seed(0)
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    network = model("linear", DEPTH, recompute).train()
    wrapped, optimizer = DistributedDataParallel(network), torch.optim.AdamW(network.parameters())
    ids, targets = (torch.randint(VOCABULARY, (1, length)) for _ in range(2))

    def run(ids: Tensor, targets: Tensor, saved: Saved) -> None:
        part = ids.shape[1] // world
        own = targets[:, rank * part : (rank + 1) * part].flatten()
        with torch.autograd.graph.saved_tensors_hooks(saved.keep, lambda x: x):
            logits = wrapped(ids, group=torch.distributed.group.WORLD)["token"].flatten(0, 1)
            loss = F.cross_entropy(logits, own, reduction="sum") * world / length
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    run(ids[:, : 256 * world], targets[:, : 256 * world], Saved(network))  # what is loaded and made once is not counted
    saved = Saved(network)
    with Memory() as memory, Moved() as moved:
        run(ids, targets, saved)
    return {"saved": saved.bytes / 2**20, "memory": memory.above, "moved": sum(moved.bytes.values()) / 2**20}


def moved_by(name: str, causal: bool, length: int, settings: Mapping[str, int] = {}) -> tuple[int, int]:
    """Bytes that a layer of one of the processes sends, forwards and backwards."""
    torch.manual_seed(0)
    built = built_layer(name, causal, settings)
    x, layout = shard(torch.randn(1, length, DIM), TokenLayout(), torch.distributed.group.WORLD)
    with Moved() as forwards:
        y = built(x.requires_grad_(), layout)
    with Moved() as backwards:
        y.sum().backward()
    return sum(forwards.bytes.values()), sum(backwards.bytes.values())


def built_layer(name: str, causal: bool, settings: Mapping[str, int] = {}) -> Any:
    """A layer with the defaults of its config, but for these settings."""
    return (OTHERS.get(name) or layer(name))(dim=DIM, causal=causal, **settings)


def steps_table(length: int, worlds: Sequence[int], recompute: str) -> Table:
    """A line for each number of processes: the largest of all processes, and over a share of the first line's."""
    lines, first = [], None
    for world in worlds:
        started = Processes(world, PATIENCE)
        found = started.run(step, length, recompute)
        started.close()
        saved, memory, moved = (max(one[key] for one in found) for key in ("saved", "memory", "moved"))
        first = first or (saved * world, memory * world)
        ratios = [f"{got * world / whole:.3f}" for got, whole in zip((saved, memory), first, strict=True)]
        lines.append([str(world), f"{saved:.1f}", ratios[0], f"{memory:.0f}", ratios[1], f"{moved:.2f}"])
    columns = ["processes", "saved MiB", "× processes / first", "memory MiB", "× processes / first", "sent MiB"]
    return Table(f"a step of {length:,} tokens, activation_checkpointing={recompute}", columns, lines)


def moved_table(length: int, world: int) -> Table:
    """Bytes that a layer sends, of the process that sends most: computed and counted, forwards and backwards."""
    lines = []
    for name in MOVING:
        for causal in (False, True):
            found = processes(world).run(moved_by, name, causal, length)
            built = built_layer(name, causal)
            back = FLOAT * formula(built, length, world)
            computed = back + sent_to_choose(built, length, world), back
            counted = [max(direction) for direction in zip(*found, strict=True)]
            pairs = [f"{number:,.0f}" for pair in zip(computed, counted, strict=True) for number in pair]
            lines.append([f"{name}, {'causal' if causal else 'both ways'}", *pairs])
    title = f"bytes that a process sends for a layer of dim {DIM}: {length:,} tokens, {world} processes"
    return Table(title, ["layer", "computed forwards", "counted", "computed backwards", "counted"], lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--length", type=int, default=2**14, help="tokens of the sequence")
    parser.add_argument("--worlds", type=int, nargs="+", default=[1, 2, 4], help="numbers of processes")
    parser.add_argument("--recompute", choices=("none", "mlp", "block"), default="none", help="of the model's blocks")
    parser.add_argument("--moved", action="store_true", help="bytes of each layer, on the last of --worlds")
    parser.add_argument("--paper", action="store_true", help="times of a layer on 8 and 64 GPUs, computed")
    options = parser.parse_args(arguments)
    if options.paper:
        for table in paper():
            table.print()
    elif options.moved:
        moved_table(options.length, options.worlds[-1]).print()
    else:
        steps_table(options.length, options.worlds, options.recompute).print()


if __name__ == "__main__":
    main()
