"""Sequences without labels as examples of a task, and the vectors that a model has for their bases."""

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from genoattn.data.batch import Batch
from genoattn.data.example import Example
from genoattn.data.tasks.base import MutationDetection, Task
from genoattn.data.tasks.variant_classification import VariantClassification
from genoattn.genome.mutations import Sample
from genoattn.genome.windows import slice_padded
from genoattn.models.precision import autocast_of
from genoattn.models.predictor import Predictor, token_layout


def alone(task: Task, bases: UInt8[np.ndarray, "length"]) -> Example:
    """One sequence as an example; a model that compares two sequences is shown it beside itself."""
    if isinstance(task, MutationDetection):
        return compared(task, bases, bases)
    example = Example(bases, None, {}, ())
    return example._replace(reference=bases) if isinstance(task, VariantClassification) else example


def compared(task: MutationDetection, reference: UInt8[np.ndarray, "_"], sample: UInt8[np.ndarray, "_"]) -> Example:
    """A sample beside a reference that begins at the same place, without known mutations."""
    window = slice_padded(reference, -task.max_shift, len(sample) + task.max_shift)
    none = np.zeros(len(sample), np.bool_)
    unmutated = Sample(sample, np.arange(len(sample)), none, none, none, none, none, ())
    return task.build_example(window, unmutated, 0)._replace(masking=None)


def base_vectors(predictor: Predictor, batch: Batch) -> Float[Tensor, "batch bases dim"]:
    """The vector that the heads of a model read for each base: that of the token that owns it."""
    with autocast_of(predictor.model):
        features = predictor.model.features(batch.ids, batch.reference_window, token_layout(batch))
    return of_bases(predictor, batch, features)


def of_bases(predictor: Predictor, batch: Batch, features: Float[Tensor, "batch tokens dim"]) -> Tensor:
    """The vector of each base, `[batch, bases, dim]`, from those of the tokens."""
    if batch.base_to_answer is None:
        return features
    tokens = batch.base_to_answer.clamp_min(0) // predictor.tokenizer.max_token_length
    return features.gather(1, tokens[..., None].expand(-1, -1, features.shape[-1]))
