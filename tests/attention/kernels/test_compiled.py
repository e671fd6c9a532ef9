"""Kernels compiled for GPUs that are not here: no spills, tensor cores, 64-bit offsets, and no worse than they were."""

import importlib
from pathlib import Path

import pytest
import triton

import genoattn.attention.kernels
from genoattn.attention.kernels.ahead_of_time import baseline as gate
from genoattn.attention.kernels.ahead_of_time import shipped
from genoattn.attention.kernels.ahead_of_time.compile import SHARED_LIMIT, Statistics, compile_start, statistics
from genoattn.attention.kernels.ahead_of_time.shipped import Configuration
from genoattn.errors import UserError

SMALL = Configuration("sm_80", "flash", "bfloat16", 64, "full")


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing comes from a cache, which would hide what a change of the compiler does."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))


def test_there_is_a_baseline_for_this_triton() -> None:
    known = gate.read()
    assert known, f"no baseline for triton {triton.__version__}: genoattn kernels all=true update=true makes one"
    assert {str(one) for one in shipped.tested()} <= set(known)


def test_few_enough_are_compiled_here() -> None:
    assert sum(len(shipped.starts(one)) for one in shipped.tested()) <= 100


@pytest.mark.parametrize("configuration", list(shipped.tested()), ids=str)
def test_what_the_compiler_says(configuration: Configuration) -> None:
    known = gate.read().get(str(configuration), {})
    found = gate.measured(configuration)
    said = [line for name, row in found.items() for line in gate.complaints(configuration, name, row, known.get(name))]
    assert not said, "\n".join(said)
    assert set(found) == set(known)


def test_no_configuration_of_the_baseline_spills_on_nvidia() -> None:
    """What is compiled by `genoattn kernels all=true` alone is held here to what it was."""
    for configuration in shipped.every():
        for kernel, row in gate.read().get(str(configuration), {}).items():
            assert not gate.complaints(configuration, kernel, row, row)


GOOD = Statistics(200, 0, 65536, 64, 16, 1, 0)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"spills": 4}, "spills 4 bytes"),
        ({"tensor_cores": 0}, "without tensor cores"),
        ({"shared": SHARED_LIMIT["sm_80"] + 1}, "bytes of shared memory"),
        ({"asynchronous": 15}, "copies 15 times without waiting, it was 16"),
        ({"narrow_offsets": 1}, "by 32 bits"),
        ({"registers": 255, "resident": 2}, None),
    ],
)
def test_what_the_gate_complains_of(change: dict[str, int], sentence: str | None) -> None:
    said = gate.complaints(SMALL, "dq", GOOD._replace(**change), GOOD)
    assert [sentence is not None and sentence in line for line in said] == [True] * (sentence is not None)


def test_what_the_gate_knows_by_itself() -> None:
    assert not gate.complaints(SMALL, "delta", GOOD._replace(tensor_cores=0), None)
    amd = SMALL._replace(family="gfx942")
    assert not gate.complaints(amd, "dq", GOOD._replace(spills=9, shared=1), GOOD._replace(spills=9))
    assert gate.complaints(amd, "dq", GOOD._replace(spills=10, shared=1), GOOD._replace(spills=9))


def said_of(start, hints: bool = True) -> list[str]:
    """What the gate says of the forward kernel of SMALL as it is started here."""
    found = statistics(compile_start(start, SMALL.family, hints), SMALL.family)
    return gate.complaints(SMALL, "forward", found, gate.read()[str(SMALL)]["forward"])


FAULTS = {
    "an offset of 32 bits": (
        "tiles", "offsets = rows.to(tl.int64)[:, None] * strides[1]", "offsets = rows[:, None] * strides[1]", "32 bits"
    ),
    "strides without a hint of what divides them": (
        "flash_forward", '["left", "right"]', '["left", "right", "k_strides", "v_strides"]', "copies",
    ),
    "too many queries in a tile": (
        "configurations", "64: Tiles(128, 128, 8, 3)", "64: Tiles(128, 128, 4, 3)", "spills",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_planted_fault_is_caught(fault: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, right, wrong, sentence = FAULTS[fault]
    package = "planted_" + fault.replace(" ", "_")
    source = Path(genoattn.attention.kernels.__file__).parent
    for path in source.rglob("*.py"):
        text = (
            path.read_text("utf-8")
            .replace("genoattn.attention.kernels", package)
            .replace('"genoattn::', f'"{package}::')
        )
        if path.stem == file:
            assert right in text, f"{file}.py no longer holds {right}, where the fault was to be"
            text = text.replace(right, wrong)
        copy = tmp_path / package / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    there = importlib.import_module(f"{package}.ahead_of_time.shipped")
    said = said_of(there.labelled(there.Configuration(*SMALL))["forward"])
    assert any(sentence in line for line in said), said


def test_hints_that_are_not_given_are_missed() -> None:
    said = said_of(shipped.labelled(SMALL)["forward"], hints=False)
    assert any("copies" in line for line in said), said


def test_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    from genoattn.attention.kernels.ahead_of_time import report as table

    monkeypatch.setenv("COLUMNS", "160")
    assert table.show(False, "sm_86", False) == 0
    said = capsys.readouterr().out
    assert "sm_86 flash bfloat16 128 causal forward" in said and "nothing to complain of" in said
    with pytest.raises(UserError, match="family must be one of"):
        table.show(False, "sm_12", False)
