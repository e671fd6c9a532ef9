"""attention=flash by the kernel trains as it does by torch, and says which of them it is."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from references import DEVICE

from genoattn.attention.base import Layout
from genoattn.attention.flash import FlashAttention
from genoattn.attention.full import FullAttention
from genoattn.cli import main
from genoattn.model import SequenceModel


def losses(backend: str, causal: bool) -> list[float]:
    """Of three steps of a tiny model on sequences with padding, one head of two for the other segment."""
    torch.manual_seed(0)

    def layer(dim: int, causal: bool) -> FlashAttention:
        return FlashAttention(dim, causal, heads=2, cross=0.5, backend=backend)

    model = SequenceModel(4, {"kind": 3}, None, layer, dim=16, depth=1, causal=causal).to(DEVICE)
    ids, wanted = torch.randint(4, (2, 40)).to(DEVICE), torch.randint(3, (2, 40)).to(DEVICE)
    keep = torch.ones(2, 40, dtype=torch.bool, device=DEVICE)
    keep[1, 30:] = False
    layout = Layout(keep=keep, segments=(torch.arange(40) // 20).expand(2, -1).to(DEVICE))
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    found = []
    for _ in range(3):
        loss = F.cross_entropy(model(ids, layout=layout)["kind"][keep], wanted[keep])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        found.append(loss.item())
    return found


@pytest.mark.parametrize("causal", [False, True])
def test_the_loss_curve_is_that_of_torch(causal: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    torchs = losses("torch", causal)
    calls = []
    from genoattn.attention import flash

    inner = flash.triton_attention
    monkeypatch.setattr(flash, "triton_attention", lambda *given, **words: calls.append(1) or inner(*given, **words))
    assert losses("triton", causal) == pytest.approx(torchs, rel=2e-5)
    assert len(calls) == 6 and torchs[2] < torchs[0]


def test_flash_is_full_attention() -> None:
    torch.manual_seed(0)
    full, flash = FullAttention(32, False).to(DEVICE), FlashAttention(32, False).to(DEVICE)
    flash.load_state_dict(full.state_dict())
    x = torch.randn(2, 33, 32, device=DEVICE)
    assert torch.allclose(full(x), flash(x), atol=1e-5)
    assert flash.backend(DEVICE).startswith("triton: ")


def test_what_the_kernels_cannot_do_is_torchs() -> None:
    wide = torch.zeros(1, 3, 2 * 136, device=DEVICE)
    layer = FlashAttention(2 * 136, False, heads=2).to(DEVICE)
    assert not layer._by_triton(layer.heads.split(wide)[0])
    assert not layer._by_triton(torch.zeros(1, 3, 2, 16, dtype=torch.float64, device=DEVICE))
    assert layer(wide).shape == wide.shape


@pytest.mark.skipif(DEVICE.type == "cuda", reason="the trainer would take the GPU")
def test_a_run_says_which(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setenv("GENOATTN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("sys.argv", ["genoattn"])
    (tmp_path / "small.fa").write_text(">one\n" + "ACGTTGCA" * 200 + "\n")
    words = ["attention=flash", "attention.heads=1", "attention.backend=triton", "experiment=smoke", "control=null"]
    words += [f"data.fasta={tmp_path / 'small.fa'}", "trainer.max_steps=1", "trainer.accelerator=cpu"]
    words += ["data.length=16", "data.batch=1", "data.validation_windows=2", "test.windows=2", "rc=none"]
    words += ["test.threshold_windows=2", "test.resamples=1", f"hydra.run.dir={tmp_path / 'run'}"]
    assert main(["train", *words]) == 0
    assert "FlashAttention (triton, as asked) on cpu" in capsys.readouterr().out
