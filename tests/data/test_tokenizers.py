"""Tokens lead back to their bases, on either strand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genoattn.data.tokenizers.nucleotide import NucleotideTokenizer
from genoattn.errors import UserError
from genoattn.genome.alphabet import LETTERS, decode_bases, encode_bases, reverse_complement

letters = st.text(LETTERS, max_size=200)


@given(letters)
def test_round_trip(text: str):
    tokenizer, bases = NucleotideTokenizer(), encode_bases(text)
    ids, starts = tokenizer.encode(bases)
    assert ids.dtype == np.uint8 and ids.flags.writeable and len(ids) == len(starts) == len(text)
    assert starts.tolist() == list(range(len(text)))
    assert "".join(tokenizer.letters[token] for token in ids) == text
    padded = np.append(ids, np.full(3, tokenizer.pad_id, np.uint8))
    assert decode_bases(tokenizer.decode(padded)) == text


@given(letters)
def test_merged_letters_are_n(text: str):
    tokenizer = NucleotideTokenizer(unknown="merge")
    expected = "".join(letter if letter in "ACGT" else "N" for letter in text)
    assert decode_bases(tokenizer.decode(tokenizer.encode(encode_bases(text)).ids)) == expected


@given(letters, st.sampled_from(["keep", "merge"]))
def test_the_other_strand(text: str, unknown: str):
    tokenizer, bases = NucleotideTokenizer(unknown), encode_bases(text)
    ids = tokenizer.encode(bases).ids
    other = tokenizer.reverse_complement(ids)
    np.testing.assert_array_equal(other, tokenizer.encode(reverse_complement(bases)).ids)
    np.testing.assert_array_equal(tokenizer.reverse_complement(other), ids)


def test_every_id_has_a_complement_that_leads_back():
    tokenizer = NucleotideTokenizer()
    assert (tokenizer.pad_id, tokenizer.mask_id, tokenizer.vocabulary_size) == (15, 16, 17)
    assert tokenizer.complement.dtype == np.uint8 and len(tokenizer.complement) == tokenizer.vocabulary_size
    assert tokenizer.complement[tokenizer.complement].tolist() == list(range(tokenizer.vocabulary_size))
    assert tokenizer.complement[[15, 16]].tolist() == [15, 16]
    assert tokenizer.reverse_complement(np.array([0, 1, 16, 15], np.uint8)).tolist() == [15, 16, 2, 3]


def test_a_window_need_not_be_contiguous():
    bases = encode_bases("AACCGGTT")
    assert decode_bases(NucleotideTokenizer().encode(bases[::-2]).ids) == "TGCA"


def test_masks_are_read_as_n():
    assert decode_bases(NucleotideTokenizer().decode(np.array([0, 16, 15, 3], np.uint8))) == "ANT"


def test_what_is_no_base_is_refused():
    tokenizer = NucleotideTokenizer()
    with pytest.raises(ValueError, match=r"base 2 has code 16; expected 0\.\.14"):
        tokenizer.encode(np.array([0, 14, 16], np.uint8))
    with pytest.raises(ValueError, match=r"token 1 has id 17; expected 0\.\.16"):
        tokenizer.decode(np.array([0, 17], np.uint8))
    with pytest.raises(UserError, match=r"tokenizer\.unknown must be 'keep' or 'merge', got 'drop'"):
        NucleotideTokenizer(unknown="drop")


def test_its_description_builds_it_again():
    description = NucleotideTokenizer("merge").describe()
    assert description == {"_target_": "genoattn.data.tokenizers.nucleotide.NucleotideTokenizer", "unknown": "merge"}
