"""Whole small runs: the files they leave, how they stop and are resumed, and that they can be repeated exactly."""

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import wandb
from omegaconf import OmegaConf
from safetensors.torch import load_file
from wandb.proto import wandb_internal_pb2

from genoattn.cli import train as train_program
from genoattn.cli.main import main
from genoattn.errors import UserError
from genoattn.evaluation.detection.evaluator import MutationDetectionEvaluator
from genoattn.models.card import ModelCard
from genoattn.training.loggers import wandb_logger
from genoattn.training.module import SequenceModule
from tests.toy_genomes import write_genome
from tests.training.quick import at_batch, rows

CHECKOUT = Path(__file__).parents[2]
SMALL = ("experiment=smoke", "trainer.threads=1", "test.windows=12", "test.threshold_windows=12", "test.resamples=2")
TIMED = ("cost/train_seconds", "cost/bases_per_second", "cost/peak_bytes", "cost/tokens", "cost/padding")
TIMED += ("cost/score_seconds", "cost/score_cpu_seconds", "cost/score_peak_bytes", "cost/scored_bases")


pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
def unplotted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Leaves out what takes longest in so small a run."""
    for name in ("training.loggers.plot_training", "evaluation.detection.evaluator.plot_curves"):
        monkeypatch.setattr(f"genoattn.{name}", lambda *_: None)


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return write_genome(tmp_path_factory.mktemp("genome"), "chr", seed=1)


def train(folder: Path, *words: str) -> int:
    return main(["train", *SMALL, f"hydra.run.dir={folder}", *words])


def evaluate(folder: Path, *words: str) -> int:
    return main(["evaluate", *SMALL[2:], "data.length=64", f"hydra.run.dir={folder}", *words])


def figures(folder: Path) -> dict[str, float]:
    """metrics.json without what training alone can measure."""
    found = json.loads((folder / "metrics.json").read_text())
    return {key: value for key, value in found.items() if key not in TIMED}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, genome: tuple[Path, Path]) -> Path:
    """The folder of a run with a control and real mutations."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    fasta, vcf = genome
    assert train(folder, "attention=linear", f"data.fasta={fasta}", f"data.vcf={vcf}") == 0
    return folder


def test_what_a_run_leaves_behind(finished: Path, genome: tuple[Path, Path]) -> None:
    files = {str(file.relative_to(finished)) for file in finished.rglob("*") if file.is_file()}
    model = {"model/model.json", "model/weights.safetensors", "checkpoints/best.ckpt", "checkpoints/last.ckpt"}
    assert files == {
        *(
            "config.yaml",
            "bootstrap.json",
            "metrics.json",
            "report.md",
            "run.html",
            "train.log",
            "plots/precision_recall.png",
            "plots/training.png",
        ),
        *(f".hydra/{name}.yaml" for name in ("config", "overrides", "hydra")),
        *("metrics.csv", *model),
        *(f"control/{name}" for name in ("metrics.csv", *model)),
    }
    config = OmegaConf.load(finished / "config.yaml")
    assert config.attention._target_.endswith("LinearAttention")
    assert config.data.fasta == str(genome[0])
    assert "attention=linear" in OmegaConf.load(finished / ".hydra" / "overrides.yaml")
    assert (finished / "plots" / "training.png").read_bytes()[:4] == b"\x89PNG"

    log = (finished / "train.log").read_text()
    assert f"run folder: {finished}\n" in log and "step      2  loss " in log and "\x1b" not in log

    steps = [row for row in rows(finished) if row["loss"]]
    assert [int(row["step"]) for row in steps] == [0, 1, 2, 3]
    assert [float(row["bases_seen"]) for row in steps] == [512, 1024, 1536, 2048]
    rates = [float(row["curriculum/rate"]) for row in steps]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < rates[0]
    assert all(row["learning_rate"] and row["curriculum/length"] for row in steps)
    assert sum(bool(row["validation/loss"]) for row in rows(finished)) == 2

    found = json.loads((finished / "metrics.json").read_text())
    wanted = [
        "model/test/all/auprc",
        "model/test/all/f1",
        *(f"model/test/{kind}/auprc" for kind in ("snv", "insertion", "deletion")),
    ]
    wanted += ["model/chr/snv/f1", "model/chr_held_out/snv/recall", "aligner/test/snv/f1", "untrained/test/snv/auprc"]
    wanted += ["cost/parameters", "cost/bases_per_second", "cost/peak_bytes", "cost/attention_flops"]
    assert not [key for key in wanted if key not in found]
    assert found["cost/peak_bytes"] > 2**20
    assert found["cost/bases_per_second"] > 0


@pytest.mark.usefixtures("unplotted")
def test_the_same_seed_gives_the_same_figures(finished: Path, genome: tuple[Path, Path], tmp_path: Path) -> None:
    words = ("attention=linear", f"data.fasta={genome[0]}", f"data.vcf={genome[1]}")
    assert train(tmp_path / "again", *words) == 0
    assert figures(tmp_path / "again") == figures(finished)
    assert train(tmp_path / "other", *words, "seed=1", "control=null") == 0
    assert figures(tmp_path / "other")["model/test/all/auprc"] != figures(finished)["model/test/all/auprc"]


def test_evaluate_finds_what_training_found(
    finished: Path, genome: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fasta, vcf = genome
    words = (f"checkpoint={finished}", f"data.fasta={fasta}", f"data.vcf={vcf}")
    assert evaluate(tmp_path / "same", *words) == 0
    assert figures(tmp_path / "same") == figures(finished)
    assert (tmp_path / "same" / "plots" / "precision_recall.png").is_file()
    last = finished / "checkpoints" / "last.ckpt"
    assert evaluate(tmp_path / "by_checkpoint", f"checkpoint={last}", f"data.fasta={fasta}") == 0
    assert figures(tmp_path / "by_checkpoint")["model/test/all/auprc"] == figures(finished)["model/test/all/auprc"]

    other, its_vcf = write_genome(tmp_path, "other", seed=2)
    capsys.readouterr()
    words = (f"checkpoint={finished / 'model'}", f"data.fasta={other}", f"data.vcf={its_vcf}")
    assert evaluate(tmp_path / "elsewhere", *words) == 0
    assert "the model was trained on no record of this genome" in capsys.readouterr().out
    found = figures(tmp_path / "elsewhere")
    assert found["model/other/snv/events"] == 13
    assert "model/other_held_out/snv/events" not in found


def test_evaluate_keeps_to_the_blocks_that_were_held_out(
    finished: Path, genome: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (f"checkpoint={finished}", f"data.fasta={genome[0]}")
    split = "train 12,620, validation 1,578, test 1,578"
    assert evaluate(tmp_path / "same", *words) == 0
    assert split in capsys.readouterr().out
    assert main(["evaluate", *SMALL[2:], *words, "data.length=32", f"hydra.run.dir={tmp_path / 'shorter'}"]) == 0
    said = capsys.readouterr().out
    assert split in said
    assert "windows of 32 bases; the model was trained on windows of 64 bases" in said


@pytest.mark.usefixtures("unplotted")
@pytest.mark.parametrize("attention", ["hybrid", "linear"])  # tests/end_to_end trains every layer
def test_a_run_says_its_layers_and_takes_any_fasta(
    attention: str, genome: tuple[Path, Path], tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    words = (f"attention={attention}", f"data.fasta={genome[0]}", "data.vcf=null", "trainer.max_steps=2")
    assert train(tmp_path, *words, "control=null", "model.depth=3") == 0
    said, grumbled = capfd.readouterr()
    layer = OmegaConf.load(tmp_path / "config.yaml").attention._target_.rpartition(".")[2]
    count = figures(tmp_path)["cost/parameters"]
    stack = ""
    if layer == "cycle":  # every kind of a stack
        layer = r"WindowAttention \(torch[^)]*\), (Full|Linear)Attention"
        stack = r", blocks: window, (full|linear), window"
    assert re.search(rf"model: {layer} \(torch[^)]*\) on cpu, {count:,} parameters{stack}\n", said)
    assert "no data.vcf: only simulated mutations are tested\n" in said
    assert f"Mutations detected by attention={attention}" in said
    assert said.endswith(f"run folder: {tmp_path}\n")
    assert grumbled == ""
    assert not (tmp_path / "control").exists()
    assert "…" not in said


@pytest.mark.usefixtures("unplotted")
def test_whole_records_are_held_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fasta, vcf = write_genome(tmp_path, "scaffold", seed=3, lengths=(5000, 2000, 1500, 100, 1500))
    words = (f"data.fasta={fasta}", f"data.vcf={vcf}", "data.split=record", "control=null")
    assert train(tmp_path / "run", *words) == 0
    said = capsys.readouterr().out
    assert "genome: 5 record(s), 10,100 bases; train 7,000, validation 1,500, test 1,500, 1 records too short" in said
    assert figures(tmp_path / "run")["model/scaffold_held_out/snv/events"] == 1
    words = (f"checkpoint={tmp_path / 'run'}", f"data.fasta={fasta}", f"data.vcf={vcf}", "seed=5")
    assert evaluate(tmp_path / "evaluated", *words) == 0
    assert figures(tmp_path / "evaluated") == figures(tmp_path / "run")


@pytest.mark.usefixtures("unplotted")
def test_ctrl_c_in_the_control_and_what_resume_does_then(
    finished: Path,
    genome: tuple[Path, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("attention=linear", f"data.fasta={genome[0]}", f"data.vcf={genome[1]}")
    half, rest = tmp_path / "half", tmp_path / "rest"
    with monkeypatch.context() as patch:
        at_batch(patch, 7, lambda: signal.raise_signal(signal.SIGINT))
        assert train(half, *words) == 130
    last = half / "checkpoints" / "last.ckpt"
    assert f"control was stopped by Ctrl-C after step 3; go on with trainer.resume={last}" in capsys.readouterr().out
    assert train(rest, *words, f"trainer.resume={last}") == 0
    assert {int(row["step"]) for row in rows(rest / "control")} == {3}
    assert figures(rest) == figures(finished)
    assert (rest / "checkpoints" / "last.ckpt").is_file()
    assert train(half, *words) == 2
    assert (
        f"holds a run already (metrics.csv); choose another folder, or go on with that run by trainer.resume={last}"
        in (capsys.readouterr().err)
    )
    assert train(half, *words, f"trainer.resume={last}") == 0  # in its folder
    assert [rows(half), rows(half / "control")] == [rows(finished), rows(finished / "control")]
    assert figures(half) == figures(finished)


def test_a_second_ctrl_c_does_not_wait(
    genome: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = signal.getsignal(signal.SIGINT)
    step = SequenceModule.training_step

    def impatient(self: SequenceModule, batch: object, index: int) -> torch.Tensor:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return step(self, batch, index)

    monkeypatch.setattr(SequenceModule, "training_step", impatient)
    assert train(tmp_path, f"data.fasta={genome[0]}") == 130
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_in_a_terminal(genome: tuple[Path, Path], tmp_path: Path) -> None:
    words = ("experiment=smoke", "trainer.threads=1", "trainer.max_steps=100000", f"data.fasta={genome[0]}")
    command = [sys.executable, "-u", CHECKOUT / "scripts" / "train.py", *words, f"hydra.run.dir={tmp_path}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as program:
        assert program.stdout is not None
        assert next((line for line in program.stdout if line.startswith("step")), None)
        program.send_signal(signal.SIGINT)
        said, grumbled = program.communicate(timeout=60)
    assert program.returncode == 130
    assert grumbled == ""
    last = tmp_path / "checkpoints" / "last.ckpt"
    steps = torch.load(last, weights_only=True)["global_step"]
    assert said.splitlines()[-1].endswith(f"stopped by Ctrl-C after step {steps}; go on with trainer.resume={last}")


@pytest.mark.usefixtures("unplotted")
def test_max_seconds_ends_training_and_the_run_goes_on_to_its_report(
    genome: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    step = SequenceModule.training_step

    def slow(self: SequenceModule, batch: object, index: int) -> torch.Tensor:
        time.sleep(0.1)
        return step(self, batch, index)

    monkeypatch.setattr(SequenceModule, "training_step", slow)
    words = (
        "trainer.max_steps=50",
        "trainer.max_seconds=0.05",  # which are over within the first step
        "trainer.accumulate_batches=2",
        "trainer.validate_every=50",
    )
    assert train(tmp_path, f"data.fasta={genome[0]}", "control=null", *words) == 0
    assert "model: trainer.max_seconds=0.05 ended training after step 1\n" in capsys.readouterr().out
    assert [row["step"] for row in rows(tmp_path) if row["loss"]] == ["0"]
    assert [row["step"] for row in rows(tmp_path) if row["validation/loss"]] == ["0"]
    assert (tmp_path / "checkpoints" / "best.ckpt").is_file()
    assert "model/test/all/auprc" in figures(tmp_path)


@pytest.mark.usefixtures("unplotted")
def test_the_last_step_is_validated_and_a_terminal_shows_how_far_it_is(
    genome: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, value in (("FORCE_COLOR", "1"), ("TERM", "xterm"), ("COLUMNS", "150")):
        monkeypatch.setenv(name, value)
    words = ("trainer.max_steps=3", "trainer.validate_every=2", "control=null")
    assert train(tmp_path, f"data.fasta={genome[0]}", *words) == 0
    assert [row["step"] for row in rows(tmp_path) if row["validation/loss"]] == ["1", "2"]
    said = capfd.readouterr().out
    assert "0/3" in said
    assert [said.count(f"\r\x1b[2Kstep      {number}  loss ") for number in (2, 3)] == [1, 1]  # where the bar stood


def test_the_weights_of_the_lowest_validation_loss_are_tested_and_kept(finished: Path) -> None:
    losses = [float(row["validation/loss"]) for row in rows(finished) if row["validation/loss"]]
    best = torch.load(finished / "checkpoints" / "best.ckpt", weights_only=True)
    assert best["callbacks"]["Checkpoints"]["lowest"] == pytest.approx(min(losses))
    assert best["global_step"] == 2 * (1 + losses.index(min(losses)))
    saved = load_file(finished / "model" / "weights.safetensors")
    assert all(torch.equal(saved[name], best["state_dict"][f"model.{name}"]) for name in saved)


def records(file: Path) -> Iterator[wandb_internal_pb2.Record]:
    """The records of wandb, one after the other: LevelDB's log format after 7 bytes of wandb's own."""
    data, at, whole, block = file.read_bytes(), 7, b"", 32_768
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if block - at % block < 7:
            at += block - at % block
        _, length, kind = struct.unpack_from("<IHB", data, at)
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # all of a record, or the last part of one
            yield wandb_internal_pb2.Record.FromString(whole)
            whole = b""


def test_wandb_offline(
    genome: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_ERROR_REPORTING", "false")
    for name in ("HOME", "WANDB_CONFIG_DIR", "WANDB_CACHE_DIR", "WANDB_DATA_DIR", "NETRC"):
        monkeypatch.setenv(name, str(tmp_path / "home"))
    with socket.create_server(("127.0.0.1", 0)) as server:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{server.getsockname()[1]}")
        assert train(tmp_path / "run", f"data.fasta={genome[0]}", "control=null", "logger=wandb", "seed=7") == 0
        server.setblocking(False)
        with pytest.raises(BlockingIOError):  # nobody has called
            server.accept()
    assert "wandb: no key was found" in capsys.readouterr().out
    assert wandb.run is None
    assert "WANDB_MODE" not in os.environ
    (file,) = (tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb")
    written = list(records(file))
    for _ in range(100):  # wandb's own process may still be writing on a busy machine
        if any("model/test/all/auprc" in told(record.summary.update) for record in written):
            break
        time.sleep(0.1)
        written = list(records(file))

    config = told(update for record in written for update in record.config.update)
    assert config["seed"] == 7
    assert config["attention"]["_target_"].endswith("LinearAttention")
    history = [told(record.history.item) for record in written if record.HasField("history")]
    losses = [row["loss"] for row in history if "loss" in row]
    assert losses == [float(row["loss"]) for row in rows(tmp_path / "run") if row["loss"]]
    table = next(row for row in history if "report._type" in row)
    assert table["report._type"] == "table-file"
    stored = json.loads((file.parent / "files" / table["report.path"]).read_text())
    assert stored["columns"][:3] == ["detector", "test set", "kind"]
    assert [row[:3] for row in stored["data"]][:2] == [
        ["linear", "simulated", "snv"],
        ["linear", "simulated", "insertion"],
    ]
    for plot in ("precision_recall", "training"):
        (name,) = next(row[f"plots/{plot}.filenames"] for row in history if f"plots/{plot}.filenames" in row)
        assert (file.parent / "files" / name).read_bytes()[:4] == b"\x89PNG"
    summary = told(update for record in written for update in record.summary.update)
    assert summary["model/test/all/auprc"] == figures(tmp_path / "run")["model/test/all/auprc"]


def told(items: Iterable) -> dict[str, Any]:
    """The keys of wandb's items, dotted where they are nested, and the values."""
    return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}


def test_wandb_says_why_it_is_offline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert wandb_logger()._wandb_init["mode"] == "offline"
    assert "wandb: no key was found (wandb login, or WANDB_API_KEY), so this run is" in capsys.readouterr().out
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password 0\n")
    assert wandb_logger()._wandb_init["mode"] is None
    assert wandb_logger(offline=True)._wandb_init["mode"] == "offline"
    (tmp_path / "netrc").unlink()
    monkeypatch.setenv("WANDB_MODE", "online")
    assert wandb_logger(offline=True)._wandb_init["mode"] is None
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("unplotted")
def test_several_loggers(genome: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = (f"data.fasta={genome[0]}", "control=null", "logger=[csv,tensorboard]")
    if find_spec("tensorboard") is None and find_spec("tensorboardX") is None:
        assert train(tmp_path, *words) == 2
        sentence = "logger=tensorboard needs the package tensorboard: pip install tensorboard\n"
        assert capsys.readouterr().err == sentence
    else:
        assert train(tmp_path, *words) == 0
        assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*")) and rows(tmp_path)


@pytest.mark.parametrize(
    ("word", "sentence"),
    [
        ("optimizer.lr=-1", "optimizer: Invalid learning rate: -1"),
        ("optimizer.lr=nan", "optimizer: Invalid learning rate: nan"),
        ("optimizer.lr=inf", "optimizer.lr must be a finite number, got inf"),
        ("trainer.accelerator=mps", "trainer.accelerator=mps cannot run here: "),
    ],
)
def test_settings_that_cannot_train(
    word: str, sentence: str, genome: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(tmp_path, f"data.fasta={genome[0]}", "control=null", "trainer.memory_check=false", word) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(sentence) and errors.count("\n") == 1
    assert not (tmp_path / "checkpoints").exists()


@pytest.mark.usefixtures("unplotted")
@pytest.mark.parametrize("precision", ["bf16-true", "bf16-mixed", "64-true"])
def test_a_run_in_another_precision(
    precision: str, genome: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (f"data.fasta={genome[0]}", "control=null", "trainer.max_steps=2", f"trainer.precision={precision}")
    assert train(tmp_path, *words) == 0
    assert f" parameters, {precision}\n" in capsys.readouterr().out
    weights = load_file(tmp_path / "model" / "weights.safetensors")
    assert {tensor.dtype for tensor in weights.values()} == {torch.float32}
    assert all(tensor.isfinite().all() for tensor in weights.values())


@pytest.mark.usefixtures("unplotted")
def test_the_model_is_saved_before_it_is_evaluated(
    genome: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cards = []

    def fail(*_: object) -> None:
        cards.append(ModelCard.read(tmp_path / "model"))
        raise UserError("evaluation failed")

    monkeypatch.setattr(MutationDetectionEvaluator, "evaluate", fail)
    assert train(tmp_path, f"data.fasta={genome[0]}", "control=null", "trainer.max_steps=1") == 2
    assert [card.calibration for card in cards] == [{}]
    assert (tmp_path / "train.log").read_text().endswith("evaluation failed\n")


def test_a_run_returns_its_primary_metric(
    finished: Path, genome: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = []
    run = train_program.main
    monkeypatch.setattr(train_program, "main", lambda config: values.append(run(config)))
    words = ("attention=linear", f"data.fasta={genome[0]}", f"data.vcf={genome[1]}", "control=null")
    assert train(tmp_path, *words) == 0
    assert values == [figures(finished)["model/test/all/auprc"]]


@pytest.mark.usefixtures("unplotted")
@pytest.mark.parametrize("words", [("tokenizer=kmer", "tokenizer.overlapping=true", "tokenizer.k=3")], ids=["kmer"])
def test_tokens_that_own_a_base_can_be_laid_side_by_side(
    words: Sequence[str], genome: tuple[Path, Path], tmp_path: Path
) -> None:
    settings = (f"data.fasta={genome[0]}", "trainer.max_steps=2", "control=null", *words)
    assert train(tmp_path / "run", *settings) == 0
    about = json.loads((tmp_path / "run" / "model" / "model.json").read_text())
    assert about["tokenizer"] == {
        "_target_": "genoattn.data.tokenizers.kmer.KmerTokenizer",
        "k": 3,
        "overlapping": True,
    }
    assert evaluate(tmp_path / "again", f"checkpoint={tmp_path / 'run'}", f"data.fasta={genome[0]}") == 0
    assert figures(tmp_path / "again")["model/test/snv/auprc"] == figures(tmp_path / "run")["model/test/snv/auprc"]
