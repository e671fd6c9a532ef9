"""Keys and values of the tokens that later tokens see."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class KVCache(NamedTuple):
    """Keys (rotated), values and layout of the tokens that later tokens see, at the heads of keys."""

    k: Float[Tensor, "batch cached kv_heads dim_head"]
    v: Float[Tensor, "batch cached kv_heads dim_head"]
    padding_mask: Bool[Tensor, "batch cached"]
    segments: Int[Tensor, "batch cached"]

    def append(self, more: "KVCache") -> "KVCache":
        """The tokens of two caches one after another."""
        return KVCache(*(torch.cat(pair, dim=1) for pair in zip(self, more, strict=True)))

    def keep_from(self, start: int, first: int = 0) -> "KVCache":
        """The first tokens and all from `start` on."""
        if first >= start:
            return self
        return KVCache(*(torch.cat([t[:, :first], t[:, start:]], dim=1) for t in self))
