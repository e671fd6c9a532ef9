"""Layers by the kernels answer, learn and train as they do by torch, and say which of them it is."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from genoattn.attention.base import Attention, TokenLayout
from genoattn.attention.delta import DeltaAttention
from genoattn.attention.full import FullAttention
from genoattn.attention.hierarchical import HierarchicalAttention
from genoattn.attention.linear import LinearAttention
from genoattn.attention.modules.projections import HeadOptions
from genoattn.attention.ops import triton as by_triton
from genoattn.attention.ops.hierarchical_cells import cells_of
from genoattn.attention.sparse import SparseAttention
from genoattn.attention.ssd import StateSpaceAttention
from genoattn.attention.window import WindowAttention
from genoattn.cli.main import main
from genoattn.errors import UserError
from genoattn.models.sequence_model import SequenceModel
from tests.attention.kernels.references import DEVICE
from tests.training.quick import leave_out_evaluation

TWO = HeadOptions(count=2)
PLAIN, CROSS = replace(TWO, positions="none"), replace(TWO, cross_segment=0.5)
ALIBI = replace(TWO, positions="alibi")
ELU = partial(LinearAttention, features="elu", key_dim=None, decay=False)
LAYERS: dict[str, tuple[str, Callable[..., Attention]]] = {
    "full": ("softmax_attention", partial(FullAttention, heads=CROSS)),
    "window": ("window_attention", partial(WindowAttention, left=20, right=9, heads=CROSS)),
    "window, dilated": ("window_attention", partial(WindowAttention, left=5, right=3, dilation=3, heads=CROSS)),
    "window, global": ("window_attention", partial(WindowAttention, left=4, right=3, global_tokens=5, heads=CROSS)),
    "window, alibi": (
        "window_attention",
        partial(WindowAttention, left=9, right=3, heads=replace(TWO, positions="alibi")),
    ),
    "full, sink": ("softmax_attention", partial(FullAttention, heads=TWO, kv_heads=1, sink=True)),
    "window, registers": (
        "window_attention",
        partial(WindowAttention, left=20, right=9, heads=CROSS, sink=True, registers=2, global_tokens=3),
    ),
    "linear": ("linear_attention", partial(ELU, heads=CROSS)),
    "linear, not turned": ("linear_attention", partial(ELU, heads=PLAIN, features="relu")),
    "linear, signed": ("linear_attention", partial(LinearAttention, heads=CROSS, key_dim=24)),
    "linear, fading": ("linear_attention", partial(ELU, heads=CROSS, decay=True)),
    "linear, taylor": ("linear_attention", partial(LinearAttention, heads=CROSS, features="taylor", key_dim=8)),
    "ssd": ("state_space_scan", partial(StateSpaceAttention, heads=CROSS, state=24)),
    "delta": ("delta_rule", partial(DeltaAttention, heads=CROSS)),
    "sparse": ("sparse_attention", partial(SparseAttention, block_size=16, blocks_per_query=3, heads=TWO)),
    "sparse, across": ("sparse_attention", partial(SparseAttention, block_size=16, blocks_per_query=4, heads=CROSS)),
    "hierarchical": ("hierarchical_attention", partial(HierarchicalAttention, heads=TWO)),
    "hierarchical, across": (
        "hierarchical_attention",
        partial(HierarchicalAttention, heads=replace(CROSS, positions="none")),
    ),
}


TURNS = ("window", "linear", "linear, signed", "linear, fading", "ssd", "delta")


@pytest.mark.parametrize(
    ("name", "causal"),
    [
        *((name, at % 2 == 0) for at, name in enumerate(LAYERS)),
        ("full", False),
        ("linear", False),
        ("linear, signed", False),
        ("ssd", False),
        ("delta", True),
    ],
)
def test_a_layer_is_the_same_by_the_kernel(name: str, causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    function, factory = LAYERS[name]
    calls, inner = [], getattr(by_triton, function)
    monkeypatch.setattr(by_triton, function, lambda *given, **words: calls.append(1) or inner(*given, **words))
    torch.manual_seed(0)
    # The last block is cut.
    batch, length = {"sparse": (1, 70), "hierarchical": (1, 44)}.get(name.split(",")[0], (2, 44))
    x, padding_mask = torch.randn(batch, length, 32, device=DEVICE), torch.rand(batch, length, device=DEVICE) > 0.2
    index = torch.arange(length, device=DEVICE).expand(batch, -1)
    turns = name in TURNS or (name, causal) == ("full", False)  # segments in turn, or one after another
    layout = TokenLayout(padding_mask, segment_ids=index % 2 if turns else index // 20)
    up, found = torch.randn_like(x), []
    for backend in ("torch", "triton"):
        torch.manual_seed(1)
        layer = factory(32, causal, backend=backend).to(DEVICE)
        some = x.clone().requires_grad_()
        y = layer(some, layout)
        found.append([y, *torch.autograd.grad(y, [some, *layer.parameters()], up)])
        assert bool(calls) == (backend == "triton")
    for slow, fast in zip(*([t.detach() for t in some] for some in found), strict=True):
        assert (slow - fast).abs().max() <= 2e-5 * max(1.0, float(slow.abs().max()))


def test_hierarchical_without_padding_after_a_validation() -> None:
    """The tables of a length are made once, here where no gradient is wanted, and serve a training step."""
    cells_of.cache_clear()
    torch.manual_seed(0)
    x, found = torch.randn(2, 40, 32, device=DEVICE), []
    up = torch.randn_like(x)
    for backend in ("torch", "triton"):
        torch.manual_seed(1)
        layer = HierarchicalAttention(32, False, TWO, backend=backend).to(DEVICE)
        with torch.inference_mode():
            layer(x)
        some = x.clone().requires_grad_()
        y = layer(some)
        found.append([y, *torch.autograd.grad(y, [some, *layer.parameters()], up)])
    assert cells_of.cache_info().misses == 1
    for slow, fast in zip(*([t.detach() for t in some] for some in found), strict=True):
        assert (slow - fast).abs().max() <= 2e-5 * max(1.0, float(slow.abs().max()))


def losses(factory: Callable[..., Attention], causal: bool) -> list[float]:
    """Losses of two steps of a tiny model on sequences with padding."""
    torch.manual_seed(0)
    model = SequenceModel(4, {"kind": 3}, None, factory, dim=16, depth=1, causal=causal).to(DEVICE)
    ids, wanted = torch.randint(4, (2, 24)).to(DEVICE), torch.randint(3, (2, 24)).to(DEVICE)
    padding_mask = torch.ones(2, 24, dtype=torch.bool, device=DEVICE)
    padding_mask[1, 18:] = False
    layout = TokenLayout(padding_mask=padding_mask, segment_ids=(torch.arange(24) // 12).expand(2, -1).to(DEVICE))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    found = []
    for _ in range(2):
        loss = F.cross_entropy(model(ids, layout=layout)["kind"][padding_mask], wanted[padding_mask])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


def test_the_loss_curve_is_that_of_torch() -> None:
    torchs, tritons = (
        losses(partial(FullAttention, heads=CROSS, backend=backend), True) for backend in ("torch", "triton")
    )
    assert tritons == pytest.approx(torchs, rel=2e-5)
    assert torchs[1] < torchs[0]


@pytest.mark.parametrize(
    ("factory", "settings", "words"),
    [
        (
            LinearAttention,
            {"features": "taylor", "key_dim": 32},
            "attention.backend=triton: the kernel knows no heads of 561 features",
        ),
        (SparseAttention, {"block_size": 24}, "attention.backend=triton: the kernel knows blocks of 16, 32, 64 tokens"),
        (FullAttention, {}, "attention.backend must be one of auto, torch, triton, flex, varlen, got cuda"),
    ],
)
def test_what_a_kernel_cannot_do_is_refused(factory: Callable[..., Any], settings: dict, words: str) -> None:
    backend = "triton" if settings else "cuda"
    with pytest.raises(UserError, match=words):
        factory(32, False, backend=backend, **settings)


def test_what_the_kernels_cannot_do_is_torchs() -> None:
    wide = torch.zeros(1, 3, 2 * 136, device=DEVICE)
    layer = FullAttention(2 * 136, False, heads=TWO, backend="auto").to(DEVICE)
    assert not layer.engine.uses_triton(layer.heads.project(wide)[0])
    assert not layer.engine.uses_triton(torch.zeros(1, 3, 2, 16, dtype=torch.float64, device=DEVICE))
    assert layer.engine.uses_triton(torch.zeros(1, 3, 2, 16, device=DEVICE))
    assert layer(wide).shape == wide.shape
    assert layer.describe_backend(DEVICE).startswith("torch, which computes the same: the kernels know no heads of 136")
    assert FullAttention(32, False, heads=TWO, backend="auto").describe_backend(DEVICE).startswith("triton: ")


@pytest.mark.skipif(DEVICE.type == "cuda", reason="the trainer would take the GPU")
def test_a_run_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("GENOATTN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.argv", ["genoattn"])
    (tmp_path / "small.fa").write_text(">one\n" + "ACGTTGCA" * 200 + "\n")
    leave_out_evaluation(monkeypatch)
    words = ["attention=full", "heads=default", "heads.count=1", "attention.backend=triton", "experiment=smoke"]
    words += ["control=null", f"data.fasta={tmp_path / 'small.fa'}", "trainer.max_steps=1", "trainer.accelerator=cpu"]
    words += ["trainer.memory_check=false", "data.length=16", "data.batch=1", "data.validation_windows=1"]
    words += [
        "data.max_leak=null",
        "model.dim=16",
        "model.depth=1",
        "reverse_complement=none",
        f"hydra.run.dir={tmp_path / 'run'}",
    ]
    assert main(["train", *words]) == 0
    assert "FullAttention (triton, as requested) on cpu" in capsys.readouterr().out
