"""Example i depends on nothing but the seed and i; batches are padded, and move to a device as a whole."""

import hashlib
import itertools
import pickle
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch.utils.data._utils.pin_memory import pin_memory

from genoattn.data.batch import Batch, collate, count_labels
from genoattn.data.curriculum import Curriculum, CurriculumStage
from genoattn.data.datamodule import GenomeDataModule
from genoattn.data.dataset import ExampleDataset, WindowSampler
from genoattn.data.example import Example
from genoattn.data.share import WHOLE, DataShare
from genoattn.data.targets import IGNORE_INDEX
from genoattn.data.tasks.side_by_side import SideBySide
from genoattn.data.tokenizers.nucleotide import NucleotideTokenizer
from genoattn.data.workers import loader_options, worker_count
from genoattn.genome.alphabet import LETTERS
from genoattn.genome.intervals import Interval
from genoattn.genome.mutations import Event
from genoattn.genome.sequence_store import open_genome
from genoattn.genome.simulate import Rates
from genoattn.genome.windows import Windows

LENGTH, REACH, TOTAL = 40, 4, 48
TASK = SideBySide(rate=0.1, longest=4, max_shift=REACH)
TOKENIZER = NucleotideTokenizer()
MOVING = Curriculum(until=0.9, rate=0.3, length=10)


@pytest.fixture(scope="module")
def windows(tmp_path_factory: pytest.TempPathFactory) -> Windows:
    folder = tmp_path_factory.mktemp("genome")
    fasta = folder / "a.fa"
    fasta.write_text(">one\n" + "".join(np.random.default_rng(0).choice(list(LETTERS[:4]), 2000)) + "\n")
    genome = open_genome([fasta], folder / "cache")
    return Windows(genome, [Interval(0, 100, 700), Interval(0, 900, 1900)], TASK.reference_length(LENGTH))


def examples(windows: Windows, seed: int = 1, curriculum: Curriculum = Curriculum()) -> ExampleDataset:  # noqa: B008
    return ExampleDataset(WindowSampler(windows, TASK), TASK, LENGTH, seed, curriculum, TOTAL)


def contents(example: Example) -> tuple:
    assert example.reference_window is not None
    targets = {name: target.tolist() for name, target in example.targets.items()}
    return example.bases.tolist(), example.reference_window.tolist(), targets, example.events


def rows(batch: Batch) -> list[tuple]:
    """Each row of a batch without its padding."""
    assert batch.reference_window is not None
    return [
        (ids[keep].tolist(), {name: target[n][keep].tolist() for name, target in batch.targets.items()}, events)
        for n, (ids, keep, events) in enumerate(zip(batch.ids, batch.padding_mask, batch.events, strict=True))
    ]


def test_an_example_depends_on_seed_and_number_alone(windows: Windows):
    first, same, other = examples(windows), examples(windows), examples(windows, seed=2)
    stage = CurriculumStage(TASK.rates, LENGTH)
    forwards = [contents(first.example(number, stage)) for number in range(12)]
    backwards = [contents(same.example(number, stage)) for number in reversed(range(12))]
    assert forwards == backwards[::-1]
    every = [str(contents(made.example(number, stage))) for made in (first, other) for number in range(12)]
    assert len(set(every)) == 24


EXAMPLES = "83f377ff36060521e7f8356c050f4de3b0790e4a5887f79123c3dc7ae94e252c"
"""sha256 of 300 examples, under the generator of NumPy; whoever makes them faster must find the same ones."""


def test_a_seed_gives_the_examples_that_it_gave(windows: Windows):
    stages = [
        CurriculumStage(Rates(0.1, longest=4, duplication=0.3), LENGTH),
        CurriculumStage(Rates(0.3, mnv=0.2, longest=20, sizes="log"), LENGTH // 2),
        CurriculumStage(Rates(0.02, snv=0.0, transitions=0.5), LENGTH),
    ]
    drawn = [examples(windows).example(number, stage) for stage in stages for number in range(100)]
    assert hashlib.sha256(repr([contents(example) for example in drawn]).encode()).hexdigest() == EXAMPLES


def test_batches_of_any_size_hold_the_same_examples(windows: Windows):
    by_size = {
        size: [row for n in range(12 // size) for row in rows(examples(windows).batch(n, size, TOKENIZER))]
        for size in (12, 4, 1, 3)
    }
    assert len(by_size[12]) == 12
    assert all(loaded == by_size[12] for loaded in by_size.values())


def test_the_first_example_of_a_batch_decides_its_stage(windows: Windows):
    made = examples(windows, curriculum=MOVING)
    batches = {number: made.batch(number, 4, TOKENIZER) for number in (11, 0, 5)}
    for number, batch in batches.items():
        assert batch.stage == made.stage(4 * number) == MOVING.at(4 * number / TOTAL, TASK.rates, LENGTH)
        assert batch.stage is not None and batch.ids.shape[1] <= batch.stage.length
        alone = [made.example(4 * number + n % 4, batch.stage, n // 4) for n in range(len(batch.ids))]
        assert rows(batch) == [(contents(example)[0], contents(example)[2], example.events) for example in alone]
        assert abs(batch.bases - 4 * LENGTH) <= 2 * batch.stage.length  # shorter windows are more of them
    assert batches[0].ids.shape == (16, 10) and batches[11].ids.shape == (4, LENGTH)


def test_a_mixed_length_depends_on_seed_and_number_alone(windows: Windows):
    mixed = Curriculum(length=10, lengths="mixed")
    first, same, other = (examples(windows, seed, mixed) for seed in (1, 1, 2))
    lengths = [first.stage(number).length for number in range(TOTAL)]
    assert lengths == [same.stage(number).length for number in reversed(range(TOTAL))][::-1]
    assert set(lengths) == {10, 20, LENGTH} and lengths != [other.stage(number).length for number in range(TOTAL)]
    batch = first.batch(2, 4, TOKENIZER)
    assert batch.ids.shape == (4 * LENGTH // lengths[8], lengths[8]) and rows(batch) == rows(
        same.batch(2, 4, TOKENIZER)
    )


def test_the_added_examples_of_a_short_batch_are_no_copies(windows: Windows):
    made = rows(examples(windows, curriculum=MOVING).batch(0, 4, TOKENIZER))
    assert len(made) == 16 and len(set(map(str, made))) == 16


def example(length: int, wide: int, events: tuple[Event, ...] = ()) -> Example:
    bases = np.arange(length, dtype=np.uint8) % 4
    targets = {"substitution": np.ones(length, np.int8), "shift": np.full(length, 2, np.int8)}
    return Example(bases, np.full(wide, 3, np.uint8), targets, events)


def test_collate_pads_at_the_end():
    event = Event("snv", 1, 0, 1, 0, 1, 7)
    batch = collate([example(3, 7), example(1, 5, (event,)), example(2, 9)], TOKENIZER, CurriculumStage(TASK.rates, 3))
    pad = TOKENIZER.pad_id
    assert batch.ids.tolist() == [[0, 1, 2], [0, pad, pad], [0, 1, pad]] and batch.ids.dtype == torch.uint8
    assert batch.padding_mask.tolist() == [[True, True, True], [True, False, False], [True, True, False]]
    assert batch.reference_window is not None
    assert batch.reference_window.tolist() == [[3] * 7 + [pad] * 2, [3] * 5 + [pad] * 4, [3] * 9]
    assert batch.targets["substitution"].tolist() == [[1, 1, 1], [1, IGNORE_INDEX, IGNORE_INDEX], [1, 1, IGNORE_INDEX]]
    assert batch.targets["shift"].tolist() == [[2, 2, 2], [2, IGNORE_INDEX, IGNORE_INDEX], [2, 2, IGNORE_INDEX]]
    assert batch.events == ((), (event,), ()) and batch.stage == CurriculumStage(TASK.rates, 3)


def test_collate_without_a_reference():
    alone = [made._replace(reference_window=None) for made in (example(3, 7), example(2, 7))]
    batch = collate(alone, TOKENIZER)
    assert batch.reference_window is None and batch.stage is None and batch.ids.shape == (2, 3)


def test_all_of_a_batch_moves_to_a_device():
    batch = collate([example(3, 7, (Event("snv", 1, 0, 1, 0, 1, 7),))], TOKENIZER, CurriculumStage(Rates(), 3))
    moved = batch.to(torch.device("meta"))
    tensors = [moved.ids, moved.reference_window, moved.padding_mask, *moved.targets.values()]
    assert all(tensor is not None and tensor.device.type == "meta" for tensor in tensors)
    assert moved.targets.keys() == batch.targets.keys()
    assert moved.events == batch.events and moved.stage == batch.stage
    assert batch.ids.device.type == batch.targets["shift"].device.type == "cpu"
    lonely = collate([example(3, 7)._replace(reference_window=None)], TOKENIZER).to(torch.device("meta"))
    assert lonely.reference_window is None and lonely.padding_mask.device.type == "meta"


def test_all_of_a_batch_is_pinned(monkeypatch: pytest.MonkeyPatch):
    """As a loader does it: through the method of the batch."""
    pinned: list[int] = []
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor.data_ptr()) or tensor)
    batch = collate([example(3, 7)], TOKENIZER, both_strands=True)
    again = pin_memory(batch)
    assert isinstance(again, Batch) and again.events == batch.events and again.reverse_complement is not None
    both = (batch, again.reverse_complement)
    tensors = [tensor for one in both for tensor in (one.ids, one.reference_window, one.padding_mask)]
    expected = [*tensors, *batch.targets.values()]
    assert sorted(pinned) == sorted(tensor.data_ptr() for tensor in expected if tensor is not None)


@pytest.mark.parametrize(
    ("gpus", "processors", "workers"), [(0, 64, 0), (1, 1, 0), (1, 2, 1), (1, 16, 4), (8, 16, 1), (8, 8, 0)]
)
def test_workers_where_they_help(monkeypatch: pytest.MonkeyPatch, gpus: int, processors: int, workers: int):
    monkeypatch.setattr("torch.cuda.is_available", lambda: gpus > 0)
    monkeypatch.setattr("torch.cuda.device_count", lambda: gpus)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(processors)), raising=False)
    assert worker_count("auto") == workers and worker_count(3) == 3


def test_a_loader_pins_memory_on_a_gpu_alone():
    options = loader_options(2, torch.device("cuda", 1))
    assert options["pin_memory"] and options["persistent_workers"] and options["prefetch_factor"] == 4
    assert loader_options(0, torch.device("cpu")) == {"num_workers": 0, "pin_memory": False}


def module(
    windows: Windows, workers: int = 0, step: int = 0, share: DataShare = WHOLE, bucket: int = 1
) -> GenomeDataModule:
    training = examples(windows, curriculum=MOVING)
    training.bucket_batches = bucket
    data = GenomeDataModule(
        training, examples(windows, seed=3), TOKENIZER, 2, 3, 7, workers, share=share
    )  # accumulates three batches of two; validates on seven windows
    strategy = SimpleNamespace(root_device=torch.device("cpu"))
    data.trainer = SimpleNamespace(global_step=step, strategy=strategy)  # type: ignore
    return data


def batches(data: GenomeDataModule, count: int) -> list[list[tuple]]:
    return [rows(batch) for batch in itertools.islice(data.train_dataloader(), count)]


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # on a machine of one core
def test_workers_take_turns(windows: Windows):
    alone = batches(module(windows), 6)
    assert alone == [rows(examples(windows, curriculum=MOVING).batch(n, 2, TOKENIZER)) for n in range(6)]
    assert batches(module(windows, workers=2), 6) == alone


def test_a_resumed_training_continues_at_its_batch(windows: Windows):
    alone = batches(module(windows), 8)
    assert batches(module(windows, step=2), 2) == alone[6:]


@pytest.mark.parametrize("bucket", [1, 2])
def test_processes_share_every_batch(windows: Windows, bucket: int):
    alone = batches(module(windows, bucket=bucket), 6)
    first, second = (batches(module(windows, share=DataShare(rank, 2), bucket=bucket), 6) for rank in (0, 1))
    assert [[*one, *other] for one, other in zip(first, second, strict=True)] == alone
    assert batches(module(windows, step=1, share=DataShare(1, 2), bucket=bucket), 3) == second[3:]
    validation = [list(module(windows, share=share).val_dataloader()) for share in (WHOLE, DataShare(1, 2))]
    assert [rows(batch) for batch in validation[1]] == [rows(batch)[1:] for batch in validation[0]]


def test_a_batch_knows_the_labels_of_its_step(windows: Windows):
    made = list(itertools.islice(module(windows).train_dataloader(), 6))
    own = [count_labels(batch.targets, TASK.outputs) for batch in made]
    told = [batch.step_labels.tolist() for batch in made if batch.step_labels is not None]
    assert told == 3 * [torch.stack(own[:3]).sum(0).tolist()] + 3 * [torch.stack(own[3:]).sum(0).tolist()]
    assert not torch.equal(own[0], own[1])


@pytest.mark.parametrize(("count", "world"), [(8, 4), (10, 4), (5, 2), (3, 3)])
def test_shares_cover_a_batch(count: int, world: int):
    parts = [DataShare(rank, world).rows(count) for rank in range(world)]
    assert [row for part in parts for row in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= (count % world > 0)


def test_validation_is_the_same_every_time(windows: Windows):
    data = module(windows)
    once, again = ([rows(batch) for batch in data.val_dataloader()] for _ in range(2))
    assert once == again == [rows(examples(windows, seed=3).batch(n, 2, TOKENIZER)) for n in range(3)]


def test_validation_takes_its_lengths_in_turn_with_as_many_bases(windows: Windows):
    data = GenomeDataModule(examples(windows), examples(windows, seed=3), TOKENIZER, 2, 1, 2, 0, False, (10, 20, 40))
    stages = [(batch.stage.length, batch.bases) for batch in data.val_dataloader() if batch.stage]
    assert stages == [(10, 80), (20, 80), (40, 80)]


def test_a_dataset_is_pickled_without_its_genome(windows: Windows):
    copy = pickle.loads(pickle.dumps(examples(windows)))
    stage = CurriculumStage(TASK.rates, LENGTH)
    assert contents(copy.example(5, stage)) == contents(examples(windows).example(5, stage))
