"""A step of a whole model, alone or on each of several processes; the tests compare the two."""

from typing import NamedTuple

import torch
import torch.distributed
import torch.nn.functional as F
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from genoattn.attention.base import TokenLayout
from genoattn.data.batch import Batch
from genoattn.data.targets import TargetSpec
from genoattn.models.predictor import ShardAnswers, predict, predict_shard
from genoattn.models.sequence_model import SequenceModel


class Step(NamedTuple):
    """Inputs of a model and labels of its tokens (-1: none) and sequences."""

    ids: Tensor
    reference_window: Tensor | None
    layout: TokenLayout
    pooling_weights: Tensor | None
    tokens: Tensor
    sequences: Tensor | None


def loss_of(step: Step, logits: dict[str, Tensor], tokens: Tensor, world: int) -> Tensor:
    """`world` times the sum over these tokens, divided by the labelled ones of the batch, and the mean over sequences.

    Each process has its own tokens and all sequences, so that the mean over processes is the loss of the batch.
    """
    summed = F.cross_entropy(logits["token"].flatten(0, 1), tokens.flatten(), ignore_index=-1, reduction="sum")
    loss = world * summed / (step.tokens != -1).sum()
    return loss if step.sequences is None else loss + F.cross_entropy(logits["kind"][:, 0], step.sequences)


def on_one(model: SequenceModel, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
    """Loss and gradients of one process."""
    loss = loss_of(step, model(*step[:4]), step.tokens, 1)
    loss.backward()
    return loss.detach(), _gradients(model)


def on_each(model: SequenceModel, step: Step) -> tuple[Tensor, dict[str, Tensor]]:
    """The same of several processes under torch's DistributedDataParallel, which takes the mean of all gradients."""
    rank, world = torch.distributed.get_rank(), torch.distributed.get_world_size()
    wrapped = DistributedDataParallel(model)
    logits = wrapped(*step[:4], group=torch.distributed.group.WORLD)
    length = logits["token"].shape[1]
    tokens = F.pad(step.tokens, (0, world * length - step.tokens.shape[1]), value=-1)
    loss = loss_of(step, logits, tokens[:, rank * length : (rank + 1) * length], world)
    loss.backward()
    told = loss.detach() / world
    torch.distributed.all_reduce(told)
    return told, _gradients(model)


def _gradients(model: SequenceModel) -> dict[str, Tensor]:
    found = {name: weight.grad for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


def answers(
    model: SequenceModel, batch: Batch, outputs: dict[str, TargetSpec]
) -> tuple[dict[str, Tensor], ShardAnswers]:
    """All logits of a batch, and what this process learns from."""
    group = torch.distributed.group.WORLD
    with torch.no_grad():
        return predict(model, batch, outputs, group), predict_shard(model, batch, outputs, group)
