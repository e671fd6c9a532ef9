"""Mistakes of a user: one sentence each, exit status 2, no traceback."""

import difflib
from collections.abc import Iterable

LISTED = 15
"""Right words that a sentence lists at most."""


QUOTED = 80
"""Characters of a user's input that a message repeats at most."""


class UserError(ValueError):
    """A mistake of the user: the message says where it is, what was expected and what came."""


def shorten(text: object) -> str:
    """Text of a user for a message: cut at `QUOTED` characters, control characters escaped."""
    line = str(text)
    line = line if len(line) <= QUOTED else f"{line[: QUOTED - 1]}…"
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in line)


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The right word that is most similar to a misspelt one, None if none is similar.

    A word of several parts (`data.length`) is compared as a whole and by its last part.
    """

    def similarity(candidate: str) -> float:
        spellings = {candidate.lower(), candidate.rpartition(".")[2].lower()}
        return max(difflib.SequenceMatcher(None, word.lower(), spelling).ratio() for spelling in spellings)

    best = max(sorted(words, key=len), key=similarity, default=None)
    return best if best is not None and similarity(best) >= 0.6 else None


def did_you_mean(word: str, words: Iterable[str]) -> str:
    """The end of a sentence about a wrong word: the most similar right word or, if none is similar, all of them."""
    words = list(words)
    if near := nearest(word, words):
        return f"; did you mean {near}?"
    more = f" and {len(words) - LISTED:,} more" if len(words) > LISTED else ""
    return f"; there are {', '.join(words[:LISTED]) or 'none'}{more}"
