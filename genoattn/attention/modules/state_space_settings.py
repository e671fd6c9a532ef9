"""Settings of a state space layer: bounds, and the steps of its heads before training."""

import torch
from torch import Tensor

from genoattn.attention.modules.head_options import HeadOptions
from genoattn.errors import UserError


def check_widths(heads: HeadOptions, inner: int, **least_one: int) -> None:
    """Refuse settings below 1, heads that do not divide the `inner` channels, and rotated values that are no pairs."""
    for name, value in least_one.items():
        if value < 1:
            raise UserError(f"attention.{name} must be 1 or more, got {value}")
    if inner % heads.count:
        raise UserError(f"heads.count must divide attention.expand times the model's dim, {inner}, got {heads.count}")
    if heads.rotate_values and inner // heads.count % 2:
        raise UserError(
            "heads.rotate_values=true turns pairs of channels, so a head needs an even number of them, got "
            f"{inner // heads.count}"
        )


def step_biases(own: int, cross: int) -> Tensor:
    """Biases [own + cross] of the strengths of steps: memories of 8 to 4,096 tokens, spread within each kind."""
    kinds = [(torch.arange(n) + 0.5) / n for n in (own, cross)]
    spans = 2 ** (3 + 9 * torch.cat(kinds))
    return torch.expm1(1 / spans).log()  # the strength is 1 / span
