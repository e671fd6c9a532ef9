"""Training on several processes is the training of one: weights, figures, files, and what is said."""

import json
import os
from pathlib import Path

import pytest

from genoattn.training import processes
from tests.parallel.conftest import WORDS, largest_difference
from tests.parallel.ranks import Ranks, call_main
from tests.toy_models import CAUSAL, saved, toy_model
from tests.training.quick import rows

pytestmark = pytest.mark.usefixtures("alone", "evaluation_left_out")


def alone_and_together(ranks: Ranks, folder: Path, *words: str) -> tuple[Path, Path]:
    """Run folders of the same training in this process and in several, of which the first one alone speaks."""
    one, several = folder / "one", folder / "several"
    assert call_main([*words, f"hydra.run.dir={one}"])[0] == 0
    together = [*words, f"hydra.run.dir={several}", f"trainer.devices={ranks.world}"]
    (status, said, grumbled), *others = ranks.run(call_main, together)
    assert (status, grumbled) == (0, "") and f"run folder: {several}\n" in said
    assert others == [(0, "", "")] * (ranks.world - 1)
    return one, several


def assert_same_figures(one: Path, other: Path, tolerance: float) -> None:
    """metrics.csv of both, the validation included."""
    assert len(rows(one)) == len(rows(other)) > 0
    for row, found in zip(rows(one), rows(other), strict=True):
        assert row.keys() == found.keys()
        logged = [key for key in row if row[key] and key != "padding"]
        expected = {key: float(row[key]) for key in logged}
        assert {key: float(found[key]) for key in logged} == pytest.approx(expected, rel=tolerance, abs=tolerance)


def files(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


PRETRAIN = ("task=pretrain", "heads=default", "curriculum=none", "tokenizer=bpe", "reverse_complement=augment")
CASES = {
    # Windows of mixed lengths, whose number is no multiple of four; several batches a step.
    "default, float64": (4, "train", "trainer.precision=64-true", "trainer.accumulate_batches=2"),
    "default": (2, "train"),
    "paired": (4, "train", "task=paired", "heads=default", "curriculum=anneal", "data.bucket_batches=2"),
    "pretrain": (2, "train", *PRETRAIN, "tokenizer.vocabulary_size=64"),
}


@pytest.mark.parametrize("case", CASES)
def test_several_processes_train_as_one(case: str, fasta: Path, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    world, program, *words = CASES[case]
    ranks = request.getfixturevalue({2: "two", 4: "four"}[world])
    one, several = alone_and_together(ranks, tmp_path, program, *WORDS, *words, f"data.fasta={fasta}")
    double = "trainer.precision=64-true" in words
    assert largest_difference(one, several) < (1e-12 if double else 1e-6)
    assert_same_figures(one, several, 1e-6)
    assert files(one) == files(several)


def test_two_processes_train_as_one_that_accumulates_to_the_last_bit(two: Ranks, fasta: Path, tmp_path: Path) -> None:
    words = ["train", *WORDS[:-1], "curriculum=none", f"data.fasta={fasta}"]
    halves = ["data.batch=2", "trainer.accumulate_batches=2", f"hydra.run.dir={tmp_path / 'one'}"]
    assert call_main([*words, *halves])[0] == 0
    two.run(call_main, [*words, f"hydra.run.dir={tmp_path / 'two'}", "trainer.devices=2"])
    assert largest_difference(tmp_path / "one", tmp_path / "two") == 0


def test_adapters(two: Ranks, fasta: Path, tmp_path: Path) -> None:
    model = saved(tmp_path / "model", toy_model(CAUSAL, layer="linear"))
    own = [f"checkpoint={model}", "finetune.mode=lora", "data.batch=4", "data.length=32", "data.validation_windows=8"]
    own += ["trainer.max_steps=3", "trainer.validate_every=2", f"data.fasta={fasta}"]
    words = [word for word in WORDS if word.partition("=")[0] not in ("experiment", "control", "data.batch")]
    one, several = alone_and_together(two, tmp_path, "finetune", *words, *own)
    assert largest_difference(one, several) < 1e-6


SLURM = {"PROCID": "5", "LOCALID": "1", "NODEID": "2", "JOB_ID": "123456", "NTASKS": "6", "NTASKS_PER_NODE": "2"}
STEP = {"STEP_NUM_TASKS": "6", "STEP_NUM_NODES": "3", "STEP_NODELIST": "gpu[07-09]"}


def test_the_place_of_a_process() -> None:
    slurm, step = ({f"SLURM_{name}": value for name, value in part.items()} for part in (SLURM, STEP))
    assert processes.variables({}) == {}
    assert processes.variables(slurm) == {}  # of a batch script, which is no task
    torchrun = {"RANK": "5", "WORLD_SIZE": "6", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
    addressed = {"MASTER_ADDR": "gpu07", "MASTER_PORT": "18456"}
    assert processes.variables(slurm | step) == {**torchrun, **addressed, "GROUP_RANK": "2"}
    assert processes.variables({**torchrun, **addressed, "HOME": "/"}) == torchrun | addressed
    chosen = {"MASTER_ADDR": "gpu09", "MASTER_PORT": "7"}
    assert processes.variables(slurm | step | chosen) == {**torchrun, **chosen, "GROUP_RANK": "2"}


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["trainer.devices=3"], "data.batch=4 is the batch of all devices together, so it must be a multiple of the 3"),
        (
            ["trainer.devices=2", "trainer.num_nodes=2"],
            "trainer.num_nodes=2: torchrun or srun must start",
        ),
        (["-m", "trainer.devices=2", "seed=0,1"], "-m runs its jobs in one process, one after another, so it needs"),
    ],
)
def test_what_one_process_refuses(words: list[str], sentence: str, fasta: Path, tmp_path: Path) -> None:
    status, _, said = call_main(["train", *WORDS, f"data.fasta={fasta}", f"hydra.run.dir={tmp_path / 'run'}", *words])
    assert status == 2 and sentence in said and said.count("\n") == 1


def call_by_slurm(folder: Path, words: list[str]) -> int:
    """A program in a process that looks like a task of `srun`, with run folders in `folder`."""
    rank, world, port = (os.environ[name] for name in ("RANK", "WORLD_SIZE", "MASTER_PORT"))
    task = SLURM | STEP | {"PROCID": rank, "LOCALID": rank, "STEP_NUM_TASKS": world, "STEP_NUM_NODES": "1"}
    with pytest.MonkeyPatch.context() as patch:
        for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            patch.delenv(name)
        for name, value in task.items():
            patch.setenv(f"SLURM_{name}", value)
        patch.setenv("MASTER_PORT", port)
        patch.chdir(folder)
        return call_main(words)[0]


def test_tasks_of_slurm_share_a_new_run_folder(two: Ranks, fasta: Path, tmp_path: Path) -> None:
    words = ["train", *WORDS, f"data.fasta={fasta}", "trainer.devices=2", "trainer.max_steps=2"]
    assert two.run(call_by_slurm, tmp_path, words) == [0, 0]
    (run,) = (tmp_path / "runs" / "train").iterdir()
    wanted = {"config.yaml", "metrics.csv", "train.log", "checkpoints/last.ckpt", ".hydra/config.yaml"}
    assert wanted <= files(run) and not (tmp_path / "outputs").exists()


def test_plan_tells_of_each_process(fasta: Path, tmp_path: Path) -> None:
    words = [word for word in WORDS if word != "trainer.memory_check=false"]
    words += [f"data.fasta={fasta}", "data.length=512", "capacity=[]", "available_memory=16GiB"]
    found = []
    for more in (["trainer.devices=1"], ["trainer.devices=2"]):
        run = tmp_path / f"{len(found)}"
        status, said, _ = call_main(["plan", *words, *more, f"hydra.run.dir={run}"])
        assert status == 0 and ("each of 2 processes of the training takes" in said) == bool(found)
        found.append(json.loads((run / "plan.json").read_text())["predicted"])
    one, two = found
    assert one["available_bytes"] == 2 * two["available_bytes"] == 2**34
    assert two["longest_length"] > one["longest_length"] / 2


def test_what_several_processes_refuse(two: Ranks, fasta: Path, tmp_path: Path) -> None:
    words = ["train", *WORDS, f"data.fasta={fasta}", f"hydra.run.dir={tmp_path / 'run'}"]
    (status, _, said), other = two.run(call_main, words)
    assert status == 2 and said == "trainer.devices=1 and trainer.num_nodes=1: 2 processes were started\n"
    assert other == (2, "", "")
    missing = [*words, f"data.fasta={tmp_path / 'no.fa'}", "trainer.devices=2"]
    (status, _, said), other = two.run(call_main, missing)
    assert status == 2 and f"{tmp_path / 'no.fa'} does not exist" in said and other == (2, "", "")
    (tmp_path / "run" / "model").mkdir()
    (status, _, said), other = two.run(call_main, [*words, "trainer.devices=2"])
    assert status == 2 and "holds a run already (model)" in said and other == (2, "", "")
