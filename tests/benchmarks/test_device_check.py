"""The check of a GPU: a dry run of all of it, what an error of a case or a dead process leaves, and its clock."""

import os
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from benchmarks.gpu import check, clock, sweep
from benchmarks.gpu.__main__ import BESIDE, PARTS, TIMED, run
from benchmarks.gpu.candidates import Candidate
from benchmarks.gpu.record import Cut, Part, bad, read_rows, write_row

CHECKOUT = Path(__file__).parents[2]
REFUSE = {"SDPA cuDNN", "varlen", "FlexAttention"}
"""Contenders that a CPU does not know, whole or in part."""


def test_dry_run(tmp_path: Path) -> None:
    """Every part runs on tiny shapes and writes what it found; nothing is wrong, nothing is cut."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST_", "TRITON_"))}
    ended = subprocess.run(
        ["bash", str(CHECKOUT / "benchmarks" / "device_check.sh"), str(tmp_path)],
        env=inherited | {"GENOATTN_DRY": "1", "PYTHON": sys.executable, "GENOATTN_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    rows = read_rows(tmp_path / "rows.jsonl")
    assert {row["part"] for row in rows} == {"machine", *PARTS, *BESIDE} and not bad(rows)
    assert not [row for row in rows if "cut" in row]
    assert {row["case"]["by"] for row in rows if row["part"] == "bench" and "refused" in row} == REFUSE
    for part in ("tests", "correct", "bench", "train", "whole"):
        assert any(row.get("good") for row in rows if row["part"] == part), part
    kinds = {row["case"]["kind"] for row in rows if row["part"] == "correct"}
    assert kinds == {"softmax", "linear", "blocks", "tiles", "layer", "packed", "huge"}
    tried = [row["case"]["tiles"] for row in rows if row["part"] == "tune"]
    assert tried[0] == "ships" and len(tried) > 1, "a candidate that was found right is timed"
    assert all("tokens_per_second" in row for row in rows if row["part"] == "speed")
    assert "correct: 6 right, 1 refused" in ended.stdout


def test_time() -> None:
    """All parts together end before ten minutes, with a start of each and a last case that is killed."""
    assert sum(plan.seconds + 1 for plan in PARTS.values()) + check.GRACE <= 590
    # Nothing runs beside what is timed.
    before = [plan.seconds for plan in PARTS.values()][: list(PARTS).index(TIMED)]
    assert all(plan.seconds + check.GRACE <= sum(before) for plan in BESIDE.values()), (
        "nothing runs beside what is timed"
    )


def test_only_candidates_that_were_right_both_ways_are_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiles = {"fast": (64, 64, 4, 3), "wrong": (128, 64, 4, 3), "cut": (64, 128, 4, 3)}
    asked = [Candidate("dq", 64, one, edge) for one in tiles.values() for edge in (True, False)]
    monkeypatch.setattr(sweep.candidates, "every", lambda: iter(asked))
    monkeypatch.setattr(sweep, "kernel_time", lambda *_: {"ms": 1.0})
    out = tmp_path / "rows.jsonl"
    for one in asked[:5]:
        row = {"part": "correct", "case": one.labels(), "good": one.tiles != tiles["wrong"] or one.edge}
        write_row(out, row)
    sweep.run(Part("tune", out, 60))
    timed = {(row["case"]["mode"], str(row["case"]["tiles"])) for row in read_rows(out) if row["part"] == "tune"}
    assert timed == {(mode.name, one) for mode in sweep.MODES for one in ("ships", "[64, 64, 4, 3]")}


class CompilationError(Exception):
    """An error as Triton's, which is no RuntimeError."""


def fails() -> dict:
    raise CompilationError("no\nmore")


def test_an_error_of_a_case_loses_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.gpu.record.answers", lambda: True)
    out = tmp_path / "rows.jsonl"
    part = Part("bench", out, 60)
    assert part.case(lambda: {"good": True}, at=1)
    part.case(fails, at=2)
    part.case(lambda: {"good": False}, at=3)
    part.case(lambda: {"refused": "knows no window", "optional": True}, at=4)
    rows = read_rows(out)
    assert [row["case"]["at"] for row in rows] == [1, 2, 3, 4] and rows[1]["error"] == "CompilationError: no"
    assert [row["case"]["at"] for row in bad(rows)] == [2, 3]
    assert not part.begun.exists()
    again = Part("bench", out, 60)
    assert again.case(fails, at=1) is None, "a case that was done is not repeated"
    lines = check.summary(rows)
    assert lines[0] == "bench: 2 wrong, 1 right, 1 refused" and lines[1].startswith(
        "WRONG part=bench at=2 error=Compil"
    )


def test_no_time_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "rows.jsonl"
    with pytest.raises(Cut):
        Part("bench", out, 0).case(fails)
    run("tune", out, 0.0)
    assert read_rows(out) == [{"part": "tune", "worker": 0, "cut": "after 0 s"}]
    monkeypatch.setattr(sweep, "run", lambda part: fails())
    run("tune", out, 9.0)
    assert read_rows(out)[1]["error"] == "CompilationError: no"


def test_workers_share_the_cases(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    for number in range(3):
        part = Part("correct", out, 60, (number, 3))
        for at in range(7):
            part.case(dict, at=at)
    assert sorted(row["case"]["at"] for row in read_rows(out)) == list(range(7))


def test_a_line_that_was_cut_short(tmp_path: Path) -> None:
    out = tmp_path / "rows.jsonl"
    write_row(out, {"part": "bench"})
    with out.open("a") as file:
        file.write('{"part": "ben')
    assert read_rows(out) == [{"part": "bench"}]


def test_a_device_that_no_longer_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.gpu.record.answers", lambda: False)
    part = Part("bench", tmp_path / "rows.jsonl", 60)
    assert part.case(dict, at=0)
    with pytest.raises(SystemExit) as ended:
        part.case(fails, at=1)
    assert ended.value.code == check.DEAD and len(read_rows(part.out)) == 2


WORKER = """
import json, os, sys, time
from pathlib import Path
folder, kind = Path(sys.argv[3]), sys.argv[1]
out, begun = folder / "rows.jsonl", folder / f".{kind}.0.json"
done = out.read_text().count("\\n") if out.exists() else 0
begun.write_text(json.dumps({"part": kind, "case": {"at": done}}))
if kind == "long":
    time.sleep(60)
if done == 0:
    os.abort()
with out.open("a") as file:
    file.write(json.dumps({"part": kind, "case": {"at": done}, "good": True}) + "\\n")
begun.unlink()
sys.exit(75 if done == 1 else 0)
"""
"""A worker that dies in its first case, whose device is dead after the second, and that does the third."""


@pytest.mark.parametrize("kind", ["short", "long"])
def test_a_process_that_dies_or_does_not_end(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "worker.py").write_text(WORKER)
    monkeypatch.setattr(check, "COMMAND", (sys.executable, str(tmp_path / "worker.py")))
    monkeypatch.setattr(check, "GRACE", 0.2)
    rows = tmp_path / "rows.jsonl"
    check.wait([check.Worker(kind, rows, time.perf_counter() + (0.5 if kind == "long" else 60), (0, 1))])
    read = read_rows(rows)
    if kind == "long":
        assert [row["case"]["at"] for row in read] == [0] and read[0]["cut"].startswith("killed: its case")
    else:
        assert [row["case"]["at"] for row in read] == [0, 1, 2]
        assert read[0]["error"] == "its process ended with status -6" and read[2]["good"]


def test_the_clock_has_many_calls_between_two_events(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [0.0], [0]

    class Event:
        def __init__(self, enable_timing: bool):
            assert enable_timing

        def record(self) -> None:
            self.at = now[0]

        def synchronize(self) -> None:
            pass

        def elapsed_time(self, later: "Event") -> float:
            return (later.at - self.at) * 1e3

    def act() -> None:
        calls[0] += 1
        now[0] += 5.0 if calls[0] == 1 else 0.001  # the first compiles

    fake = SimpleNamespace(
        Event=Event,
        synchronize=lambda: None,
        reset_peak_memory_stats=lambda: None,
        memory_allocated=lambda: 2**30,
        max_memory_allocated=lambda: 3 * 2**30,
    )
    monkeypatch.setattr(clock, "DRY", False)
    monkeypatch.setattr(torch, "cuda", fake)
    monkeypatch.setattr(clock, "time", SimpleNamespace(perf_counter=lambda: now[0]))
    times = clock.timed(act)
    assert times["ms"] == pytest.approx(1.0) and times["peak_gib"] == 2.0
    assert calls[0] >= 3 + 2 * 20 and times["calls"] == calls[0] - 3
