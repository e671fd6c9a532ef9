"""A finished comparison that several files look at: the processes of pytest-xdist make it once."""

import os
from pathlib import Path

import pytest
from filelock import FileLock

from genoattn.cli.main import main
from genoattn.config.overrides import quote
from tests.toy_genomes import write_genome

SMALL = (
    *("experiment=smoke", "ladder=[16,32]", "layers=[none]", "seeds=[0]", "budget.seconds=null", "trainer.threads=1"),
    *("test.resamples=4", "test.windows=8", "test.threshold_windows=8"),
)
"""A ladder of two layers, none and conv, each in a process of its own."""

JOBLIB = ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")
"""Two runs at a time."""

SHORT = ("budget.steps=2", "learning_rates=[0.01]", "extrapolate=[]")


def small(home: Path, folder: Path, *words: str) -> list[str]:
    """The command of a comparison of the genome in `home`."""
    return ["compare", f"hydra.run.dir={quote(folder)}", f"data.fasta={quote(home / 'small.fa')}", *SMALL, *words]


@pytest.fixture(scope="module")
def home(alone: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose name has quotes, blanks and other signs, with a genome and a finished comparison of it, `out`."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "bob's data, x=1"
    with FileLock(f"{folder}.lock"):
        if not (folder / "out" / "comparison.json").exists():
            write_genome(folder, "small", 0)
            assert main(small(folder, folder / "out", *JOBLIB, *SHORT)) == 0
    return folder
