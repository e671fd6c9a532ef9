"""Kernels compiled for GPUs that are not present: no spills, tensor cores, 64-bit offsets, no regressions."""

import importlib
from pathlib import Path

import pytest
import triton

import genoattn.attention.kernels
from genoattn.attention.kernels.ahead_of_time import baseline, shipped
from genoattn.attention.kernels.ahead_of_time.compile import SHARED_LIMIT, Statistics, compile_launch, statistics
from genoattn.attention.kernels.ahead_of_time.shipped import Configuration
from genoattn.errors import UserError

SMALL = Configuration("sm_80", "flash", "bfloat16", 64, "full")


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty cache, because cached kernels would hide the effect of a change of the compiler."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))


def test_there_is_a_baseline_for_this_triton() -> None:
    known = baseline.read()
    assert known, f"no baseline for triton {triton.__version__}: genoattn kernels all=true update=true makes one"
    assert {str(configuration) for configuration in shipped.tested()} <= set(known)


def test_few_enough_are_compiled_here() -> None:
    assert sum(len(shipped.launches(configuration)) for configuration in shipped.tested()) <= 61


@pytest.mark.parametrize("configuration", list(shipped.tested()), ids=str)
def test_kernels_are_as_good_as_the_baseline(configuration: Configuration) -> None:
    known = baseline.read().get(str(configuration), {})
    current = baseline.measured(configuration)
    faults = []
    for name, row in current.items():
        faults += baseline.regressions(configuration, name, row, known.get(name))
    assert not faults, "\n".join(faults)
    assert set(current) == set(known)


def test_no_configuration_of_the_baseline_spills_on_nvidia() -> None:
    """Only `genoattn kernels all=true` compiles all configurations; here their recorded statistics are checked."""
    for configuration in shipped.configurations():
        for kernel, row in baseline.read().get(str(configuration), {}).items():
            assert not baseline.regressions(configuration, kernel, row, row)


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
def test_regressions(change: dict[str, int], sentence: str | None) -> None:
    faults = baseline.regressions(SMALL, "dq", GOOD._replace(**change), GOOD)
    assert [sentence is not None and sentence in line for line in faults] == [True] * (sentence is not None)


def test_exceptions_of_the_regressions() -> None:
    assert not baseline.regressions(SMALL, "delta", GOOD._replace(tensor_cores=0), None)
    amd = SMALL._replace(family="gfx942")
    assert not baseline.regressions(amd, "dq", GOOD._replace(spills=9, shared=1), GOOD._replace(spills=9))
    assert baseline.regressions(amd, "dq", GOOD._replace(spills=10, shared=1), GOOD._replace(spills=9))


def faults_of(recorded, hints: bool = True) -> list[str]:
    """Regressions of a launch of the forward kernel of SMALL."""
    current = statistics(compile_launch(recorded, SMALL.family, hints), SMALL.family)
    return baseline.regressions(SMALL, "forward", current, baseline.read()[str(SMALL)]["forward"])


FAULTS = {
    "an offset of 32 bits": (
        "tiles",
        "offsets = rows.to(tl.int64)[:, None] * strides[1]",
        "offsets = rows[:, None] * strides[1]",
        "32 bits",
    ),
    "strides without a hint of what divides them": (
        "flash_forward",
        '["left", "right", "before"]',
        '["left", "right", "before", "strides"]',
        "copies",
    ),
    "too many queries in a tile": (
        "configurations",
        "64: Tiles(128, 128, 8, 3)",
        "64: Tiles(128, 128, 4, 3)",
        "spills",
    ),
}


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
            assert right in text, f"{file}.py no longer holds {right}, which the fault replaces"
            text = text.replace(right, wrong)
        copy = tmp_path / package / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_text(text, "utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    planted = importlib.import_module(f"{package}.ahead_of_time.shipped")
    faults = faults_of(planted.labelled(planted.Configuration(*SMALL))["forward"])
    assert any(sentence in line for line in faults), faults


def test_missing_hints_are_a_regression() -> None:
    faults = faults_of(shipped.labelled(SMALL)["forward"], hints=False)
    assert any("copies" in line for line in faults), faults


def test_the_table(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    from genoattn.attention.kernels.ahead_of_time import report as table

    monkeypatch.setenv("COLUMNS", "160")
    recorded = baseline.read()
    monkeypatch.setattr(baseline, "measured", lambda configuration: recorded[str(configuration)])
    assert table.show(False, "sm_86", False) == 0
    output = capsys.readouterr().out
    assert "sm_86 linear float32 32 decay" in output and "no regressions" in output
    worse = {name: row._replace(spills=8) for name, row in recorded["sm_86 linear float32 32 decay"].items()}
    monkeypatch.setattr(baseline, "measured", lambda _: worse)
    assert table.show(False, "sm_86", False) == len(worse)
    assert "spills 8 bytes" in " ".join(capsys.readouterr().out.split())
    with pytest.raises(UserError, match="family must be one of"):
        table.show(False, "sm_12", False)


def test_a_baseline_that_is_broken_off_keeps_what_was_compiled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from genoattn.attention.kernels.ahead_of_time import report as table

    recorded, first = baseline.read(), next(shipped.tested())

    def measured(configuration: Configuration) -> dict[str, Statistics]:
        if configuration != first:
            raise KeyboardInterrupt
        return recorded[str(configuration)]

    monkeypatch.setattr(baseline, "BASELINE", tmp_path / "baseline.json")
    monkeypatch.setattr(baseline, "measured", measured)
    with pytest.raises(KeyboardInterrupt):
        table.show(False, None, True)
    assert baseline.read() == {str(first): recorded[str(first)]}
