"""Sharded training: every process holds a part of the weights, gradients and moments of a model (FSDP2).

Sharding is torch's `fully_shard` (Zhao et al. 2023, arXiv:2304.11277) by Lightning's `ModelParallelStrategy`. Full
checkpoints are those of any other strategy, so that a run may go on with another one.
"""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    get_optimizer_state_dict,
    set_model_state_dict,
    set_optimizer_state_dict,
)
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from genoattn.models import cost
from genoattn.models.sequence_model import SequenceModel
from genoattn.training.processes import WAIT, place
from genoattn.training.sharded_files import read_plain, shapes, write_shards

FULL = StateDictOptions(full_state_dict=True, cpu_offload=True)
"""Whole tensors on the CPU of the first process; nothing on the others."""


def shard(model: SequenceModel, mesh: DeviceMesh, narrow: bool) -> SequenceModel:
    """A copy of a model whose weights are shared out: a group for each block, and one for the rest.

    Args:
        model: The model, which keeps its buffers but loses its weights until `fill` puts them back.
        mesh: The processes that share the weights.
        narrow: Gather the weights of the MLPs as bfloat16, as autocast would make them after it; sums stay float32.
    """
    sharded = copy.deepcopy(model)
    for module in model.modules():
        for name, weight in module.named_parameters(recurse=False):
            setattr(module, name, nn.Parameter(weight.detach().to("meta"), weight.requires_grad))
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    for block in cost.blocks(sharded):
        if narrow:
            fully_shard(block.mlp, mesh=mesh, mp_policy=policy)
        fully_shard(block, mesh=mesh)
        register_fsdp_forward_method(block, "forward_chunked")
    fully_shard(sharded, mesh=mesh)
    register_fsdp_forward_method(sharded, "forward_chunked")
    return sharded


def full_weights(module: nn.Module) -> Mapping[str, Any]:
    """All weights and buffers of a sharded module, on the first process; every process must call it."""
    return get_model_state_dict(module, options=FULL)


def fill(model: SequenceModel, weights: Mapping[str, Any]) -> None:
    """Give a model that was sharded the weights of the state of its training module."""
    own = {name.removeprefix("model."): tensor for name, tensor in weights.items() if name.startswith("model.")}
    model.load_state_dict(own, assign=True)


def own_part(weight: Tensor) -> Tensor:
    """The part of a weight that this process holds."""
    return weight.to_local() if isinstance(weight, DTensor) else weight


@final
class ShardedStrategy(ModelParallelStrategy):
    """Lightning's strategy, with checkpoints in which the moments of a weight have the number of any other strategy."""

    def __init__(self, parts: bool) -> None:
        """Build the strategy; `parts` writes every checkpoint in parts, one of each process."""
        super().__init__(place().world, 1, save_distributed_checkpoint=parts, timeout=WAIT)
        self.parts = parts

    def optimizer_state(self, optimizer: Optimizer) -> dict[str, Any]:
        optimizer = getattr(optimizer, "_optimizer", optimizer)  # of Lightning's wrapper
        assert self.model is not None
        numbers = {name: number for number, name in enumerate(self._names(optimizer))}
        state: Any = get_optimizer_state_dict(self.model, optimizer, options=None if self.parts else FULL)
        if not state:  # of a process that gets none
            return {}
        groups = [group | {"params": [numbers[name] for name in group["params"]]} for group in state["param_groups"]]
        if self.parts:
            return {"state": {}, "param_groups": groups}
        return {"state": {numbers[name]: own for name, own in state["state"].items()}, "param_groups": groups}

    def save_checkpoint(self, checkpoint: dict[str, Any], filepath: str | Path, storage_options: object = None) -> None:
        if not self.parts:
            if self.is_global_zero:
                self.checkpoint_io.save_checkpoint(checkpoint, filepath)
            return
        assert self.model is not None
        names = [self._names(optimizer) for optimizer in self.optimizers]
        plain = checkpoint | {"state_dict": shapes(checkpoint["state_dict"]), "optimizer_names": names}
        write_shards(Path(filepath), checkpoint["global_step"], plain, self._tensors())

    def load_checkpoint(self, checkpoint_path: str | Path, weights_only: bool | None = None) -> dict[str, Any]:
        assert self.model is not None
        path = Path(checkpoint_path)
        if path.is_dir():
            tensors = self._tensors()
            load(tensors, checkpoint_id=path.resolve())
            set_model_state_dict(self.model, tensors["state_dict"])
            for number, optimizer in enumerate(self.optimizers):
                set_optimizer_state_dict(self.model, optimizer, tensors[f"optimizer_{number}"])
            return read_plain(path)
        checkpoint = self.checkpoint_io.load_checkpoint(path)
        set_model_state_dict(self.model, checkpoint["state_dict"], options=FULL)
        for optimizer, state in zip(self.optimizers, checkpoint["optimizer_states"], strict=True):
            names = self._names(optimizer)
            groups = [
                group | {"params": [names[number] for number in group["params"]]} for group in state["param_groups"]
            ]
            moments = {names[number]: moments for number, moments in state["state"].items()}
            whole: Any = {"state": moments, "param_groups": groups}
            set_optimizer_state_dict(self.model, optimizer, whole, options=FULL)
        return checkpoint

    def _tensors(self) -> dict[str, Any]:
        """The states that each process has a part of."""
        assert self.model is not None
        states = [get_optimizer_state_dict(self.model, optimizer) for optimizer in self.optimizers]
        named = {f"optimizer_{number}": state for number, state in enumerate(states)}
        return {"state_dict": get_model_state_dict(self.model), **named}

    def _names(self, optimizer: Optimizer) -> list[str]:
        """The names of the weights of an optimizer, in its order."""
        assert self.model is not None
        names = {weight: name for name, weight in self.model.named_parameters()}
        return [names[weight] for group in optimizer.param_groups for weight in group["params"]]
