"""Windows become examples, examples tokens, tokens padded batches.

1. `Windows.draw` chooses a stretch of the genome          -> Interval
2. `Task.example` makes a sample of it and the truth         -> Example (bases)
3. the tokenizer encodes the bases                           -> ids
4. `collate` pads examples to the longest and stacks them    -> Batch (tensors)

Example i of a run is a pure function of (seed, i): any worker, any order, any resume gives the same examples. How far
the curriculum has come by then is a function of i too, of the first example of its batch.
"""

from collections.abc import Callable, Iterator
from typing import final

import lightning
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from genoattn.data.batch import Batch
from genoattn.data.dataset import ExampleDataset
from genoattn.data.tokenizers.base import Tokenizer


@final
class BatchStream(IterableDataset):
    """Batches number start, start + step, …; workers take turns."""

    def __init__(self, make: Callable[[int], Batch], start: int, step: int):
        self.make, self.start, self.step = make, start, step

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        turn, turns = (0, 1) if worker is None else (worker.id, worker.num_workers)
        number = self.start + turn * self.step
        while True:
            yield self.make(number)
            number += turns * self.step


@final
class GenomeDataModule(lightning.LightningDataModule):
    """Training batches without end from where the run stands, and a fixed set of validation batches."""

    def __init__(
        self,
        training: ExampleDataset,
        validation: ExampleDataset,
        tokenizer: Tokenizer,
        batch: int,
        accumulate: int,
        validation_windows: int,
        workers: int,
        both_strands: bool = False,
    ):
        super().__init__()
        self.training, self.validation, self.tokenizer = training, validation, tokenizer
        self.batch, self.accumulate, self.workers, self.both_strands = batch, accumulate, workers, both_strands
        self.validation_batches = max(1, validation_windows // batch)

    def _make(self, number: int) -> Batch:
        return self.training.batch(number, self.batch, self.tokenizer, self.both_strands)

    def train_dataloader(self) -> DataLoader:
        assert self.trainer is not None
        ranks = self.trainer.world_size
        start = self.trainer.global_step * self.accumulate * ranks + self.trainer.global_rank
        return DataLoader(BatchStream(self._make, start, ranks), batch_size=None, num_workers=self.workers)

    def val_dataloader(self) -> DataLoader:
        size, numbers = self.batch, range(self.validation_batches)
        batches = [self.validation.batch(number, size, self.tokenizer, self.both_strands) for number in numbers]
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
