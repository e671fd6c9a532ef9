"""The devices of a run: the strategy of Lightning that trains on them, and the share of every batch of this process."""

import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy, Strategy

from genoattn.data.share import DataShare
from genoattn.errors import UserError
from genoattn.models.devices import local_devices
from genoattn.training.processes import WAIT, place
from genoattn.training.settings import TrainerSettings
from genoattn.training.sharding import ShardedStrategy


def check_devices(devices: int, batch: int, sequence_parallel: int = 1) -> None:
    """Check that the devices of a run share a batch evenly.

    Raises:
        UserError: `data.batch` is no multiple of their number, or that is none of `trainer.sequence_parallel`.
    """
    groups, rest = divmod(devices, sequence_parallel)
    if rest:
        raise UserError(
            f"trainer.sequence_parallel={sequence_parallel} must divide the {devices} of trainer.devices × "
            "trainer.num_nodes"
        )
    if sequence_parallel > 1 and batch % groups:
        raise UserError(
            f"data.batch={batch} is the batch of all devices together, so it must be a multiple of the {groups} groups"
            f" of trainer.sequence_parallel={sequence_parallel} devices"
        )
    if batch % groups:
        raise UserError(
            f"data.batch={batch} is the batch of all devices together, so it must be a multiple of the"
            f" {devices} of trainer.devices × trainer.num_nodes"
        )


def check_processes(devices: int, nodes: int) -> None:
    """Raises UserError if as many processes as a run has devices were not started."""
    world = place().world
    if devices * nodes != world:
        started = f"{world} processes were started" if world > 1 else "torchrun or srun must start the processes"
        raise UserError(f"trainer.devices={devices} and trainer.num_nodes={nodes}: {started}")


def data_share(sequence_parallel: int = 1) -> DataShare:
    """The share of every batch that this process makes; processes that hold a sequence together make the same."""
    return DataShare(place().rank // sequence_parallel, max(1, place().world // sequence_parallel))


def strategy_of(settings: TrainerSettings) -> Strategy | str:
    """Lightning's strategy for the devices of a run."""
    if place().world == 1:
        return "auto"
    if settings.strategy == "fsdp":
        if settings.precision == "16-mixed":
            raise UserError("trainer.strategy=fsdp knows no trainer.precision=16-mixed; bf16-mixed needs no scaling")
        return ShardedStrategy(settings.sharded_checkpoints)
    # Every process changes its buffers alike. A model may have a weight that a batch does not use.
    return DDPStrategy(broadcast_buffers=False, find_unused_parameters=True, gradient_as_bucket_view=True, timeout=WAIT)


def environment_of() -> ClusterEnvironment:
    """Lightning's view of the processes. With Slurm's own it would take Slurm's signals and queue the job again."""
    return TorchElasticEnvironment() if place().world > 1 else LightningEnvironment()


def devices_of_node(device: torch.device) -> list[str]:
    """The devices of this node that a run trained on, of the kind of `device`, by their names in torch.

    The first process has them for itself once the others have ended; a GPU that it does not see is left out.
    """
    gpus = torch.cuda.device_count() if device.type == "cuda" else 0
    return local_devices(min(place().local_world, gpus or place().local_world), gpus)
