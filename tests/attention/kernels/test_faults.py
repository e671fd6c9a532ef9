"""Faults planted in a copy of the kernels, each caught by a test of the others: they can fail."""

import importlib
import itertools
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
import torch
from triton.runtime.errors import InterpreterError

import genoattn.attention.kernels
from tests.attention.kernels import test_blocks, test_delta, test_flash, test_heads, test_linear, test_programs
from tests.attention.kernels.test_blocks import Lists
from tests.attention.kernels.test_delta import Case as Delta
from tests.attention.kernels.test_flash import Softmax
from tests.attention.kernels.test_heads import Case as Heads
from tests.attention.kernels.test_linear import Case

SOURCE = Path(genoattn.attention.kernels.__file__).parent
COUNT = itertools.count()


def check_split(attend: Callable) -> None:
    """Fails unless key blocks with more readers than a program takes have right gradients."""
    sys.modules[attend.__module__.replace(".blocks", ".block_lists")].PART = 2  # pyright: ignore
    test_blocks.check(Lists(65, 33), attend)


EDGE = Softmax(70, 16, window=(20, 9))
LONG = Softmax(129, 16, window=(70, 9))
FAULTS: dict[str, tuple[str, str, str, Callable[[Callable], None]]] = {
    "the right edge of a mask": (
        "flash_forward",
        "keys <= places + right",
        "keys < places + right",
        lambda f: test_flash.check(EDGE, f),
    ),
    "the left edge of a mask": (
        "flash_forward",
        "keys >= places - left",
        "keys > places - left",
        lambda f: test_flash.check(EDGE, f),
    ),
    "the last tile within reach": (
        "tiles",
        "last + right + 1, end",
        "last + right - 32, end",
        lambda f: test_flash.check(EDGE, f),
    ),
    "an edge tile taken for a full one": (
        "tiles",
        "first + right + 1, solid",
        "first + right + 32, solid",
        lambda f: test_flash.check(LONG, f),
    ),
    "offsets of rows in 32 bits": (
        "tiles",
        "rows.to(tl.int64)[:, None] * strides[1]",
        "rows[:, None] * strides[1].to(tl.int32)",
        lambda f: test_programs.check_far("tokens", f, pad=True),
    ),
    "offsets of sequences in 32 bits": (
        "tiles",
        "source + batch.to(tl.int64) * strides[0]",
        "source + batch * strides[0].to(tl.int32)",
        lambda f: test_programs.check_far("sequences", f, pad=True),
    ),
    "no delta": (
        "tiles",
        "weights * (value_products - delta)",
        "weights * value_products",
        lambda f: test_flash.check(Softmax(33, 16), f),
    ),
    "no gradient of the log-sum-exp": (
        "flash_backward",
        "total -= tl.load(dlse",
        "total += 0 * tl.load(dlse",
        lambda f: test_flash.check(Softmax(33, 16), f),
    ),
    "padding read": (
        "flash_backward",
        "total = tl.where(load_padding_mask",
        "total += 0 * tl.where(load_padding_mask",
        lambda f: test_flash.check(Softmax(33, 16, padded=True), f),
    ),
    "one query head for all of a group": (
        "flash_backward",
        "head_q = head * group + member",
        "head_q = head * group",
        lambda f: test_flash.check(Softmax(33, 16, heads=2), f),
    ),
    "a gap in the padding taken for tokens": (
        "tiles",
        "tl.where(real | (index < begin), end, index)",
        "tl.where(real | (index < begin), end, end)",
        lambda f: test_flash.check(Softmax(97, 16, padded=True), f),
    ),
    "padded keys left in a gradient": (
        "flash_backward",
        "dv_tile = tl.where(real, dv_tile, 0.0)",
        "dv_tile = dv_tile + 0.0",
        lambda f: test_flash.check(Softmax(97, 16, padded=True, at_ends=True, batch=2), f),
    ),
    "queries before their place": (
        "flash_backward",
        "place = first - before",
        "place = first",
        lambda f: test_flash.check(Softmax(40, 16, keys=130, before=70, window=(5, 5)), f),
    ),
    "the cost of distance in a gradient": (
        "flash_backward",
        "scores -= slope * tl.abs(keys - places)",
        "scores -= slope * tl.abs(keys - rows[None, :])",
        lambda f: test_flash.check(Softmax(33, 16, alibi=True, keys=50, before=9), f),
    ),
    "the own segment seen": (
        "flash_forward",
        "(q_marks >> 1) != (k_marks >> 1)",
        "(q_marks >> 2) != (k_marks >> 2)",
        lambda f: test_flash.check(Softmax(33, 16, segments=2), f),
    ),
    "the mask of another phase": (
        "flash_forward",
        "head // (heads // phases)",
        "0 * head",
        lambda f: test_flash.check(Softmax(40, 16, window=(4, 4), dilation=2, padded=True), f),
    ),
    "scores not in base 2": (
        "flash_launch",
        "LOG2E = 1.4426950408889634",
        "LOG2E = 1.0",
        lambda f: test_flash.check(Softmax(33, 16), f),
    ),
    "the token itself unseen": (
        "linear_kernels",
        "least = 1 if C.STRICT else 0",
        "least = 1",
        lambda f: test_linear.check(Case(65, causal=True), f),
    ),
    "decay one step late": (
        "linear_kernels",
        "left, since = to_end(total, log_sum)",
        "left, since = to_end(total, log_sum - each)",
        lambda f: test_linear.check(Case(130, decay=-0.3), f),
    ),
    "chunks that keep all": (
        "linear_kernels",
        "tl.exp2(tl.load(totals + chunk))",
        "tl.exp2(0 * tl.load(totals + chunk))",
        lambda f: test_linear.check(Case(193, causal=True, decay=-0.01), f),
    ),
    "later chunks read as earlier ones": (
        "linear_kernels",
        "after = before + apart",
        "after = before",
        lambda f: test_linear.check(Case(130, decay=-0.3), f),
    ),
    "a part of the features alone": (
        "linear_kernels",
        "for row in range(0, C.M, C.BLOCK_M)",
        "for row in range(0, C.BLOCK_M, C.BLOCK_M)",
        lambda f: test_linear.check(Case(9, 72, 16, True), f),
    ),
    "pairs across a chunk without a gradient of the decay": (
        "linear_gradients",
        "gradient += across *",
        "gradient += 0 * across *",
        lambda f: test_linear.check(Case(193, causal=True, decay=-0.01), f),
    ),
    "a decay that does not count for its own token": (
        "linear_gradients",
        "rows[:, None] >= rows[None, :], onward",
        "rows[:, None] > rows[None, :], onward",
        lambda f: test_linear.check(Case(33, causal=True, decay=-0.1), f),
    ),
    "no gradient by the lead": (
        "linear_gradients",
        "lead * shifted",
        "0 * lead * shifted",
        lambda f: test_linear.check(Case(33, decay=-0.1, lead=-0.5), f),
    ),
    "blocks of a system that are not merged": (
        "delta_kernels",
        "(rows // 2 == columns // 2) & (rows > columns)",
        "(rows // 2 == columns // 2) & (rows > columns + 1)",
        lambda f: test_delta.check(Delta(40), f),
    ),
    "a state that is not replaced": (
        "delta_kernels",
        "value -= tl.dot(tile, state,",
        "value -= 0 * tl.dot(tile, state,",
        lambda f: test_delta.check(Delta(70), f),
    ),
    "no gradient through what a chunk reads of the state": (
        "delta_kernels",
        "slope = tl.dot(-tile, value,",
        "slope = tl.dot(0 * tile, value,",
        lambda f: test_delta.check(Delta(130), f),
    ),
    "half of the gradient of a system": (
        "delta_kernels",
        "both = onward * by[:, None] + back * by[None, :]",
        "both = onward * by[:, None]",
        lambda f: test_delta.check(Delta(33), f),
    ),
    "the own update read": (
        "delta",
        "STRICT=not own",
        "STRICT=False",
        lambda f: test_delta.check(Delta(33, own=False), f),
    ),
    "keys after a query's seen": (
        "block_kernels",
        "last[None, :] <= queries[:, None]",
        "last[None, :] <= queries[:, None] + 1",
        lambda f: test_blocks.check(Lists(33, 33, causal=True), f),
    ),
    "the wrong keys of a block": (
        "block_kernels",
        "+ spots % C.SIZE",
        "+ spots % C.SIZE // 2 * 2",
        lambda f: test_blocks.check(Lists(33, 70), f),
    ),
    "a turn the wrong way in the backward pass": (
        "heads_kernels",
        "one * cos + other * sin, other * cos - one * sin",
        "one * cos - other * sin, other * cos + one * sin",
        lambda f: test_heads.check(Heads(9), f),
    ),
    "the gradient along the head kept": (
        "heads_kernels",
        "one * by[:, None] - y_one * less",
        "one * by[:, None] + 0 * y_one * less",
        lambda f: test_heads.check(Heads(9), f),
    ),
    "features that are not turned back": (
        "features_kernels",
        "other += by_other * cos - by_one * sin",
        "other += by_other * cos + by_one * sin",
        lambda f: test_heads.check_features("elu", Heads(9), f),
    ),
    "the slope of another feature": (
        "features_kernels",
        "by = tl.minimum(phi, 1.0)",
        "by = phi",
        lambda f: test_heads.check_features("elu", Heads(9), f),
    ),
    "the angles of the first sequence for all": (
        "heads",
        "0 if len(cos) == 1 else",
        "0 if len(cos) else",
        lambda f: test_heads.check(Heads(9, batch=2, sequences=2), f),
    ),
    "a part of the readers left out": (
        "block_gradients",
        "tl.where(named < 0, 0, many)",
        "tl.where(named < 0, 0, 1)",
        lambda f: check_split(f),
    ),
    "a bias in the wrong base": (
        "blocks",
        "(bias * LOG2E)",
        "(bias * 1.0)",
        lambda f: test_blocks.check(Lists(33, 33, bias=True), f),
    ),
}


def planted(folder: Path, file: str, right: str, wrong: str) -> ModuleType:
    """The module that a file belongs to, of a copy of the kernels in which `right` was replaced."""
    package = f"faulty{next(COUNT)}"
    (folder / package).mkdir()
    for path in SOURCE.glob("*.py"):
        text = (
            path.read_text("utf-8")
            .replace("genoattn.attention.kernels", package)
            .replace('"genoattn::', f'"{package}::')
        )
        if path.stem == file:
            assert right in text, f"{file}.py no longer holds {right}, where the fault was to be"
            text = text.replace(right, wrong)
        (folder / package / path.name).write_text(text, "utf-8")
    importlib.invalidate_caches()
    return importlib.import_module(f"{package}.{family(file)}")


def family(file: str) -> str:
    """The module with the function that a file's kernels are for."""
    families = {"linear": "linear", "delta": "delta", "block": "blocks", "heads": "heads", "features": "features"}
    return next((module for start, module in families.items() if file.startswith(start)), "flash")


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, right, wrong, check = FAULTS[fault]
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    module = planted(tmp_path, file, right, wrong)
    functions = {
        "linear": "linear_sums",
        "delta": "delta_rule",
        "blocks": "block_attention",
        "flash": "flash_attention",
    }
    functions |= {"heads": "turned_heads", "features": "features"}
    function = getattr(module, functions[family(file)])
    # The interpreter stops where a fault computes with the NaN of padding.
    with pytest.raises((AssertionError, InterpreterError), match=r"off|numerators|assert|invalid value"):
        check(function)


def test_a_copy_without_a_fault_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = planted(tmp_path, "flash_launch", "LOG2E", "LOG2E")
    test_flash.check(EDGE, module.flash_attention)
    test_programs.check_far("tokens", module.flash_attention, pad=True)
    assert module.flash_attention(*[torch.ones(1, 3, 1, 16, device=test_flash.DEVICE)] * 3).shape == (1, 3, 1, 16)
