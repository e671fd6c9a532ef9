"""Tokens give back their bases."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genoattn.data.tokenizers.nucleotide import NucleotideTokenizer
from genoattn.errors import UserError
from genoattn.genome.alphabet import LETTERS, decode_bases, encode_bases

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


def test_padding_and_the_mask_follow_the_letters():
    tokenizer = NucleotideTokenizer()
    assert (tokenizer.pad_id, tokenizer.mask_id, tokenizer.vocabulary_size) == (15, 16, 17)


def test_a_window_need_not_be_contiguous():
    bases = encode_bases("AACCGGTT")
    assert decode_bases(NucleotideTokenizer().encode(bases[::-2]).ids) == "TGCA"


def test_masks_are_read_as_n():
    assert decode_bases(NucleotideTokenizer().decode(np.array([0, 16, 15, 3], np.uint8))) == "ANT"


def test_codes_that_are_not_bases_are_refused():
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
