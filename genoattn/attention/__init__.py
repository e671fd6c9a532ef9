"""Attention layers, and all that a layer of another package needs to fit in with them.

A layer is a subclass of `Attention` with `forward`, `naive`, `flops` and `state_bytes`. `HeadOptions` and
`QKVProjection` give it the heads of the layers of this package; `genoattn.attention.conformance.check` checks it.
"""

from genoattn.attention.base import Attention, ChunkReader, State, TokenLayout, zero_padding
from genoattn.attention.layout import Span
from genoattn.attention.modules.projections import HeadOptions, QKVProjection

__all__ = ["Attention", "ChunkReader", "HeadOptions", "QKVProjection", "Span", "State", "TokenLayout", "zero_padding"]
