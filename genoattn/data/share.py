"""The part of every batch that one of several processes makes."""

from typing import NamedTuple


class DataShare(NamedTuple):
    """The place of a process among those that share a batch; all that have the same rank make the same examples."""

    rank: int = 0
    world: int = 1

    def rows(self, count: int) -> range:
        """The rows of a batch of `count` examples that are of this share: contiguous, and equal but for one row."""
        return range(self.rank * count // self.world, (self.rank + 1) * count // self.world)


WHOLE = DataShare()
"""All of every batch: of a process that is alone."""
