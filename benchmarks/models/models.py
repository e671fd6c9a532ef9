"""The models that stream.py and training.py measure: dim 128, 4 heads, twelve tokens."""

from collections.abc import Callable

from genoattn.attention.base import Attention
from genoattn.attention.modules.projections import HeadOptions
from genoattn.models.block import ActivationCheckpointing
from genoattn.models.sequence_model import SequenceModel

DIM, VOCABULARY = 128, 12
HEADS = HeadOptions().count
REACH = 256
"""Tokens to either side that the window sees."""
PLAIN, RECOMPUTED = "none", "mlp"
"""Activation checkpointing: the backward pass keeps everything, or recomputes the activations of the MLPs."""


def layer(name: str) -> Callable[..., Attention]:
    """What builds an attention layer of the name, as its config does where nothing is set."""
    from genoattn.attention.delta import DeltaAttention
    from genoattn.attention.hierarchical import HierarchicalAttention
    from genoattn.attention.linear import LinearAttention
    from genoattn.attention.window import WindowAttention

    def window(dim: int, causal: bool) -> Attention:
        return WindowAttention(dim, causal, left=REACH, right=REACH)

    return {
        "linear": LinearAttention,
        "window": window,
        "hierarchical": HierarchicalAttention,
        "delta": DeltaAttention,
    }[name]


def model(attention: str, depth: int, recompute: ActivationCheckpointing = PLAIN) -> SequenceModel:
    """One number for every kind of token at each token, and no reference beside."""
    return SequenceModel(
        VOCABULARY,
        {"token": VOCABULARY},
        None,
        layer(attention),
        dim=DIM,
        depth=depth,
        activation_checkpointing=recompute,
    )


def useful_flops(attention: str, depth: int, length: int) -> int:
    """FLOPs of the matrix products of one forward that the mathematics asks for; a multiply-add counts as 2.

    Of hierarchical and delta those that the layer counts itself.
    """
    width = DIM // HEADS
    projections, mlp, head = 8 * DIM**2, 16 * DIM**2, 2 * DIM * VOCABULARY
    if attention == "linear":
        mixing = 4 * width**2 * HEADS * length
    elif attention == "window":
        mixing = 4 * (2 * REACH + 1) * DIM * length
    else:
        mixing = layer(attention)(dim=DIM, causal=False).flops(length) - projections * length
    return length * (depth * (projections + mlp) + head) + depth * mixing
