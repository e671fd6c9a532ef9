"""Softmax attention of blocks of queries with its log-sum-exp, by which outputs over two sets of keys are merged."""

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
