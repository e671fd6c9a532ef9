"""What went wrong in the user's words: one sentence, exit status 2, never a traceback."""

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """A mistake of the user's: the message says where, what was expected and what came."""


def nearest(word: str, words: Iterable[str]) -> str | None:
    """The word most like a misspelt one, or None; a key without its group is compared with last parts alone."""

    def likeness(candidate: str) -> float:
        compared = candidate if "." in word else candidate.rpartition(".")[2]
        return difflib.SequenceMatcher(None, word.lower(), compared.lower()).ratio()

    best = max(sorted(words, key=len), key=likeness, default=None)
    return best if best is not None and likeness(best) >= 0.6 else None


def hint(word: str, words: Iterable[str], path: str = "") -> str:
    """The end of a sentence that names the nearest right word; empty where none is near."""
    near = nearest(word, words)
    return f"; nearest is {_join(path, near)}" if near else ""


def _join(path: str, key: str) -> str:
    return f"{path}.{key}" if path else str(key)
