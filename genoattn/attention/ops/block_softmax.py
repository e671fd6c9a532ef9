"""Softmax attention of blocks of queries with its log-sum-exp, by which outputs over two sets of keys are merged.

Heads of queries that share a head of keys become more rows of a block: the keys are read once for all of them.
"""

import torch
from torch import Tensor


def merge_softmax(out: Tensor, total: Tensor, y: Tensor | None, lse: Tensor) -> None:
    """Merge the outputs over two sets of keys, in place, into those of one softmax over both; None: an output of 0."""
    both = torch.logaddexp(total, lse)
    out.mul_((total - both).exp_())
    if y is not None:
        out.addcmul_(y, (lse - both).exp_())
    total.copy_(both)


def beside_gradients(
    g: Tensor, out: Tensor, total: Tensor, score: Tensor, value: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Gradients of the score and value of a key beside the tokens, from the output and log-sum-exp over all keys."""
    weight, along = (score - total).exp(), (g * out).sum(-1, keepdim=True)
    if value is None:
        return -weight * along, None
    return weight * ((g * value).sum(-1, keepdim=True) - along), weight * g


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Outputs [blocks, heads, rows, channels] and the log-sum-exp of their scores [blocks, heads, rows].

    Of k and v [blocks, kv_heads, keys, channels] a head serves as many heads of queries as there are more of these.
    """
    by = fused if q.device.type == "cpu" else unfused
    if q.shape[1] == k.shape[1]:
        return by(q, k, v, mask, scale)
    y, lse = by(_folded(q, k), k, v, _folded_mask(mask, q, k), scale)
    return y.unflatten(2, (-1, q.shape[2])).flatten(1, 2), lse.unflatten(2, (-1, q.shape[2])).flatten(1, 2)


def attend_backward(
    g: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, lse: Tensor, mask: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v from those of the outputs."""
    by = fused_backward if q.device.type == "cpu" else unfused_backward
    if q.shape[1] == k.shape[1]:
        return by(g, q, k, v, y, lse, mask, scale)
    g, x, y, lse = (_folded(t, k) for t in (g, q, y, lse))
    dq, dk, dv = by(g, x, k, v, y, lse, _folded_mask(mask, q, k), scale)
    return dq.unflatten(2, (-1, q.shape[2])).flatten(1, 2), dk, dv


def _folded(x: Tensor, k: Tensor) -> Tensor:
    """x [blocks, heads, rows, …] as [blocks, kv_heads, heads of a group · rows, …]."""
    return x.unflatten(1, (k.shape[1], -1)).flatten(2, 3)


def _folded_mask(mask: Tensor, q: Tensor, k: Tensor) -> Tensor:
    """The mask of folded queries; one for all heads is repeated, one for all rows need not be."""
    if mask.shape[1] > 1:
        return _folded(mask, k)
    return mask if mask.shape[2] == 1 else mask.repeat(1, 1, q.shape[1] // k.shape[1], 1)


def fused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Outputs [blocks, heads, rows, channels] and the log-sum-exp of their scores [blocks, heads, rows]."""
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, attn_mask=mask, scale=scale)


def fused_backward(
    g: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, lse: Tensor, mask: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward(
        g, q, k, v, y, lse, 0.0, False, attn_mask=mask, scale=scale
    )


def unfused(q: Tensor, k: Tensor, v: Tensor, mask: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """The same as `fused` in separate operations, for devices whose fused kernels do not return the log-sum-exp."""
    scores = (q * scale) @ k.transpose(-1, -2) + mask
    lse = scores.logsumexp(-1)
    return (scores - lse[..., None]).exp() @ v, lse


def unfused_backward(
    g: Tensor, q: Tensor, k: Tensor, v: Tensor, y: Tensor, lse: Tensor, mask: Tensor, scale: float
) -> tuple[Tensor, Tensor, Tensor]:
    weights = ((q * scale) @ k.transpose(-1, -2) + mask - lse[..., None]).exp()
    scores = weights * (g @ v.transpose(-1, -2) - (g * y).sum(-1, keepdim=True)) * scale
    return scores @ k, scores.transpose(-1, -2) @ q, weights.transpose(-1, -2) @ g
