"""Labelled regions: the class of a sequence, or a number that was measured of it."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple, final

import numpy as np
from jaxtyping import UInt8

from genoattn.data.example import Example
from genoattn.data.targets import TargetSpec
from genoattn.data.tasks.window_classification import ItemClassification, Items
from genoattn.errors import LISTED, UserError, shorten
from genoattn.genome.alphabet import reverse_complement
from genoattn.genome.labelled_regions import LabelledRegion, read_regions
from genoattn.genome.sequence_store import Genome
from genoattn.genome.splits import Splits
from genoattn.genome.windows import fetch_padded

SHARES = (0.8, 0.9)
"""Shares of sequences by their sha256: training ends at the first, validation at the second."""

BLOCK = 8192
"""Bases of a genome whose regions a bootstrap resamples together."""


class LabelledItem(NamedTuple):
    """A region with the number of its class, or its measured number.

    Attributes:
        region: The region.
        label: The class, -1 without classes.
        score: The number, 0 with classes.
        row: Its number in the file.
    """

    region: LabelledRegion
    label: int
    score: float
    row: int


@final
class Region(ItemClassification):
    """The class of a region, or its number, read from the mean of its tokens and from the mean of the window.

    A number is learned, and predicted, in standard deviations of the training regions from their mean.
    """

    sites = 1

    def __init__(
        self,
        file: str | None = None,
        label: str = "label",
        target: Literal["class", "score"] = "class",
        classes: Sequence[str | int] | None = None,
        flanks: bool = True,
    ):
        """Build the task.

        Args:
            file: A BED file, a FASTA file, a table or a folder; see `read_regions`.
            label: The column of a table that holds the label.
            target: "class": the label is one of `classes`; "score": it is a number.
            classes: The labels that are classes, the one that is looked for last; regions with another label are left
                out. None: of a number.
            flanks: Show a region of the genome with its surroundings, up to the length of the window; else alone.

        Raises:
            UserError: A setting is missing or contradicts another.
        """
        if file is None:
            raise UserError("task.file must be given: a BED or FASTA file, a table or a folder of labelled regions")
        if target not in ("class", "score"):
            raise UserError(f"task.target must be 'class' or 'score', got {target!r}")
        names = [] if classes is None else list(map(str, classes))
        if target == "score" and names:
            raise UserError(f"task.classes={names} are for task.target=class; leave them out with task.target=score")
        if classes is not None and (len(names) < 2 or len(set(names)) < len(names)):
            raise UserError(f"task.classes must name two labels or more, each once, got {names}")
        self.file, self.label, self.target, self.flanks = file, label, target, flanks
        self.class_names = tuple(names)
        self.mean, self.deviation = 0.0, 1.0
        if target == "class":
            self.evaluator = "windows"
            self.outputs = {"class": TargetSpec(max(2, len(names)), 1.0, level="window", strand_symmetry="invariant")}
        else:
            self.evaluator = "window_scores"
            self.outputs = {"score": TargetSpec(1, 1.0, level="window", strand_symmetry="invariant", number=True)}

    def read_items(self, genome: Genome, splits: Splits) -> Items:
        parts: dict[str, list[LabelledItem]] = {"train": [], "validation": [], "test": []}
        skipped: Counter[str] = Counter()
        regions = read_regions(Path(self.file), self.label, genome)
        self._check_labels(regions)
        fixed = {region.split for region in regions}
        for row, region in enumerate(regions):
            if self.target == "class" and region.label not in self.class_names:
                skipped[f"labelled {shorten(region.label)}"] += 1
                continue
            split = _split_of(region, fixed, splits)
            if split:
                parts[split].append(self._item(region, row))
            else:
                skipped["between the splits"] += 1
        if self.target == "score" and parts["train"]:
            numbers = np.array([item.score for item in parts["train"]])
            self.mean, self.deviation = float(numbers.mean()), float(numbers.std())
            if self.deviation == 0:
                raise UserError(f"task.file={self.file}: all numbers of the training split are equal")
        return Items("regions", parts["train"], parts["validation"], parts["test"], dict(skipped))

    def item_example(self, genome: Genome, item: LabelledItem, length: int, rng: np.random.Generator) -> Example:
        bases, site = self._window(genome, item.region, length)
        place = item.region.place
        block = (-1, item.row) if place is None else (place.record, (place.start + place.stop) // 2 // BLOCK)
        if self.target == "class":
            target = {"class": np.array([item.label], np.int8)}
        else:
            target = {"score": np.array([(item.score - self.mean) / self.deviation], np.float32)}
        return Example(bases, None, target, (), block=block, site=site)

    def _check_labels(self, regions: Sequence[LabelledRegion]) -> None:
        """Raises UserError if classes are not given or stand nowhere in the file."""
        if self.target == "score":
            return
        counts = Counter(region.label for region in regions)
        common = ", ".join(f"{shorten(label)} ({count:,})" for label, count in counts.most_common(LISTED))
        if not self.class_names:
            raise UserError(f"task.classes must be given; task.file={self.file} holds the labels {common}")
        for name in self.class_names:
            if not counts[name]:
                raise UserError(f"task.classes: no region of {self.file} is labelled {name}; its labels are {common}")

    def _item(self, region: LabelledRegion, row: int) -> LabelledItem:
        if self.target == "class":
            return LabelledItem(region, self.class_names.index(region.label), 0.0, row)
        try:
            score = float(region.label)
        except ValueError:
            score = np.nan
        if not np.isfinite(score):
            raise UserError(f"{self.file}, region {row + 1}: expected a number, got '{shorten(region.label)}'")
        return LabelledItem(region, -1, score, row)

    def _window(
        self, genome: Genome, region: LabelledRegion, length: int
    ) -> tuple[UInt8[np.ndarray, "window"], tuple[int, int]]:
        """At most `length` bases around the middle of a region, and the place of the region in them."""
        if region.place is None:
            whole = np.frombuffer(region.bases, np.uint8)
            first = max(0, (len(whole) - length) // 2)
            bases = whole[first : first + length]
            return bases, (0, len(bases))
        record, start, stop = region.place
        if self.flanks or stop - start > length:
            begin = (start + stop) // 2 - length // 2
            bases = fetch_padded(genome, record, begin, begin + length)
            low, high = max(start - begin, 0), min(stop - begin, length)
        else:
            bases, low, high = genome.fetch(record, start, stop), 0, stop - start
        if region.reverse:
            return reverse_complement(bases), (len(bases) - high, len(bases) - low)
        return bases, (low, high)


def _split_of(region: LabelledRegion, fixed: set[str], splits: Splits) -> str:
    """The split of a region; "" if it lies between the blocks of the genome.

    A file's own splits are kept, and a tenth of the training regions is for validation if it names none. Otherwise
    regions of the genome follow its blocks, and sequences their sha256, so that equal sequences stay together.
    """
    if region.split == "train" and "validation" not in fixed:
        return "validation" if _share(region) >= SHARES[1] else "train"
    if region.split:
        return region.split
    if region.place is None:
        share = _share(region)
        return "train" if share < SHARES[0] else "validation" if share < SHARES[1] else "test"
    record, start, stop = region.place
    middle = (start + stop) // 2
    for name, part in zip(("train", "validation", "test"), splits[:3], strict=True):
        if any(block.record == record and block.start <= middle < block.stop for block in part):
            return name
    return ""


def _share(region: LabelledRegion) -> float:
    """A number from 0 to 1 that depends on the sequence alone, or on the place of a region."""
    content = region.bases if region.place is None else repr(tuple(region.place)).encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:4], "big") / 2**32
