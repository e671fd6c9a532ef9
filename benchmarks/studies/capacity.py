"""The number of random keys that an untrained layer tells apart, against the bytes of state that it keeps a head.

python -m benchmarks.studies.capacity [NAME ...]

The probe is the conformance check `capacity`: letters are stored under random keys, and the best linear map of the
layer's outputs reads them where a key is repeated. Causal layers of 64 channels and 4 heads.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate

from benchmarks.common.measure import machine, today, versions
from genoattn.attention.conformance.learning import letters_told
from genoattn.config.compose import compose
from genoattn.evaluation.report import Table

ROWS = Path(__file__).parents[2] / "results" / "capacity" / "rows.json"
DIM, HEADS, SEEDS = 64, 4, 3
KEYS = (8, 16, 32, 64, 128, 256, 512, 1024)
SHOWN = (16, 64, 256, 1024)
TOLD = 0.625
"""Share of letters above which keys count as told apart: half way from guessing to all."""

SHARPER, NO_DECAY = "heads.logit_scale=2", "attention.decay=false"
"""Sharper still, and a token sees little but itself: the probe's keys are stored with letters, so they differ a bit."""


def _named(prefix: str, key: str, values: Sequence[object], *overrides: str) -> dict[str, list[str]]:
    """Cases of a layer that differ in one setting."""
    setting = key.rsplit(".", 1)[1]
    return {f"{prefix}, {setting} {value}": [*overrides, f"{key}={value}"] for value in values}


FOUR_BLOCKS = ("attention.blocks_per_query=4", SHARPER)
CASES = {
    **_named("full", "heads.logit_scale", (1, 2, 4), "attention=full"),
    "full, logit_scale 2, kv_heads 1": ["attention=full", SHARPER, "attention.kv_heads=1"],
    "topk, k 16": ["attention=topk", "attention.k=16", SHARPER],
    **_named("sparse", "attention.pool", (1, 8, 64), "attention=sparse", *FOUR_BLOCKS),
    "nsa": ["attention=nsa", "attention.blocks_per_query=4", SHARPER],
    "hierarchical": ["attention=hierarchical", SHARPER],
    "window, left 128": ["attention=window", SHARPER],
    **_named("linear, signed", "attention.key_dim", (16, 64, 256), "attention=linear", NO_DECAY),
    "linear, signed, key_dim 64, decay": ["attention=linear"],
    **_named("linear, key_dim 64", "attention.features", ("elu", "relu", "exp"), "attention=linear", NO_DECAY),
    **_named("linear, taylor", "attention.key_dim", (8, 16), "attention=linear", NO_DECAY, "attention.features=taylor"),
    "delta, no short_conv, no gate": ["attention=delta", "attention.short_conv=0", "attention.output_gate=false"],
    "delta": ["attention=delta"],
    "ssd": ["attention=ssd"],
}


def measured(overrides: Sequence[str]) -> dict[str, Any]:
    """State bytes a head after the most keys, and the share of letters told by number of keys, a mean over seeds."""
    factory = instantiate(compose("train", ["heads=default", f"heads.count={HEADS}", *overrides]).attention)
    shares = {}
    for keys in KEYS:
        told = []
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            told.append(letters_told(factory(dim=DIM, causal=True), keys, DIM))
        shares[str(keys)] = sum(told) / SEEDS
    return {"bytes": factory(dim=DIM, causal=True).state_bytes(max(KEYS)) / HEADS, "shares": shares}


def told_apart(shares: dict[str, float]) -> str:
    """The most keys that are told apart, as are all fewer."""
    few = next((at for at, keys in enumerate(KEYS) if shares[str(keys)] < TOLD), len(KEYS))
    return f"fewer than {KEYS[0]}" if not few else f"{KEYS[few - 1]:,}" + (" or more" if few == len(KEYS) else "")


def table(rows: Sequence[dict[str, Any]]) -> Table:
    """A row for each layer, in the order of the cases."""
    lines = [
        [
            f"`{row['layer'].split(',')[0]}`{row['layer'][len(row['layer'].split(',')[0]) :]}",
            told_apart(row["shares"]),
            f"{row['bytes'] / 1024:,.1f}",
            *(f"{row['shares'][str(keys)]:.2f}" for keys in SHOWN),
        ]
        for row in rows
    ]
    columns = ["layer", "keys told apart", "KiB a head", *(f"letters told of {keys:,}" for keys in SHOWN)]
    return Table("capacity", columns, lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, saves the measurements, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="; ".join(CASES))
    parser.add_argument("--json", type=Path, default=ROWS, help="where the measurements are saved")
    options = parser.parse_args(arguments)
    saved = {"machine": machine(), "versions": versions(["torch"]), "date": today(), "rows": []}
    for name in options.names or CASES:
        saved["rows"].append({"layer": name, **measured(CASES[name])})
        options.json.write_text(json.dumps(saved, indent=1) + "\n")
    table(saved["rows"]).print()


if __name__ == "__main__":
    main()
