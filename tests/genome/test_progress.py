"""Progress bars: drawn on a terminal with the time that is left, and nothing elsewhere."""

import io
import sys

import pytest

from genoattn.cli.console import quiet
from genoattn.genome.progress import progress, tracked


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("silent", [False, True])
def test_a_bar_is_drawn_on_a_terminal(silent: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("NO_COLOR", "TTY_COMPATIBLE", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stdout", Terminal())
    screen = sys.stdout
    if silent:
        with quiet():
            assert list(tracked("abc", "letters [are] read", 3)) == ["a", "b", "c"]
        assert screen.getvalue() == ""
        return
    assert list(tracked("abc", "letters [are] read", 3)) == ["a", "b", "c"]
    assert "letters [are] read" in screen.getvalue() and "3/3" in screen.getvalue()


def test_nothing_is_drawn_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("the genome is read", 7.5) as advance:
        advance(8)
    assert capsys.readouterr() == ("", "")
