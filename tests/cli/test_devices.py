"""Several devices of a machine: a process for each, and the same bytes as from one."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from genoattn.cli.main import main
from genoattn.comparison import launcher
from genoattn.data.curriculum import Curriculum, CurriculumStage
from genoattn.data.settings import DataSettings
from genoattn.data.source import build_dataset, open_data_source
from genoattn.errors import UserError
from genoattn.genome.simulate import Rates
from genoattn.models.devices import DevicePool, SpreadPredictor, local_devices
from tests.toy_genomes import write_genome
from tests.toy_models import CAUSAL, MASKED, saved, toy_model

pytestmark = [pytest.mark.usefixtures("alone", "one_thread"), pytest.mark.filterwarnings("ignore")]


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # of processes
    torch.set_num_threads(1)


def test_the_devices_of_a_machine() -> None:
    assert local_devices("auto", gpus=0) == ["cpu"] and local_devices(3, gpus=0) == ["cpu"] * 3
    assert local_devices("auto", gpus=2) == ["cuda:0", "cuda:1"] and local_devices(1, gpus=2) == ["cuda:0"]
    with pytest.raises(UserError, match="devices=3: this machine shows 2 GPUs; expected at most as many, or auto"):
        local_devices(3, gpus=2)


def test_a_process_sees_its_own_gpu_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three jobs on two mocked devices: the third starts where one has ended, and all are over at the end."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,7")
    started: list[tuple[str, str, str | None]] = []
    killed: list[str] = []

    class Started:
        def __init__(self, command: list[str], env: dict[str, str], **_: Any):
            self.place = command[4]
            self.left = 3 if self.place == "a" else 1
            started.append((self.place, env["CUDA_VISIBLE_DEVICES"], command[3]))

        def poll(self) -> int | None:
            self.left -= 1
            return None if self.left else 0

        def kill(self) -> None:
            killed.append(self.place)

    monkeypatch.setattr(launcher.subprocess, "Popen", Started)
    monkeypatch.setattr(launcher, "search_path", list)
    for place in "abc":
        (tmp_path / place).mkdir()
    jobs = {place: [place] for place in "abc"}
    launcher.run_on_devices("score", jobs, tmp_path, "shard.json", ["cuda:0", "cuda:1"])
    assert started == [("a", "5", "score"), ("b", "7", "score"), ("c", "7", "score")] and sorted(killed) == list("abc")


def test_two_processes_answer_bit_by_bit_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every batch of two models in turn, both strands too; then the report of `evaluate`."""
    fasta, _ = write_genome(tmp_path, "toy", 0, lengths=(6_000,))
    loaded, other = toy_model(MASKED), toy_model(MASKED, layer="full")
    data = DataSettings(length=32, fasta=str(fasta))
    source = open_data_source(data, loaded.predictor.task, 0)
    dataset = build_dataset(source, "test", data, loaded.predictor.task, 0, 1, Curriculum())
    examples = [dataset.example(number, CurriculumStage(Rates(), 32)) for number in range(11)]
    monkeypatch.setattr("genoattn.models.predictor.BATCH_BASES", 64)
    pool = DevicePool(["cpu", "cpu"])
    try:
        for one in (loaded.predictor, other.predictor):
            spread, seen = SpreadPredictor.of(one, pool), 0
            for both in (False, True):
                pairs = zip(one.logits(examples, both), spread.logits(examples, both), strict=True)
                for (batch, logits), (same, answers) in pairs:
                    assert torch.equal(batch.ids, same.ids) and logits.keys() == answers.keys()
                    assert all(torch.equal(logits[name], answers[name]) for name in logits)
                    seen += 1
            assert seen == 2 * 6
        pool.submit(9, next(iter(one.batches(examples))))  # no such model: the other answers are not disturbed
        assert len(list(spread.logits(examples))) == 6
    finally:
        pool.close()


def metrics_of(folder: Path) -> dict[str, Any]:
    found = json.loads((folder / "metrics.json").read_text())
    return {name: value for name, value in found.items() if not name.startswith("cost/")}


def test_evaluate_with_two_processes_reports_the_same(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fasta, _ = write_genome(tmp_path, "toy", 0, lengths=(6_000,))
    model = saved(tmp_path / "model", toy_model(MASKED))
    words = [f"checkpoint={model}", f"data.fasta={fasta}", "test.windows=4", "test.resamples=5"]
    for devices in ("1", "2"):
        assert main(["evaluate", *words, f"devices={devices}", f"hydra.run.dir={tmp_path / devices}"]) == 0
    assert "2 processes compute: cpu, cpu" in capsys.readouterr().out
    assert metrics_of(tmp_path / "1") == metrics_of(tmp_path / "2")
    files = sorted(path.name for path in (tmp_path / "1").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "2").iterdir())


def test_score_and_detect_write_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fasta, vcf = write_genome(tmp_path, "toy", 3, lengths=(3_000,))
    model = saved(tmp_path / "model", toy_model(CAUSAL))
    letters = "".join(fasta.read_text().split("\n")[1:])
    sample = tmp_path / "sample.fa"
    sample.write_text(f">s\n{letters[:1500]}{'ACGT'[('ACGT'.index(letters[1500]) + 1) % 4]}{letters[1501:]}\n")
    programs = {
        "score": [f"checkpoint={model}", f"fasta={fasta}", f"vcf={vcf}"],
        "detect": [f"reference={fasta}", f"sample={sample}"],
    }
    for program, words in programs.items():
        outputs = []
        for devices in ("1", "2"):
            home = tmp_path / f"{program}{devices}"
            home.mkdir()
            monkeypatch.chdir(home)
            command = [program, *words, "out=x.vcf", f"devices={devices}", f"hydra.run.dir={home}/run"]
            assert main(command) == 0
            outputs.append({file.name: file.read_bytes() for file in home.glob("x.*") if file.suffix != ".html"})
            parts = home / "run" / "parts"
            assert program == "detect" or len(list(parts.iterdir())) == int(devices)
        assert outputs[0] == outputs[1] and len(outputs[0]["x.vcf"].splitlines()) > 5
