"""Fixtures of the tests of config."""

from pathlib import Path

import pytest

from genoattn.config import compose, documentation, layers, schema
from tests.config.trees import FILES, Run


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the small configs, in place of conf/; the working directory is the folder above it."""
    folder = tmp_path / "conf"
    for name, text in FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.yaml").write_text(text)
    for module in (compose, documentation, layers):
        monkeypatch.setattr(module, "conf_dir", lambda: folder)
    monkeypatch.setitem(schema.SCHEMAS, "train", Run)
    monkeypatch.chdir(tmp_path)
    return folder
