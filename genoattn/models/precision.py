"""The numbers in which a model answers: autocast where a GPU is fast in bfloat16, heads in those of their weights."""

from contextlib import AbstractContextManager, nullcontext
from typing import final

import torch
from torch import Tensor, nn

BFLOAT16_SINCE = (8, 0)
"""Least compute capability whose products in bfloat16 are fast."""


def fast_dtype(device: torch.device) -> torch.dtype | None:
    """The dtype of autocast on a device: bfloat16 on a GPU of compute capability 8.0 or more, else None."""
    if device.type != "cuda":
        return None
    known = torch.version.hip is not None or torch.cuda.get_device_capability(device) >= BFLOAT16_SINCE
    return torch.bfloat16 if known else None


def autocast_of(model: nn.Module) -> AbstractContextManager:
    """Autocast in which a model that is not in training answers: that of its training, or of its device if loaded.

    A model in training has the autocast of its trainer, and one in float64 computes in float64 all the same.
    """
    dtype: torch.dtype | None = getattr(model, "autocast_dtype", None)
    if model.training or dtype is None:
        return nullcontext()
    return torch.autocast(next(model.parameters()).device.type, dtype)


@final
class Head(nn.Linear):
    """A linear head that no autocast narrows: it costs little, and scores are differences of its logits."""

    def forward(self, input: Tensor) -> Tensor:
        if input.is_meta:  # autocast knows no such device
            return super().forward(input)
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(self.weight.dtype))
