"""The estimated memory of a run, beside tensors that are counted in another way; and runs that cannot fit."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genoattn.cli.main import main
from genoattn.cli.plan import planned_device
from genoattn.cli.values import model_of, recipe_of, value_of
from genoattn.config.compose import compose
from genoattn.data.datamodule import GenomeDataModule
from genoattn.data.source import open_data_source
from genoattn.errors import UserError
from genoattn.models.build import train_tokenizer
from genoattn.training import memory_estimate
from genoattn.training.loss import loss
from genoattn.training.memory_estimate import MemoryCurve, _state_bytes, check_memory, estimate_memory, parse_size
from genoattn.training.module import SequenceModule
from genoattn.training.trainer import build_training
from tests.toy_genomes import write_genome

pytestmark = pytest.mark.usefixtures("alone")
GIB = 2**30


def prepared(folder: Path, *words: str) -> tuple[SequenceModule, GenomeDataModule]:
    fasta, _ = write_genome(folder, "small", 0, (60_000,))
    config = compose("train", [f"data.fasta={fasta}", "trainer.threads=1", *words])
    task, recipe = value_of(config.task), recipe_of(config)
    source = open_data_source(recipe.data, task, config.seed)
    tokenizer = train_tokenizer(value_of(config.tokenizer), source, config.seed)
    return build_training(model_of(config, "attention", task, tokenizer), source, recipe)


def test_what_a_process_keeps_of_a_model_that_is_shared_out(tmp_path: Path) -> None:
    module, _ = prepared(tmp_path, "data.length=64", "model.depth=2")
    sizes = {name: 4 * weight.numel() for name, weight in module.model.named_parameters()}
    whole, block = sum(sizes.values()), sum(size for name, size in sizes.items() if name.startswith("blocks.0."))
    rest = sum(size for name, size in sizes.items() if not name.startswith("blocks."))
    assert _state_bytes(module, 1) == 4 * whole
    assert _state_bytes(module, 4) == whole + rest + block


@pytest.mark.parametrize("layer", ["linear", "full", "hierarchical"])
def test_what_a_step_keeps_is_counted(layer: str, tmp_path: Path) -> None:
    module, data = prepared(tmp_path, f"attention={layer}", "data.length=512", "data.batch=3")
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    batch = data.training.batch(10**6, 3, data.tokenizer)
    module.train()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        held = loss(module(batch), batch.targets, module.outputs).total
    own = {one.untyped_storage().data_ptr() for one in module.parameters()}
    saved = sum(size for place, size in kept.items() if place not in own)
    held.backward()
    curve = estimate_memory(module, data).training
    predicted = (curve.at(512) - curve.at(0)) / memory_estimate.ALLOCATOR_OVERHEAD
    assert 0.9 * saved < predicted < 2 * saved  # beside what is kept stands what one layer makes on its way


def test_longer_and_more_windows_take_more(tmp_path: Path) -> None:
    sizes = {}
    for length, batch in ((128, 2), (256, 2), (256, 4)):
        words = ("attention=none", f"data.length={length}", f"data.batch={batch}")
        training, forward, _ = estimate_memory(*prepared(tmp_path, *words))
        sizes[length, batch] = training.at(length) - training.at(0)
        assert forward.at(length) < training.at(length)
    assert sizes[256, 2] == pytest.approx(2 * sizes[128, 2], rel=0.4)  # the stem fills up tiles
    assert sizes[256, 4] == pytest.approx(2 * sizes[256, 2], rel=0.01)


@given(st.floats(0, 1e9), st.floats(1, 1e5), st.floats(0, 100), st.floats(1e6, 1e12))
def test_the_longest_window_is_the_last_that_fits(constant: float, linear: float, square: float, most: float) -> None:
    curve = MemoryCurve(constant, linear, square)
    longest = curve.longest(most)
    assert longest == 0 or curve.at(longest) <= most
    assert longest == memory_estimate.MAX_LENGTH or curve.at(longest + 1) > most


@pytest.mark.parametrize(
    ("size", "expected"),
    [("8GiB", 8 * GIB), ("500MB", 500_000_000), ("1000000000", 10**9), ("2 kib", 2048), ("3T", 3 * 10**12)],
)
def test_sizes(size: str, expected: int) -> None:
    assert parse_size(size) == expected


@pytest.mark.parametrize("size", ["much", "-1GiB", "0", "nan", "8XB", ""])
def test_sizes_that_are_none(size: str) -> None:
    with pytest.raises(UserError, match="expected a size such as 8GiB"):
        parse_size(size)


def test_a_run_that_cannot_fit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fasta, _ = write_genome(tmp_path, "small", 0, (60_000,))
    words = ["train", "experiment=smoke", f"data.fasta={fasta}", "control=null", "data.length=512", "data.batch=512"]
    words += ["trainer.threads=1", "model.dim=64"]
    used = GIB // 4  # the memory of this process depends on the tests before
    monkeypatch.setattr(memory_estimate.cost, "current_bytes", lambda _: used)
    monkeypatch.setattr(memory_estimate, "available_bytes", lambda *_: used + 0.3 * GIB)
    assert main([*words, f"hydra.run.dir={tmp_path / 'out'}"]) == 2
    errors = capsys.readouterr().err
    assert "data.length=512 with data.batch=512 is estimated to need" in errors and "would fit" in errors
    assert "trainer.memory_check=false" in errors and not (tmp_path / "out" / "checkpoints").exists()
    fewer = int(errors.partition("data.batch=")[2].partition("data.batch=")[2].split()[0])
    assert 0 < fewer < 512


def test_a_forecast_leaves_a_run_as_it_was(tmp_path: Path) -> None:
    module, data = prepared(tmp_path, "attention=none", "data.length=64", "data.batch=1")
    before = torch.get_rng_state()
    for training in (True, False):
        module.train(training)
        estimate_memory(module, data)
        assert all(one.training == training for one in module.model.modules())
    assert torch.equal(torch.get_rng_state(), before)
    assert all(one.grad is None for one in module.parameters())


def test_activation_checkpointing_is_estimated_to_need_less(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, data = prepared(tmp_path, "attention=none", "data.length=512", "data.batch=512", "model.mlp_ratio=16")
    # The memory of a process of tests grows from one estimate to the next.
    monkeypatch.setattr(memory_estimate.cost, "current_bytes", lambda _: GIB // 4)
    needs = {}
    for mode in ("block", "mlp", "none"):
        for block in module.model.blocks:
            block.activation_checkpointing = mode
        needs[mode] = estimate_memory(module, data).training.at(512)
    assert needs["block"] < 0.9 * needs["mlp"] < 0.9 * needs["none"]
    monkeypatch.setattr(memory_estimate, "available_bytes", lambda *_: GIB // 2)
    with pytest.raises(UserError, match=r"model\.activation_checkpointing=mlp or block needs less"):
        check_memory(module, data, "cpu")


def test_a_layer_of_triton_is_estimated_with_the_operators_of_torch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    curves = []
    for backend in ("torch", "triton"):
        words = ("attention=window", f"attention.backend={backend}", "data.length=64", "data.batch=1")
        with monkeypatch.context() as patch:  # as on a machine with a GPU
            patch.setattr("genoattn.attention.kernels.available", lambda device: (True, ""))
            module, data = prepared(tmp_path, *words)
        training, forward, _ = estimate_memory(module, data)
        curves.append([curve.at(64) - curve.at(0) for curve in (training, forward)])
    assert curves[0] == pytest.approx(curves[1], rel=0.01)


@pytest.mark.parametrize(
    ("files", "left"),
    [
        ({}, float("inf")),
        ({"memory.max": "max", "memory.current": "7"}, float("inf")),
        ({"memory.max": "100", "memory.current": "70", "memory.stat": "anon 50\ninactive_file 20\n"}, 50),
    ],
)
def test_free_memory_of_a_control_group(
    files: dict[str, str], left: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(memory_estimate, "CGROUP", tmp_path)
    assert memory_estimate._cgroup_bytes() == left


def test_a_plan_says_what_it_predicts_and_measures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fasta, _ = write_genome(tmp_path, "small", 0, (60_000,))
    words = [
        "plan",
        "experiment=smoke",
        f"data.fasta={fasta}",
        "control=null",
        "trainer.threads=1",
        "available_memory=2GiB",
    ]
    assert main([*words, "measure=true", "devices=[2,3]", f"hydra.run.dir={tmp_path / 'out'}"]) == 0
    found = json.loads((tmp_path / "out" / "plan.json").read_text())
    said = " ".join(capsys.readouterr().out.split())
    assert "fits into 2.00 GiB" in said
    assert f"planned for {found['device']}; of its memory available_memory=2GiB counts" in said
    assert re.fullmatch(r"the CPU .+ with \d+\.\d GiB", found["device"])
    assert found["predicted"]["longest_length"] > 64 and found["predicted"]["available_bytes"] == 2 * GIB
    rows = {(row["way"], row["devices"]): row for row in found["devices"]}
    shared = ("ddp with sequence_parallel", "fsdp with sequence_parallel")
    assert [*rows] == [
        ("ddp", 2),
        ("fsdp", 2),
        *((way, 2) for way in shared),
        *((way, 3) for way in shared),
    ]  # batch: 16
    assert rows["ddp", 2]["state"] == 16 * found["predicted"]["parameters"] == 2 * rows["fsdp", 2]["state"]
    assert 0 < rows["fsdp", 2]["gathered"] <= 4 * found["predicted"]["parameters"] and not rows["ddp", 2]["gathered"]
    assert rows[shared[0], 3]["activations"] == pytest.approx(rows["ddp", 2]["activations"] * 2 / 3, rel=1e-6)
    figures = ("seconds_per_step", "training_bases_per_second", "forward_bases_per_second", "training_peak_bytes")
    assert all(found["measured"][key] > 0 for key in figures)
    assert (
        found["measured"]["training_peak_bytes"] >= 0.99 * found["measured"]["process_bytes"]
    )  # pages are counted in lots


def test_a_plan_names_the_gpu_that_a_run_would_take(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "NVIDIA H200")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (100 * GIB, 139.8 * GIB))
    assert planned_device(memory_estimate.uses_gpu("auto")) == "the GPU NVIDIA H200 with 139.8 GiB"
    assert planned_device(memory_estimate.uses_gpu("cpu")).startswith("the CPU ")


def test_windows_that_grow_leave_little_behind() -> None:
    """oneDNN keeps a primitive for every length, and the programs limit their number. Bytes of malloc are counted."""
    program = """
import ctypes
from genoattn.cli.main import main
main(["--help"])
import torch
class Mallinfo2(ctypes.Structure):
    _fields_ = [(name, ctypes.c_size_t) for name in
                "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()]
mallinfo2 = ctypes.CDLL(None).mallinfo2
mallinfo2.restype = Mallinfo2
torch.set_num_threads(1)
layer = torch.nn.Conv1d(64, 64, 11, padding=5)
allocated = []
for length in range(1000, 1160):
    layer(torch.randn(1, 64, length, requires_grad=True)).sum().backward()
    memory = mallinfo2()
    allocated.append(memory.uordblks + memory.hblkhd)
print(allocated[-1] - allocated[40])
"""
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert int(output.splitlines()[-1]) < 8 * 2**20  # 4.4 MiB with the limit of 32 primitives, 12.6 MiB with 1,024
