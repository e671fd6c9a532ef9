"""From windows of a genome to padded batches.

1. `Windows.draw` chooses a window of the genome          -> Interval
2. `Task.example` makes a sample and its labels           -> Example (bases)
3. the tokenizer encodes the bases                        -> ids
4. `collate` pads the examples and stacks them            -> Batch (tensors)

Example i of a run is a pure function of (seed, i), and so is the stage of the curriculum (that of the first example of
the batch). Any number of workers and of processes, and a run that was resumed, see the same examples.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import count, cycle, islice
from typing import Literal, final

import lightning
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from genoattn.data.batch import Batch, count_labels
from genoattn.data.dataset import ExampleDataset
from genoattn.data.share import WHOLE, DataShare
from genoattn.data.targets import TargetSpec
from genoattn.data.tokenizers.base import Tokenizer
from genoattn.data.workers import loader_options, worker_count


@final
class BatchStream(IterableDataset):
    """Batches from number `start` on; the workers make them in turn."""

    def __init__(self, make: Callable[[int], Batch], start: int):
        self.make, self.start = make, start

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        turn, turns = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for number in count(self.start + turn, turns):
            yield self.make(number)


@final
class StepStream:
    """The same batches, those of a step together, so that each knows the labels of the whole step."""

    def __init__(self, batches: Iterable[Batch], accumulate: int, outputs: Mapping[str, TargetSpec]):
        self.batches, self.accumulate, self.outputs = batches, accumulate, outputs

    def __iter__(self) -> Iterator[Batch]:
        batches = iter(self.batches)
        while step := list(islice(batches, self.accumulate)):
            labels = torch.stack([count_labels(batch.targets, self.outputs) for batch in step]).sum(0)
            yield from (replace(batch, step_labels=labels) for batch in step)


@final
class GenomeDataModule(lightning.LightningDataModule):
    """An endless stream of training batches and a fixed set of validation batches."""

    def __init__(
        self,
        training: ExampleDataset,
        validation: ExampleDataset,
        tokenizer: Tokenizer,
        batch: int,
        accumulate: int,
        validation_windows: int,
        workers: int | Literal["auto"],
        both_strands: bool = False,
        validation_lengths: Sequence[int] = (),
        share: DataShare = WHOLE,
    ):
        """Build the data module.

        Args:
            training: Examples of the training split.
            validation: Examples of the validation split.
            tokenizer: Makes tokens of the bases.
            batch: Windows per batch, over all processes.
            accumulate: Batches per optimizer step; a resumed run continues at the batch of its step.
            validation_windows: Windows of a validation.
            workers: Processes that prepare batches, as `worker_count` has them; 0: the training process does.
            both_strands: Add the reverse strand of every example to its batch.
            validation_lengths: Sample bases of the windows of the validation batches in turn; empty: as in training.
            share: The rows of every batch that this process makes.
        """
        super().__init__()
        self.training, self.validation, self.tokenizer = training, validation, tokenizer
        self.batch, self.accumulate, self.both_strands = batch, accumulate, both_strands
        self.workers = worker_count(workers)
        self.validation_lengths, self.share = tuple(validation_lengths), share
        self.validation_batches = max(1, validation_windows // batch, len(self.validation_lengths))

    @property
    def rows(self) -> int:
        """Windows of full length of a batch that this process makes."""
        return len(self.share.rows(self.batch))

    def make(self, number: int) -> Batch:
        """The share of this process in a batch of the training."""
        return self.training.batch(number, self.batch, self.tokenizer, self.both_strands, share=self.share)

    def train_dataloader(self) -> Iterable[Batch]:
        assert self.trainer is not None
        stream = BatchStream(self.make, self.trainer.global_step * self.accumulate)
        options = loader_options(self.workers, self.trainer.strategy.root_device)
        loader = DataLoader(stream, batch_size=None, **options)
        return loader if self.accumulate == 1 else StepStream(loader, self.accumulate, self.training.task.outputs)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch.to(device, non_blocking=True)  # from pinned memory beside the step before

    def val_dataloader(self) -> DataLoader:
        lengths = cycle(self.validation_lengths or (None,))
        batches = [
            self.validation.batch(number, self.batch, self.tokenizer, self.both_strands, length, self.share)
            for number, length in zip(range(self.validation_batches), lengths, strict=False)
        ]
        return DataLoader(batches, batch_size=None)  # type: ignore[arg-type]
