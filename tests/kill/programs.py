"""The programs that are killed: builds of a store, saves of a model, a training, a comparison, scores, and calls."""

import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path

import numpy as np
import torch

from genoattn.cli.main import main
from genoattn.errors import UserError
from genoattn.genome.alphabet import decode_bases
from genoattn.genome.sequence_store import open_genome
from genoattn.models.build import load_predictor
from genoattn.models.checkpoint import save_model
from tests.toy_models import CAUSAL, saved, toy_model

SMALL = (
    *("experiment=smoke", "trainer.threads=1", "trainer.max_steps=24", "trainer.validate_every=3", "control=null"),
    *("data.validation_windows=4", "test.windows=4", "test.threshold_windows=4", "test.resamples=2"),
)


def digest(*parts: bytes) -> str:
    """A digest of some bytes, for comparisons."""
    return hashlib.sha256(b"".join(parts)).hexdigest()


def genome(home: Path, bases: int) -> Path:
    """A FASTA of random bases."""
    file = home / f"random-{bases}.fa"
    if not file.exists():
        letters = decode_bases(np.random.default_rng(0).integers(0, 4, bases, np.uint8))
        file.write_text(f">chr\n{letters}\n")
    return file


def metrics_of(file: Path) -> bytes:
    """The metrics of a run without its costs, which are never the same."""
    return repr({name: value for name, value in json.loads(file.read_text()).items() if "cost/" not in name}).encode()


class Program(ABC):
    """A program that can be started again in its folder after it was killed."""

    def __init__(self, home: Path):
        self.home = home

    @abstractmethod
    def work(self, folder: Path) -> int:
        """Run the program to its end, or go on with what a killed one left; its exit status."""

    @abstractmethod
    def result(self, folder: Path) -> dict[str, str]:
        """Digests of what the program leaves, by name."""

    def check(self, folder: Path) -> None:  # noqa: B027  most programs leave nothing that can be checked
        """Look at what a killed program left."""


class StoreBuild(Program):
    """The build of a store of eight million bases."""

    def work(self, folder: Path) -> int:
        open_genome([genome(self.home, 8_000_000)], folder / "cache")
        return 0

    def result(self, folder: Path) -> dict[str, str]:
        (store,) = (folder / "cache").glob("genome-*/")
        left = [path.name for path in (folder / "cache").iterdir() if path.name.startswith(".")]
        files = {path.name: digest(path.read_bytes()) for path in store.iterdir() if path.suffix == ".u8"}
        opened = open_genome([genome(self.home, 8_000_000)], folder / "cache")
        return files | {"left behind": str(left), "records": str(opened.records)}


class ModelSave(Program):
    """Two models that are saved in turn in one folder, as a run folder that is used again."""

    SAVES = 20

    def __init__(self, home: Path):
        super().__init__(home)
        run = home / "saved"
        words = [*SMALL, "trainer.max_steps=2", f"data.fasta={genome(home, 6000)}"]
        if main(["train", *words, f"hydra.run.dir={run}"]):
            raise SystemExit("the training of the model to be saved failed")
        self.loaded = load_predictor(run)

    def work(self, folder: Path) -> int:
        for number in range(self.SAVES):
            card = replace(self.loaded.card, seed=number)
            for weight in self.loaded.predictor.model.parameters():
                torch.nn.init.constant_(weight, number)
            save_model(folder / "model", self.loaded.predictor.model, card)
        return 0

    def result(self, folder: Path) -> dict[str, str]:
        return {path.name: digest(path.read_bytes()) for path in (folder / "model").iterdir()}

    def check(self, folder: Path) -> None:
        """The folder holds one of the models, whole, or is refused in a sentence."""
        try:
            loaded = load_predictor(folder / "model")
        except UserError:
            return
        weights = {float(weight.unique().item()) for weight in loaded.predictor.model.parameters()}
        assert weights == {float(loaded.card.seed)}, f"weights {weights} with the card of {loaded.card.seed}"


class Training(Program):
    """A training of 24 steps with a checkpoint every three, which goes on in its own folder."""

    def run_folder(self, folder: Path) -> Path:
        """The folder of the last run that was begun."""
        return max(folder.glob("run-*"), key=lambda path: int(path.name[4:]), default=folder / "run-0")

    def work(self, folder: Path) -> int:
        run = self.run_folder(folder)
        last = run / "checkpoints" / "last.ckpt"
        words = [f"trainer.resume={last}"] if last.exists() else []
        if not words and run.exists():  # killed before its first checkpoint: a new run in a new folder
            run = next(path for number in count() if not (path := folder / f"run-{number}").exists())
        fasta = f"data.fasta={genome(self.home, 6000)}"
        return main(["train", *SMALL, fasta, f"hydra.run.dir={run}", *words])

    def result(self, folder: Path) -> dict[str, str]:
        run = self.run_folder(folder)
        state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
        left = sorted(path.name for path in run.rglob(".*.part"))
        return {
            "weights": digest((run / "model" / "weights.safetensors").read_bytes()),
            "metrics": digest(metrics_of(run / "metrics.json")),
            "bootstrap": digest((run / "bootstrap.json").read_bytes()),
            "last.ckpt": digest(*(tensor.numpy().tobytes() for tensor in state["state_dict"].values())),
            "optimizer": digest(repr(state["optimizer_states"]).encode()),
            "left behind": str(left),
        }


class ComparisonRun(Program):
    """A comparison of two layers, each of its runs in a process of its own."""

    def work(self, folder: Path) -> int:
        words = ["experiment=smoke", "layers=[none]", "seeds=[0]", "learning_rates=[0.01]", "budget.seconds=null"]
        words += ["sweep.seconds=null", "sweep.steps=9", "budget.steps=9", "extrapolate=[]", "test.resamples=4"]
        words += ["trainer.threads=1", f"data.fasta={genome(self.home, 6000)}", f"hydra.run.dir={folder / 'out'}"]
        return main(["compare", *words])

    def result(self, folder: Path) -> dict[str, str]:
        out = folder / "out"
        runs = sorted(out.glob("runs/*/*/*/metrics.json"))
        weights = [(file.parent / "model" / "weights.safetensors").read_bytes() for file in runs]
        results = json.loads((out / "comparison.json").read_text())["results"]
        return {
            "runs": str([str(file.relative_to(out)) for file in runs]),
            "metrics": digest(*map(metrics_of, runs)),
            "weights": digest(*weights),
            "estimates": digest(*(repr(result["statistics"]).encode() for result in results)),
            "contexts": digest(*(repr(layer["context"]).encode() for result in results for layer in result["layers"])),
        }

    def check(self, folder: Path) -> None:
        """Linux kills the runs of a killed comparison; they are gone after a moment."""
        time.sleep(0.2)


class ScoreRun(Program):
    """Scores of 40 variants in seven shards."""

    def __init__(self, home: Path):
        super().__init__(home)
        letters = genome(home, 6000).read_text().split("\n")[1]
        rows = [f"chr\t{place + 1}\t.\t{letters[place]}\tA,T\t.\t.\t.\n" for place in range(99, 6000, 140)]
        (home / "variants.vcf").write_text("".join(rows))
        saved(home / "scorer", toy_model(CAUSAL))
        (home / "first").mkdir()
        if self.work(home / "first"):  # forked processes then import nothing, and are killed while they score
            raise SystemExit("the variants could not be scored")

    def work(self, folder: Path) -> int:
        words = [f"checkpoint={self.home / 'scorer'}", f"fasta={genome(self.home, 6000)}", "shards=7"]
        words += [f"vcf={self.home / 'variants.vcf'}", f"out={folder / 'out.vcf.gz'}"]
        return main(["score", *words, f"hydra.run.dir={folder / 'run'}"])

    def result(self, folder: Path) -> dict[str, str]:
        left = sorted(path.name for path in folder.rglob(".*.part"))
        rows = {path.parent.name: path for path in folder.rglob("rows.tsv")}
        files = {name: digest(path.read_bytes()) for name, path in rows.items()}
        files |= {path.name: digest(path.read_bytes()) for path in folder.glob("out.*")}
        return files | {"left behind": str(left)}


class DetectRun(Program):
    """The mutations of a sample of 90,000 bases, scored in seven shards."""

    def __init__(self, home: Path):
        super().__init__(home)
        letters = genome(home, 90_000).read_text().split("\n")[1]
        step = 450
        pieces = [letters[start : start + step - 1] for start in range(0, len(letters), step)]
        (home / "sample.fa").write_text(f">contig\n{''.join(pieces)}\n")
        saved(home / "detector", toy_model({"_target_": "genoattn.data.tasks.side_by_side.SideBySide"}, length=64))
        (home / "detected").mkdir()
        if self.work(home / "detected"):  # as of ScoreRun
            raise SystemExit("the mutations could not be scored")

    def work(self, folder: Path) -> int:
        words = [f"checkpoint={self.home / 'detector'}", f"reference={genome(self.home, 90_000)}", "shards=7"]
        words += [f"sample={self.home / 'sample.fa'}", f"out={folder / 'out.vcf.gz'}", f"parts={folder / 'parts'}"]
        return main(["detect", *words, "all=true", f"hydra.run.dir={folder / 'run'}"])

    def result(self, folder: Path) -> dict[str, str]:
        left = sorted(path.name for path in folder.rglob(".*.part"))
        rows = {path.parent.name: digest(path.read_bytes()) for path in folder.rglob("scores.f32")}
        files = {path.name: digest(path.read_bytes()) for path in folder.glob("out.*")}
        return rows | files | {"left behind": str(left)}


KINDS: dict[str, Callable[[Path], Program]] = {
    "store": StoreBuild,
    "model": ModelSave,
    "training": Training,
    "comparison": ComparisonRun,
    "score": ScoreRun,
    "detect": DetectRun,
}
