"""Checks of one sequence over several processes: the outputs and gradients of one process."""

import pickle
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.distributed
from torch import Tensor

from genoattn.attention.base import Attention, TokenLayout
from genoattn.attention.conformance.check import TOLERANCE, Factory, Outcome, perturbed_layer, register
from genoattn.attention.conformance.probes import difference, output_and_gradients
from genoattn.attention.parallel.processes import processes
from genoattn.attention.parallel.shards import shard
from genoattn.errors import UserError

WORLDS = (2, 4)
"""Numbers of processes."""


class Case(NamedTuple):
    """A batch for a layer, and what the gradients are taken of: the sum of the outputs times `upstream`."""

    x: Tensor
    layout: TokenLayout
    upstream: Tensor


def cases(dim: int) -> Iterator[Case]:
    """Batches with lengths that do not divide, padding, given positions, and segments in three orders."""
    for length, padded, order in ((67, False, ""), (131, True, "thirds"), (90, False, "turns"), (121, True, "halves")):
        x, upstream = (torch.randn(2, length, dim, dtype=torch.float64) for _ in range(2))
        index = torch.arange(length).expand(2, -1)
        mask = torch.rand(2, length) > 0.3 if padded else None
        segments = {
            "": None,
            "thirds": torch.randint(3, (2, length)),
            "turns": index % 2,
            "halves": (index >= length // 3).long(),
        }[order]
        yield Case(x, TokenLayout(mask, index // 2 if order == "turns" else None, segments), upstream)


def over_processes(layer: Attention, batches: Sequence[Case], world: int, gradients: bool) -> list[list[Tensor]] | str:
    """For each batch the output of a layer that several processes compute together, and if so asked its gradients.

    They are in the order of `output_and_gradients`. If the layer refuses, its sentence.
    """
    results = processes(world).run(_compute_shards, layer, batches, gradients)
    for result in results:
        if isinstance(result, str):
            return result
    by_batch = zip(*results, strict=True)
    return [_joined(parts, case, 1 + gradients) for parts, case in zip(by_batch, batches, strict=True)]


def _joined(results: Sequence[list[Tensor]], case: Case, tokens: int) -> list[Tensor]:
    """The whole sequence of the first tensors of each process, and the sum of the others, those of parameters."""
    kinds, length = [list(parts) for parts in zip(*results, strict=True)], case.x.shape[1]
    whole = [torch.cat(parts, dim=1)[:, :length] for parts in kinds[:tokens]]
    return [*whole, *(torch.stack(parts).sum(0) for parts in kinds[tokens:])]


def _compute_shards(layer: Attention, batches: Sequence[Case], gradients: bool) -> list[list[Tensor]] | str:
    """The outputs of a shard of each batch, and their gradients by the shard and all parameters."""
    group, found = torch.distributed.group.WORLD, []
    try:
        for case in batches:
            x, layout = shard(case.x, case.layout, group, layer.shard_multiple)
            with torch.set_grad_enabled(gradients):
                y = layer(x.requires_grad_(gradients), layout)
            found.append([y.detach()])
            if gradients:
                upstream, _ = shard(case.upstream, case.layout, group, layer.shard_multiple)
                inputs = [x, *layer.parameters()]
                words = {"allow_unused": True, "materialize_grads": True}
                found[-1] += torch.autograd.grad(y, inputs, upstream, **words)
    except UserError as refusal:
        return str(refusal)
    return found


def _compared(factory: Factory, dim: int, causal: bool, gradients: bool) -> Outcome:
    layer, batches, worst = perturbed_layer(factory, dim, causal), list(cases(dim)), 0.0
    if gradients:
        alone = [output_and_gradients(layer, case.x, case.layout, upstream=case.upstream) for case in batches]
    else:
        with torch.no_grad():
            alone = [[layer(case.x, case.layout)] for case in batches]
    for world in WORLDS:
        try:
            found = over_processes(layer, batches, world, gradients)
        except (AttributeError, TypeError, pickle.PickleError) as error:
            return True, "not measured", f"the layer cannot be sent to another process: {error}"
        if isinstance(found, str):
            return True, f"refused: {found}"
        for some, others in zip(found, alone, strict=True):
            worst = max(worst, *(difference(a, b) for a, b in zip(some, others, strict=True)))
    return worst <= TOLERANCE, f"largest difference {worst:.1e} with {' and '.join(map(str, WORLDS))} processes"


@register("a shard that does not see its neighbours, states that are not carried on, masks and positions of a shard")
def parallel(factory: Factory, dim: int, causal: bool) -> Outcome:
    """Two and four processes that hold a sequence together have the outputs of one."""
    return _compared(factory, dim, causal, gradients=False)


@register("an exchange without a gradient, or with that of one process only")
def parallel_gradient(factory: Factory, dim: int, causal: bool) -> Outcome:
    """Two and four processes that hold a sequence together have the gradients of one: by the input and parameters."""
    return _compared(factory, dim, causal, gradients=True)
