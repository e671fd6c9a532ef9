"""An exported folder opens as the model that it was made of; what was changed in it afterwards is refused."""

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch

import genoattn
from genoattn.cli.main import main
from genoattn.data.tokenizers.base import Tokenizer
from genoattn.data.tokenizers.bpe import BpeTokenizer
from genoattn.data.tokenizers.huggingface import tokenizer_json
from genoattn.data.tokenizers.kmer import KmerTokenizer
from genoattn.data.tokenizers.nucleotide import NucleotideTokenizer
from genoattn.errors import UserError
from genoattn.files import unfinished_name
from genoattn.genome.alphabet import LETTERS, encode_bases
from genoattn.models.build import build_from_card
from genoattn.models.card import ModelCard
from genoattn.models.checkpoint import save_model
from genoattn.models.exported import FILES
from genoattn.models.hub import HubModel
from genoattn.models.nodes import complete_node

BPE = BpeTokenizer(30, merges=["A C", "AC G", "T T", "ACG TT"])
TOKENIZERS: dict[str, Tokenizer] = {
    "base": NucleotideTokenizer(),
    "merged": NucleotideTokenizer("merge"),
    "kmer": KmerTokenizer(3),
    "single": KmerTokenizer(1),
    "overlapping": KmerTokenizer(3, overlapping=True),
    "bpe": BPE,
}
SEQUENCE = "".join(np.random.default_rng(0).choice(list("ACGT"), 50)) + LETTERS + "ACGTTACGT"
METRICS = {
    "model/test/snv/auprc": 0.123456,
    "model/test/snv/auprc_low": 0.0987,
    "model/test/all/f1": 0.5,
    "model/test/distance_0_1_snv/f1": 0.77,
    "untrained/test/all/f1": 0.01,
    "cost/parameters": 3,
}


LANGUAGE = {"_target_": "genoattn.data.tasks.language_modeling.LanguageModeling"}
VARIANTS = {
    "_target_": "genoattn.data.tasks.variant_classification.VariantClassification",
    "file": "/home/me/secret/a.vcf",
    "classes": {"benign": ["B"], "pathogenic": ["P"]},
}


def saved(run: Path, tokenizer: Tokenizer, task: dict[str, Any] = LANGUAGE) -> Path:
    """A run folder with a tiny model."""
    card = ModelCard(
        name="window",
        tokenizer=tokenizer.describe(),
        task=complete_node(task),
        model=complete_node(
            {"_target_": "genoattn.models.sequence_model.SequenceModel", "_partial_": True, "dim": 8, "depth": 1}
        ),
        attention=complete_node(
            {"_target_": "genoattn.attention.window.WindowAttention", "_partial_": True, "left": 4, "right": 4}
        ),
        reverse_complement="average",
        length=64,
        split="block",
        min_length=None,
        seed=1,
        genome=("aa", "bb"),
        calibration={"thresholds": {"snv": 0.1 + 0.2}},
    )
    save_model(run / "model", build_from_card(card, seed=0).model, card)
    (run / "metrics.json").write_text(json.dumps(METRICS))
    (run / "config.yaml").write_text("data:\n  fasta: /home/me/secret/mine.fa.gz\n")
    return run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("run"), KmerTokenizer(3))


@pytest.fixture(scope="module")
def original(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "model"
    HubModel.from_pretrained(run, device="cpu").save_pretrained(folder)
    return folder


@pytest.fixture
def folder(original: Path, tmp_path: Path) -> Path:
    """A copy of an exported folder."""
    return Path(shutil.copytree(original, tmp_path / "copy"))


@pytest.mark.parametrize("name", ["base", "kmer", "overlapping", "bpe"])
@pytest.mark.usefixtures("alone")
def test_round_trip_by_the_program(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run, out = saved(tmp_path / "run", TOKENIZERS[name]), tmp_path / "out"
    assert main(["export", f"checkpoint={run}", f"out={out}", f"hydra.run.dir={tmp_path}/export"]) == 0
    assert f"genoattn.load('{out}')" in capsys.readouterr().out
    assert {file.name for file in out.iterdir()} == set(FILES)
    assert {file.name for file in tmp_path.iterdir()} == {"run", "out", "export"}
    before, after = genoattn.load(run, "cpu"), genoattn.load(out, "cpu")
    assert np.array_equal(before.embed([SEQUENCE])[0], after.embed([SEQUENCE])[0])
    assert np.array_equal(before.likelihood(SEQUENCE), after.likelihood(SEQUENCE))
    assert after.predictor.tokenizer.describe() == TOKENIZERS[name].describe()
    cards = [{**model.card.to_json(), "weights": None} for model in (before, after)]
    assert json.dumps(cards[0]) == json.dumps(cards[1])


@pytest.mark.parametrize("name", ["base", "merged", "kmer", "single", "bpe"])
def test_other_programs_read_the_tokenizer(name: str) -> None:
    tokenizer, letters = TOKENIZERS[name], SEQUENCE + SEQUENCE.lower() + "uU"
    other = tokenizers.Tokenizer.from_str(tokenizer_json(tokenizer))
    assert other.encode(letters).ids == tokenizer.encode(encode_bases(letters)).ids.tolist()
    assert other.encode("[PAD]A[MASK]").ids == [15, tokenizer.encode(encode_bases("A")).ids[0], 16]
    if name != "merged":
        assert other.decode(other.encode(letters).ids) == letters.upper().replace("U", "T")


def test_config_and_readme(original: Path) -> None:
    config = json.loads((original / "config.json").read_text())
    assert (config["library_name"], config["model_type"], config["tags"][0]) == ("genoattn", "genoattn", "genomics")
    weights = (original / "model.safetensors").read_bytes()
    assert config["card"]["weights"] == hashlib.sha256(weights).hexdigest()
    assert json.loads(weights[8 : 8 + int.from_bytes(weights[:8], "little")])["__metadata__"] == {"format": "pt"}
    readme = (original / "README.md").read_text()
    for line in (
        "library_name: genoattn",
        "# license: name one here before you share the model, such as apache-2.0",
        "| task | `LanguageModeling` |",
        "| window of training | 64 bases |",
        "| trained on | `mine.fa.gz`: 2 records, whose sha256 stand in config.json |",
        "| test set | subset | auprc | f1 |",
        "| test | snv | 0.1235 |  |",
        "| test | all |  | 0.5 |",
    ):
        assert line in readme.splitlines()
    assert "secret" not in readme and "0.77" not in readme and "trust" not in readme


def test_no_folder_of_this_machine_is_written(tmp_path: Path) -> None:
    HubModel.from_pretrained(saved(tmp_path / "run", BPE, VARIANTS)).save_pretrained(tmp_path / "out")
    assert genoattn.load(tmp_path / "out").card.task["file"] == "a.vcf"
    assert not any(b"secret" in file.read_bytes() for file in (tmp_path / "out").iterdir())


def test_a_readme_that_was_edited_is_exported_again(folder: Path, tmp_path: Path) -> None:
    (folder / "README.md").write_text("license: mit\n")
    HubModel.from_pretrained(folder).save_pretrained(tmp_path / "deep" / "again")
    assert (tmp_path / "deep" / "again" / "README.md").read_text() == "license: mit\n"
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        assert (tmp_path / "deep" / "again" / name).read_bytes() == (folder / name).read_bytes()


def stranger(change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    """A change of config.json that has the sha256 of its card again, as a stranger would make it."""

    def rewrite(text: bytes) -> bytes:
        values = json.loads(text)
        change(values["card"])
        card = json.dumps(values["card"], sort_keys=True)
        values["sha256"]["card"] = hashlib.sha256(card.encode()).hexdigest()
        return json.dumps(values).encode()

    return rewrite


@pytest.mark.parametrize(
    ("name", "change", "words"),
    [
        (
            "config.json",
            lambda text: text.replace(b'"length": 64', b'"length": 65'),
            "card is not what was exported",
        ),
        (
            "config.json",
            lambda text: text.replace(b'"genoattn"', b'"bert"'),
            "its library_name is bert, expected",
        ),
        ("config.json", lambda text: b'{"library_name": "genoattn"}', "config.json lacks card, a mapping"),
        ("config.json", lambda text: b"[" * 100_000, "its lists are nested too deeply"),
        ("config.json", lambda text: text[:-9], "config.json is not json"),
        ("config.json", stranger(lambda card: card["model"].update(dim=16)), r"does not fit this model|far larger"),
        (
            "config.json",
            stranger(lambda card: card["attention"].update(_target_="os.system")),
            "os.system is not of genoattn",
        ),
        (
            "config.json",
            stranger(lambda card: card["tokenizer"].update(_target_="genoattn.errors.nearest")),
            "expected a class of",
        ),
        ("config.json", stranger(lambda card: card.update(format=1)), "is not a model description of format"),
        ("config.json", stranger(lambda card: card.pop("task")), "config.json lacks task"),
        (
            "config.json",
            stranger(lambda card: card.update(weights=None)),
            "expected the sha256 of model.safetensors, got null",
        ),
        ("tokenizer.json", lambda text: text + b" ", "tokenizer.json is not what was exported"),
        ("tokenizer.json", None, r"tokenizer\.json cannot be read: No such file"),
        (
            "model.safetensors",
            lambda text: text[:-1] + bytes([text[-1] ^ 1]),
            "is not the file that config.json beside it",
        ),
        ("model.safetensors", lambda text: text[:-1], "cannot be read as safetensors"),
        ("model.safetensors", None, "cannot be read as safetensors"),
    ],
)
def test_what_was_changed_is_refused(
    name: str, change: Callable[[bytes], bytes] | None, words: str, folder: Path
) -> None:
    file = folder / name
    content = file.read_bytes()
    file.unlink()
    if change:
        file.write_bytes(change(content))
    for opened in (genoattn.load, HubModel.from_pretrained):
        with pytest.raises(UserError, match=words):
            opened(folder)


def test_what_is_neither_a_folder_nor_on_the_hub() -> None:
    with pytest.raises(UserError, match=r"no/such/folder: no such folder is there, nor does the Hub give it: Repo id"):
        HubModel.from_pretrained("no/such/folder")


def test_keys_of_other_programs_are_ignored(folder: Path) -> None:
    values = json.loads((folder / "config.json").read_text()) | {
        "trust": ["os"],
        "loaded": 1,
        "self": 1,
        "license": "x",
    }
    (folder / "config.json").write_text(json.dumps(values))
    assert HubModel.from_pretrained(folder).model.card.length == 64


def test_nothing_is_written_over_or_left_half_written(
    run: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model, content = HubModel.from_pretrained(run), {file: file.read_bytes() for file in folder.iterdir()}
    with pytest.raises(UserError, match="copy is not empty; a model is exported into a new folder"):
        model.save_pretrained(folder)
    words = ["export", f"checkpoint={run}", f"hydra.run.dir={tmp_path}/export"]
    monkeypatch.setattr("sys.argv", ["pytest"])
    for out, sentence in (
        (folder, "is not empty"),
        (folder / "README.md", "is there already"),
        ("no/out", "no folder"),
    ):
        assert main([*words, f"out={out}"]) == 2
        assert sentence in capsys.readouterr().err
    assert {file: file.read_bytes() for file in folder.iterdir()} == content
    empty = tmp_path / "empty"
    empty.mkdir()
    killed = tmp_path / f".empty.{unfinished_name().rpartition('-')[0]}-{2**22 + 1}.part"  # no process has this number
    (killed / "half").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device")))
        with pytest.raises(
            UserError, match=r"empty cannot be written: No space left on device; free space on the disk"
        ):
            model.save_pretrained(empty)
    assert not any(empty.iterdir()) and {path.name for path in tmp_path.iterdir()} == {"copy", "empty", "export"}
    model.save_pretrained(empty)
    assert torch.equal(
        next(HubModel.from_pretrained(empty).model.predictor.model.parameters()),
        next(model.model.predictor.model.parameters()),
    )


def test_pushing_uploads_the_exported_files(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    uploaded: dict[str, bytes] = {}

    class Api:
        def __init__(self, **_: object):
            pass

        def create_repo(self, repo_id: str, **_: object) -> Any:
            return type("Address", (), {"repo_id": repo_id})

        def upload_folder(self, folder_path: Path, **_: object) -> str:
            uploaded.update({file.name: file.read_bytes() for file in folder_path.iterdir()})
            return "address"

    monkeypatch.setattr("huggingface_hub.hub_mixin.HfApi", Api)
    assert HubModel.from_pretrained(run).push_to_hub("me/model") == "address"
    assert set(uploaded) == set(FILES) and json.loads(uploaded["config.json"])["card"]["length"] == 64
