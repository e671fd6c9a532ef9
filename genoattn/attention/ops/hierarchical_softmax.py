"""One softmax of queries over several parts of their keys, and its gradient."""

import torch
from jaxtyping import Float
from torch import Tensor

from genoattn.attention.ops.hierarchical_partition import Part, Scratch


def answer(rows: Float[Tensor, "rows dim_head"], parts: list[Part], scratch: Scratch) -> Float[Tensor, "rows dim_head"]:
    """The answers of scaled queries, which stand by sequence, head and place."""
    weights, _ = _weights(rows, parts, scratch)
    y = torch.zeros_like(rows)
    for number, (part, share) in enumerate(_columns(parts, weights)):
        values = part.take(part.source.v, scratch, f"values {number}")
        _multiply_add(y.view(-1, part.group, y.shape[1]), share, values)
    return y


def gradients(
    rows: Float[Tensor, "rows dim_head"],
    upstream: Float[Tensor, "rows dim_head"],
    parts: list[Part],
    scratch: Scratch,
) -> Float[Tensor, "rows dim_head"]:
    """The gradient of scaled queries; those of keys and values are added to the totals of the parts' sources.

    Weights are computed again: nothing of them was kept.
    """
    weights, keys = _weights(rows, parts, scratch)
    changes = scratch("changes", rows, *weights.shape)
    for number, (part, target) in enumerate(_columns(parts, changes)):
        values = part.take(part.source.v, scratch, f"values {number}")
        target.copy_(_multiply(upstream, part, values, scratch))
    for part, share in _columns(parts, weights):
        part.give(_transposed_product(share, upstream, scratch), part.source.totals[1])
    torch.ops.aten._softmax_backward_data.out(changes, weights, -1, weights.dtype, grad_input=changes)
    d_rows = torch.zeros_like(rows)
    for (part, share), key in zip(_columns(parts, changes), keys, strict=True):
        _multiply_add(d_rows.view(-1, part.group, rows.shape[1]), share, key)
        part.give(_transposed_product(share, rows, scratch), part.source.totals[0])
    return d_rows


def _weights(rows: Tensor, parts: list[Part], scratch: Scratch) -> tuple[Tensor, list[list[Tensor]]]:
    """The softmax over all parts, side by side, and each part's keys."""
    scores, keys = scratch("weights", rows, len(rows), sum(part.keys for part in parts)), []
    for number, (part, target) in enumerate(_columns(parts, scores)):
        keys.append(part.take(part.source.k, scratch, f"keys {number}"))
        product = _multiply(rows, part, keys[-1], scratch)
        shape = (part.bias.shape[0], -1, part.bias.shape[2], part.group)  # batch, heads, groups, queries
        torch.add(product.view(*shape, part.keys), part.bias, out=target.unflatten(0, shape[:3]))
    return torch.softmax(scores, dim=-1, out=scores), keys


def _columns(parts: list[Part], matrix: Tensor) -> list[tuple[Part, Tensor]]:
    """Each part's columns of a matrix with a row for every query: [groups, queries, keys]."""
    found, at = [], 0
    for part in parts:
        found.append((part, matrix.view(-1, part.group, matrix.shape[1])[..., at : at + part.keys]))
        at += part.keys
    return found


def _multiply(rows: Tensor, part: Part, keys: list[Tensor], scratch: Scratch) -> Tensor:
    """The products of each group's rows with its keys; contiguous, as a product written into columns is slow."""
    rows = rows.view(-1, part.group, rows.shape[1])
    product = scratch("product", rows, len(rows), part.group, part.keys)
    for left, right, out in zip(rows.chunk(len(keys)), keys, product.chunk(len(keys)), strict=True):
        torch.bmm(left, right.transpose(1, 2), out=out)
    return product


def _multiply_add(into: Tensor, share: Tensor, keys: list[Tensor]) -> None:
    for left, right, out in zip(share.chunk(len(keys)), keys, into.chunk(len(keys)), strict=True):
        torch.baddbmm(out, left, right, out=out)


def _transposed_product(share: Tensor, rows: Tensor, scratch: Scratch) -> Tensor:
    rows = rows.view(len(share), -1, rows.shape[1])
    product = scratch("gradient", rows, len(share), share.shape[2], rows.shape[2])
    return torch.bmm(share.transpose(1, 2), rows, out=product)
