"""The composition of a window as features of a regression: k-mer frequencies and GC skew, of a whole or of a part."""

from functools import lru_cache
from itertools import product

import numpy as np
from jaxtyping import Float, Int, UInt8

from genoattn.data.example import Example
from genoattn.genome.alphabet import kmer_codes, reverse_complement
from genoattn.genome.replichores import gc_skew


def kmer_frequencies(bases: UInt8[np.ndarray, "length"], k: int) -> Float[np.ndarray, "kmers"]:
    """The share of each k-mer of A, C, G and T among those of a sequence, AA… first; zeros if it has none."""
    codes = kmer_codes(bases, k)
    counts = np.bincount(codes[codes >= 0], minlength=4**k)
    return counts / max(1, counts.sum())


def skew_features(example: Example) -> Float[np.ndarray, "1"]:
    """GC skew; if the window has a site, the product of the skews of the site and of its surroundings."""
    if example.site is None:
        return np.array([gc_skew(example.bases)])
    site, around = _parts(example)
    return np.array([gc_skew(site) * gc_skew(around)])


def strand_kmers(example: Example, k: int = 3) -> Float[np.ndarray, "features"]:
    """The excess of each k-mer over its reverse complement, as `skew_features` combines a site."""
    if example.site is None:
        return _asymmetry(example.bases, k)
    site, around = _parts(example)
    return _asymmetry(site, k) * _asymmetry(around, k)


def region_kmers(example: Example, k: int = 4) -> Float[np.ndarray, "features"]:
    """The k-mer frequencies of the site of a window, and the logarithm of its length."""
    assert example.site is not None
    low, high = example.site
    return np.append(kmer_frequencies(example.bases[low:high], k), np.log1p(high - low))


def _parts(example: Example) -> tuple[np.ndarray, np.ndarray]:
    """The site of a window and what surrounds it."""
    assert example.site is not None
    low, high = example.site
    return example.bases[low:high], np.concatenate([example.bases[:low], example.bases[high:]])


def _asymmetry(bases: np.ndarray, k: int) -> Float[np.ndarray, "features"]:
    frequencies, other = kmer_frequencies(bases, k), _reverse_complements(k)
    return (frequencies - frequencies[other])[np.arange(4**k) < other]


@lru_cache
def _reverse_complements(k: int) -> Int[np.ndarray, "kmers"]:
    """The number of the reverse complement of each k-mer."""
    words = np.array(list(product(range(4), repeat=k)), np.uint8)
    return np.array([int(kmer_codes(reverse_complement(word), k)[0]) for word in words])
