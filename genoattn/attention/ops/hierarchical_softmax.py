"""One softmax of queries over several sets of keys, and its gradient."""

import torch
from jaxtyping import Float
from torch import Tensor

from genoattn.attention.ops.hierarchical_partition import KeySet, Workspace


def softmax_over_sets(
    rows: Float[Tensor, "rows dim_head"], sets: list[KeySet], workspace: Workspace
) -> Float[Tensor, "rows dim_head"]:
    """Outputs of scaled queries, which are ordered by sequence, head and position."""
    weights, _ = _weights(rows, sets, workspace)
    y = torch.zeros_like(rows)
    for number, (key_set, share) in enumerate(_columns(sets, weights)):
        values = key_set.gather(key_set.source.v, workspace, f"values {number}")
        _multiply_add(y.view(-1, key_set.group, y.shape[1]), share, values)
    return y


def softmax_over_sets_backward(
    rows: Float[Tensor, "rows dim_head"],
    upstream: Float[Tensor, "rows dim_head"],
    sets: list[KeySet],
    workspace: Workspace,
) -> Float[Tensor, "rows dim_head"]:
    """Gradient of scaled queries; the gradients of keys and values are added to the totals of their sources.

    The weights are computed again.
    """
    weights, keys = _weights(rows, sets, workspace)
    changes = workspace("changes", rows, *weights.shape)
    for number, (key_set, target) in enumerate(_columns(sets, changes)):
        values = key_set.gather(key_set.source.v, workspace, f"values {number}")
        target.copy_(_multiply(upstream, key_set, values, workspace))
    for key_set, share in _columns(sets, weights):
        key_set.scatter_add(_transposed_product(share, upstream, workspace), key_set.source.totals[1])
    torch.ops.aten._softmax_backward_data.out(changes, weights, -1, weights.dtype, grad_input=changes)
    d_rows = torch.zeros_like(rows)
    for (key_set, share), key in zip(_columns(sets, changes), keys, strict=True):
        _multiply_add(d_rows.view(-1, key_set.group, rows.shape[1]), share, key)
        key_set.scatter_add(_transposed_product(share, rows, workspace), key_set.source.totals[0])
    return d_rows


def _weights(rows: Tensor, sets: list[KeySet], workspace: Workspace) -> tuple[Tensor, list[list[Tensor]]]:
    """Softmax weights over all sets side by side, and the keys of each set."""
    scores, keys = workspace("weights", rows, len(rows), sum(key_set.keys for key_set in sets)), []
    for number, (key_set, target) in enumerate(_columns(sets, scores)):
        keys.append(key_set.gather(key_set.source.k, workspace, f"keys {number}"))
        product = _multiply(rows, key_set, keys[-1], workspace)
        shape = (key_set.bias.shape[0], -1, key_set.bias.shape[2], key_set.group)  # batch, heads, groups, queries
        torch.add(product.view(*shape, key_set.keys), key_set.bias, out=target.unflatten(0, shape[:3]))
    return torch.softmax(scores, dim=-1, out=scores), keys


def _columns(sets: list[KeySet], matrix: Tensor) -> list[tuple[KeySet, Tensor]]:
    """Columns of each set in a matrix with one row for each query: [groups, queries, keys]."""
    buffers, at = [], 0
    for key_set in sets:
        buffers.append((key_set, matrix.view(-1, key_set.group, matrix.shape[1])[..., at : at + key_set.keys]))
        at += key_set.keys
    return buffers


def _multiply(rows: Tensor, key_set: KeySet, keys: list[Tensor], workspace: Workspace) -> Tensor:
    """Products of the rows of each group with its keys; contiguous, because writing into columns is slow."""
    rows = rows.view(-1, key_set.group, rows.shape[1])
    product = workspace("product", rows, len(rows), key_set.group, key_set.keys)
    for left, right, out in zip(rows.chunk(len(keys)), keys, product.chunk(len(keys)), strict=True):
        torch.bmm(left, right.transpose(1, 2), out=out)
    return product


def _multiply_add(into: Tensor, share: Tensor, keys: list[Tensor]) -> None:
    for left, right, out in zip(share.chunk(len(keys)), keys, into.chunk(len(keys)), strict=True):
        torch.baddbmm(out, left, right, out=out)


def _transposed_product(share: Tensor, rows: Tensor, workspace: Workspace) -> Tensor:
    rows = rows.view(len(share), -1, rows.shape[1])
    product = workspace("gradient", rows, len(share), share.shape[2], rows.shape[2])
    return torch.bmm(share.transpose(1, 2), rows, out=product)
