"""Probabilities of the blocks of two assemblies in shards: each chunk of windows is scored once, and all are joined."""

import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from io import BufferedReader
from typing import final

import numpy as np

from genoattn.cli.shards import ShardFolder
from genoattn.data.targets import MUTATION_OUTPUTS
from genoattn.data.tasks.base import MutationDetection
from genoattn.genome.assembly_placement import Block
from genoattn.genome.progress import progress
from genoattn.genome.record_bases import Bases
from genoattn.models.detection import (
    BlockWindows,
    ScoredBlock,
    WindowScorer,
    score_chunk,
    scored_block,
    windows_of_block,
)

SCORES = "scores.f32"
"""The file of a shard: three numbers for each base that it scores, little-endian, in the order of the windows."""

_COLUMNS = len(MUTATION_OUTPUTS)
_BYTES = 4 * _COLUMNS


@final
class BlockScorer:
    """The work of `detect`: its items are the chunks of all blocks. One block is in memory at a time."""

    def __init__(
        self,
        records: Sequence[Bases],
        contigs: Sequence[Bases],
        blocks: Sequence[Block],
        task: MutationDetection,
        length: int,
        everywhere: bool,
    ):
        """Score windows of `length` bases of blocks; `everywhere`: also those in which nothing differs."""
        self.records, self.contigs, self.blocks = records, contigs, blocks
        self.task, self.length, self.everywhere = task, length, everywhere

    def windows(self, block: Block) -> BlockWindows:
        """The windows of a block."""
        record, contig = self.records[block.record], self.contigs[block.contig]
        return windows_of_block(block, record, contig, self.task, self.length, self.everywhere)

    @cached_property
    def chunks(self) -> list[int]:
        """The number of the first chunk of each block, and at last that of all."""
        return np.cumsum([0, *(self.windows(block).chunks for block in self.blocks)]).tolist()

    def score(self, todo: Sequence[ShardFolder], scorer: WindowScorer) -> None:
        """Score the chunks of some shards, one shard after the other."""
        with progress("the model scores", sum(len(place.part) for place in todo)) as advance:
            for place in todo:
                start = time.perf_counter()
                with place.writing() as rows:
                    for scores in self._scores(place.part, scorer):
                        rows.write(scores.astype("<f4").tobytes())
                        advance(1)
                place.finish({}, time.perf_counter() - start)

    def _scores(self, part: range, scorer: WindowScorer) -> Iterator[np.ndarray]:
        """The probabilities of some chunks."""
        for block, first, stop in zip(self.blocks, self.chunks[:-1], self.chunks[1:], strict=True):
            wanted = range(max(first, part.start), min(stop, part.stop))
            windows = self.windows(block) if wanted else None
            for number in wanted:
                assert windows is not None
                yield score_chunk(windows, number - first, scorer)

    def joined(self, places: Sequence[ShardFolder]) -> Iterator[ScoredBlock]:
        """Every block with the probabilities of all shards."""
        files = _file_of_each_chunk(places)
        for block in self.blocks:
            windows = self.windows(block)
            sizes = [_BYTES * windows.bases(number) for number in range(windows.chunks)]
            contents = (file.read(size) for size, file in zip(sizes, files, strict=False))
            yield scored_block(windows, (np.frombuffer(rows, "<f4").reshape(-1, _COLUMNS) for rows in contents))


def _file_of_each_chunk(places: Sequence[ShardFolder]) -> Iterator[BufferedReader]:
    """The open file of every chunk in order; the chunks of a shard share theirs."""
    for place in places:
        with place.rows.open("rb") as rows:
            yield from (rows for _ in place.part)
