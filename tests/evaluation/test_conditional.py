"""The evaluation of conditional models: surprise as a score by hand, whole runs, and strains that do not fit."""

import json
from pathlib import Path

import numpy as np
import pytest

from genoattn.cli.main import main
from genoattn.data.tasks.conditional import Conditional
from genoattn.evaluation.conditional.windows import StrainWindow, repeated_bases, scored_calls
from genoattn.genome.alphabet import decode_bases, encode_bases
from genoattn.genome.mutations import Mutation
from genoattn.genome.sequence_store import open_genome
from genoattn.genome.strains import simulated_block
from tests.toy_genomes import write_genome

SMALL = ("experiment=conditional", "trainer.threads=1", "trainer.max_steps=2", "model.dim=16", "data.length=96")
SMALL += ("data.batch=2", "data.validation_windows=2", "test.windows=16", "test.resamples=3")
pytestmark = pytest.mark.usefixtures("alone", "quick")


def test_surprise_at_mutations_by_hand() -> None:
    relative = encode_bases("ACGTTTTACGGATC")
    # A substitution at base 1, and one T less of four: any of them may be the one that is missing.
    block = simulated_block(relative, [Mutation(1, 2, b"\3"), Mutation(3, 4, b"")])
    made = Conditional(layout="before").window_of(block, 0, 13, np.random.default_rng(0))
    window = StrainWindow(made, made, block.sample, np.zeros(13, np.bool_))
    surprise = np.arange(13.0)
    surprise[5] = np.nan
    snv = scored_calls([window], [surprise], [0], "snv")
    assert snv.scores[snv.truth].tolist() == [1]
    assert snv.scores[~snv.truth].tolist() == [0, 2, 7, 8, 9, 10, 11, 12]  # bases 3 to 6 may follow the missing one
    indel = scored_calls([window], [surprise], [4], "indel")
    assert indel.scores[indel.truth].tolist() == [6] and set(indel.units.tolist()) == {4}


def test_repeated_bases_by_hand(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    bases = rng.integers(0, 4, 400, np.uint8)
    bases[300:340] = 3 - bases[100:140][::-1]  # the other strand counts too
    (tmp_path / "a.fa").write_text(f">chr\n{decode_bases(bases)}\n")
    (repeated,) = repeated_bases(open_genome([tmp_path / "a.fa"]))
    assert np.flatnonzero(repeated).tolist() == [*range(100, 140), *range(300, 340)]


@pytest.mark.parametrize(
    "words",
    [
        ("test.context=[200,9000]", "data.vcf={vcf}", "reverse_complement=average"),
        ("task.layout=before", "data.vcf=[]", "data.strains={vcf}"),
        ("task.objective=masked", "model.causal=false", "data.vcf=[]"),
    ],
    ids=["interleaved", "before", "masked"],
)
def test_a_run_is_evaluated_again_with_the_same_metrics(
    words: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fasta, vcf = write_genome(tmp_path, "strain", 7)
    given = [word.format(vcf=vcf) for word in (*SMALL, *words)]
    assert main(["train", *given, f"data.fasta={fasta}", f"hydra.run.dir={tmp_path}/run"]) == 0
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    names = {key.split("/")[0] for key in metrics} - {"cost"}
    assert names == {"model", "control", "untrained", "counts", "mixing", "copies_alone", "copies"}
    strains = {key.split("/")[1] for key in metrics if key.startswith("copies/")}
    assert strains == ({"test"} if "task.objective=masked" in words else {"test", "strain"})
    assert metrics["model/test/all/saved_bits"] == pytest.approx(2 - metrics["model/test/all/bits_per_base"])
    if "task.objective=masked" not in words:
        assert metrics["copies/strain/all/bits_per_base"] < 1.2 < metrics["mixing/strain/all/bits_per_base"]
        assert metrics["copies/strain/snv/auprc"] > 0.3
    if "test.context=[200,9000]" in words:
        assert "no held-out block holds a window of 9000 bases" in capsys.readouterr().out
        at = [metrics[f"copies/strain/all{end}/bits_per_base"] for end in ("", "_context_200")]
        assert at[0] > at[1]  # the longer the context, the fewer bases before a copy begins
        assert "untrained/test/all_context_200/bits_per_base" not in metrics
    again = ["evaluate", *given[-len(words) :], "test=real", *SMALL[-2:], f"data.fasta={fasta}"]
    again = [word for word in again if not word.startswith(("task.", "model."))]
    assert main([*again, f"checkpoint={tmp_path}/run", f"hydra.run.dir={tmp_path}/again"]) == 0
    second = json.loads((tmp_path / "again" / "metrics.json").read_text())
    shared = [key for key in metrics if key.startswith(("model/", "copies/")) and metrics[key] is not None]
    assert shared and all(second[key] == pytest.approx(metrics[key], abs=1e-5) for key in shared)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("model.causal=false",), "task.objective=causal needs model.causal=true, got false"),
        (("tokenizer=kmer", "tokenizer.k=3"), "use tokenizer=nucleotide"),
        (("test.context=[16]",), "test.context must be above the 16 bases of task.lead, got 16"),
        (("data.strains={fasta}",), "no stretch of 96 bases of other lies beside the training"),
    ],
)
def test_error_messages(
    words: tuple[str, ...], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fasta, _ = write_genome(tmp_path, "chr", 7)
    # A strain that only has what is beside no block of training is none to learn from.
    letters = fasta.read_text().split("\n")[1]
    (tmp_path / "other.fa").write_text(f">contig\n{letters[-1500:-400]}\n")
    given = [word.format(fasta=tmp_path / "other.fa") for word in (*SMALL, "data.vcf=[]", *words)]
    assert main(["train", *given, f"data.fasta={fasta}", f"hydra.run.dir={tmp_path}/run"]) == 2
    assert sentence in capsys.readouterr().err
