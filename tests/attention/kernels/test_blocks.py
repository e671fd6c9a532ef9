"""Attention over lists of key blocks against a dense reference in float64, run by the interpreter or on a GPU."""

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor

from genoattn.attention.kernels import block_lists, blocks
from genoattn.errors import UserError
from tests.attention.kernels.references import DEVICE, dense, failures, outputs_and_gradients, poison


class Lists(NamedTuple):
    """A case: `slots` key blocks for each query block, drawn at random; with `apart` a table by head and sequence."""

    length: int
    keys: int
    query_block: int = 16
    key_block: int = 16
    slots: int = 3
    dim: int = 16
    heads: int = 1
    kv_heads: int = 1
    batch: int = 1
    apart: bool = False
    bias: bool = False
    causal: bool = False
    padded: bool = False

    def __str__(self) -> str:
        usual = self._field_defaults
        words = [f"{name}={value}" for name, value in self._asdict().items() if name in usual and value != usual[name]]
        return " ".join([f"n={self.length} keys={self.keys}", *words])

    def inputs(self) -> list[Tensor]:
        draw = torch.Generator().manual_seed(0)
        shapes = [(self.length, self.heads), (self.keys, self.kv_heads), (self.keys, self.kv_heads)]
        shapes += [(self.length, self.heads)]
        drawn = [torch.randn(self.batch, *shape, self.dim, generator=draw) for shape in shapes]
        return [
            tensor.to(DEVICE) for tensor in (*drawn, torch.randn(self.batch, self.heads, self.length, generator=draw))
        ]

    def table(self) -> Tensor:
        """Distinct key blocks in each list, some slots empty and one list empty altogether."""
        draw = torch.Generator().manual_seed(1)
        tables, heads = (self.batch, self.heads) if self.apart else (1, 1)
        rows, columns = -(-self.length // self.query_block), -(-self.keys // self.key_block)
        order = torch.rand(tables, heads, rows, columns, generator=draw).argsort(-1)
        order = torch.nn.functional.pad(order, (0, max(0, self.slots - columns)), value=-1)[..., : self.slots]
        order = order.masked_fill(torch.rand(order.shape, generator=draw) < 0.2, -1)
        order[-1, -1, -1] = -1
        return order.to(DEVICE)

    def settings(self) -> dict[str, Any]:
        draw = torch.Generator().manual_seed(2)
        bias = torch.randn(self.batch, self.keys, generator=draw)
        bias = bias.masked_fill(torch.rand(bias.shape, generator=draw) < 0.2, float("-inf")).to(DEVICE)
        ends = torch.linspace(0, self.length - 1, self.keys).long().to(DEVICE)
        padding_mask = (torch.rand(self.batch, self.length, generator=draw) < 0.7).to(DEVICE)
        return {
            "bias": bias if self.bias else None,
            "ends": ends if self.causal else None,
            "padding_mask": padding_mask if self.padded else None,
        }

    def visible(self) -> Tensor:
        """[batch, heads, query, key]."""
        table, columns = self.table(), -(-self.keys // self.key_block)
        listed = torch.zeros(*table.shape[:3], columns + 1, dtype=torch.bool, device=DEVICE)
        listed.scatter_(-1, table.where(table >= 0, columns), True)
        pairs = listed[..., :columns].repeat_interleave(self.query_block, 2).repeat_interleave(self.key_block, 3)
        pairs = pairs[:, :, : self.length, : self.keys].expand(self.batch, self.heads, -1, -1)
        given = self.settings()
        if given["bias"] is not None:
            pairs = pairs & given["bias"].isfinite()[:, None, None, :]
        if given["ends"] is not None:
            pairs = pairs & (given["ends"] <= torch.arange(self.length, device=DEVICE)[:, None])
        return pairs if given["padding_mask"] is None else pairs & given["padding_mask"][:, None, :, None]


def check(case: Lists, function: Callable[..., Any] = blocks.block_attention) -> None:
    """Fails unless the kernel answers what the reference does, whatever hidden keys and padding hold."""
    q, k, v, dout, dlse = case.inputs()
    given, table, visible = case.settings(), case.table(), case.visible()
    shared = {"query_block": case.query_block, "key_block": case.key_block, "return_lse": True}
    hidden = None if given["bias"] is None else given["bias"].isfinite()
    nan, padding_mask = float("nan"), given["padding_mask"]
    poisoned = [poison(q, padding_mask, nan), poison(k, hidden, nan), poison(v, hidden, 1e6)]
    blind = ~visible.any(-1)
    upstream = [
        poison(dout, padding_mask, nan),
        dlse if padding_mask is None else dlse.masked_fill(~padding_mask[:, None], nan),
    ]
    actual = outputs_and_gradients(lambda *tensors: function(*tensors, table, **given, **shared), poisoned, upstream)
    bias = None if given["bias"] is None else given["bias"].nan_to_num(neginf=0.0)
    leaves = [tensor.double() for tensor in (q, k, v)]
    right = outputs_and_gradients(
        lambda *tensors: dense(*tensors, visible, None, bias),
        leaves,
        [dout.double(), dlse.double().masked_fill(blind, 0)],
    )
    failed = failures(actual, right)
    assert not failed, "; ".join(failed)


CASES = [
    Lists(1, 1, slots=1),
    Lists(33, 70),
    Lists(64, 64, 32, 32, slots=2),
    Lists(70, 97, 32, 8, slots=5),
    Lists(70, 130, 16, 64, slots=2, dim=24),
    Lists(33, 48, heads=4, kv_heads=2, batch=2, apart=True),
    Lists(33, 48, heads=2, kv_heads=2, batch=2),
    Lists(40, 65, key_block=8, slots=6, bias=True, batch=2, padded=True),
    Lists(65, 65, causal=True, bias=True, slots=4),
    Lists(
        70, 90, 32, 4, slots=9, dim=40, causal=True, bias=True, padded=True, heads=2, kv_heads=1, batch=2, apart=True
    ),
]


SPLIT = [
    Lists(130, 33, slots=3),
    Lists(97, 40, 16, 4, slots=6, bias=True, causal=True, padded=True, heads=2, kv_heads=2, batch=2),
    Lists(130, 64, 32, 64, slots=1, heads=4, kv_heads=2, batch=2, apart=True),
    Lists(65, 33, heads=2, kv_heads=1, apart=True),
]
"""Cases with key blocks that many query blocks read."""


@pytest.mark.parametrize("case", CASES, ids=str)
def test_answers_and_gradients(case: Lists) -> None:
    check(case)


def test_lists_of_everything_are_full_attention() -> None:
    case = Lists(70, 70, slots=5)
    q, k, v, _, _ = case.inputs()
    table = torch.arange(5, device=DEVICE).expand(1, 1, 5, 5)
    actual = blocks.block_attention(q, k, v, table, query_block=16, key_block=16)
    right = torch.nn.functional.scaled_dot_product_attention(*(tensor.transpose(1, 2).double() for tensor in (q, k, v)))
    assert (actual - right.transpose(1, 2)).abs().max() < 1e-6


def test_lists_turned_round(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_lists, "PART", 2)
    table = torch.tensor([[[[0, 2], [2, -1], [-1, -1]], [[1, 0], [0, 1], [2, 0]]]])
    readers, work, sums = block_lists.list_work(table, 2, 3)
    said = [(place, readers[start:stop].tolist(), part) for place, start, stop, part in work.tolist()]
    # Key block 0 of the second head has three readers: two programs, two parts.
    assert said[:7] == [
        (0, [0], -1),
        (1, [], -1),
        (2, [0, 1], -1),
        (3, [0, 1], 0),
        (3, [2], 1),
        (4, [0, 1], -1),
        (5, [2], -1),
    ]
    assert all(place == -1 and not read for place, read, _ in said[7:])
    assert sums.tolist()[0] == [3, 0, 2] and all(place == -1 for place, *_ in sums.tolist()[1:])
    one_head = block_lists.list_work(table, 1, 3)
    assert one_head.readers[:5].tolist() == [0, 3, 4, 5, 3]


def test_lists_without_their_empty_slots() -> None:
    lists = block_lists.compact(torch.tensor([[[[-1, 3, -1, 1], [-1, -1, -1, -1], [0, 1, 2, 3]]]]))
    assert lists.table[0, 0].tolist() == [[3, 1, -1, -1], [-1] * 4, [0, 1, 2, 3]]
    assert lists.counts is not None and lists.counts[0, 0].tolist() == [2, 0, 4]


@pytest.mark.parametrize("case", SPLIT, ids=str)
def test_readers_split_over_programs(case: Lists, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(block_lists, "PART", 2)
    check(case)


def test_cached_lists_give_the_same_bits() -> None:
    case = Lists(97, 70, key_block=8, slots=5, bias=True, causal=True, batch=2, heads=2, kv_heads=2)
    *tensors, dout, dlse = case.inputs()
    table, shared = case.table(), {"query_block": 16, "key_block": 8, "return_lse": True, **case.settings()}
    found = [
        outputs_and_gradients(
            lambda *given, lists=lists: blocks.block_attention(*given, lists, **shared), tensors, [dout, dlse]
        )
        for lists in (block_lists.compact(table.int())._replace(counts=None), block_lists.cached_lists(table, 9))
    ]
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"query_block": 24}, "query_block must be one of"),
        ({"table": torch.zeros(1, 1, 2, 1, dtype=torch.int32)}, "table must be"),
        ({"bias": torch.zeros(1, 3)}, "bias must be"),
        ({"k": torch.zeros(1, 5, 2, 16)}, "k and v must have one shape"),
    ],
)
def test_mistakes(change: dict[str, Any], sentence: str) -> None:
    given: dict[str, Any] = dict.fromkeys("qkv", torch.zeros(1, 4, 2, 16)) | {"query_block": 16, "key_block": 16}
    given |= {"table": torch.zeros(1, 1, 1, 1, dtype=torch.int32)} | change
    moved = {name: tensor.to(DEVICE) if isinstance(tensor, Tensor) else tensor for name, tensor in given.items()}
    positional = [moved.pop(name) for name in ("q", "k", "v", "table")]
    with pytest.raises(UserError, match=sentence):
        inspect.unwrap(blocks.block_attention)(*positional, **moved)
