"""Windows of the task frame: what was changed at the middle, found again by a slow comparison with the gene."""

from pathlib import Path

import numpy as np
import pytest

from genoattn.data.tasks.frame import Frame
from genoattn.errors import UserError
from genoattn.genome.alphabet import decode_bases, encode_bases, reverse_complement
from genoattn.genome.genes import AMINO_ACIDS, Gene, codon_numbers
from genoattn.genome.intervals import Interval
from genoattn.genome.sequence_store import Genome, open_genome
from genoattn.genome.splits import Splits

CODONS = 120
LENGTH = 64


@pytest.fixture(scope="module")
def genome(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    """A gene of 120 codons, 100 bases, and the same gene on the other strand."""
    folder = tmp_path_factory.mktemp("frame")
    rng = np.random.default_rng(0)
    sense = np.flatnonzero(AMINO_ACIDS != ord("*"))
    numbers = rng.choice(sense, CODONS - 2)
    gene = "ATG" + "".join("".join("ACGT"[n >> shift & 3] for shift in (4, 2, 0)) for n in numbers) + "TAA"
    between = decode_bases(rng.integers(0, 4, 100, np.uint8))
    other = decode_bases(reverse_complement(encode_bases(gene)))
    (folder / "a.fa").write_text(f">chr\n{between}{gene}{between}{other}{between}\n")
    return open_genome([folder / "a.fa"], folder / "cache")


def protein(bases: np.ndarray) -> str:
    return "".join(chr(AMINO_ACIDS[codon]) for codon in codon_numbers(bases)[::3])


@pytest.mark.parametrize("item", [Gene(0, 100, 460, False), Gene(0, 560, 920, True)])
def test_each_kind_of_change(item: Gene, genome: Genome):
    task, seen = Frame(shortest=90, stops=0.4, silent=0.7), set()
    around = genome.fetch(0, item.start - 60, item.stop + 60)
    around = reverse_complement(around) if item.reverse else around
    half = LENGTH // 2
    for seed in range(150):
        example = task.item_example(genome, item, LENGTH, np.random.default_rng(seed))
        assert len(example.bases) == LENGTH and example.site == (half, half + 1)
        left, right = example.bases[:half], example.bases[half + 4 :]  # what no change reaches
        at = next(n for n in range(60, 420) if np.array_equal(around[n - half : n], left))
        place = next(n for n in range(at, 480) if np.array_equal(around[n : n + len(right)], right))
        grown = 4 - (place - at)  # bases that the window has more than the gene
        sequence = np.concatenate([around[60:at], example.bases[half:], around[place + len(right) : 420]])
        before, after = protein(around[60:420]), protein(sequence)
        expected = {
            "insertion": grown == 1,
            "deletion": grown == -1,
            "stop": grown == 0 and after.index("*") < CODONS - 1,
            "unchanged": grown == 0 and np.array_equal(sequence, around[60:420]),
            "three bases": grown in (3, -3) and after.index("*") == len(after) - 1,
            "synonymous": grown == 0 and before == after and (sequence != around[60:420]).sum() == 1,
        }
        assert expected[example.kind], (example.kind, grown)
        assert int(example.targets["class"][0]) == (example.kind in ("insertion", "deletion", "stop"))
        seen.add(example.kind)
    assert seen == {"insertion", "deletion", "stop", "unchanged", "three bases", "synonymous"}


def test_genes_follow_the_blocks(genome: Genome):
    splits = Splits((Interval(0, 90, 470),), (Interval(0, 0, 90),), (Interval(0, 600, 1020),), ())
    items = Frame(shortest=300).read_items(genome, splits)
    assert items.train == [Gene(0, 100, 460, False)] and not items.test and items.skipped == {"between the splits": 1}
    with pytest.raises(UserError, match=r"no open reading frames of 300 bases or more for test: .* train 1"):
        items.of("test")


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"shortest": 20}, "task.shortest must be at least 30 bases, got 20"),
        ({"stops": 1.5}, "task.stops must be a share between 0 and 1, got 1.5"),
    ],
)
def test_settings_out_of_range(settings: dict, sentence: str):
    with pytest.raises(UserError) as error:
        Frame(**settings)
    assert str(error.value) == sentence


def test_a_gff3_that_is_not_there(genome: Genome, tmp_path: Path):
    with pytest.raises(UserError, match=r"task.genes=.*none.gff3 does not exist"):
        Frame(genes=str(tmp_path / "none.gff3")).read_items(genome, Splits((), (), (), ()))
