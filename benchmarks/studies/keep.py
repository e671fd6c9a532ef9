"""Keep a finished comparison under results/: its record, the metrics of every run, its machine and its plots.

    python -m benchmarks.studies.keep runs/compare/ladder --command command.txt --commit 0e7befc

`command.txt` holds the command that was given, and the commit is that of the code that ran. A README.md.j2 is written
by hand; then `python -m benchmarks.studies.render`.
"""

import argparse
import gzip
import json
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.studies.render import RESULTS, draw_plots
from genoattn.comparison.record import Comparison


def runs(folder: Path) -> Iterator[dict]:
    """The folder, the overrides and the metrics of every complete run, without the ends of intervals."""
    for file in sorted(folder.glob("runs/*/*/*/metrics.json")):
        metrics = json.loads(file.read_text("utf-8"))
        inputs = json.loads((file.parent / "inputs.json").read_text("utf-8"))
        yield {
            "folder": str(file.parent.relative_to(folder)),
            "overrides": inputs.get("overrides", []),
            "metrics": {name: value for name, value in metrics.items() if not name.endswith(("_low", "_high"))},
        }


def keep(folder: Path, home: Path, command: Path, commit: str) -> None:
    """Write comparison.json.gz, runs.jsonl.gz, environment.json, command.txt and the plots into `home`."""
    home.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(run, separators=(",", ":")) + "\n" for run in runs(folder))
    packed = {"comparison.json.gz": (folder / "comparison.json").read_bytes(), "runs.jsonl.gz": lines.encode()}
    for name, content in packed.items():
        (home / name).write_bytes(gzip.compress(content, 9, mtime=0))
    made = asdict(Comparison.read(home).environment)
    about = {key: made[key] for key in ("processor", "system", "threads", "versions")}
    about |= {"date": made["date"][:10], "commit": commit}
    (home / "environment.json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")
    if command.resolve() != (home / "command.txt").resolve():
        shutil.copyfile(command, home / "command.txt")
    draw_plots(home.name)


def main(arguments: Sequence[str] | None = None) -> None:
    """Keep the comparison of a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="runs/compare/NAME, with its comparison.json")
    parser.add_argument("--command", type=Path, required=True, help="a file with the command of the comparison")
    parser.add_argument("--commit", required=True, help="the commit that the comparison ran at")
    options = parser.parse_args(arguments)
    keep(options.folder, RESULTS / options.folder.name, options.command, options.commit)


if __name__ == "__main__":
    main()
