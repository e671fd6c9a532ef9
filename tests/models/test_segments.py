"""Segments and batches of a device, and the peaks of its memory; the GPU is made up."""

import pytest
import torch

from genoattn.data.example import Example
from genoattn.genome.alphabet import encode_bases
from genoattn.models import cost, predictor
from genoattn.models.segments import GPU_BATCH, LONGEST, segments
from genoattn.models.sequence_model import CHUNK, SequenceModel
from genoattn.training.memory_estimate import available_bytes, uses_gpu
from tests.toy_models import MASKED, toy_model

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
GIB = 2**30


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A GPU of 80 GiB of which torch holds 10 and uses 4."""
    memory = {"free": 70 * GIB, "reserved": 10 * GIB, "allocated": 4 * GIB, "peak": 30 * GIB, "resets": 0}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "init", lambda: None)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device=None: (memory["free"], 80 * GIB))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device=None: memory["reserved"])
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device=None: memory["allocated"])
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device=None: memory["peak"])

    def reset(device: torch.device) -> None:
        memory["resets"] += 1
        memory["peak"] = memory["allocated"]

    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    return memory


def test_segments_of_a_device(gpu: dict[str, int]) -> None:
    assert segments(CPU, 64, 32_768, 8_192) == (32_768, CHUNK, 8_192)
    roomy = segments(CUDA, 512, 32_768, 8_192)
    assert roomy.tokens == roomy.above == 2**18 and roomy.batch == GPU_BATCH
    assert segments(CUDA, 64, 32_768, 8_192).tokens == LONGEST
    gpu.update(free=2**20, reserved=0, allocated=0)
    assert segments(CUDA, 512, 32_768, 8_192) == (32_768, CHUNK, 8_192)
    gpu.update(free=2 * GIB, reserved=0, allocated=0)
    narrow = segments(CUDA, 512, 32_768, 8_192)
    assert narrow.tokens == 2**13 and narrow.above == 32_768, "short windows are computed in one piece as on a CPU"
    assert narrow.tokens * 512 * 128 <= 2 * GIB / 4


def test_a_long_window_is_computed_in_the_segments_of_its_device(monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = []
    real = SequenceModel.forward_chunked

    def chunked(self, *given, chunk: int):
        chunks.append(chunk)
        return real(self, *given, chunk=chunk)

    monkeypatch.setattr(SequenceModel, "forward_chunked", chunked)
    monkeypatch.setattr(predictor, "CHUNKED_ABOVE", 30)
    model = toy_model(MASKED).predictor
    examples = [Example(encode_bases("ACGT" * 10), None, {}, ())]
    (_, short), *_ = model.logits(examples)
    monkeypatch.setattr(predictor, "segments", lambda *_: predictor.Segments(40, 16, 64))
    (_, long), *_ = model.logits(examples)
    monkeypatch.setattr(predictor, "segments", lambda *_: predictor.Segments(41, 16, 64))
    (_, whole), *_ = model.logits(examples)
    assert chunks == [CHUNK, 16]
    for name in whole:
        assert torch.allclose(short[name], whole[name], atol=1e-5) and torch.allclose(
            long[name], whole[name], atol=1e-5
        )


def test_the_peak_of_a_gpu_starts_again(gpu: dict[str, int]) -> None:
    assert cost.peak_bytes(CUDA) == 30 * GIB and cost.current_bytes(CUDA) == 4 * GIB
    cost.reset_peak(CUDA)
    assert gpu["resets"] == 1 and cost.peak_bytes(CUDA) == 4 * GIB


def test_a_plan_is_for_the_free_memory_of_the_gpu(gpu: dict[str, int]) -> None:
    assert uses_gpu("auto") and uses_gpu("gpu") and not uses_gpu("cpu")
    assert available_bytes(True) == 70 * GIB
