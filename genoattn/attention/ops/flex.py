"""Sliding-window attention by torch's FlexAttention, whose kernel is compiled for the mask and costs that are asked.

It is imported inside the functions: it brings torch's compiler along.
"""

from functools import cache, lru_cache
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.base import zero_padding
from genoattn.attention.ops.beside import Beside, merge


class _Rule(NamedTuple):
    """The window of query i: keys before + i + dilation · t, and the first keys; all as in `window_attention`."""

    left: int
    right: int
    causal: bool
    dilation: int
    first: int
    before: int

    def visible(self, query: Tensor, key: Tensor) -> Tensor:
        """True for the pairs of indices that are seen, padding and segments aside."""
        ahead = key - query - self.before
        seen = (ahead >= -self.left * self.dilation) & (ahead <= self.right * self.dilation)
        seen = seen & (ahead % self.dilation == 0)
        if self.first:
            seen = seen | (key < self.first) | (query + self.before < self.first)
        return seen & (ahead <= 0) if self.causal else seen


def window_attention(
    q: Float[Tensor, "batch queries heads dim_head"],
    k: Float[Tensor, "batch keys kv_heads dim_head"],
    v: Float[Tensor, "batch keys kv_heads dim_head"],
    *,
    left: int,
    right: int,
    causal: bool,
    dilation: int = 1,
    global_tokens: int = 0,
    before: int = 0,
    padding_mask: Bool[Tensor, "batch queries"] | None = None,
    key_mask: Bool[Tensor, "batch keys"] | None = None,
    segments: tuple[Int[Tensor, "batch queries"], Int[Tensor, "batch keys"]] | None = None,
    slopes: Float[Tensor, "heads"] | None = None,
    beside: Beside | None = None,
) -> Float[Tensor, "batch queries heads dim_head"]:
    """`window_attention`; with `segments` a query sees only the keys of other segments than its own."""
    device = q.device.type
    if torch.is_autocast_enabled(device):
        q, k, v = (tensor.to(torch.get_autocast_dtype(device)) for tensor in (q, k, v))
    rule = _Rule(left, right, causal, dilation, min(global_tokens, k.shape[1]), before)
    key_mask = padding_mask if key_mask is None else key_mask
    sizes = q.shape[1], k.shape[1]
    if key_mask is None and segments is None:
        mask = _shared_mask(rule, *sizes, q.device)
    else:
        mask = _mask(rule, len(q), *sizes, q.device, key_mask, segments)
    costs = None if slopes is None else _costs(slopes, before)
    settings = {"score_mod": costs, "block_mask": mask, "enable_gqa": k.shape[2] < q.shape[2]}
    y, lse = _operator(device)(*(tensor.transpose(1, 2) for tensor in (q, k, v)), **settings)
    y = y.transpose(1, 2)
    return zero_padding(y if beside is None else merge(y, lse, beside), padding_mask)


@cache
def _operator(device: str) -> Any:
    """FlexAttention, compiled where there is a compiler for it; elsewhere it holds the whole square of scores.

    It returns the output and the log-sum-exp.
    """
    from torch.nn.attention.flex_attention import AuxRequest, flex_attention

    def attend(q: Tensor, k: Tensor, v: Tensor, **words: Any) -> tuple[Tensor, Tensor | None]:
        y, more = flex_attention(q, k, v, return_aux=AuxRequest(lse=True), **words)
        return y, more.lse

    return torch.compile(attend, dynamic=False) if device == "cuda" else attend


def _costs(slopes: Tensor, before: int) -> Any:
    return lambda score, b, h, query, key: score - slopes[h] * (key - query - before).abs()


@lru_cache(maxsize=16)
def _shared_mask(rule: _Rule, queries: int, keys: int, device: torch.device) -> Any:
    """The mask of all sequences of these lengths."""
    return _mask(rule, None, queries, keys, device, None, None)


def _mask(
    rule: _Rule,
    batch: int | None,
    queries: int,
    keys: int,
    device: torch.device,
    key_mask: Tensor | None,
    segments: tuple[Tensor, Tensor] | None,
) -> Any:
    from torch.nn.attention.flex_attention import create_block_mask

    def visible(b: Tensor, h: Tensor, query: Tensor, key: Tensor) -> Tensor:
        seen = rule.visible(query, key)
        if key_mask is not None:
            seen = seen & key_mask[b, key]
        if segments is not None:
            seen = seen & (segments[0][b, query] != segments[1][b, key])
        return seen

    # Not compiled, the mask of each pair would be held: a terabyte for a million tokens.
    return create_block_mask(visible, batch, None, queries, keys, device=device.type, _compile=device.type == "cuda")
