"""Training of sequences that several processes hold together: who they are, and what each of them learns from."""

from typing import Any

import torch
from torch.distributed.device_mesh import init_device_mesh

from genoattn.data.batch import Batch
from genoattn.models.predictor import predict_shard
from genoattn.models.sequence_model import SequenceModel
from genoattn.training.loss import LossSums, sum_losses
from genoattn.training.processes import place


def sequence_group(size: int, device: torch.device) -> Any:
    """The processes that hold a sequence together with this one; None if it holds its own.

    They are the rows of a mesh `data` x `sequence` of all processes of the run: neighbours in rank share a sequence.
    """
    if size == 1 or place().world == 1:
        return None
    mesh = init_device_mesh(device.type, (place().world // size, size), mesh_dim_names=("data", "sequence"))
    return mesh["sequence"].get_group()


def sum_losses_of_shard(model: SequenceModel, batch: Batch, outputs: Any, group: Any) -> LossSums:
    """`sum_losses` of a process of a group: the sums over all processes are those of the batch, labels too.

    An output that all of them have whole is divided by their number, and one of them counts its labels.
    """
    answers = predict_shard(model, batch, outputs, group)
    sums, labels = sum_losses(answers.logits, answers.targets, outputs)
    own = torch.tensor([name in answers.divided for name in outputs], device=sums.device)
    count, first = torch.distributed.get_world_size(group), is_first(group)
    return LossSums(torch.where(own, sums, sums / count), torch.where(own, labels, labels * first))


def is_first(group: Any) -> bool:
    """True for the process that counts what all of its group have."""
    return group is None or torch.distributed.get_rank(group) == 0
