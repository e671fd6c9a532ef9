"""The files of a folder that `genoattn export` wrote, and the card in its config.json."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from genoattn.errors import UserError, shorten
from genoattn.models.nodes import check_plain

CONFIG, WEIGHTS, TOKENIZER, README = "config.json", "model.safetensors", "tokenizer.json", "README.md"
FILES = (CONFIG, WEIGHTS, TOKENIZER, README)
LIBRARY = "genoattn"
TAGS = ("genomics", "dna", LIBRARY)


def config_values(card: Mapping[str, Any], tokenizer: bytes) -> dict[str, Any]:
    """The content of config.json.

    Args:
        card: The card as plain values, with the sha256 of the weights.
        tokenizer: The content of tokenizer.json.
    """
    card = json.loads(json.dumps(card))
    digests = {"card": _sha256_of_card(card), TOKENIZER: hashlib.sha256(tokenizer).hexdigest()}
    return {"library_name": LIBRARY, "model_type": LIBRARY, "tags": list(TAGS), "card": card, "sha256": digests}


def card_values(folder: Path, values: object) -> dict[str, Any]:
    """The card in a config.json, not yet checked against the fields of a card; keys of other programs are ignored.

    Args:
        folder: The exported folder.
        values: The content of its config.json.

    Raises:
        UserError: The config is of another library, lacks the card, or does not belong to the card or tokenizer.json.
    """
    file, tokenizer = folder / CONFIG, folder / TOKENIZER
    if not isinstance(values, dict) or values.get("library_name") != LIBRARY:
        name = shorten(values.get("library_name")) if isinstance(values, dict) else "missing"
        raise UserError(f"{file} is not of genoattn: its library_name is {name}, expected {LIBRARY}")
    card, digests = values.get("card"), values.get("sha256")
    if not isinstance(card, dict) or not isinstance(digests, dict):
        raise UserError(f"{file} lacks {'sha256' if isinstance(card, dict) else 'card'}, a mapping")
    try:
        check_plain(card, "")
    except UserError as error:
        raise UserError(f"{file}: card: {error}") from None
    try:
        found = hashlib.sha256(tokenizer.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"{tokenizer} cannot be read: {error.strerror}") from None
    for key, digest in (("card", _sha256_of_card(card)), (TOKENIZER, found)):
        if digest != digests.get(key):
            raise UserError(
                f"{file}: {key} is not what was exported (sha256 {digest[:12]}…, expected"
                f" {shorten(digests.get(key))[:12]}…): it was changed afterwards"
            )
    return card


def _sha256_of_card(card: Mapping[str, Any]) -> str:
    """The sha256 of a card whatever the order and layout of its text."""
    return hashlib.sha256(json.dumps(card, sort_keys=True).encode()).hexdigest()
