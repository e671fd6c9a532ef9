"""Functions that the tests of several processes call in each of them; each returns the values that are compared."""

import torch
import torch.distributed
from torch.distributed.device_mesh import init_device_mesh

from genoattn.attention.base import TokenLayout
from genoattn.attention.parallel import carried, exchange, fetch, gather_states, gather_tokens, halo, shard, total
from genoattn.attention.parallel.collectives import maximum


def whole(length):
    """Numbers that tell tokens and channels apart, the same on every process."""
    return torch.arange(2 * length * 3, dtype=torch.float64).view(2, length, 3)


def shards(length, layout=TokenLayout(), multiple=1):
    """The shard of `whole`, and what it knows of itself and of the whole sequence."""
    x, own = shard(whole(length), layout, torch.distributed.group.WORLD, multiple)
    return x, own


def described(length, multiple=1):
    """Tokens of a shard, its first token in the sequence, and its mask."""
    x, layout = shards(length, multiple=multiple)
    return x, layout.span.start, layout.padding_mask


def fetched(length, ranges):
    """Tokens that each process asks for, and the gradient of the sum of what all got, times rank + 1."""
    x, layout = shards(length)
    span = layout.span
    some = fetch(x.requires_grad_(), span, lambda rank: ranges[rank])
    (gradient,) = torch.autograd.grad(some.sum() * (span.rank + 1), x)
    return some.detach(), gradient


def wide(length, left, right):
    """A shard with its neighbours, their positions, the part of the shard, and the gradient of the sum of all."""
    x, layout = shards(length)
    found = halo(x.requires_grad_(), layout.span, left, right)
    (gradient,) = torch.autograd.grad(found.x.sum(), x)
    return found.x.detach(), found.layout.position_ids, found.inner(found.x).detach(), gradient


def summed(length):
    """A sum that each process weighs otherwise, the largest number, all tokens, and gradients."""
    x, layout = shards(length)
    span, x = layout.span, x.requires_grad_()
    (by_sum,) = torch.autograd.grad(((span.rank + 1) * total(x, span)).sum(), x)
    tokens = gather_tokens(x, span)
    (by_tokens,) = torch.autograd.grad(((span.rank + 1) * tokens).sum(), x)
    return total(x, span).detach(), by_sum, maximum(x, span), tokens.detach(), by_tokens


def memories(ahead):
    """A memory that halves in each shard, to which that of a rank adds 2 ** rank; and another tensor."""
    _, layout = shards(8)
    span = layout.span
    added, more = gather_states([torch.tensor([2.0**span.rank]), torch.full((2, 1), float(span.rank))], span)
    return carried(added, span, lambda _, state: state / 2, ahead), more


def over_a_mesh():
    """A sum over the second dimension of a mesh of two, and the rank of the shard in it."""
    mesh = init_device_mesh("cpu", (torch.distributed.get_world_size() // 2, 2), mesh_dim_names=("data", "sequence"))
    x, layout = shard(whole(8), TokenLayout(), mesh["sequence"])
    return x, total(x, layout.span), exchange(x[0], [2, 2], [2, 2], layout.span), layout.span.rank


def fail_on_the_last():
    """An error on one process, for which the others wait."""
    _, layout = shards(8)
    if layout.span.rank == layout.span.world - 1:
        raise ValueError("no such token")
    return total(torch.zeros(1), layout.span)
