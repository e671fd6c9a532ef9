"""A tokenizer as the `tokenizer.json` that other programs read by Hugging Face's `tokenizers`."""

import json

import tokenizers
from tokenizers import Regex, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE, WordLevel

from genoattn.data.tokenizers.base import Tokenizer
from genoattn.data.tokenizers.bpe import BpeTokenizer
from genoattn.data.tokenizers.kmer import KmerTokenizer
from genoattn.data.tokenizers.nucleotide import NucleotideTokenizer
from genoattn.genome.alphabet import LETTERS, UNKNOWN, decode_bases

PAD, MASK = "[PAD]", "[MASK]"


def tokenizer_json(tokenizer: Tokenizer) -> str:
    """The text of a tokenizer.json.

    `tokenizers.Tokenizer.from_str` of it gives the ids that `tokenizer.encode` gives in frame 0, of letters in either
    case, U read as T. It reads other characters as N, where genoattn refuses them. Overlapping k-mers and tokenizers of
    other packages have no such form: their text is what `tokenizer.describe` returns.
    """
    if isinstance(tokenizer, KmerTokenizer) and tokenizer.overlapping and tokenizer.k > 1:
        return json.dumps(tokenizer.describe())
    if not isinstance(tokenizer, (NucleotideTokenizer, KmerTokenizer, BpeTokenizer)):
        return json.dumps(tokenizer.describe())
    words = {decode_bases(row[row >= 0].astype("u1")): number for number, row in enumerate(tokenizer.token_bases())}
    del words[""]
    words |= {PAD: tokenizer.pad_id, MASK: tokenizer.mask_id}
    if isinstance(tokenizer, BpeTokenizer):
        pairs = [(left, right) for left, _, right in (merge.partition(" ") for merge in tokenizer.merges)]
        written = tokenizers.Tokenizer(BPE(words, pairs, unk_token=LETTERS[UNKNOWN]))
    else:
        written = tokenizers.Tokenizer(WordLevel(words, unk_token=LETTERS[UNKNOWN]))
        k = tokenizer.k if isinstance(tokenizer, KmerTokenizer) else 1
        steps = [f".{{{k}}}", f"[ACGT]{{{k}}}|."]  # k bases at a time; letter by letter if one of them is ambiguous
        splits = [pre_tokenizers.Split(Regex(step), "isolated") for step in steps]
        written.pre_tokenizer = pre_tokenizers.Sequence(splits)  # type: ignore[assignment]
    upper = [normalizers.Replace(letter.lower(), letter) for letter in f"{LETTERS}U"]
    merged = isinstance(tokenizer, NucleotideTokenizer) and tokenizer.unknown == "merge"
    ambiguous = [normalizers.Replace(Regex("[^ACGTN]"), "N")] if merged else []
    written.normalizer = normalizers.Sequence([*upper, normalizers.Replace("U", "T"), *ambiguous])  # type: ignore
    written.decoder = decoders.Fuse()  # type: ignore[assignment]
    written.add_special_tokens([PAD, MASK])
    return written.to_str()
