"""Windows of the task strand: the label is that of the shown strand, and a stretch is turned in its place."""

import numpy as np
import pytest

from genoattn.data.batch import collate
from genoattn.data.example import reverse_complement_example
from genoattn.data.tasks.strand import Strand
from genoattn.data.tokenizers.kmer import KmerTokenizer
from genoattn.data.tokenizers.nucleotide import NucleotideTokenizer
from genoattn.errors import UserError
from genoattn.genome.alphabet import decode_bases, reverse_complement
from genoattn.genome.intervals import Interval
from genoattn.genome.sequence_store import Genome, open_genome
from genoattn.genome.simulate import Rates


@pytest.fixture(scope="module")
def circle(tmp_path_factory: pytest.TempPathFactory) -> Genome:
    """A record without C before base 1,000 and without G after it: the leading strand has G and no C."""
    folder = tmp_path_factory.mktemp("strand")
    rng = np.random.default_rng(0)
    bases = [rng.choice(np.array(letters, np.uint8), 1000) for letters in ([0, 2, 3], [0, 1, 3])]
    (folder / "a.fa").write_text(f">chr\n{decode_bases(np.concatenate(bases))}\n")
    return open_genome([folder / "a.fa"], folder / "cache")


def test_the_label_is_the_strand_that_is_shown(circle: Genome):
    task, labels = Strand(), []
    for seed in range(40):
        rng = np.random.default_rng(seed)
        start = 50 + 1000 * (seed % 2)
        example = task.example_at(circle, Interval(0, start, start + 60), 60, Rates(), rng, False)
        label, shown = int(example.targets["class"][0]), example.bases
        assert label == int(np.any(shown == 2)) == int(not np.any(shown == 1))
        whole = circle.fetch(0, start, start + 60)
        assert np.array_equal(shown, whole) or np.array_equal(shown, reverse_complement(whole))
        labels.append(label)
    assert 10 < sum(labels) < 30


def test_a_stretch_is_turned_in_its_place(circle: Genome):
    task, labels = Strand(stretch=20), []
    for seed in range(30):
        reference = circle.fetch(0, seed, seed + 61)
        example = task.example(reference, 61, Rates(), np.random.default_rng(seed))
        label = int(example.targets["class"][0])
        assert example.site == (20, 40)
        inner = reference[20:40]
        assert np.array_equal(example.bases[20:40], reverse_complement(inner) if label else inner)
        assert np.array_equal(np.delete(example.bases, slice(20, 40)), np.delete(reference, slice(20, 40)))
        labels.append(label)
    assert 5 < sum(labels) < 25


def test_settings_that_do_not_fit():
    with pytest.raises(UserError, match=r"task.stretch must be at least 1 base, or null, got 0"):
        Strand(stretch=0)
    with pytest.raises(UserError, match=r"task.stretch=64 has no surroundings in data.length=64"):
        Strand(stretch=64).reference_length(64)
    assert Strand().one_strand and not Strand(stretch=5).one_strand


def test_a_site_in_a_batch_on_both_strands(circle: Genome):
    example = Strand(stretch=10).example(circle.fetch(0, 0, 32), 32, Rates(), np.random.default_rng(0))
    assert example.site == (11, 21)
    turned = reverse_complement_example(example)
    assert turned.site == (11, 21) and reverse_complement_example(turned).site == example.site
    weights = collate([example], NucleotideTokenizer()).pooling_weights
    assert weights is not None and weights.shape == (1, 1, 32)
    assert weights[0, 0].nonzero().flatten().tolist() == list(range(11, 21)) and float(weights.sum()) == 1
    coarse = collate([example], KmerTokenizer(4)).pooling_weights
    assert coarse is not None and coarse[0, 0].nonzero().flatten().tolist() == [2, 3, 4, 5]
    whole = Strand().example_at(circle, Interval(0, 0, 32), 32, Rates(), np.random.default_rng(0), False)
    assert collate([whole], NucleotideTokenizer()).pooling_weights is None
