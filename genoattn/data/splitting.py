"""The split of a genome for a task: of a training, or for a saved model what its training held out."""

from collections import Counter
from collections.abc import Sequence

from genoattn.data.genome_list import GenomeFile
from genoattn.data.settings import DataSettings, TrainingSplit
from genoattn.data.tasks.base import MutationDetection, Task
from genoattn.errors import UserError
from genoattn.genome.intervals import Interval
from genoattn.genome.sequence_store import Genome
from genoattn.genome.splits import Splits, split_blocks, split_records, test_only


def split_units(genome: Genome, files: Sequence[GenomeFile], split: str) -> tuple[int, ...]:
    """The number of the file or group of each record, for a split that keeps them whole; else none.

    Args:
        genome: The genome.
        files: Its files, with their groups.
        split: block, record, file or group.

    Raises:
        UserError: A split by groups of files of which one has no group.
    """
    if split == "file":
        return tuple(record.file for record in genome.records)
    if split != "group":
        return ()
    if without := next((file.path for file in files if not file.group), None):
        raise UserError(
            f"data.split=group: {without} has no group; expected data.fasta=@files.tsv, a table with a column group"
        )
    numbers = {group: number for number, group in enumerate(dict.fromkeys(file.group for file in files))}
    return tuple(numbers[files[record.file].group] for record in genome.records)


def split_genome(genome: Genome, task: Task, data: DataSettings, seed: int, units: Sequence[int] = ()) -> Splits:
    """Split a genome for windows of a task as `data` says; `units` are the files or groups that stay whole."""
    window = task.reference_length(data.length)
    if data.split == "block":
        return split_blocks(genome.lengths, window, names=genome.names, min_length=data.min_length)
    return split_records(
        genome.names, genome.lengths, window, seed=seed, min_length=data.min_length, units=units, kind=data.split
    )


def split_as_trained(
    genome: Genome, task: Task, data: DataSettings, seed: int, trained: TrainingSplit, units: Sequence[int] = ()
) -> tuple[Splits, tuple[int, ...]]:
    """The splits of a genome for a saved model, and the numbers of the records that it was not trained on."""
    new = tuple(number for number, record in enumerate(genome.records) if record.sha256 not in trained.genome)
    window = task.reference_length(data.length)
    if len(new) == len(genome.records):
        if isinstance(task, MutationDetection):
            return test_only(genome.names, genome.lengths, window), new
        return split_genome(genome, task, data, seed, units), new
    splits = _repeat_split(genome, task, trained)
    whole = [Interval(record, 0, genome.lengths[record]) for record in new if genome.lengths[record] >= window]
    test = tuple(sorted([*splits.test, *whole]))
    if not test:
        raise UserError(
            "data.fasta holds no base that the training of this model held out: all of its records are for training;"
            " name the whole genome that the model was trained on, or another genome"
        )
    short = tuple(genome.names[record] for record in new if genome.lengths[record] < window)
    validation = splits.validation or test
    return Splits(splits.train, validation, test, splits.skipped + short), new


def _repeat_split(genome: Genome, task: Task, trained: TrainingSplit) -> Splits:
    """The split of the training for those records of a genome that it had."""
    window, min_length = task.reference_length(trained.length), trained.min_length
    known = [number for number, record in enumerate(genome.records) if record.sha256 in trained.genome]
    if trained.split != "block":
        if Counter(trained.genome) - Counter(genome.records[number].sha256 for number in known):
            # Without all of its records the split cannot be repeated, and any of them may be for training.
            return Splits(tuple(Interval(number, 0, genome.lengths[number]) for number in known), (), (), ())
        of_sequence: dict[str, list[int]] = {sha256: [] for sha256 in trained.genome}
        for number in known:
            of_sequence[genome.records[number].sha256].append(number)
        known = [of_sequence[sha256].pop(0) for sha256 in trained.genome]  # in the order of the training
    names, lengths = [genome.names[number] for number in known], [genome.lengths[number] for number in known]
    if trained.split == "block":  # a record is cut into blocks by its own length alone
        splits = split_blocks(lengths, window, names=names, min_length=min_length, require_test=False)
    else:
        splits = split_records(
            names, lengths, window, seed=trained.seed, min_length=min_length, units=trained.units, kind=trained.split
        )
    train, validation, test = (
        tuple(sorted(interval._replace(record=known[interval.record]) for interval in split)) for split in splits[:3]
    )
    return Splits(train, validation, test, splits.skipped)
