"""Records of genomes by name and number, and names that are the same in two files."""

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from genoattn.errors import UserError, did_you_mean, shorten


def distinct_names(names: Sequence[str], files: Sequence[int], paths: Sequence[Path]) -> tuple[str, ...]:
    """The names of records, with the file in front where two files have the same name: `file:name`.

    Args:
        names: The names as the files have them; no name stands twice in a file.
        files: The number of the file of each record.
        paths: The files.

    Raises:
        UserError: A name that is made so is that of another record.
    """
    if len(set(names)) == len(names):
        return tuple(names)
    labels, of_name = _labels(paths), defaultdict(list)
    for number, name in enumerate(names):
        of_name[name].append(number)
    distinct = list(names)
    for name, numbers in of_name.items():
        for number in numbers if len(numbers) > 1 else ():
            distinct[number] = f"{labels[files[number]]}:{name}"
    if len(set(distinct)) < len(distinct):
        twice = next(name for number, name in enumerate(distinct) if name in distinct[:number])
        raise UserError(f"two records of the FASTA files would be called {shorten(twice)}; rename one of them")
    return tuple(distinct)


def describe_renamed(names: Sequence[str], distinct: Sequence[str]) -> str:
    """One line on the names that stand in several files; "" if there are none."""
    changed = [pair for pair in zip(names, distinct, strict=True) if pair[0] != pair[1]]
    if not changed:
        return ""
    first, count = changed[0][0], len({name for name, _ in changed})
    examples = [shorten(new) for name, new in changed if name == first]
    if count == 1:
        return f"the record name {shorten(first)} stands in {len(examples)} FASTA files: {_and(examples)}"
    return f"{count:,} record names stand in several FASTA files; {shorten(first)} is read as {_and(examples)}"


def shared_names(names: Iterable[str]) -> dict[str, list[str]]:
    """The names of records in several files, without the file, each with the names that `distinct_names` made of it."""
    of_name = defaultdict(list)
    names = list(names)
    for name in names:
        if plain := name.partition(":")[2]:
            of_name[plain].append(name)
    known = set(names)
    return {plain: found for plain, found in of_name.items() if len(found) > 1 and plain not in known}


def record_number(name: str, numbers: Mapping[str, int]) -> int:
    """The number of a record by its name; raises UserError if there is none of that name, or several."""
    if name not in numbers:
        if several := shared_names(numbers).get(name):
            raise UserError(f"the record name {name!r} stands in several FASTA files: name one of {_and(several)}")
        raise UserError(f"the genome holds no record {name!r}{did_you_mean(name, numbers)}")
    return numbers[name]


def unknown_contig(place: str, contig: str, contigs: Iterable[str]) -> UserError:
    """The sentence about a contig that the genome lacks, or whose name stands in several of its files."""
    name, contigs = shorten(contig), list(contigs)
    if several := shared_names(contigs).get(contig):
        return UserError(
            f"{place}: the contig '{name}' stands in several FASTA files, and may be any of {_and(several)}; give the"
            " one FASTA that the file is about, or rename its contigs"
        )
    return UserError(f"{place}: the FASTA has no contig '{name}'{did_you_mean(name, contigs)}")


def _labels(paths: Sequence[Path]) -> list[str]:
    """A short and distinct name of each file: without its endings, with its folder where it must be."""
    stems = [re.sub(r"(\.(fa|fasta|fna|ffn|fas))?(\.b?gz)?$", "", path.name, flags=re.IGNORECASE) for path in paths]
    within = [f"{path.absolute().parent.name}/{stem}" for path, stem in zip(paths, stems, strict=True)]
    whole = [str(path) for path in paths]
    chosen = next(labels for labels in (stems, within, whole) if len(set(labels)) == len(paths) or labels is whole)
    return [re.sub(r"[^!-9;-~]", "_", label) for label in chosen]


def _and(names: Sequence[str], most: int = 3) -> str:
    """Names as the part of a sentence."""
    if len(names) > most:
        return f"{', '.join(names[:most])} and {len(names) - most:,} more"
    return " and ".join([", ".join(names[:-1]), names[-1]]) if len(names) > 1 else names[0]
