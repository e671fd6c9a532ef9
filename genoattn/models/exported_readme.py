"""The README.md of an exported model: what it was trained for and on, how good it was, and how to load it."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException
from yaml import YAMLError

from genoattn.errors import UserError, shorten
from genoattn.models import exported
from genoattn.models.build import LoadedModel
from genoattn.models.card import DESCRIPTION, ModelCard, description_of

BUNDLED = "the bundled *S. aureus* NCTC 8325"

HEAD = """---
library_name: {library}
tags:
{tags}
# license: name one here before you share the model, such as apache-2.0
---

# A model of DNA with {name} attention

| | |
| --- | --- |
{facts}

## Load it

`pip install genoattn`; no code of this folder is run.

```python
import genoattn

model = genoattn.load("path/of/this/folder"{trust})
```

Every program of genoattn takes `checkpoint=path/of/this/folder`{trust_word}.
"""


def readme_text(loaded: LoadedModel) -> str:
    """The text of README.md; of a model that was exported before, its own README.md, which a user may have edited."""
    if description_of(loaded.folder).name != DESCRIPTION:
        own = loaded.folder / exported.README
        return _read(own) if own.is_file() else _text(loaded, None)
    return _text(loaded, loaded.folder.parent if loaded.folder.name == "model" else None)


def _text(loaded: LoadedModel, run: Path | None) -> str:
    """A new README.md; `run` is the folder of the run that made the model, if it is known."""
    card = loaded.card
    names = {str(node["_target_"]) for node in (card.tokenizer, card.task, card.model, card.attention)}
    foreign = sorted({name.partition(".")[0] for name in names} - {exported.LIBRARY})
    head = HEAD.format(
        library=exported.LIBRARY,
        tags="\n".join(f"- {tag}" for tag in exported.TAGS),
        name=_cell(card.name),
        facts="\n".join(f"| {name} | {value} |" for name, value in _facts(loaded, run).items()),
        trust=f", trust={foreign!r}" if foreign else "",
        trust_word=f" and needs `trust=[{', '.join(foreign)}]`, whose code is run" if foreign else "",
    )
    figures = _figures(run / "metrics.json") if run else ""
    return f"{head}\n## Figures of its run\n\n{figures}" if figures else head


def _facts(loaded: LoadedModel, run: Path | None) -> dict[str, str]:
    card: ModelCard = loaded.card
    count = len(card.genome)
    genome = f"{count:,} record{'s' * (count != 1)}, whose sha256 stand in {exported.CONFIG}"
    names = _genome_files(run / "config.yaml") if run else ""
    return {
        "task": _class(card.task),
        "attention layer": f"{_cell(card.name)} ({_class(card.attention)})",
        "tokenizer": _class(card.tokenizer),
        "parameters": f"{sum(parameter.numel() for parameter in loaded.predictor.model.parameters()):,}",
        "window of training": f"{card.length:,} bases",
        "trained on": f"{names}: {genome}" if names else genome,
        "other strand": card.reverse_complement,
        "seed": str(card.seed),
    }


def _class(node: Mapping[str, Any]) -> str:
    return f"`{_cell(str(node['_target_']).rpartition('.')[2])}`"


def _genome_files(config: Path) -> str:
    """The names of the FASTA files of a run, without their folders; empty if they are not known."""
    try:
        files = OmegaConf.select(OmegaConf.create(_read(config)), "data.fasta", default="")
    except (UserError, OmegaConfBaseException, YAMLError, ValueError, AssertionError):
        return ""
    if files is None:
        return BUNDLED
    words = [files] if isinstance(files, str) else list(files)
    return ", ".join(f"`{_cell(Path(str(word)).name)}`" for word in words if word)


def _figures(file: Path) -> str:
    """A table of the metrics of the model, a row for each test set and kind; ranges and intervals are left out."""
    if not file.is_file():
        return ""
    try:
        values = json.loads(_read(file))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{file} is not json: {shorten(error)}") from None
    if not isinstance(values, dict):
        raise UserError(f"{file} is not of a run: expected a mapping")
    found = {
        key: value
        for key, value in ((tuple(text.split("/")), value) for text, value in values.items())
        if len(key) == 4 and key[0] == "model" and isinstance(value, (int, float)) and math.isfinite(value)
        if not any(part.isdigit() for part in key[2].split("_")) and not key[3].endswith(("_low", "_high"))
    }
    metrics = list(dict.fromkeys(key[3] for key in found))
    rows = [["test set", "subset", *metrics], ["---"] * (2 + len(metrics))]
    for test_set, subset in dict.fromkeys(key[1:3] for key in found):
        cells = [found.get(("model", test_set, subset, metric)) for metric in metrics]
        rows.append([test_set, subset, *("" if cell is None else f"{cell:.4g}" for cell in cells)])
    return "".join(f"| {' | '.join(map(_cell, row))} |\n" for row in rows) if found else ""


def _read(file: Path) -> str:
    try:
        return file.read_text("utf-8")
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read: {shorten(error)}") from None


def _cell(text: str) -> str:
    """A text for a cell of a table: no character that ends the cell, its code or the line."""
    return "".join(letter if letter.isprintable() and letter not in "|`<>" else "_" for letter in text)
