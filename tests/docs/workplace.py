"""Runs the commands that pages show, in a folder that looks like a checkout, with small budgets and small files."""

import re
import runpy
import shlex
import shutil
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from genoattn.cli.main import main
from genoattn.comparison import runner
from genoattn.config.compose import check, compose
from genoattn.genome.alphabet import decode_bases
from tests.comparison.test_compare import Lab
from tests.plots import save_nothing

CHECKOUT = Path(__file__).parents[2]
TRAINS = ("train", "finetune", "plan")
RUN = "runs/train/…"
"""The run folder that a page means: the newest one."""

FILES = {"detect": ("reference", "sample"), "score": ("fasta", "vcf"), "scan": ("fasta",)}
"""Settings of programs that name the files which are read; those with a FASTA alone have windows of a `length`."""

BUDGET = {
    "trainer.threads": "1",
    "trainer.max_steps": "1",
    "trainer.accelerator": "cpu",
    "data.length": "64",
    "data.batch": "2",
    "data.validation_windows": "4",
}
TEST = {"test.windows": "20", "test.threshold_windows": "20", "test.resamples": "2"}
MODEL = {"model.dim": "16", "model.depth": "2"}


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    code: str


def blocks(page: Path) -> list[Block]:
    """The blocks of bash and Python of a page, without those that a comment marks as not run."""
    pattern = r"(<!-- not run: [^\n]*-->\n+)?^```(bash|python)\n(.*?)^```"
    text = re.sub(
        r'^--8<-- "(.*)"$',
        lambda snippet: (CHECKOUT / "docs" / snippet[1]).read_text("utf-8"),
        page.read_text("utf-8"),
        flags=re.MULTILINE,
    )
    found = re.findall(pattern, text, re.MULTILINE | re.DOTALL)
    return [Block(language, code) for skipped, language, code in found if not skipped]


def commands(code: str) -> list[list[str]]:
    """The words of every line of a bash block, without comments; a backslash joins lines."""
    lines = code.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def program(words: list[str]) -> str:
    """train, of `python scripts/train.py …` and of `genoattn train …`; empty for other commands."""
    if words[0] == "genoattn":
        return words[1]
    script = words[1] if words[0] == "python" and len(words) > 1 else ""
    return Path(script).stem if script.startswith("scripts/") else ""


def overrides(words: list[str]) -> list[str]:
    """The settings of a command."""
    return [word for word in words[2:] if not word.startswith("-")]


def check_settings(words: list[str]) -> None:
    """Compose and check the config of a command as a page shows it; settings of a launcher belong to its plugin."""
    name = program(words)
    settings = [word.replace("…", "x") for word in overrides(words) if not word.startswith(("hydra/", "hydra."))]
    check(compose(name, settings), name)


@contextmanager
def workplace(folder: Path) -> Iterator[pytest.MonkeyPatch]:
    """Work in a folder with a small genome, variants of it and labels, and with a comparison's processes replaced."""
    (folder / "data").symlink_to(CHECKOUT / "data")
    (folder / "docs").symlink_to(CHECKOUT / "docs")
    bases = decode_bases(np.random.default_rng(0).integers(0, 4, 3000, np.uint8))
    (folder / "small.fa").write_text(f">small\n{bases}\n")
    other = "CGTA"["ACGT".index(bases[1499])]
    head = "##fileformat=VCFv4.2\n##contig=<ID=small,length=3000>\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\n"
    (folder / "small.vcf").write_text(f"{head}small\t1500\t.\t{bases[1499]}\t{other}\t.\t.\t.\n")
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENOATTN_CACHE", str(folder / "cache"))
        patch.setenv("WANDB_MODE", "offline")
        patch.setattr(sys, "argv", ["pytest"])
        patch.delitem(sys.modules, "my_layers", raising=False)  # of an earlier tutorial
        patch.setattr(runner, "run_jobs", Lab())
        patch.setattr(Figure, "savefig", save_nothing)
        patch.setattr("genoattn.training.run.check_memory", lambda *_: None)
        patch.chdir(folder)
        yield patch
    torch.set_num_threads(threads)


def run(words: list[str], patch: pytest.MonkeyPatch) -> None:
    """Run a command of a page; commands that only set up an environment are left out or imitated."""
    if words[0] in ("make", "source"):
        return
    if words[0] == "cp":
        shutil.copytree(CHECKOUT / words[-2], Path(words[-1], Path(words[-2]).name))
    elif words[:2] == ["pip", "install"]:
        install(Path(words[-1]), patch)
    else:
        name = program(words)
        assert name, f"{' '.join(words)} is not known here"
        flags = [word for word in words[2:] if word.startswith("-")]
        arguments = [*flags, *cheaper(name, overrides(words))]
        if words[0] == "genoattn":
            assert main([name, *arguments]) == 0
        else:
            run_script(words[1], arguments, patch)


def run_script(script: str, arguments: list[str], patch: pytest.MonkeyPatch) -> None:
    """Run a script of scripts/ as `python` would."""
    patch.setattr(sys, "argv", [script, *arguments])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(CHECKOUT / script), run_name="__main__")
    assert ended.value.code == 0


def install(project: Path, patch: pytest.MonkeyPatch) -> None:
    """Make a project of this folder importable, with its entry points, as an editable installation does."""
    about = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))["project"]
    metadata = project / f"{about['name'].replace('-', '_')}-{about['version']}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {about['name']}\nVersion: {about['version']}\n")
    lines = [
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in points.items())
        for group, points in about["entry-points"].items()
    ]
    (metadata / "entry_points.txt").write_text("\n".join(lines))
    patch.syspath_prepend(project.absolute())


def newest_run() -> str:
    """The folder of the run that began last."""
    folders = [path for path in Path("runs/train").iterdir() if (path / "model").is_dir()]
    return str(max(folders, key=lambda path: path.stat().st_mtime_ns))


def cheaper(name: str, words: list[str]) -> list[str]:
    """The overrides of a command with a small budget, the small genome, and the newest run as checkpoint."""
    given = dict(word.replace(RUN, newest_run() if RUN in word else "").split("=", 1) for word in words)
    for path in [given[key] for key in ("data.fasta", "data.vcf") if key in given]:
        assert not path.startswith("data/") or Path(path).is_file(), f"{path} is named and is not there"
    if name == "compare" and "data.length" in given:  # as many lengths, and shorter ones
        given["data.length"] = re.sub(r"\d+", lambda length: str(32 * len(length[0])), given["data.length"])
    if given.get("attention") == "hierarchical" and name == "check-layer":
        given["attention"] = "full"  # other tests check every layer
    if name in ("check-layer", "kernels", "compare"):
        return [f"{key}={value}" for key, value in given.items()]
    if name in FILES:  # as they stand, if what they read is there
        if not all(Path(given[key]).exists() for key in FILES[name] if key in given):
            given |= {key: "small.vcf" if key == "vcf" else "small.fa" for key in FILES[name]}
        if name != "detect":
            given.setdefault("length", "64")
        return [f"{key}={value}" for key, value in given.items()]
    given["data.fasta"] = "small.fa"
    if given.get("data.vcf", "[]") != "[]":
        given["data.vcf"] = "small.vcf"
    if name == "context":
        given |= {"windows": "2", "positions": "2", "data.length": "64"}
    elif name in TRAINS:
        given = {"experiment": "smoke"} | given if name != "finetune" else given
        given |= BUDGET | TEST | (MODEL if name != "finetune" else {})
    else:
        given |= TEST | {"data.length": "64"}
    return [f"{key}={value}" for key, value in given.items()]
