"""The codon model tells a frameshift and a stop by hand; composition features by hand."""

import numpy as np
import pytest

from genoattn.data.example import Example
from genoattn.evaluation.baselines.codons import CodonModel
from genoattn.evaluation.baselines.composition import kmer_frequencies, skew_features, strand_kmers
from genoattn.genome.alphabet import encode_bases, reverse_complement

GENES = [encode_bases("GCAGCTGCA" * 60), encode_bases("GCTGCTGCA" * 60)]


def window(letters: str, site: int) -> Example:
    return Example(encode_bases(letters), None, {}, (), site=(site, site + 1))


def test_codons_by_hand():
    model = CodonModel(GENES)
    whole = "GCAGCTGCA" * 6
    intact, shifted = (
        model.features(window(whole, 27), 15),
        model.features(window(f"{whole[:27]}T{whole[27:]}", 27), 15),
    )
    assert intact[0] < 0 < shifted[0] and intact[1] == shifted[1] == 0
    stop = model.features(window(f"{whole[:27]}TAA{whole[30:]}", 28), 15)
    assert stop[1] == 1
    out_of_frame = model.features(window(f"{whole[:28]}TAA{whole[31:]}", 28), 15)
    assert out_of_frame[1] == 0
    short = model.features(window("GCAGCT", 3), 60)  # a window without five bases before the site
    assert np.isfinite(short).all()


def test_composition_by_hand():
    assert kmer_frequencies(encode_bases("AACNG"), 1).tolist() == [0.5, 0.25, 0.25, 0]
    example = Example(encode_bases("GGGCAATT"), None, {}, ())
    assert skew_features(example).tolist() == [0.5]
    turned = example._replace(bases=reverse_complement(example.bases))
    np.testing.assert_allclose(strand_kmers(example), -strand_kmers(turned))
    assert len(strand_kmers(example)) == 32 and strand_kmers(example).any()
    site = Example(encode_bases("GGGGCCCCGGGG"), None, {}, (), site=(4, 8))
    assert skew_features(site).tolist() == pytest.approx([-1.0])
