"""The commands that the README shows do run, with a small budget and small files in place of large ones."""

import re
import runpy
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from genoattn.cli.main import main
from genoattn.comparison import runner
from genoattn.config.compose import check, compose
from tests.comparison.test_compare import Lab

CHECKOUT = Path(__file__).parents[2]
README = (CHECKOUT / "README.md").read_text("utf-8")
BUDGET = {"trainer.threads": "1", "trainer.max_steps": "1", "test.windows": "2", "test.threshold_windows": "2"}
BUDGET |= {"test.resamples": "1", "trainer.accelerator": "cpu", "trainer.precision": "32-true", "trainer.devices": "1"}


def commands() -> list[list[str]]:
    """The words of every line of the README's bash blocks, without comments; a backslash joins lines."""
    blocks = re.findall(r"^```bash\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    lines = "".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def program(words: list[str]) -> str:
    """train, of `python scripts/train.py …` and of `genoattn train …`; empty for other commands."""
    if words[0] == "genoattn":
        return words[1]
    script = words[1] if words[0] == "python" and len(words) > 1 else ""
    return Path(script).stem if script.startswith("scripts/") else ""


COMMANDS = [words for words in commands() if program(words)]
MADE = [words for words in commands() if words[0] == "make"]


def test_the_readme_shows_how() -> None:
    shown = {program(words) for words in COMMANDS}
    assert {"train", "evaluate", "tokenizer"} <= shown
    assert {"train", "test"} <= {word for words in MADE for word in words[1:]}


@pytest.mark.parametrize("words", MADE, ids=" ".join)
def test_make(words: list[str]) -> None:
    targets = re.findall(r"^([\w-]+):", (CHECKOUT / "Makefile").read_text(), re.MULTILINE)
    assert not [word for word in words[1:] if "=" not in word and word not in targets]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that looks like the checkout, with a small genome and a run on it besides."""
    folder = tmp_path_factory.mktemp("readme")
    (folder / "data").symlink_to(CHECKOUT / "data")
    bases = "".join("ACGT"[(i * i // 7 + i // 3) % 4] for i in range(3000))
    (folder / "small.fa").write_text(f">small\n{bases}\n")
    other = "CGTA"["ACGT".index(bases[1499])]
    head = "##fileformat=VCFv4.2\n##contig=<ID=small,length=3000>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    (folder / "small.vcf").write_text(f"{head}small\t1500\t.\t{bases[1499]}\t{other}\t.\t.\t.\n")
    changed = [f"small\t{at + 1}\t{bases[at]}\t{'CGTA'['ACGT'.index(bases[at])]}" for at in range(10, 2990, 5)]
    labels = [f"{row}\t{('Benign', 'Pathogenic')[n % 2]}" for n, row in enumerate(changed)]
    (folder / "small.tsv").write_text("\n".join(["chrom\tpos\tref\talt\tCLNSIG", *labels]) + "\n")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENOATTN_CACHE", str(folder / "cache"))
        patch.setenv("WANDB_MODE", "offline")
        patch.setattr(sys, "argv", ["pytest"])
        patch.chdir(folder)
        budget = [f"{key}={value}" for key, value in BUDGET.items()]
        assert main(["train", "experiment=smoke", *budget, "data.fasta=small.fa", "hydra.run.dir=run"]) == 0
        yield folder
    torch.set_num_threads(threads)


def cheaper(name: str, words: list[str], place: Path) -> list[str]:
    """The overrides of a command with the budget, the small genome where there is a VCF, and the run that is there."""
    given = dict(word.split("=", 1) for word in words)
    for path in [given[key] for key in ("data.fasta", "data.vcf") if key in given]:
        assert not path.startswith("data/") or (place / path).is_file(), f"the README names {path}, which is not there"
    if "data.vcf" in given or not given.get("data.fasta", "data/").startswith("data/"):
        given |= {"data.fasta": "small.fa"} | ({"data.vcf": "small.vcf"} if "data.vcf" in given else {})
    if "trainer.resume" in given:
        given["trainer.resume"] = "run/checkpoints/last.ckpt"
    if "checkpoint" in given:
        given["checkpoint"] = "run"
    if "task.file" in given:
        given["task.file"] = "small.tsv"
    if name in ("check-layer", "kernels", "compare"):
        return [f"{key}={value}" for key, value in given.items()]
    if name != "train":
        return [f"{key}={value}" for key, value in (given | TESTED).items()]
    return [f"{key}={value}" for key, value in (given | BUDGET | {"experiment": "smoke"}).items()]


TESTED = {key: value for key, value in BUDGET.items() if key.startswith("test.")} | {"data.length": "64"}


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_it_runs(words: list[str], place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name, overrides = program(words), [word for word in words[2:] if not word.startswith("-")]
    flags = [word for word in words[2:] if word.startswith("-")]
    monkeypatch.setattr(runner, "run_jobs", Lab())  # its runs are other programs
    if not flags:
        check(compose(name, [word.replace("…", "x") for word in overrides]), name)
    arguments = (
        words[2:] if {"-h", "--help", "-c", "--cfg"} & set(flags) else [*flags, *cheaper(name, overrides, place)]
    )
    if words[0] == "genoattn":
        assert main([name, *arguments]) == 0
        return
    monkeypatch.setattr(sys, "argv", [words[1], *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(CHECKOUT / words[1]), run_name="__main__")
    assert ended.value.code == 0
