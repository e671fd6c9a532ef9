"""Tokens of several bases lead back to their bases, and the answer of each base to that base, whatever the tokens."""

import json
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genoattn.data.batch import collate
from genoattn.data.example import MASK, RANDOM, UNCHANGED, VISIBLE, ContextFormat, Example
from genoattn.data.tokenizers.base import Tokenizer, id_dtype
from genoattn.data.tokenizers.bpe import BpeTokenizer
from genoattn.data.tokenizers.kmer import KmerTokenizer
from genoattn.data.tokenizers.nucleotide import NucleotideTokenizer
from genoattn.errors import UserError
from genoattn.genome.alphabet import LETTERS, decode_bases, encode_bases, reverse_complement
from genoattn.models.predictor import per_base, to_forward_strand

CASES = settings(deadline=None, max_examples=80)
GENOME = encode_bases("".join(np.random.default_rng(5).choice(list("ACGTTAAT"), 6000)) + "N" * 9 + "ACGTRYSW" * 40)


def learned(vocabulary: int = 80, longest: int = 6) -> BpeTokenizer:
    tokenizer = BpeTokenizer(vocabulary, longest)
    tokenizer.train(GENOME[start : start + 500] for start in range(0, len(GENOME), 500))
    return tokenizer


EVERY: dict[str, Tokenizer] = {
    "base": NucleotideTokenizer(),
    **{f"kmer {k}": KmerTokenizer(k) for k in (1, 2, 3, 6, 8)},
    **{f"kmer {k} overlapping": KmerTokenizer(k, True) for k in (1, 2, 3, 6, 8)},
    "bpe": learned(),
}
known = st.text("ACGT", max_size=60)
letters = st.lists(known | st.sampled_from(LETTERS), max_size=6).map("".join)
tokenizers = st.sampled_from(list(EVERY)).map(EVERY.__getitem__)


def owned(tokenizer: Tokenizer, token: int) -> str:
    return "".join(LETTERS[code] for code in tokenizer.token_bases()[token] if code >= 0)


def slow(text: str, k: int, overlapping: bool, frame: int) -> tuple[list[int], list[int]]:
    """Token by token, as the tokenizer's description says it."""

    def number(word: str) -> int:
        return 17 + sum("ACGT".index(letter) * 4 ** (k - 1 - j) for j, letter in enumerate(word))

    ids, starts, at = [], [], 0
    while at < len(text):
        word = text[at : at + k]
        in_frame = overlapping or k == 1 or (at >= frame and (at - frame) % k == 0)
        whole = in_frame and len(word) == k and set(word) <= set("ACGT")
        ids.append(number(word) if whole else LETTERS.index(text[at]))
        starts.append(at)
        at += k if whole and not overlapping else 1
    return ids, starts


@CASES
@given(letters, st.integers(1, 8), st.booleans(), st.integers(0, 9))
def test_kmers_token_by_token(text: str, k: int, overlapping: bool, frame: int) -> None:
    ids, starts = KmerTokenizer(k, overlapping).encode(encode_bases(text), frame)
    assert (ids.tolist(), starts.tolist()) == slow(text, k, overlapping, frame)


@pytest.mark.parametrize("overlapping", [False, True])
@pytest.mark.parametrize("k", range(1, 9))
def test_kmers_of_more_than_a_piece(k: int, overlapping: bool) -> None:
    bases = np.random.default_rng(k).integers(0, 4, 40_003, dtype=np.uint8)
    for unclear in ([], [5, 16_383, 16_384, 32_767, 39_999]):
        bases[unclear] = 14
        ids, starts = KmerTokenizer(k, overlapping).encode(bases, k - 1)
        assert (ids.tolist(), starts.tolist()) == slow(decode_bases(bases), k, overlapping, k - 1)


@pytest.mark.parametrize(("k", "kind", "ids"), [(1, "uint8", 21), (3, "uint8", 81), (7, "int16", 16401)])
def test_ids_are_as_small_as_they_can_be(k: int, kind: str, ids: int) -> None:
    tokenizer = KmerTokenizer(k)
    assert tokenizer.vocabulary_size == ids and tokenizer.encode(GENOME[:50]).ids.dtype == kind
    assert KmerTokenizer(8).encode(GENOME[:50]).ids.dtype == np.int32 and KmerTokenizer(8).vocabulary_size == 65553


@CASES
@given(tokenizers, letters, st.integers(0, 9))
def test_nothing_is_lost(tokenizer: Tokenizer, text: str, frame: int) -> None:
    bases = encode_bases(text)
    ids, starts = tokenizer.encode(bases, frame)
    assert decode_bases(tokenizer.decode(ids)) == text
    padded = np.append(ids, np.full(3, tokenizer.pad_id, ids.dtype))
    assert decode_bases(tokenizer.decode(padded)) == text
    assert len(ids) == 0 or int(ids.max()) < tokenizer.vocabulary_size
    assert "".join(owned(tokenizer, token) for token in ids.tolist()) == text
    sizes = np.diff(starts, append=len(text))
    assert sizes.tolist() == [len(owned(tokenizer, token)) for token in ids.tolist()]
    assert all(1 <= size <= tokenizer.max_token_length for size in sizes)
    if tokenizer.max_token_length > 1:
        assert starts[: min(frame, len(text))].tolist() == list(range(min(frame, len(text))))
    other = reverse_complement(tokenizer.decode(tokenizer.encode(reverse_complement(bases), frame).ids))
    np.testing.assert_array_equal(other, bases)


@pytest.mark.parametrize("tokenizer", EVERY.values(), ids=EVERY)
def test_the_attributes_of_every_tokenizer(tokenizer: Tokenizer) -> None:
    assert tokenizer.token_bases().shape == (tokenizer.vocabulary_size, tokenizer.max_token_length)
    assert decode_bases(tokenizer.decode(np.array([0, 16, 15, 3], np.uint8))) == "ANT"
    target, *_ = plain = json.loads(json.dumps(tokenizer.describe()))
    kind, own = type(tokenizer), {key: value for key, value in plain.items() if key != target}
    for again in (kind(**own), pickle.loads(pickle.dumps(tokenizer))):
        assert again.trained and again.describe() == tokenizer.describe()
        for frame in range(tokenizer.frame_count):
            for column, same in zip(again.encode(GENOME, frame), tokenizer.encode(GENOME, frame), strict=True):
                np.testing.assert_array_equal(column, same)
    frames = {
        tuple(tokenizer.encode(GENOME[:100], frame).token_starts.tolist()) for frame in range(tokenizer.frame_count)
    }
    assert len(frames) == tokenizer.frame_count
    with pytest.raises(ValueError, match=r"base 2 has code 16; expected 0\.\.14"):
        tokenizer.encode(np.array([0, 14, 16], np.uint8))
    with pytest.raises(ValueError, match=f"token 1 has id {tokenizer.vocabulary_size}; expected"):
        tokenizer.decode(np.array([0, tokenizer.vocabulary_size], id_dtype(tokenizer.vocabulary_size + 1)))


def test_bpe_joins_the_commonest_pair_first() -> None:
    tokenizer = BpeTokenizer(vocabulary_size=19, longest=4)
    tokenizer.train([encode_bases("AC" * 20 + "T"), encode_bases("N" + "GTAC" * 5)])
    assert tokenizer.merges == ("A C", "AC AC")
    ids, starts = tokenizer.encode(encode_bases("ACACACNACT"))
    assert ids.tolist() == [18, 17, 14, 17, 3] and starts.tolist() == [0, 4, 6, 7, 9]


def test_bpe_learns_within_bounds_and_the_same_each_time() -> None:
    tokenizer = learned()
    assert tokenizer.describe() == learned().describe()
    assert tokenizer.vocabulary_size == 80 and 2 < tokenizer.max_token_length <= 6
    drawn = []

    def stretches():
        for start in range(0, 3000, 100):
            drawn.append(start)
            yield GENOME[start : start + 100]

    few, same = BpeTokenizer(40, bases=250), BpeTokenizer(40)
    few.train(stretches())
    assert drawn == [0, 100, 200]
    same.train([GENOME[:100], GENOME[100:200], GENOME[200:250]])
    assert few.merges == same.merges
    words = [owned(tokenizer, token) for token in range(17, tokenizer.vocabulary_size)]
    assert len(set(words)) == len(words) and set("".join(words)) <= set("ACGT")


def test_bpe_falls_in_step_wherever_it_begins() -> None:
    tokenizer = learned()
    whole = tokenizer.encode(GENOME).token_starts
    for begin in (1, 7, 1234):
        late = tokenizer.encode(GENOME[begin:]).token_starts + begin
        assert set(late[late > begin + 60]) == set(whole[whole > begin + 60])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: KmerTokenizer(9), r"tokenizer\.k must lie within 1 and 8 bases, got 9"),
        (lambda: KmerTokenizer(0, True), r"tokenizer\.k must lie within 1 and 8 bases, got 0"),
        (lambda: BpeTokenizer(vocabulary_size=17), r"tokenizer\.vocabulary_size must be at least 18 ids .*, got 17"),
        (lambda: BpeTokenizer(longest=0), r"tokenizer\.longest must lie within 2 and 127 bases, got 0"),
        (lambda: BpeTokenizer(bases=1), r"tokenizer\.bases must be at least 2 bases to learn from, got 1"),
        (lambda: BpeTokenizer(merges=["A C", "AC GT"]), r"tokenizer\.merges\[1\] must join two words .* got 'AC GT'"),
        (lambda: BpeTokenizer(merges=["A N"]), r"tokenizer\.merges\[0\] must join two words .* got 'A N'"),
        (lambda: BpeTokenizer(longest=2, merges=["A C", "A AC"]), r"make 19 ids and words of up to 3 bases"),
    ],
)
def test_mistakes(make, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence):
        make()


def test_bpe_must_learn_first() -> None:
    assert not BpeTokenizer().trained
    with pytest.raises(ValueError, match="has not learned yet"):
        BpeTokenizer().encode(GENOME[:10])


texts = st.lists(known.filter(bool), min_size=1, max_size=3)


def examples(rows: list[str], before: list[str] | None, hidden: np.ndarray | None = None) -> list[Example]:
    """Bases whose target is their own code."""
    return [
        Example(
            bases=encode_bases(row),
            reference_window=None,
            targets={"letter": encode_bases(row).astype(np.int8)},
            events=(),
            reference=None if before is None else encode_bases(before[number % len(before)]),
            masking=hidden,
        )
        for number, row in enumerate(rows)
    ]


def answer(tokenizer: Tokenizer, ids: torch.Tensor) -> torch.Tensor:
    """The predictions of a model that knows the bases of its tokens: 15 scores for each base that a token may own."""
    table = torch.from_numpy(
        np.vstack([tokenizer.token_bases(), np.full((1, tokenizer.max_token_length), -1, np.int8)])
    ).long()
    return torch.nn.functional.one_hot(table[ids.long()] + 1, 16)[..., 1:].flatten(2).float()


@CASES
@given(tokenizers, texts, st.none() | texts, st.integers(0, 8), st.booleans())
def test_every_base_has_its_own_answer(
    tokenizer: Tokenizer, rows: list[str], before: list[str] | None, frame: int, restart: bool
) -> None:
    frame %= tokenizer.frame_count
    batch = collate(examples(rows, before), tokenizer, None, ContextFormat(restart), frame, both_strands=True)
    forward = per_base(answer(tokenizer, batch.ids), batch.base_to_answer, 15)
    lengths = torch.tensor([len(row) for row in rows])
    assert batch.reverse_complement is not None
    other = per_base(answer(tokenizer, batch.reverse_complement.ids), batch.reverse_complement.base_to_answer, 15)
    turned = to_forward_strand(other[..., :4], "complement", lengths)
    for number, row in enumerate(rows):
        target = batch.targets["letter"][number, : len(row)].long()
        assert forward[number, : len(row)].argmax(-1).tolist() == target.tolist()
        assert (forward[number, : len(row)].sum(-1) == 1).all()
        assert turned[number, : len(row)].argmax(-1).tolist() == target.tolist()
    if batch.base_to_answer is not None:
        assert (batch.base_to_answer >= 0).sum(1).tolist() == lengths.tolist()
    assert (batch.ids[~batch.padding_mask] == tokenizer.pad_id).all()


@CASES
@given(tokenizers, known.filter(lambda text: len(text) > 8), st.integers(0, 7), st.integers(0, 2**32), st.booleans())
def test_no_visible_token_depends_on_a_masked_base(
    tokenizer: Tokenizer, text: str, frame: int, seed: int, paired: bool
) -> None:
    """Visible ids do not depend on masked bases."""
    frame %= tokenizer.frame_count
    rng = np.random.default_rng(seed)
    hidden = rng.choice([VISIBLE, MASK, RANDOM, UNCHANGED], len(text), p=[0.7, 0.1, 0.1, 0.1]).astype(np.uint8)
    before = ["ACGTACG"] if paired else None
    context_format = ContextFormat(token_objective="hidden")
    batch = collate(examples([text], before, hidden), tokenizer, None, context_format, frame)
    encoded = tokenizer.encode(encode_bases(text), frame)
    lead = len(tokenizer.encode(encode_bases(before[0]), frame).ids) + 1 if before else 0
    ids, labels = batch.ids[0, lead:].tolist(), batch.targets["token"][0, lead:].tolist()
    stops = np.append(encoded.token_starts[1:], len(text))
    for number, (start, stop) in enumerate(zip(encoded.token_starts, stops, strict=True)):
        # A single letter at the end of overlapping k-mers reads only itself, but may have a label too.
        read = hidden[start : stop + tokenizer.overlap]
        first = next((code for code in read if code != VISIBLE), VISIBLE)
        token = int(encoded.ids[number])
        expected = {MASK: tokenizer.mask_id, RANDOM: int(np.roll(encoded.ids, -7)[number])}.get(int(first), token)
        assert ids[number] == expected
        assert labels[number] == (token if first != VISIBLE else batch.targets["token"].min().item())
        assert first != MASK or ids[number] == tokenizer.mask_id
