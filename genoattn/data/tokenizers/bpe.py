"""Words of variable length, learned by joining the most frequent pair of neighbours repeatedly (byte-pair encoding)."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import final

import numpy as np
import tokenizers
from jaxtyping import Int8, Integer, UInt8
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from genoattn.data.tokenizers.base import FIRST_WORD, Encoded, Tokenizer, check_bases, check_ids, id_dtype
from genoattn.errors import UserError
from genoattn.genome.alphabet import LETTERS, UNKNOWN, decode_bases, encode_bases

_BASES = "ACGT"

_TEXT_LENGTH = 256
"""Bases of a text within which pairs are counted; pairs across its borders are not."""


@final
class BpeTokenizer(Tokenizer):
    """Ids 0..16 are the letters, padding and the mask; words of A, C, G, T follow in the order of their merges.

    A word is joined from its neighbours wherever the window begins, so there is one frame, and `frame` moves only the
    first few words. No word holds an ambiguous letter. (Sennrich et al. 2016; for DNA: DNABERT-2, Zhou et al. 2023.)
    """

    def __init__(
        self,
        vocabulary_size: int = 1024,
        longest: int = 16,
        bases: int = 4_000_000,
        merges: Sequence[str] | None = None,
    ):
        """Build the tokenizer; without `merges` it has to be trained.

        Args:
            vocabulary_size: Most ids, letters, padding and mask included.
            longest: Most bases of a word, 2 to 127.
            bases: Most bases to learn from, which bounds the memory of `train`.
            merges: The merges of a trained tokenizer in order, each as "AC GT".

        Raises:
            UserError: A setting is out of range, or `merges` do not fit the other settings.
        """
        if vocabulary_size <= FIRST_WORD:
            raise UserError(
                f"tokenizer.vocabulary_size must be at least {FIRST_WORD + 1} ids (15 letters, padding, a mask and a"
                f" word), got {vocabulary_size}"
            )
        if not 2 <= longest <= 127:
            raise UserError(f"tokenizer.longest must lie within 2 and 127 bases, got {longest}")
        if bases < 2:
            raise UserError(f"tokenizer.bases must be at least 2 bases to learn from, got {bases}")
        self.max_vocabulary_size, self.longest, self.bases = vocabulary_size, longest, bases
        self.trained = merges is not None
        self._set_merges([] if merges is None else [str(merge) for merge in merges])

    def train(self, sequences: Iterable[UInt8[np.ndarray, "_"]]) -> None:
        """Learn words from the first `bases` bases of the sequences; equal sequences give equal words."""
        learner = tokenizers.Tokenizer(BPE())
        trainer = BpeTrainer(
            vocab_size=self.max_vocabulary_size - FIRST_WORD + len(_BASES),
            min_frequency=2,
            initial_alphabet=list(_BASES),
            max_token_length=self.longest + 1,  # the library joins pairs that are shorter than this
            show_progress=False,
        )
        learner.train_from_iterator(self._texts(sequences), trainer)
        self._set_merges([" ".join(pair) for pair in json.loads(learner.to_str())["model"]["merges"]])
        self.trained = True

    def encode(self, bases: UInt8[np.ndarray, "length"], frame: int = 0) -> Encoded:
        if not self.trained:
            raise ValueError("the tokenizer has not learned yet")
        check_bases(bases)
        words = self._joiner.encode(decode_bases(bases[frame:]), add_special_tokens=False).ids
        ids = np.concatenate([bases[:frame], np.array(words, np.int64)]).astype(self._dtype)
        ends = np.cumsum(self._lengths[ids])
        return Encoded(ids, ends - self._lengths[ids])

    def decode(self, ids: Integer[np.ndarray, "tokens"]) -> UInt8[np.ndarray, "length"]:
        check_ids(ids, self.vocabulary_size)
        rows = self._token_bases[ids]
        rows[ids == self.mask_id, 0] = UNKNOWN
        return rows[rows >= 0].astype(np.uint8)

    def token_bases(self) -> Int8[np.ndarray, "vocabulary token_length"]:
        return self._token_bases.copy()

    def describe(self) -> dict[str, object]:
        settings = {"vocabulary_size": self.max_vocabulary_size, "longest": self.longest, "bases": self.bases}
        merges = {"merges": list(self.merges) if self.trained else None}
        return {"_target_": "genoattn.data.tokenizers.bpe.BpeTokenizer", **settings, **merges}

    def _set_merges(self, merges: list[str]) -> None:
        """Number the words of merges in the order in which they first appear, and make the tables of them."""
        words = {letter: code for code, letter in enumerate(LETTERS)}
        for number, merge in enumerate(merges):
            halves = merge.split(" ")
            if len(halves) != 2 or not all(half in words and set(half) <= set(_BASES) for half in halves):
                raise UserError(
                    f"tokenizer.merges[{number}] must join two words of {', '.join(_BASES)} or of earlier merges, as"
                    f" 'A C', got {merge!r}"
                )
            words.setdefault("".join(halves), len(words) + 2)  # padding and the mask lie between letters and words
        longest, size = max(map(len, words)), len(words) + 2
        if longest > self.longest or size > self.max_vocabulary_size:
            raise UserError(
                f"tokenizer.merges make {size} ids and words of up to {longest} bases, more than"
                f" tokenizer.vocabulary_size={self.max_vocabulary_size} or tokenizer.longest={self.longest}"
            )
        self.merges = tuple(merges)
        self.vocabulary_size, self.max_token_length = size, longest
        self._dtype = id_dtype(size)
        self._token_bases = np.full((size, longest), -1, np.int8)
        for word, number in words.items():
            self._token_bases[number, : len(word)] = encode_bases(word)
        self._lengths = np.maximum((self._token_bases >= 0).sum(1), 1)
        pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
        # Windows rarely repeat, so a cache of them would only grow.
        self._joiner = tokenizers.Tokenizer(BPE(words, pairs, cache_capacity=0))

    def _texts(self, sequences: Iterable[UInt8[np.ndarray, "_"]]) -> Iterator[str]:
        """Texts of A, C, G and T from the first `bases` bases of the sequences."""
        remaining = self.bases
        for sequence in sequences:
            for run in re.findall(f"[{_BASES}]+", decode_bases(sequence[:remaining])):
                yield from (run[start : start + _TEXT_LENGTH] for start in range(0, len(run), _TEXT_LENGTH))
            remaining -= len(sequence)
            if remaining <= 0:
                return
