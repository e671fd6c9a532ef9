"""Differentiable collectives of torch over the processes of a span, the same for torch 2.9 and later.

The functions of `torch.distributed._functional_collectives` have gradients: that of a sum over processes is a sum, that
of a gather a sum that is scattered, and that of an exchange the exchange back. A DTensor's `redistribute` of partial
sums has another one, which is wrong where each process uses a sum differently.
"""

from collections.abc import Sequence

import torch
import torch.distributed._functional_collectives as functional
from jaxtyping import Shaped
from torch import Tensor
from torch.distributed.device_mesh import DeviceMesh

from genoattn.attention.layout import Span

_NEWER = hasattr(functional, "all_gather_single")
"""True if the plain functions have gradients; before, those named `_autograd` had, and a sum had none."""


def total(x: Shaped[Tensor, "..."], span: Span) -> Shaped[Tensor, "..."]:
    """The sum of the tensors of all processes; all have the same shape."""
    if not _NEWER and x.requires_grad:
        return gather(x, span).sum(0)
    return functional.wait_tensor(functional.all_reduce(x.contiguous(), "sum", span.group))


def maximum(x: Shaped[Tensor, "..."], span: Span) -> Shaped[Tensor, "..."]:
    """The largest number of all processes at each place, without a gradient."""
    return functional.wait_tensor(functional.all_reduce(x.detach().contiguous(), "max", span.group))


def gather(x: Shaped[Tensor, "..."], span: Span) -> Shaped[Tensor, "world ..."]:
    """The tensors of all processes in order of rank; all have the same shape."""
    run = functional.all_gather_single if _NEWER else functional.all_gather_tensor_autograd
    return functional.wait_tensor(run(x.contiguous()[None], 0, span.group))


def exchange(
    x: Shaped[Tensor, "given ..."], give: Sequence[int], take: Sequence[int], span: Span
) -> Shaped[Tensor, "taken ..."]:
    """Send the rows of `x` to the processes, and receive theirs in order of rank.

    Args:
        x: Rows, those for process 0 first.
        give: Number of rows for each process.
        take: Number of rows that come from each process.
        span: The processes.
    """
    run = functional.all_to_all_single if _NEWER else functional.all_to_all_single_autograd
    return functional.wait_tensor(run(x.contiguous(), list(take), list(give), span.group))


def processes(group: object) -> tuple[int, int]:
    """Rank of this process in a group, and number of processes."""
    if isinstance(group, DeviceMesh):
        group = group.get_group()
    assert group is None or isinstance(group, torch.distributed.ProcessGroup)
    return torch.distributed.get_rank(group), torch.distributed.get_world_size(group)
