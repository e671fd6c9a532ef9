"""Parts `train`, `speed` and `whole`: programs that users run, the speed of models, a chromosome end to end."""

import csv
import json
import math
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from benchmarks.gpu import layers
from benchmarks.gpu.clock import timed
from benchmarks.gpu.record import DEVICE, DRY, Part

STEPS = 200
KERNELS = ("window", "linear", "sparse", "hierarchical")
"""Layers that are trained by their kernels and by torch's operators."""
PIECE = 3_000
"""Bases of the chromosome of a dry run."""
TINY = (
    *("control=null", "attention.backend=torch", "trainer.threads=1", "trainer.max_steps=2", "data.vcf=[]"),
    *("data.validation_windows=4", "test.windows=4", "test.threshold_windows=4", "test.resamples=1"),
)
"""Settings of a dry run, which leaves the kernels to other parts."""
SMALL = (
    *("control=null", "trainer.threads=2", "data.vcf=[]", "data.validation_windows=16"),
    *("test.windows=16", "test.threshold_windows=16", "test.resamples=1"),
)
GPU = ("trainer.accelerator=gpu", "trainer.precision=bf16-mixed")
LENGTHS = (16_384, 131_072, 1_048_576)
WIDE, SLOW = 200_000, 20_000
"""Tokens from which only LONG layers are tried, and above which SLOW_LAYERS are left out."""
LONG = ("none", "conv", "window", "linear", "hierarchical", "ssd")
SLOW_LAYERS = ("delta", "based", "topk", "hybrid", "striped", "nsa", "hyena")


def program(words: list[str], folder: Path, seconds: float) -> dict[str, Any]:
    """Run a program; in a dry run in this process.

    Returns:
        Its exit status, and the last line that it printed if that is not 0.
    """
    folder.mkdir(parents=True, exist_ok=True)
    words = [*words, f"hydra.run.dir={folder}"]
    if DRY:
        from genoattn.cli.main import main

        return {"exit": main([words[0], "--quiet", *words[1:]])}
    with (folder / "output").open("w") as output:
        command = [sys.executable, "-m", "genoattn", *words]
        try:
            code = subprocess.run(
                command, stdout=output, stderr=output, timeout=max(1, seconds), check=False
            ).returncode
        except subprocess.TimeoutExpired:
            return {"exit": None, "said": f"longer than {seconds:.0f} s"}
    lines = (folder / "output").read_text("utf-8", "replace").strip().splitlines() or [""]
    return {"exit": code} | ({"said": lines[-1][:200]} if code else {})


def train(part: Part) -> None:
    """Every layer trains in bf16-mixed by the program, those with kernels by torch's operators too."""
    todo = [] if DRY else [(name, None) for name in layers.TRAINED]
    todo += [(name, "torch") for name in (KERNELS[:1] if DRY else KERNELS)]
    for name, backend in todo:
        part.case(lambda n=name, b=backend: trained(n, b, part), layer=name, backend=backend or "as configured")


def trained(name: str, backend: str | None, part: Part) -> dict[str, Any]:
    """Exit status, and the mean loss of the first and last tenth of the steps, which must be finite and fall."""
    folder = part.out.with_name("runs") / f"{name}-{backend or 'default'}"
    words = ["train", f"attention={name}", *([f"attention.backend={backend}"] if backend else [])]
    if DRY:
        words += ["experiment=smoke", *TINY]
    else:
        words += [*SMALL, *GPU, f"trainer.max_steps={STEPS}", f"trainer.validate_every={STEPS}", "data.length=1024"]
        words += ["data.batch=16", "data.workers=1"]
    row = program(words, folder, part.left())
    losses = _losses(folder / "metrics.csv")
    share = max(1, len(losses) // 10)
    first, last = (sum(some) / max(1, len(some)) for some in (losses[:share], losses[-share:]))
    finite = bool(losses) and all(map(math.isfinite, losses))
    learned = DRY or last < first
    return row | {"steps": len(losses), "first": first, "last": last, "good": row["exit"] == 0 and finite and learned}


def _losses(file: Path) -> list[float]:
    if not file.exists():
        return []
    with file.open(newline="") as opened:
        return [float(row["loss"]) for row in csv.DictReader(opened) if row.get("loss")]


def speed(part: Part) -> None:
    """Tokens a second and peak memory of a training step of 4 layers, dim 512, to a million tokens."""
    for length in (64,) if DRY else LENGTHS:
        for name in ("window",) if DRY else layers.TRAINED:
            if (length > WIDE and name not in LONG) or (length > SLOW and name in SLOW_LAYERS):
                continue
            part.case(lambda n=name, at=length: step_time(n, at), layer=name, length=length)


def step_time(name: str, length: int) -> dict[str, Any]:
    """A training step under autocast in bfloat16, with AdamW."""
    torch.manual_seed(0)
    network = layers.model(name, 32 if DRY else 512, 1 if DRY else 4).to(DEVICE).train()
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    ids, wanted = (torch.randint(4, (1, length), device=DEVICE) for _ in range(2))

    def step() -> None:
        with torch.autocast(DEVICE.type, torch.bfloat16):
            loss = F.cross_entropy(network(ids)["token"].flatten(0, 1).float(), wanted.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    times = timed(step, 0.5)
    del network, optimizer, step
    if not DRY:
        torch.cuda.empty_cache()
    return times | {"tokens_per_second": length / times["ms"] * 1e3}


def whole(part: Part) -> None:
    """A detector is trained, and then finds the mutations between a chromosome and a strain of it."""
    folder = part.out.with_name("runs")
    steps = ["trainer.max_steps=600", "trainer.validate_every=300"]
    words = ["train", "experiment=detector", *SMALL, *GPU, *steps, "data.workers=8"]
    if DRY:
        words = ["train", "experiment=side_by_side", "attention=window", *_smoke()]
    part.case(lambda: _checked(program(words, folder / "detector", part.left())), program="train")
    part.case(lambda: scanned(folder, part), program="detect")


def _smoke() -> list[str]:
    """The settings of experiment=smoke, for another experiment."""
    from omegaconf import OmegaConf

    from genoattn.paths import conf_dir

    smoke = OmegaConf.load(conf_dir() / "experiment" / "smoke.yaml")
    return [*(f"{group}.{key}={value}" for group, values in smoke.items() for key, value in values.items()), *TINY]


def _checked(row: dict[str, Any]) -> dict[str, Any]:
    return row | {"good": row["exit"] == 0}


def scanned(folder: Path, part: Part) -> dict[str, Any]:
    """`detect` on a whole chromosome (a piece of one in a dry run): F1 against the mutations that were planted."""
    from benchmarks.studies import detection

    reference = detection.REFERENCE
    fasta, vcf = detection.write_sample("planted", folder / "sample", PIECE if DRY else None)
    if DRY:
        genome, reference = detection.open_genome([reference]), folder / "sample" / "reference.fa"
        letters = detection.decode_bases(genome.fetch(0, 0, PIECE))
        reference.write_text(f">{genome.names[0]}\n{letters}\n", "utf-8")
    words = ["detect", f"checkpoint={folder / 'detector'}", f"reference={reference}", f"sample={fasta}"]
    words += [f"truth={vcf}", f"out={folder / 'calls.vcf'}"]
    row = program(words, folder / "detect", part.left())
    metrics = folder / "detect" / "metrics.json"
    found = json.loads(metrics.read_text("utf-8")) if metrics.is_file() else {}
    kept = {key: value for key, value in found.items() if key.startswith("model/") and key.endswith("/f1")}
    return _checked(row) | {"bases": os.path.getsize(fasta), "f1": kept}
