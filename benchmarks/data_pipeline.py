"""Speed of the data pipeline on a synthetic genome: FASTA to store, store to windows, windows to tokens.

python -m benchmarks.data_pipeline [--megabases 50] [--json FILE]
"""

import argparse
import gzip
import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.console import Console
from rich.table import Table

from genoattn.data.tokenizers.kmer import KmerTokenizer
from genoattn.data.tokenizers.nucleotide import NucleotideTokenizer
from genoattn.genome.fasta import read_fasta
from genoattn.genome.sequence_store import Genome, open_genome

WINDOW, DRAWS, LINE = 100_000, 2000, 80


class Measurement(NamedTuple):
    """A row of the table."""

    quantity: str
    value: float
    unit: str
    at_least: float | None = None


def write_fasta(path: Path, megabases: int, masked: float) -> Path:
    """Random bases in lines of 80, the first share of them in lower case, one record."""
    rng = np.random.default_rng(0)
    lines = np.full((megabases * 1_000_000 // LINE, LINE + 1), ord("\n"), np.uint8)
    lines[:, :LINE] = np.frombuffer(b"ACGT", np.uint8)[rng.integers(0, 4, (len(lines), LINE), dtype=np.uint8)]
    lines[: int(masked * len(lines)), :LINE] |= 32
    path.write_bytes(b">synthetic\n" + lines.tobytes())
    return path


def seconds(act: Callable[[], object], repeats: int = 3) -> float:
    """The seconds of the fastest of a few runs, which other processes disturbed least."""
    best = float("inf")
    for _ in range(repeats):
        start = time.perf_counter()
        act()
        best = min(best, time.perf_counter() - start)
    return best


def draw_windows(genome: Genome) -> float:
    """MB/s of random windows."""
    starts = np.random.default_rng(1).integers(0, genome.total - WINDOW, DRAWS).tolist()
    return DRAWS * WINDOW / 1e6 / seconds(lambda: [len(genome.fetch(0, at, at + WINDOW)) for at in starts])


def measure(folder: Path, megabases: int) -> list[Measurement]:
    """All measurements, in the order of the pipeline."""
    plain = write_fasta(folder / "plain.fa", megabases, masked=0)
    masked = write_fasta(folder / "masked.fa", megabases, masked=0.5)
    packed = folder / "packed.fa.gz"
    packed.write_bytes(gzip.compress(plain.read_bytes(), 1))
    measurements = [
        Measurement(
            f"FASTA encode, {kind}", megabases / seconds(lambda p=path: [len(r.codes) for r in read_fasta(p)]), "MB/s"
        )
        for kind, path in (("plain", plain), ("gzip", packed))
    ]
    cache = folder / "cache"
    measurements.append(Measurement("store build", seconds(lambda: open_genome([plain], cache), 1), "s"))
    time.sleep(2.5)  # files younger than two seconds are hashed again, see sequence_store.py
    open_genome([plain], cache)
    measurements.append(Measurement("store open", 1e3 * seconds(lambda: open_genome([plain], cache)), "ms"))
    for kind, path, soft_mask in (("no lower case", plain, "keep"), ("keep", masked, "keep"), ("mask", masked, "mask")):
        speed = draw_windows(open_genome([path], cache, soft_mask))
        measurements.append(Measurement(f"random 100 kb windows, {kind}", speed, "MB/s", at_least=1000))
    window = open_genome([plain], cache).fetch(0, 0, WINDOW)
    for unknown in ("keep", "merge"):
        tokenizer = NucleotideTokenizer(unknown)
        speed = WINDOW / 1e6 / seconds(lambda t=tokenizer: t.encode(window), 100)
        measurements.append(Measurement(f"tokenizer nucleotide, {unknown}", speed, "MB/s", at_least=300))
    for overlapping in (False, True):
        words = [KmerTokenizer(k, overlapping) for k in range(1, 9)]
        speed = min(WINDOW / 1e6 / seconds(lambda t=tokenizer: t.encode(window), 100) for tokenizer in words)
        kind = "one at every base" if overlapping else "one after the other"
        measurements.append(Measurement(f"tokenizer kmer, {kind}, slowest k of 1 to 8", speed, "MB/s", at_least=150))
    return measurements


def main() -> None:
    """Measure, print a table and, with --json, save it."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--megabases", type=int, default=50, help="size of the synthetic genome")
    arguments.add_argument("--json", type=Path, help="file to save the measurements in")
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        measurements = measure(Path(folder), options.megabases)
    table = Table("quantity", "measured", "unit", "goal", title=f"data, {options.megabases} Mb")
    for row in measurements:
        goal = "" if row.at_least is None else f">= {row.at_least:g}"
        table.add_row(row.quantity, f"{row.value:,.4g}", row.unit, goal)
    Console().print(table)
    if options.json:
        options.json.write_text(json.dumps([row._asdict() for row in measurements], indent=2) + "\n")


if __name__ == "__main__":
    main()
