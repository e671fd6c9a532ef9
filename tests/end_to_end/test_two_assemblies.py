"""`genoattn detect` with the model that ships, on the genomes that ship, from the two sequences alone."""

import json
from pathlib import Path

import numpy as np
import pytest

from genoattn.cli.main import main
from genoattn.genome.alphabet import decode_bases, reverse_complement
from genoattn.genome.mutations import mutated_sequence
from genoattn.genome.sequence_store import open_genome
from genoattn.genome.vcf import read_variants, to_mutations
from genoattn.paths import genomes_dir

pytestmark = pytest.mark.usefixtures("alone")
REFERENCE = genomes_dir() / "NCTC8325.fa.gz"


@pytest.fixture(scope="module")
def reference() -> np.ndarray:
    genome = open_genome([REFERENCE])
    return genome.fetch(0, 0, genome.lengths[0])


def strain(name: str, reference: np.ndarray, stop: int) -> np.ndarray:
    """The first `stop` bases of the reference with the mutations of a VCF."""
    vcf = genomes_dir() / f"{name}.vcf.gz"
    contig = open_genome([REFERENCE]).names[0]
    variants = read_variants(vcf, {contig: len(reference)}).by_contig[contig]
    mutations = to_mutations(variants, reference, contig, vcf).mutations
    return mutated_sequence(reference[:stop], [mutation for mutation in mutations if mutation.stop < stop - 50])


def detect(tmp_path: Path, sample: np.ndarray, *words: str) -> dict[str, float]:
    (tmp_path / "sample.fa").write_text(f">s\n{decode_bases(sample)}\n")
    files = [f"reference={REFERENCE}", f"sample={tmp_path}/sample.fa", f"out={tmp_path}/calls.vcf.gz"]
    assert main(["detect", *files, "track=false", f"hydra.run.dir={tmp_path}/run", *words]) == 0
    return json.loads((tmp_path / "run" / "metrics.json").read_text())


@pytest.mark.parametrize(("name", "bases"), [("RN4220", 2_821_361), ("N315", 150_000)])
def test_strains_from_the_two_sequences_alone(name: str, bases: int, reference: np.ndarray, tmp_path: Path) -> None:
    (tmp_path / "region.bed").write_text(f"{open_genome([REFERENCE]).names[0]}\t0\t{bases - 60}\n")
    sample = strain(name, reference, bases)
    truth = [f"truth={genomes_dir() / f'{name}.vcf.gz'}", f"truth_regions={tmp_path}/region.bed", "min_placed=0.01"]
    metrics = detect(tmp_path, sample, *truth)
    for candidate in ("model", "aligner"):
        assert metrics[f"{candidate}/{name}/snv/recall"] >= 0.98
        assert metrics[f"{candidate}/{name}/snv/precision"] >= 0.98
    assert metrics["cost/placed_share"] > 0.99


def test_a_sample_that_starts_elsewhere_runs_backwards_and_lacks_100_kb(reference: np.ndarray, tmp_path: Path) -> None:
    sample = strain("RN4220", reference, len(reference))
    turned = reverse_complement(np.concatenate([sample[1_200_000:2_000_000], sample[2_100_000:], sample[:1_200_000]]))
    truth = f"truth={genomes_dir() / 'RN4220.vcf.gz'}"
    metrics = detect(tmp_path, turned, truth)
    assert metrics["model/RN4220/snv/recall"] >= 0.98 and metrics["model/RN4220/snv/precision"] >= 0.98
    rows = [row.split("\t") for row in (tmp_path / "calls.untested.bed").read_text().splitlines()]
    assert [reason for _, start, stop, reason in rows if int(stop) - int(start) > 90_000] == ["absent"]
    own = 86_337  # bases of two prophages that RN4220 lacks
    assert abs(sum(int(stop) - int(start) for _, start, stop, _ in rows) - own - 100_000) < 100
    strands = {row.split("\t")[5] for row in (tmp_path / "calls.blocks.bed").read_text().splitlines()}
    assert strands == {"-"}


def test_another_species_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coli = genomes_dir() / "ecoli_MG1655.fa.gz"
    words = [f"reference={REFERENCE}", f"sample={coli}", f"out={tmp_path}/x.vcf", f"hydra.run.dir={tmp_path}/run"]
    assert main(["detect", *words]) == 2
    assert "the two seem to be unrelated" in capsys.readouterr().err
    assert not (tmp_path / "x.vcf").exists()
