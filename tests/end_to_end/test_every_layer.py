"""Every choice of `attention` trains and is evaluated through the program, as a user would."""

import json
from pathlib import Path

import numpy as np
import pytest

from genoattn.cli.main import main
from genoattn.genome.alphabet import decode_bases
from genoattn.paths import conf_dir

pytestmark = pytest.mark.usefixtures("alone", "quick")
LAYERS = sorted(path.stem for path in (conf_dir() / "attention").glob("*.yaml"))
SMALL = [
    "experiment=smoke",
    "trainer.threads=1",
    "trainer.max_steps=2",
    "control=null",
    "model.block_conv=3",
    "model.depth=2",
]
TEST = ["test.windows=4", "test.threshold_windows=4", "test.resamples=2"]


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_trains_and_is_evaluated(layer: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bases = decode_bases(np.random.default_rng(0).integers(0, 4, 6000, np.uint8))
    (tmp_path / "a.fa").write_text(f">chr\n{bases}\n")
    fasta = f"data.fasta={tmp_path / 'a.fa'}"
    assert main(["train", f"attention={layer}", *SMALL, *TEST, fasta, f"hydra.run.dir={tmp_path}/run"]) == 0
    again = ["evaluate", *TEST, "data.length=64", fasta, f"checkpoint={tmp_path / 'run'}"]
    monkeypatch.setattr("genoattn.models.predictor.CHUNKED_ABOVE", 64)  # in one piece at first, in segments now
    assert main([*again, f"hydra.run.dir={tmp_path}/again"]) == 0
    first, second = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("run", "again"))
    shared = [key for key in first if key.startswith("model/") and first[key] is not None]
    assert shared and all(second[key] == pytest.approx(first[key], abs=1e-5) for key in shared)
