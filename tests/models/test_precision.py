"""The numbers in which a model answers: by its device or its training, and never narrower at its heads."""

import copy
from types import SimpleNamespace

import pytest
import torch

from genoattn.attention.window import WindowAttention
from genoattn.models.precision import autocast_of, fast_dtype
from genoattn.models.sequence_model import SequenceModel
from genoattn.training.settings import TrainerSettings
from genoattn.training.trainer import build_trainer, precision_of

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def model() -> SequenceModel:
    torch.manual_seed(0)
    return SequenceModel(4, {"kind": 3}, None, WindowAttention, dim=32, depth=2, sequence_heads={"class": 2}).eval()


@pytest.mark.parametrize(("capability", "dtype"), [((9, 0), torch.bfloat16), ((8, 0), torch.bfloat16), ((7, 5), None)])
def test_auto_is_bfloat16_where_a_gpu_is_fast_in_it(
    capability: tuple[int, int], dtype: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert fast_dtype(CUDA) == dtype and fast_dtype(CPU) is None
    monkeypatch.setattr("genoattn.training.trainer.uses_gpu", lambda accelerator: accelerator != "cpu")
    assert precision_of(TrainerSettings()) == ("bf16-mixed" if dtype else "32-true")
    assert precision_of(TrainerSettings(accelerator="cpu")) == "32-true"
    assert precision_of(TrainerSettings(precision="16-mixed")) == "16-mixed"


@pytest.mark.parametrize(("precision", "products"), [("auto", "high"), ("bf16-mixed", "highest")])
def test_tf32_is_set_with_auto_alone(precision: str, products: str, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr("genoattn.training.trainer.uses_gpu", lambda accelerator: True)
    made = []
    monkeypatch.setattr("genoattn.training.trainer.Trainer", lambda **words: made.append(words) or SimpleNamespace())
    try:
        build_trainer(TrainerSettings(precision=precision), tmp_path, [], [])  # type: ignore[arg-type]
        assert torch.get_float32_matmul_precision() == products and made[0]["precision"] == "bf16-mixed"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_autocast_is_for_a_model_that_is_not_in_training() -> None:
    network = model()
    ids = torch.randint(4, (2, 40))
    with autocast_of(network):
        assert not torch.is_autocast_enabled("cpu")
    network.autocast_dtype = torch.bfloat16
    with autocast_of(network):
        assert torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
        double = copy.deepcopy(network).double()(ids)
    with autocast_of(network.train()):
        assert not torch.is_autocast_enabled("cpu")
    assert torch.equal(double["kind"], copy.deepcopy(network).double().eval()(ids)["kind"])


def test_a_model_under_autocast_whole_and_in_chunks() -> None:
    """Logits are float32, near those without autocast, and the same in chunks."""
    network = model()
    ids = torch.randint(4, (1, 90))
    with torch.no_grad():
        right = network(ids)
        network.autocast_dtype = torch.bfloat16
        with autocast_of(network):
            whole, chunked = network(ids), network.forward_chunked(ids, chunk=32)
    for name, expected in right.items():
        assert whole[name].dtype == torch.float32
        assert 0 < (whole[name] - expected).norm() < 0.02 * expected.norm()
        assert (chunked[name] - expected).norm() < 0.02 * expected.norm()
