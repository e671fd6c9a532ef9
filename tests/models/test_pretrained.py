"""A loaded model scores as its run did, on strings, sequence objects and codes, and refuses what it cannot use."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from Bio.Seq import Seq
from Bio.SeqRecord import SeqRecord

import genoattn
from genoattn.cli.main import main
from genoattn.errors import UserError
from genoattn.genome.alphabet import decode_bases, encode_bases
from genoattn.models.build import default_device
from genoattn.models.sequence_model import SequenceModel

BASES = decode_bases(np.random.default_rng(0).integers(0, 4, 5000, np.uint8))
SMALL = ("experiment=smoke", "trainer.threads=1", "test.windows=2", "test.threshold_windows=2", "test.resamples=1")
pytestmark = pytest.mark.usefixtures("alone", "quick")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "one.fa").write_text(f">one\n{BASES}\n")
    words = (f"data.fasta={folder / 'one.fa'}", "control=null", "trainer.max_steps=1", f"hydra.run.dir={folder}/run")
    assert main(["train", *SMALL, *words]) == 0
    return folder / "run"


def test_answers(run: Path) -> None:
    model, again = genoattn.load(run), genoattn.load(str(run / "model"))
    sample = BASES[:30] + BASES[31:60]
    scores = model.score(BASES[:64], sample)
    assert scores.shape == (59, 3) and 0 <= scores.min() <= scores.max() <= 1
    assert np.array_equal(scores, again.score(BASES[:64].lower(), encode_bases(sample)))
    one, two = model.embed([sample, BASES[:20].encode()])
    assert (one.shape, two.shape, one.dtype) == ((59, 16), (20, 16), np.float32)
    assert np.array_equal(scores, model.score(Seq(BASES[:64]), SeqRecord(Seq(sample))))
    assert model.detect(BASES[:300], BASES[:300], 0.0) == []


def test_an_interleaved_model_answers_and_is_evaluated(run: Path, tmp_path: Path) -> None:
    words = ("model=interleaved", "model.dim=16", "model.depth=1", "heads=interleaved", "curriculum=interleaved")
    words = (*words, "task=interleaved", "control=null", "trainer.max_steps=1", "reverse_complement=average")
    fasta = f"data.fasta={run.parent / 'one.fa'}"
    assert main(["train", *SMALL, *words, fasta, f"hydra.run.dir={tmp_path}/run"]) == 0
    model = genoattn.load(tmp_path / "run")
    sample = BASES[:30] + BASES[31:60]
    scores = model.score(BASES[:64], sample)
    assert scores.shape == (59, 3) and np.ptp(scores[:, 0]) > 0
    assert [row.shape for row in model.embed([sample, BASES[:20]])] == [(59, 16), (20, 16)]
    (call,) = model.detect(BASES[:150], BASES[:70] + BASES[71:150], threshold=0.0)
    assert (call.kind, len(call.reference)) == ("deletion", 2)
    again = ["evaluate", *SMALL[2:], fasta, "data.length=64", f"checkpoint={tmp_path / 'run'}"]
    assert main([*again, f"hydra.run.dir={tmp_path}/again"]) == 0
    first, second = (json.loads((tmp_path / name / "metrics.json").read_text()) for name in ("run", "again"))
    assert second["model/test/all/auprc"] == pytest.approx(first["model/test/all/auprc"], abs=1e-5)
    assert second["cost/attention_flops"] == first["cost/attention_flops"] and first["cost/tokens"] == 128


def test_mistakes(run: Path, tmp_path: Path) -> None:
    model = genoattn.load(run)
    with pytest.raises(UserError, match="base 3 is '-', which is no IUPAC letter"):
        model.score("ACGT", "AC-T")
    with pytest.raises(UserError, match="the sample is empty"):
        model.detect("ACGT", "")
    with pytest.raises(UserError, match="embed takes a list of sequences"):
        model.embed("ACGT")
    with pytest.raises(UserError, match=r"no model\.json is there; expected a run folder"):
        genoattn.load(tmp_path)


def test_detect_places_a_sample_by_itself(run: Path) -> None:
    model = genoattn.load(run, "cpu")
    unrelated = decode_bases(np.random.default_rng(1).integers(0, 4, 600, np.uint8))
    with pytest.raises(UserError, match=r"only 0\.0% of the sample's bases have a place on the reference"):
        model.detect(BASES[:600], unrelated)
    other = "ACGT"["ACGT".index(BASES[3000]) - 1]
    sample = f"{BASES[400:1000]}{BASES[2000:3000]}{other}{BASES[3001:]}"
    calls = model.detect(BASES, str(Seq(sample).reverse_complement()), threshold=0.0)
    deletion, snv = calls
    assert (deletion.kind, len(deletion.reference) - len(deletion.alternate)) == ("deletion", 1000)
    assert deletion.start == deletion.stop and abs(len(sample) - deletion.start - 600) < 5
    assert snv[:5] == (0, 3000, BASES[3000], other, "snv") and snv.reverse
    assert (snv.start, snv.stop) == (len(sample) - 1601, len(sample) - 1600)
    assert (
        deletion.score is None
        and snv.score is not None
        and model.detect(BASES, sample, 1.0)
        == [call for call in model.detect(BASES, sample, 0.0) if call.score is None]
    )
    assert model.detect("N" * 300 + BASES[300:600], "N" * 300 + BASES[300:600]) == []


def test_a_model_is_put_on_the_gpu_if_there_is_one(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert genoattn.load(run).predictor.device.type == default_device().type
    devices = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (9, 0))
    monkeypatch.setattr(SequenceModel, "to", lambda self, device: devices.append(str(device)) or self)
    narrow = genoattn.load(run).predictor.model.autocast_dtype
    wide = genoattn.load(run, "cpu").predictor.model.autocast_dtype
    assert devices == ["cuda", "cpu"] and (narrow, wide) == (torch.bfloat16, None)


@pytest.mark.parametrize("words", [("task.objective=bert",), ("task.objective=causal", "model.causal=true")])
def test_the_likelihood_of_a_sequence(words: tuple[str, ...], run: Path, tmp_path: Path) -> None:
    fasta = run.parent / "one.fa"
    fixed = (*SMALL, "task=pretrain", "control=null", "trainer.max_steps=1", f"data.fasta={fasta}")
    assert main(["train", *fixed, *words, f"hydra.run.dir={tmp_path}"]) == 0
    model = genoattn.load(tmp_path)
    likelihood = model.likelihood(BASES[:40])
    first = 1 if "model.causal=true" in words else 0
    assert np.isnan(likelihood[:first]).all() and (likelihood[first:] < 0).all() and len(likelihood) == 40
    other = model.likelihood(BASES[:39] + "ACGT"[("ACGT".index(BASES[39]) + 1) % 4])
    changed = np.flatnonzero(~np.isclose(likelihood, other, equal_nan=True)).tolist()
    assert changed[-1] == 39 and (len(changed) == 1) == bool(first)  # a causal model has not seen it before
    assert [one.shape for one in model.embed([BASES[:20]])] == [(20, 16)]
    with pytest.raises(UserError, match="this model was trained for LanguageModeling"):
        model.score(BASES[:20], BASES[:20])


def test_the_class_of_a_variant(run: Path, tmp_path: Path) -> None:
    other = {"A": "C", "C": "A", "G": "A", "T": "A"}
    rows = [f"one\t{at + 1}\t{BASES[at]}\t{other[BASES[at]]}\t{'xy'[at % 2]}" for at in range(0, 4999, 9)]
    (tmp_path / "a.tsv").write_text("\n".join(["chrom\tpos\tref\talt\tkind", *rows]) + "\n")
    labels = (f"task.file={tmp_path}/a.tsv", "task.label=kind", "task.classes={benign: [x], pathogenic: [y]}")
    fixed = (*SMALL, "task=variant", "control=null", "trainer.max_steps=1", f"data.fasta={run.parent / 'one.fa'}")
    assert main(["train", *fixed, *labels, f"hydra.run.dir={tmp_path}/run"]) == 0
    model = genoattn.load(tmp_path / "run")
    probabilities = model.classify(BASES[:64], BASES[:32] + "A" + BASES[33:64], ((32, 33), (32, 33)))
    assert list(probabilities) == ["benign", "pathogenic"] and sum(probabilities.values()) == pytest.approx(1)
    with pytest.raises(UserError, match=r"the site in the alternate window must lie within its 64 bases, got 60\.\.65"):
        model.classify(BASES[:64], BASES[:64], ((32, 33), (60, 65)))
    assert model.embed([BASES[:20]])[0].shape == (20, 16)


def test_a_notebook_has_the_environment_of_the_programs() -> None:
    program = "import os, genoattn; genoattn.open_genome; print(os.environ['GOMP_SPINCOUNT'], os.environ[{}])"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": os.pathsep.join(sys.path), "GOMP_SPINCOUNT": "7"}
    ended = subprocess.run(
        [sys.executable, "-c", program.format("'ONEDNN_PRIMITIVE_CACHE_CAPACITY'")],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert ended.stdout == "7 32\n", ended.stderr
