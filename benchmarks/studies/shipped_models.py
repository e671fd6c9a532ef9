"""Copy the model of a run to data/models/, with the command that made it and its figures, for the package to ship.

python -m benchmarks.studies.shipped_models RUN NAME "what it is for" "what it reached"
"""

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

from omegaconf import OmegaConf
from safetensors.torch import load_file, save

from genoattn.models.card import WEIGHTS, ModelCard
from genoattn.models.shipped import ABOUT
from genoattn.paths import models_dir


def main(run: Path, name: str, purpose: str, measured: str) -> None:
    """Copy the model, its weights in float16, and write its purpose, command, seed and figures beside it."""
    folder = models_dir() / name
    folder.mkdir(parents=True, exist_ok=True)
    weights = save({key: tensor.half() for key, tensor in load_file(run / "model" / WEIGHTS).items()})
    (folder / WEIGHTS).write_bytes(weights)
    card = ModelCard.read(run / "model")
    replace(card, weights=hashlib.sha256(weights).hexdigest()).write(folder)
    program = OmegaConf.load(run / ".hydra" / "hydra.yaml").hydra.job.name
    words = (run / ".hydra" / "overrides.yaml").read_text("utf-8").splitlines()
    settings = [word.removeprefix("- ") for word in words if not word.startswith("- trainer.threads")]
    metrics = json.loads((run / "metrics.json").read_text("utf-8"))
    about = {
        "purpose": purpose,
        "command": " ".join([f"genoattn {program}", *settings]),
        "seed": card.seed,
        "measured": measured,
        "figures": {key: value for key, value in metrics.items() if key.startswith("model/") and value is not None},
    }
    (folder / ABOUT).write_text(f"{json.dumps(about, indent=2, ensure_ascii=False)}\n", "utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
