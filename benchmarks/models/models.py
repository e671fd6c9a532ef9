"""Models that streaming.py and training_step.py measure: dim 128, 4 heads, 12 kinds of tokens."""

from collections.abc import Callable

from genoattn.attention.base import Attention
from genoattn.models.block import ActivationCheckpointing
from genoattn.models.sequence_model import SequenceModel

DIM, VOCABULARY = 128, 12
REACH = 256
"""Tokens of the window on either side."""
PLAIN, RECOMPUTED = "none", "mlp"
"""Activation checkpointing: the backward pass keeps everything, or recomputes the activations of the MLPs."""


def layer(name: str) -> Callable[..., Attention]:
    """Factory of an attention layer with the defaults of its config."""
    from genoattn.attention.delta import DeltaAttention
    from genoattn.attention.hierarchical import HierarchicalAttention
    from genoattn.attention.hyena import HyenaAttention
    from genoattn.attention.linear import LinearAttention
    from genoattn.attention.ssd import StateSpaceAttention
    from genoattn.attention.window import WindowAttention

    def window(dim: int, causal: bool) -> Attention:
        return WindowAttention(dim, causal, left=REACH, right=REACH)

    return {
        "linear": LinearAttention,
        "window": window,
        "hierarchical": HierarchicalAttention,
        "delta": DeltaAttention,
        "ssd": StateSpaceAttention,
        "hyena": HyenaAttention,
    }[name]


def model(attention: str, depth: int, recompute: ActivationCheckpointing = PLAIN) -> SequenceModel:
    """Model with one logit for each kind of token at each token, without a reference window."""
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
    """FLOPs of the matrix products that one forward pass needs by its formula; a multiply-add counts as 2.

    Layers but window count their own.
    """
    projections, mlp, head = 8 * DIM**2, 16 * DIM**2, 2 * DIM * VOCABULARY
    if attention == "window":
        mixing = 4 * (2 * REACH + 1) * DIM * length
    else:
        mixing = layer(attention)(dim=DIM, causal=False).flops(length) - projections * length
    return length * (depth * (projections + mlp) + head) + depth * mixing
