"""Work that is cut into shards: each is done once, in a folder of its own, by this process or by Hydra's launchers."""

import hashlib
import json
import re
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from io import BufferedWriter
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from genoattn.comparison.code import CodeReader
from genoattn.comparison.launcher import LOG, run_on_devices, spread, stopped_by_sigterm
from genoattn.config.overrides import quote
from genoattn.errors import UserError, shorten
from genoattn.files import cannot_write, file_sha256, replace_when_done, write_json
from genoattn.genome.indexed_fasta import Sequences
from genoattn.models.card import ModelCard
from genoattn.models.variant_scoring import VariantScorer

RECORD, ROWS = "shard.json", "rows.tsv"
"""The file of a shard that is done, in its folder: the inputs it was made from, and its rows."""

OWN = ("shards", "shard", "parts", "devices")
"""Settings that say how the work is cut and who does it; no result depends on them."""

SCORERS = ("genoattn.models.variant_scoring", "genoattn.models.variant_scan", "genoattn.genome.vcf_rows")
"""Modules that score, with all that they import."""

_SHARD = re.compile(r"([0-9]{1,9})/([0-9]{1,9})")


class Shard(NamedTuple):
    """A share of the work: number `number`, from 1, of `total` contiguous ones."""

    number: int
    total: int

    def __str__(self) -> str:
        return f"{self.number}/{self.total}"

    @property
    def place(self) -> str:
        """The name of its folder."""
        return f"{self.number}-of-{self.total}"

    def part(self, items: int) -> range:
        """The numbers of the items that belong to it, from 0."""
        return range(items * (self.number - 1) // self.total, items * self.number // self.total)


class Done(NamedTuple):
    """The record of a shard that is done."""

    inputs: Mapping[str, Any]
    """Everything that its rows depend on, by name."""
    items: Sequence[int]
    """Number of the first item of the work, from 0, and of the one after the last."""
    counts: Mapping[str, int]
    """Number of results by reason."""
    seconds: float
    sha256: str
    """Of the file of rows."""


class ShardFolder:
    """The folder of a shard.

    The rows are written whole or not at all, and the record after them. It holds their sha256, so a kill between the
    two, or rows of other inputs, are noticed.
    """

    def __init__(self, parts: Path, shard: Shard, items: int, inputs: Mapping[str, Any], rows: str = ROWS):
        """The folder inside `parts` of a shard of a work of `items` items with these inputs, and its file of rows."""
        self.shard, self.folder, self.inputs = shard, parts / shard.place, inputs
        self.part = shard.part(items)
        self.rows, self.record = self.folder / rows, self.folder / RECORD

    def read(self) -> Done | None:
        """The record, if the shard is done and was made from the same inputs."""
        done = self._record()
        if done is None or done.inputs != self.inputs or list(done.items) != [self.part.start, self.part.stop]:
            return None
        try:
            return done if file_sha256(self.rows) == done.sha256 else None
        except OSError:
            return None

    def begin(self) -> None:
        """Make the folder, and remove a record that does not fit, with a line on the inputs that changed."""
        done = self._record()
        if done is not None:
            changed = [name for name in dict.fromkeys([*done.inputs, *self.inputs]) if self._differs(done, name)]
            reason = f"{', '.join(changed)} changed" if changed else "its rows are not as they were written"
            print(f"shard {self.shard} is made again: {reason}", flush=True)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.record.unlink(missing_ok=True)
        except OSError as error:
            raise cannot_write(self.folder, error) from error

    @contextmanager
    def writing(self) -> Iterator[BufferedWriter]:
        """The file of rows to write."""
        with replace_when_done(self.rows) as part, part.open("wb") as rows:
            yield rows

    def finish(self, counts: Mapping[str, int], seconds: float) -> None:
        """Write the record."""
        done = Done(self.inputs, [self.part.start, self.part.stop], dict(counts), seconds, file_sha256(self.rows))
        write_json(self.record, done._asdict(), indent=1)

    def _record(self) -> Done | None:
        try:
            return Done(**json.loads(self.record.read_text("utf-8")))
        except (OSError, ValueError, TypeError, RecursionError):
            return None

    def _differs(self, done: Done, name: str) -> bool:
        return done.inputs.get(name) != self.inputs.get(name)


def chosen_shards(config: DictConfig, devices: int = 1) -> list[Shard]:
    """The shards that this process is to see done: all `shards`, one for each device at least, or what `shard` names.

    Raises:
        UserError: `shard` is none, or there is no folder that it could share with the others.
    """
    if config.shard is None:
        total = max(config.shards, devices)
        return [Shard(number, total) for number in range(1, total + 1)]
    match = _SHARD.fullmatch(config.shard)
    shard = Shard(*map(int, match.groups())) if match else Shard(0, 0)
    if not 1 <= shard.number <= shard.total:
        raise UserError(f"shard={shorten(config.shard)}: expected number/total, such as 2/7")
    if config.shards not in (1, shard.total):
        raise UserError(f"shard={shard} and shards={config.shards} contradict each other; leave out one of the two")
    if config.parts is None:
        raise UserError(f"shard={shard} needs parts=…, a folder that all shards share")
    return [shard]


def do_shards(
    program: str,
    parts: Path,
    places: Sequence[ShardFolder],
    work: Callable[[Sequence[ShardFolder]], object],
    devices: Sequence[str] = ("cpu",),
) -> list[Done]:
    """See that shards are done.

    Hydra's launcher does them if another one than its default was chosen, else a process for each device if there are
    several, else this process.

    Args:
        program: Name of the program, which a launcher starts with `shard=number/total` for each shard.
        parts: The folder of all shards.
        places: The shards; those that are done already are left alone.
        work: Does shards in this process, one after the other.
        devices: The devices, by their names in torch.

    Returns:
        The record of each shard.

    Raises:
        UserError: A shard failed in a process of its own.
    """
    todo, total = [place for place in places if place.read() is None], places[0].shard.total
    if len(todo) < len(places):
        print(f"{len(places) - len(todo)} of {len(places)} shards are done already", flush=True)
    for place in todo:
        place.begin()
    again = f"the same command with parts={quote(parts)}"
    try:
        launched = HydraConfig.get().runtime.choices["hydra/launcher"] != "basic"
        if len(places) == 1 or (len(devices) == 1 and not launched):
            work(todo)
        else:
            words = [word for word in HydraConfig.get().overrides.task if word.lstrip("+").partition("=")[0] not in OWN]
            words.append(f"parts={quote(parts.absolute())}")
            jobs = {place.shard.place: [*words, f"shard={place.shard}", "devices=1"] for place in todo}
            with stopped_by_sigterm():
                if launched:
                    spread(program, jobs, parts, RECORD)
                else:
                    run_on_devices(program, jobs, parts, RECORD, devices)
    except KeyboardInterrupt:
        if total > 1:
            print(f"stopped; {again} goes on where it stopped", file=sys.stderr)
        raise
    done = {place: record for place in places if (record := place.read())}
    if failed := [place for place in places if place not in done]:
        number = f"{len(failed)} of {total} shards failed"
        raise UserError(f"{number}: see {failed[0].folder / LOG}; {again} tries again what is missing")
    return list(done.values())


def totals(done: Sequence[Done]) -> tuple[Counter[str], float]:
    """The counts and seconds of several shards together."""
    return sum((Counter(one.counts) for one in done), Counter[str]()), sum(one.seconds for one in done)


def joined(places: Sequence[ShardFolder]) -> Iterator[bytes]:
    """The rows of all shards in their order."""

    def lines(place: ShardFolder) -> Iterator[bytes]:
        with place.rows.open("rb") as rows:
            yield from rows

    return chain.from_iterable(map(lines, places))


def scorer_inputs(genome: Sequences, scorer: VariantScorer, card: ModelCard) -> dict[str, Any]:
    """The genome, model, settings, versions and code on which scores depend: parts of the inputs of a shard."""
    return {
        "fasta": genome_digest(genome),
        "length": scorer.length,
        "both_strands": scorer.reader.both_strands,
        "embeddings": scorer.embeddings,
        **model_inputs(card, SCORERS),
    }


def genome_digest(genome: Sequences) -> str:
    """The digest of the bases of a genome and of the names of its records."""
    return hashlib.sha256(json.dumps([genome.identity, genome.names]).encode()).hexdigest()


def model_inputs(card: ModelCard, modules: Sequence[str]) -> dict[str, Any]:
    """The model, versions and code on which its results depend; `modules` are those that use it."""
    described = json.dumps(card.to_json(), sort_keys=True)
    targets = re.findall(r'"_target_": "([\w.]+)"', described)
    return {
        "checkpoint": hashlib.sha256(described.encode()).hexdigest(),
        **{name: version(name) for name in ("genoattn", "torch")},
        "code": _code(tuple(sorted({*targets, *modules}))),
    }


@cache
def _code(names: tuple[str, ...]) -> str:
    """The digest of some modules, and of those that define some classes."""
    digests = CodeReader().digests(list(names))
    return hashlib.sha256(json.dumps(digests).encode()).hexdigest()
