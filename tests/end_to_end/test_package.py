"""A wheel, installed in an environment of its own and run from another folder, finds configs and genome."""

import email
import os
import subprocess
import sys
import sysconfig
import tomllib
import zipfile
from pathlib import Path

import pytest
from omegaconf import OmegaConf
from packaging.requirements import Requirement

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


def test_the_wheel_holds_every_config_genome_and_model(wheel: Path) -> None:
    inside = set(zipfile.ZipFile(wheel).namelist())
    configs = [file.relative_to(CHECKOUT / "conf") for file in (CHECKOUT / "conf").rglob("*.yaml")]
    data = [file.relative_to(CHECKOUT / "data") for file in (CHECKOUT / "data").rglob("*") if file.is_file()]
    assert "train.yaml" in map(str, configs)
    assert {f"genoattn/conf/{name.as_posix()}" for name in configs} <= inside
    assert "models/detector/weights.safetensors" in map(str, data)
    assert {f"genoattn/genomes/{name.as_posix()}" for name in data} <= inside
    assert "genoattn/comparison/report/report.html.j2" in inside
    assert {name.split("/")[0] for name in inside} == {"genoattn", f"genoattn-{wheel.name.split('-')[1]}.dist-info"}


def test_the_wheel_names_every_dependency(wheel: Path) -> None:
    project = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    (metadata,) = (name for name in zipfile.ZipFile(wheel).namelist() if name.endswith(".dist-info/METADATA"))
    message = email.message_from_bytes(zipfile.ZipFile(wheel).read(metadata))
    required = {str(Requirement(text)) for text in message.get_all("Requires-Dist", []) if "extra ==" not in text}
    assert required == {str(Requirement(text)) for text in project["dependencies"]}


def test_the_wheel_runs_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    """In an environment that takes the dependencies, and not genoattn, from that of the tests."""
    environment, elsewhere = tmp_path / "environment", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=elsewhere)
    pip = (sys.executable, "-m", "pip", "--python", environment, "install", "--quiet", "--no-compile", "--no-deps")
    run(*pip, wheel, cwd=elsewhere)
    (packages,) = (environment / "lib").glob("python*/site-packages")
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")  # its own .pth files are not read

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
