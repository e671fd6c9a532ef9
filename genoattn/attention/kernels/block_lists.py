"""Lists of key blocks, and the work of their gradients: which query blocks read a key block, in parts of equal size.

All of it is computed on the device of the lists without a look at their values from the host.
"""

from typing import NamedTuple

import torch
from jaxtyping import Int
from torch import Tensor

PART = 64
"""Query blocks that one program of dK and dV reads a key block for; more of them are split over programs."""


class BlockLists(NamedTuple):
    """Key blocks of each query block, and if known before what `list_work` and `compact` make of them."""

    table: Int[Tensor, "tables table_heads query_blocks slots"]
    """Key blocks of each query block, negative for none."""
    counts: Int[Tensor, "tables table_heads query_blocks"] | None = None
    """Slots of each query block to read (None: all)."""
    readers: Int[Tensor, "entries"] | None = None
    work: Int[Tensor, "programs 4"] | None = None
    sums: Int[Tensor, "split 3"] | None = None


class Work(NamedTuple):
    """The work of the programs of dK and dV; a place is a key block of one key head of one table, or -1 for none."""

    readers: Int[Tensor, "entries"]
    """Query blocks that read each place, place by place, plus n · query blocks for the n-th query head of a group."""
    work: Int[Tensor, "programs 4"]
    """Place, first and last reader of a program, and the number of its part, -1 if the place has one part only."""
    sums: Int[Tensor, "split 3"]
    """Place, first part and number of parts of a place whose gradients are a sum of parts."""


def compact(table: Int[Tensor, "tables table_heads query_blocks slots"]) -> BlockLists:
    """The lists with their empty slots at the end, which are not read."""
    order = (table < 0).to(torch.uint8).argsort(dim=-1, stable=True)
    return BlockLists(table.gather(-1, order), (table >= 0).sum(-1, dtype=torch.int32))


def list_work(table: Int[Tensor, "tables table_heads query_blocks slots"], heads: int, blocks: int) -> Work:
    """The work of the lists of `heads` key heads (1: of one table for all) with `blocks` key blocks.

    Readers of a place are in the order of query heads and query blocks.
    """
    tables, table_heads, count, slots = table.shape
    group, places, entries = table_heads // heads, tables * heads * blocks, table.numel()
    at = torch.arange(tables * heads, device=table.device).view(tables, heads, 1, 1, 1) * blocks
    by_group = table.unflatten(1, (heads, group))
    owner = torch.where(by_group >= 0, at + by_group, places).flatten()
    order = owner.argsort(stable=True)
    begins = torch.searchsorted(owner[order], torch.arange(places + 1, device=table.device))
    readers = (order // slots % (group * count)).int()
    parts = (begins.diff().add(PART - 1) // PART).clamp_min(1)
    split = parts > 1
    last, part_last = parts.cumsum(0), (parts * split).cumsum(0)
    program = torch.arange(places + entries // PART, device=table.device)
    place = torch.searchsorted(last, program, right=True)
    idle, place = place == places, place.clamp_max(places - 1)
    part = program - (last - parts)[place]
    begin = torch.minimum(begins[place] + part * PART, begins[place + 1])
    stop = torch.minimum(begin + PART, begins[place + 1])
    number = torch.where(split[place], (part_last - parts)[place] + part, -1)
    work = torch.stack([place.masked_fill(idle, -1), begin, stop, number], 1).int()
    wanted = torch.arange(1, 1 + entries // PART, device=table.device)
    place = torch.searchsorted(split.cumsum(0), wanted)
    idle, place = place == places, place.clamp_max(places - 1)
    sums = torch.stack([place.masked_fill(idle, -1), (part_last - parts)[place], parts[place]], 1).int()
    return Work(readers, work, sums)


def most_parts(table: Tensor) -> int:
    """Parts of places that are split, at most: each holds more than half of PART readers on average."""
    return 2 * table.numel() // PART


def cached_lists(table: Int[Tensor, "1 1 query_blocks slots"], blocks: int) -> BlockLists:
    """Compact lists with their work, for lists that many batches share."""
    lists = compact(table.int())
    return lists._replace(**list_work(lists.table, 1, blocks)._asdict())
