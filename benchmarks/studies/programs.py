"""The runs of a benchmark: each in a process and a run folder of its own."""

import argparse
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

CHECKOUT = Path(__file__).parents[2]


def run(program: str, folder: Path, words: Sequence[str]) -> dict[str, Any]:
    """The metrics of a run, which is made if its folder does not hold them; `{"error": …}` if it failed."""
    file = folder / "metrics.json"
    if not file.is_file():
        shutil.rmtree(folder, ignore_errors=True)  # of a run that failed
        command = [sys.executable, "-m", "genoattn", program, *words, f"hydra.run.dir={folder}"]
        surroundings = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(CHECKOUT)}
        print(" ".join(command[1:]), flush=True)
        done = subprocess.run(command, cwd=CHECKOUT, env=surroundings, capture_output=True, text=True, check=False)
        if done.returncode == 130:
            raise KeyboardInterrupt
        if done.returncode or not file.is_file():
            return {"error": (done.stderr.strip().splitlines() or [f"status {done.returncode}"])[-1]}
    return json.loads(file.read_text("utf-8"))


def set_otherwise(trained: Path, folder: Path, setting: str, value: object) -> Path:
    """Copy a run's model into `folder` with another value of one setting of its task."""
    shutil.copytree(trained / "model", folder / "model", dirs_exist_ok=True)
    file = folder / "model" / "model.json"
    about = json.loads(file.read_text("utf-8"))
    about["task"][setting] = value
    file.write_text(json.dumps(about, indent=2) + "\n", "utf-8")
    return folder


def command_line(description: str | None, layers: Sequence[str], name: str) -> argparse.ArgumentParser:
    """The arguments of a benchmark of layers, whose measurements are saved as results/NAME/rows.json."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("layers", nargs="*", metavar="LAYER", help=", ".join(layers))
    folder, file = Path("runs") / name, CHECKOUT / "results" / name / "rows.json"
    parser.add_argument("--runs", type=Path, default=folder, help="where run folders are made and looked for")
    parser.add_argument("--json", type=Path, default=file, help="where the measurements are saved")
    parser.add_argument("--table", action="store_true", help="print the table of the saved measurements; run nothing")
    return parser
