"""Words of many lengths, learned by joining the commonest pair of neighbours again and again (byte-pair encoding)."""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import final

import numpy as np
import tokenizers
from jaxtyping import Int8, Integer, UInt8
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer

from genoattn.data.tokenizers.base import Encoded, Tokenizer, check_bases, id_dtype
from genoattn.errors import UserError
from genoattn.genome.alphabet import LETTERS, UNKNOWN, decode_bases, encode_bases

FIRST = len(LETTERS) + 2


_KNOWN = "ACGT"


_WORD = 256
"""Bases of a text within which pairs are counted; a pair across its border is not."""


@final
class BpeTokenizer(Tokenizer):
    """Ids 0..16 are the letters, padding and a mask; words of A, C, G, T follow in the order in which they were joined.

    `vocabulary` ids at most, words of at most `longest` bases, learned from at most `bases` bases, which bounds the
    memory that learning takes. `merges`, as "AC GT", are those of a tokenizer that has learned. A word is joined of
    its neighbours whatever stands around them, wherever the window begins: there is one frame, and `phase` moves but
    the first few words. No word holds a letter other than A, C, G, T (Sennrich et al., ACL 2016; DNABERT-2).
    """

    def __init__(
        self,
        vocabulary_size: int = 1024,
        longest: int = 16,
        bases: int = 4_000_000,
        merges: Sequence[str] | None = None,
    ):
        if vocabulary_size <= FIRST:
            raise UserError(
                f"tokenizer.vocabulary_size must be at least {FIRST + 1} ids (15 letters, padding, a mask and a word),"
                f" got {vocabulary_size}"
            )
        if not 2 <= longest <= 127:
            raise UserError(f"tokenizer.longest must lie within 2 and 127 bases, got {longest}")
        if bases < 2:
            raise UserError(f"tokenizer.bases must be at least 2 bases to learn from, got {bases}")
        self.most, self.longest, self.bases = vocabulary_size, longest, bases
        self.trained = merges is not None
        self._adopt([] if merges is None else [str(merge) for merge in merges])

    def train(self, sequences: Iterable[UInt8[np.ndarray, "_"]]) -> None:
        """Learn words from the first `bases` bases of the stretches; the same stretches give the same words."""
        learner = tokenizers.Tokenizer(BPE())
        trainer = BpeTrainer(
            vocab_size=self.most - FIRST + len(_KNOWN),
            min_frequency=2,
            initial_alphabet=list(_KNOWN),
            max_token_length=self.longest + 1,  # pairs are taken up while they are shorter than this
            show_progress=False,
        )
        learner.train_from_iterator(self._texts(sequences), trainer)
        self._adopt([" ".join(pair) for pair in json.loads(learner.to_str())["model"]["merges"]])
        self.trained = True

    def encode(self, bases: UInt8[np.ndarray, "length"], frame: int = 0) -> Encoded:
        """Words of the whole window (n log n of its length), after the first `phase` bases, which stand alone."""
        if not self.trained:
            raise ValueError("the tokenizer has not learned yet")
        check_bases(bases)
        joined = self._joiner.encode(decode_bases(bases[frame:]), add_special_tokens=False).ids
        ids = np.concatenate([bases[:frame], np.array(joined, np.int64)]).astype(self._kind)
        ends = np.cumsum(self._sizes[ids])
        return Encoded(ids, ends - self._sizes[ids])

    def decode(self, ids: Integer[np.ndarray, "tokens"]) -> UInt8[np.ndarray, "length"]:
        """The codes of the bases of words, N for a mask; padding is dropped."""
        if len(ids) and ids.max() >= self.vocabulary_size:
            raise ValueError(f"token {int(ids.argmax())} has id {ids.max()}; expected 0..{self.vocabulary_size - 1}")
        rows = self._codes[ids]
        rows[ids == self.mask_id, 0] = UNKNOWN
        return rows[rows >= 0].astype(np.uint8)

    def token_bases(self) -> Int8[np.ndarray, "vocabulary span"]:
        return self._codes.copy()

    def describe(self) -> dict[str, object]:
        settings = {"vocabulary_size": self.most, "longest": self.longest, "bases": self.bases}
        own = settings | {"merges": list(self.merges) if self.trained else None}
        return {"_target_": "genoattn.data.tokenizers.bpe.BpeTokenizer", **own}

    def _adopt(self, merges: list[str]) -> None:
        """Take merges for one's own: ids are numbered in the order in which words first come up."""
        words = {letter: code for code, letter in enumerate(LETTERS)}
        for number, merge in enumerate(merges):
            parts = merge.split(" ")
            if len(parts) != 2 or not all(part in words and set(part) <= set(_KNOWN) for part in parts):
                raise UserError(
                    f"tokenizer.merges[{number}] must join two words of {', '.join(_KNOWN)} or of earlier merges, as"
                    f" 'A C', got {merge!r}"
                )
            words.setdefault("".join(parts), len(words) + 2)  # padding and the mask come between
        longest, ids = max(map(len, words)), len(words) + 2
        if longest > self.longest or ids > self.most:
            raise UserError(
                f"tokenizer.merges make {ids} ids and words of up to {longest} bases, more than"
                f" tokenizer.vocabulary_size={self.most} or tokenizer.longest={self.longest}"
            )
        self.merges = tuple(merges)
        self.vocabulary_size = ids
        self.max_token_length = longest
        self._kind = id_dtype(self.vocabulary_size)
        self._codes = np.full((self.vocabulary_size, longest), -1, np.int8)
        for word, number in words.items():
            self._codes[number, : len(word)] = encode_bases(word)
        self._sizes = np.maximum((self._codes >= 0).sum(1), 1)
        pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in merges)]
        # Windows seldom come twice: nothing is kept of them.
        self._joiner = tokenizers.Tokenizer(BPE(words, pairs, cache_capacity=0))

    def _texts(self, stretches: Iterable[UInt8[np.ndarray, "_"]]) -> Iterator[str]:
        left = self.bases
        for stretch in stretches:
            for run in re.findall(f"[{_KNOWN}]+", decode_bases(stretch[:left])):
                yield from (run[start : start + _WORD] for start in range(0, len(run), _WORD))
            left -= len(stretch)
            if left <= 0:
                return
