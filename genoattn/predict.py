"""From a batch to answers about its bases, tokens and windows: those of one strand, or of both, averaged."""

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from genoattn.batch import Batch
from genoattn.model import SequenceModel
from genoattn.objective import Output


def predict(model: SequenceModel, batch: Batch, outputs: Mapping[str, Output]) -> dict[str, Float[Tensor, "batch _ _"]]:
    """The logits of every output, [batch, asked, classes] at its own level.

    Where the batch holds the other strand too, both go through the same weights and the logits are averaged: what
    comes out is then equivariant by construction, but for outputs whose mirror is "own".
    """
    answers = _one_strand(model, batch, outputs)
    if batch.other is None:
        return answers
    turned = _one_strand(model, batch.other, outputs)
    lengths = (batch.keep if batch.places is None else batch.places >= 0).sum(1)
    return {
        name: answers[name]
        if output.mirror == "own"
        else (answers[name] + reflect(turned[name], output.mirror, lengths)) / 2
        for name, output in outputs.items()
    }


def reflect(
    answers: Float[Tensor, "batch asked classes"], mirror: str, lengths: Tensor
) -> Float[Tensor, "batch asked classes"]:
    """Answers about the other strand, read on this one; `lengths` are the real bases of each row. Its own inverse."""
    if mirror == "whole":
        return answers
    index = torch.arange(answers.shape[1], device=answers.device)
    # What lies before base i of one strand lies before base n - i of the other; before base 0 there is nothing.
    turned = lengths[:, None] - index - int(mirror != "gap")
    turned = torch.where((turned >= 0) & (turned < lengths[:, None]), turned, index)
    answers = answers.gather(1, turned[..., None].expand_as(answers))
    return answers.flip(-1) if mirror == "letter" else answers


def by_base(
    answers: Float[Tensor, "batch tokens numbers"], places: Int[Tensor, "batch bases"] | None, classes: int
) -> Float[Tensor, "batch bases classes"]:
    """Answers base by base, of tokens each of which holds one for every base that it may own."""
    if places is None:
        return answers
    single = answers.unflatten(2, (-1, classes)).flatten(1, 2)
    return single.gather(1, places.clamp_min(0)[..., None].expand(-1, -1, classes))


def _one_strand(model: SequenceModel, batch: Batch, outputs: Mapping[str, Output]) -> dict[str, Tensor]:
    raw = model(batch.ids, batch.beside, batch.layout, batch.sites)
    return {
        name: by_base(raw[name], batch.places, output.classes) if output.level == "base" else raw[name]
        for name, output in outputs.items()
    }
