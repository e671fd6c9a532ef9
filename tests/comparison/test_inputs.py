"""The inputs of a run: config, files, versions and code, read from where the run will read them."""

from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import DictConfig

from genoattn.comparison.code import CodeReader
from genoattn.comparison.inputs import InputReader, RunInputs, file_digest
from genoattn.config.compose import run_program
from genoattn.errors import UserError

pytestmark = pytest.mark.usefixtures("alone")

LAYER = "from my_package.parts import half\n\n\ndef layer(x):\n    return half(x)\n"
PARTS = "import numpy\n\n\ndef half(x):\n    return x / 2\n"


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package of two modules that can be found and is not imported."""
    folder = tmp_path / "my_package"
    folder.mkdir()
    (folder / "__init__.py").write_text("raise ImportError('a comparison imports nothing to read it')\n")
    (folder / "layer.py").write_text(LAYER)
    (folder / "parts.py").write_text(PARTS)
    monkeypatch.syspath_prepend(tmp_path)
    return folder


def test_the_code_of_a_layer_is_its_module_and_what_that_imports(package: Path) -> None:
    names = ["my_package.layer.layer"]
    before = CodeReader().digests(names)
    assert set(before) == {"my_package.layer", "my_package.parts"}
    (package / "parts.py").write_text(
        '"""A module."""\n\n' + PARTS.replace("def half(x):", "def half(x):  # a comment")
    )
    assert CodeReader().digests(names) == before
    (package / "parts.py").write_text(PARTS.replace("/ 2", "/ 3"))
    after = CodeReader().digests(names)
    assert [name for name in after if after[name] != before[name]] == ["my_package.parts"]
    (package / "parts.py").write_text("def half(:\n")
    assert CodeReader().digests(names)["my_package.parts"] not in (before["my_package.parts"], "")
    (package / "parts.py").unlink()
    assert CodeReader().reread(before)["my_package.parts"] == ""


def test_the_code_of_a_layer_of_this_package_is_no_other_layer() -> None:
    reader = CodeReader()
    linear = reader.digests(["genoattn.attention.linear.LinearAttention"])
    assert {"genoattn.attention.linear", "genoattn.attention.base", "genoattn.attention.ops.linear"} <= set(linear)
    assert "genoattn.attention.window" not in linear
    program = reader.digests(["genoattn.cli.train"])
    expected = {"genoattn.models.block", "genoattn.training.module", "genoattn.genome.fasta"}
    assert expected <= set(program) and "genoattn.attention.linear" not in program
    assert not [name for name in program if name.startswith(("genoattn.cli", "genoattn.config")) or "report" in name]
    assert not reader.digests(["torch.optim.AdamW", "builtins.dict", "no_such_package.x", "__main__.f"])


def inside(folder: Path, use: Callable[[InputReader], None]) -> None:
    """Read inputs inside a running program, as a comparison does."""

    def main(_: DictConfig) -> None:
        use(InputReader())

    assert run_program("check-layer", main, [f"hydra.run.dir={folder / 'program'}"]) == 0


def test_inputs_of_a_run(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    for folder, bases in (("a", "ACGT"), ("b", "ACGT"), (".", "CCCC")):
        (tmp_path / folder / "x.fa").write_text(f">r\n{bases}\n")

    def words(fasta: str, *more: str) -> list[str]:
        return [f"data.fasta={tmp_path / fasta}", "experiment=smoke", "control=null", *more]

    def use(reader: InputReader) -> None:
        first = reader.read("train", words("a/x.fa", "attention=linear", "seed=1", "trainer.max_steps=5"))
        assert first.settings["trainer.max_steps"] == 5 and first.settings["attention.features"] == "signed"
        assert first.files["data.fasta"][0][0] == "x.fa" and first.files["data.vcf"] == []
        assert {"genoattn.attention.linear", "genoattn.data.tasks.paired"} <= set(first.code)
        same = ["attention=linear", "trainer.max_steps=5", "seed=1", "trainer.threads=2", "data.workers=1", "logger=[]"]
        other_words = reader.read("train", words("b/x.fa", *same, "trainer.memory_check=false"))
        assert other_words.digest == first.digest and first.differences(other_words) == []
        first.write(tmp_path)
        assert RunInputs.read(tmp_path) == first

        base = ("attention=linear", "seed=2", "trainer.max_steps=5")
        assert reader.read("train", words("a/x.fa", *base)).differences(first) == ["seed was 1 and is 2"]
        other = reader.read("train", words("x.fa", "attention.features=relu", *base, "seed=1"))
        assert other.differences(first) == [
            "attention.features was signed and is relu",
            "the content of data.fasta changed",
        ]
        hybrid = reader.read("train", words("a/x.fa", "attention=hybrid", "attention.layers=[window,conv]"))
        assert {"genoattn.attention.window", "genoattn.attention.conv"} <= set(hybrid.code) - set(first.code)
        plan = reader.read("plan", words("a/x.fa", *base, "trainer.threads=2"))
        assert plan.settings["trainer.threads"] == 2 and "trainer.threads" not in first.settings  # it changes the cost

    inside(tmp_path, use)


def test_inputs_of_a_test_are_the_trained_model(tmp_path: Path) -> None:
    run = tmp_path / "bob's run, x=1"
    (run / "model").mkdir(parents=True)

    def use(reader: InputReader) -> None:
        def read(weights: bytes) -> RunInputs:
            (run / "model" / "weights.safetensors").write_bytes(weights)
            quoted = str(run).replace("'", "\\'")
            return reader.read("evaluate", [f"checkpoint='{quoted}'", "data.length=64"])

        first, again, other = (read(weights) for weights in (b"1", b"1", b"2"))
        assert first.digest == again.digest and first.settings["data.length"] == 64
        assert other.differences(first) == ["the content of checkpoint changed"]
        assert [name for name, _ in first.files["data.fasta"]] == ["NCTC8325.fa.gz"]

    inside(tmp_path, use)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.vcf=.*x\.vcf cannot be read: No such file or directory"):
        file_digest(tmp_path / "x.vcf", "data.vcf")
