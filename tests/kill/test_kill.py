"""`make kill` at work: builds of a store are killed and end with the same bits, and a difference would be noticed."""

import os
import sys
from pathlib import Path

import pytest

from tests.kill import __main__ as kill
from tests.kill.programs import KINDS, Program, StoreBuild


class ForgetfulBuild(StoreBuild):
    """A build whose result depends on the number of its starts."""

    def result(self, folder: Path) -> dict[str, str]:
        return {"starts": (folder / "log.txt").read_text()}

    def work(self, folder: Path) -> int:
        os.write(1, b"started\n")
        return super().work(folder)


@pytest.mark.parametrize(("program", "status"), [(StoreBuild, 0), (ForgetfulBuild, 1)])
def test_killed_builds(
    program: type[Program],
    status: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("GENOATTN_CACHE", str(tmp_path))
    monkeypatch.setattr(kill.tempfile, "mkdtemp", lambda prefix: str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["kill", "--kills", "3", "--kinds", "store"])
    monkeypatch.setitem(KINDS, "store", program)
    assert kill.main() == status
    output = capsys.readouterr()
    assert "store: 3 kills" in output.out if status == 0 else "differs from" in output.err
