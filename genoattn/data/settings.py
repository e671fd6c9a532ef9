"""Settings of the genome and of how it is cut into examples, and the split that a saved model was trained with."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

from annotated_types import Ge, Le


@dataclass(frozen=True)
class DataSettings:
    """The genome and how it is cut into examples (config group `data`).

    Attributes:
        length: Sample bases of a window.
        fasta: FASTA files, or lists of them as `@files.tsv`; None: the genome that is part of the project.
        vcf: VCF files of real mutations to evaluate on; None: those of the genome that is part of the project, or none.
        strains: FASTA or VCF files of strains of the genome, for task=conditional: training and evaluation read them;
            None: training simulates strains.
        vcf_filter: "PASS": records of VCFs whose FILTER is PASS or missing; else an expression of bcftools; None: all.
        min_length: Records shorter than `length`, but with at least so many bases, are windows as a whole.
        batch: Windows per batch, over all devices of a run.
        split: "block": contiguous blocks of every record; "record", "file", "group": whole records, files or groups.
        max_leak: Largest share of the minimizers of a held-out split that may occur in training blocks; None: no limit.
        soft_mask: "keep": lower-case bases are like any other; "mask": they are read as N.
        max_n_fraction: Windows with a larger share of N are skipped.
        validation_windows: Windows of a validation.
        validation_lengths: Sample bases of its windows, which are spread over these lengths; None: `length`.
        cache: Folder of encoded genomes; None: $GENOATTN_CACHE, or ~/.cache/genoattn.
        workers: Processes that prepare batches; 0: the training process does; "auto": with a GPU 1 to 4, else 0.
        bucket_batches: Batches whose examples are sorted by length together, so that little is padded.
    """

    length: Annotated[int, Ge(1)] = 512
    fasta: str | Sequence[str] | None = None
    vcf: str | Sequence[str] | None = None
    strains: str | Sequence[str] | None = None
    vcf_filter: str | None = None
    min_length: Annotated[int, Ge(1)] | None = None
    batch: Annotated[int, Ge(1)] = 16
    split: Literal["block", "record", "file", "group"] = "block"
    max_leak: Annotated[int | float, Ge(0), Le(1)] | None = 0.5
    soft_mask: Literal["keep", "mask"] = "keep"
    max_n_fraction: Annotated[int | float, Ge(0), Le(1)] = 0.5
    validation_windows: Annotated[int, Ge(1)] = 64
    validation_lengths: Sequence[Annotated[int, Ge(1)]] | None = None
    cache: str | None = None
    workers: Annotated[int, Ge(0)] | Literal["auto"] = "auto"
    bucket_batches: Annotated[int, Ge(1)] = 1


@dataclass(frozen=True)
class TrainingSplit:
    """The records that a saved model was trained on, and the settings that split them.

    Attributes:
        genome: The sha256 of each record, in order.
        length: Sample bases of a window.
        split: "block", "record", "file" or "group".
        seed: The seed of the training.
        min_length: As in `DataSettings`.
        units: The number of the file or group of each record, if the split kept them whole.
    """

    genome: tuple[str, ...]
    length: int
    split: str
    seed: int
    min_length: int | None = None
    units: tuple[int, ...] = ()
