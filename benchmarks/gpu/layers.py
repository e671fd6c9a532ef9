"""Attention layers by name, as their configs describe them, and models of them."""

from typing import Any

from torch import nn

from benchmarks.gpu.record import DRY
from genoattn.attention.base import Attention

NAMES = ("window", "linear", "full", "flash", "sparse", "hierarchical", "delta", "ssd", "based", "topk", "nsa", "hyena")
"""Layers whose answers are compared with float64: those with a kernel first."""

TRAINED = ("none", "conv", *NAMES, "pyramid", "gated", "hybrid", "striped")


def factory(name: str, heads: int) -> Any:
    """The builder of the layer of a config, with as many heads; a list, if the blocks take turns at several."""
    from hydra.utils import instantiate

    from genoattn.config.compose import compose

    words = [f"attention={name}", "heads=default", f"heads.count={heads}"]
    return instantiate(compose("train", words).attention, _convert_="all")


def build(name: str, dim: int, causal: bool) -> Attention:
    """One layer with heads of 64 channels (16 in a dry run)."""
    made = factory(name, dim // (16 if DRY else 64))
    return (made[0] if isinstance(made, list) else made)(dim=dim, causal=causal)


def model(name: str, dim: int, depth: int, recompute: bool = False) -> nn.Module:
    """A model with one logit for each of 4 bases at every token; `recompute` keeps no activations within blocks."""
    from genoattn.models.sequence_model import SequenceModel

    return SequenceModel(
        8,
        {"token": 4},
        None,
        factory(name, dim // (16 if DRY else 64)),
        dim=dim,
        depth=depth,
        activation_checkpointing="block" if recompute else "none",
    )
