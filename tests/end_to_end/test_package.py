"""A wheel, installed under the lock in an empty environment and run from another folder, finds configs and genome."""

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from omegaconf import OmegaConf

CHECKOUT = Path(__file__).parents[2]


def run(*command: str | Path, cwd: Path, **environment: str) -> str:
    """The output of a command that is run where nothing points at the checkout."""
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    # caches of compiled modules are kept: the second command need not compile torch again
    settings = {**inherited, "PYTHONDONTWRITEBYTECODE": "", "PYTHONNOUSERSITE": "1", **environment}
    ended = subprocess.run(list(map(str, command)), cwd=cwd, env=settings, capture_output=True, text=True)
    assert ended.returncode == 0, f"{' '.join(map(str, command))}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, CHECKOUT, cwd=folder)
    (built,) = folder.glob("genoattn-*.whl")
    return built


def test_the_wheel_holds_every_config_and_genome(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    configs = [file.relative_to(CHECKOUT / "conf") for file in (CHECKOUT / "conf").rglob("*.yaml")]
    genomes = [file.name for file in (CHECKOUT / "data").iterdir()]
    assert "train.yaml" in map(str, configs)
    assert {f"genoattn/conf/{name.as_posix()}" for name in configs} <= inside
    assert {f"genoattn/genomes/{name}" for name in genomes} <= inside
    assert "genoattn/comparison/report/report.html.j2" in inside
    assert {name.split("/")[0] for name in inside} == {"genoattn", f"genoattn-{wheel.name.split('-')[1]}.dist-info"}


def test_the_wheel_runs_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    environment, elsewhere = tmp_path / "environment", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=elsewhere)
    pip = (sys.executable, "-m", "pip", "--python", environment, "install", "--quiet", "--no-compile")
    locked = [line for file in sorted(CHECKOUT.glob("requirements-*.lock")) for line in file.read_text().splitlines()]
    versions = [line.partition("\\")[0] for line in locked if "==" in line]  # without hashes, as the wheel has none
    (elsewhere / "versions.txt").write_text("\n".join(versions))
    run(*pip, "--constraint", "versions.txt", wheel, cwd=elsewhere)

    genoattn = environment / "bin" / "genoattn"
    cache = {"GENOATTN_CACHE": str(tmp_path / "cache")}
    settings = ("attention=linear", "experiment=smoke", "trainer.max_steps=2")
    printed = run(genoattn, "train", *settings, cwd=elsewhere, **cache)
    (folder,) = (elsewhere / "runs" / "train").iterdir()
    assert f"run folder: {folder}" in printed
    assert (folder / "metrics.json").is_file()
    assert (folder / "model").is_dir()
    config = OmegaConf.create(run(genoattn, "train", *settings, "--cfg", "job", cwd=elsewhere, **cache))
    assert config == OmegaConf.load(folder / ".hydra" / "config.yaml")
    where = "from genoattn.paths import conf_dir, genomes_dir; print(conf_dir(), genomes_dir())"
    found = run(environment / "bin" / "python", "-c", where, cwd=elsewhere).split()
    assert all(Path(one).is_dir() and Path(one).is_relative_to(environment) for one in found)
