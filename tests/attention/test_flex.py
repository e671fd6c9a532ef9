"""Windows by FlexAttention, which the CPU computes without its compiler, answer as torch's operators do."""

from typing import Any

import pytest
import torch

from genoattn.attention.modules.head_options import HeadOptions
from genoattn.attention.ops import flex
from genoattn.attention.ops.beside import Beside
from genoattn.attention.ops.sliding_window import window_attention
from genoattn.attention.window import WindowAttention
from genoattn.errors import UserError

LENGTH = 23
REAL = (torch.arange(LENGTH) < torch.tensor([[23], [17]])) & (torch.arange(LENGTH) != 4)
CASES: dict[str, dict[str, Any]] = {
    "plain": {"left": 4, "right": 2},
    "dilated": {"left": 2, "right": 3, "dilation": 3, "padding_mask": REAL},
    "global": {"left": 3, "right": 2, "global_tokens": 4, "padding_mask": REAL},
    "causal and global": {"left": 3, "right": 0, "causal": True, "global_tokens": 4},
    "alibi": {"left": 5, "right": 5, "slopes": torch.tensor([0.5, 0.1])},
    "from a cache": {"left": 5, "right": 0, "causal": True, "before": 9, "slopes": torch.tensor([0.5, 0.1])},
    "keys": {"left": 4, "right": 4, "padding_mask": REAL, "key_mask": REAL & (torch.arange(LENGTH) % 3 > 0)},
}


@pytest.mark.filterwarnings("ignore:.*flex_attention.*")
@pytest.mark.parametrize("name", CASES)
def test_a_window_is_the_same(name: str) -> None:
    words = {"causal": False, **CASES[name]}
    draw = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, LENGTH, heads, 16, generator=draw) for heads in (2, 1, 1))
    q = q[:, words.get("before", 0) :]
    beside = Beside(torch.randn(*q.shape[:3], generator=draw)) if name in ("plain", "global") else None
    right = window_attention(q, k, v, beside=beside, **words)
    assert (flex.window_attention(q, k, v, beside=beside, **words) - right).abs().max() < 2e-6


@pytest.mark.filterwarnings("ignore:.*flex_attention.*")
def test_other_segments_alone_are_seen() -> None:
    q, k, v = (torch.randn(1, LENGTH, 2, 16, generator=torch.Generator().manual_seed(at)) for at in range(3))
    ids = torch.arange(LENGTH)[None] % 3
    y = flex.window_attention(q, k, v, left=5, right=5, causal=False, segments=(ids, ids))
    parts = [
        window_attention(q, k, v, left=5, right=5, causal=False, padding_mask=ids == own, key_mask=ids != own)
        for own in range(3)
    ]
    assert (y - sum(parts)).abs().max() < 2e-6


def test_flex_is_for_windows_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="backend=flex: FlexAttention needs a GPU to train and there is none"):
        WindowAttention(32, False, backend="flex")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    layer = WindowAttention(32, False, HeadOptions(count=2), backend="flex")
    assert layer.describe_backend(torch.device("cuda")) == "flex, as requested"
    assert not layer.engine.uses_flex(torch.zeros(1, 3, 2, 16))  # as in the memory estimate of a run
    assert layer(torch.zeros(1, 3, 32)).shape == (1, 3, 32)
