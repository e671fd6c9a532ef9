"""Tests on a machine with a GPU: it is hidden from all but those of the kernels."""

import os
import sys
from pathlib import Path

import pytest
import torch

from tests import gpus, shapes


@pytest.mark.parametrize(("before", "after"), [(None, None), ("1,2", "1,2")])
def test_gpus_are_hidden_and_shown(before: str | None, after: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(gpus.SAVED, raising=False)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if before:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", before)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: os.environ.get("CUDA_VISIBLE_DEVICES") != "")
    gpus.hide()
    assert not torch.cuda.is_available() and gpus.there()
    gpus.hide()  # in a worker, which inherits the environment
    assert gpus.there() and gpus.seen().get("CUDA_VISIBLE_DEVICES") == after and gpus.SAVED not in gpus.seen()


def test_a_machine_without_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(gpus.SAVED, raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpus.hide()
    assert not gpus.there() and gpus.seen()["CUDA_VISIBLE_DEVICES"] == ""


def test_no_beartype(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without it, such as one lent for its GPU, checks no shapes and runs the tests all the same."""
    monkeypatch.setitem(sys.modules, "beartype", None)
    monkeypatch.setattr(shapes, "install_import_hook", lambda *_: pytest.fail("no hook without beartype"))
    shapes.check_shapes("genoattn.none")
    settings = Path(__file__).parents[1] / "pyproject.toml"
    assert "::beartype" not in settings.read_text("utf-8"), "pytest would import it for its filter of warnings"
