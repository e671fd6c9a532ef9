"""Operators of the layers by the Triton kernels of this package; each is documented at torch's operator of its name.

Kernels are imported inside the functions, because the rest of the package works without triton.
"""

from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.base import zero_padding
from genoattn.attention.modules.feature_maps import feature_map
from genoattn.attention.modules.rotary import Rope, rotated, turns
from genoattn.attention.ops.beside import Beside, merge, merge_outputs
from genoattn.attention.ops.block_sparse import masks_by_block, select_blocks
from genoattn.attention.ops.hierarchical_cells import Filling, cell_means, cells_of
from genoattn.attention.ops.linear import EPSILON

Segments: TypeAlias = tuple[Int[Tensor, "batch queries"], Int[Tensor, "batch keys"]]
"""Ids of the segments of queries and of keys, from 0 to 127."""


def softmax_attention(
    q: Float[Tensor, "batch queries heads dim_head"],
    k: Float[Tensor, "batch keys kv_heads dim_head"],
    v: Float[Tensor, "batch keys kv_heads dim_head"],
    *,
    causal: bool,
    padding_mask: Bool[Tensor, "batch queries"] | None = None,
    key_mask: Bool[Tensor, "batch keys"] | None = None,
    segments: Segments | None = None,
    beside: Beside | None = None,
) -> Float[Tensor, "batch queries heads dim_head"]:
    """`full_attention`; with `segments` a query sees only the keys of other segments than its own."""
    from genoattn.attention.kernels.flash import flash_attention

    q, k, v = _as_computed(q, k, v)
    masks = {"padding_mask": padding_mask, "key_mask": key_mask, "segments": segments}
    y, lse = flash_attention(q, k, v, causal=causal, return_lse=True, **masks)
    return y if beside is None else zero_padding(merge(y, lse, beside), padding_mask)


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
    segments: Segments | None = None,
    slopes: Float[Tensor, "heads"] | None = None,
    beside: Beside | None = None,
) -> Float[Tensor, "batch queries heads dim_head"]:
    """`window_attention`; with `segments` a query sees only the keys of other segments than its own.

    The answers over the window and over global tokens are merged by their log-sum-exps.
    """
    from genoattn.attention.kernels.flash import flash_attention

    q, k, v = _as_computed(q, k, v)
    key_mask = padding_mask if key_mask is None else key_mask

    def attend(queries: slice, keys: slice, **words: Any) -> tuple[Tensor, Tensor]:
        """Outputs and log-sum-exps of some queries over some keys."""
        masks = {"padding_mask": _part(padding_mask, queries), "key_mask": _part(key_mask, keys)}
        ids = None if segments is None else (segments[0][:, queries], segments[1][:, keys])
        some = q[:, queries], k[:, keys], v[:, keys]
        y, lse = flash_attention(*some, slopes=slopes, segments=ids, return_lse=True, **masks, **words)
        return y, lse

    first = min(global_tokens, k.shape[1])
    near = {"window": (left, right), "dilation": dilation}
    if first:
        own = min(max(first - before, 0), q.shape[1])  # queries that are global
        some, rest, front = slice(own), slice(own, None), slice(first)
        parts = []
        if own and causal:
            parts.append(attend(some, front, window=(first, 0), before=before))
        elif own:
            parts.append(attend(some, slice(None)))
        if own < q.shape[1]:
            window = attend(rest, slice(first, None), before=before + own - first, **near)
            parts.append(merge_outputs(*window, *attend(rest, front)))
        outputs, sums = zip(*parts, strict=True)
        y, lse = torch.cat(outputs, 1), torch.cat(sums, 2)
    else:
        y, lse = attend(slice(None), slice(None), before=before, **near)
    return y if beside is None else zero_padding(merge(y, lse, beside), padding_mask)


def _part(mask: Tensor | None, tokens: slice) -> Tensor | None:
    return None if mask is None else mask[:, tokens]


def linear_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_value"],
    *,
    causal: bool,
    features: str = "elu",
    padding_mask: Bool[Tensor, "batch length"] | None = None,
    positions: Int[Tensor, "#batch length"] | None = None,
    decay: Float[Tensor, "heads"] | None = None,
    key_mask: Bool[Tensor, "batch length"] | None = None,
    key_positions: Int[Tensor, "#batch length"] | None = None,
    lead: float = 0.0,
    rope: Rope = Rope(),
) -> Float[Tensor, "batch length heads dim_value"]:
    """`linear_attention` of a whole sequence; rotated features need a second pass."""
    from genoattn.attention.kernels.features import NAMES
    from genoattn.attention.kernels.features import features as features_of
    from genoattn.attention.kernels.linear import linear_sums

    q, k, v = _as_computed(q, k, v)
    mask, read = (padding_mask, padding_mask) if key_mask is None else (None, key_mask)
    log_decay = None if decay is None else (-decay).float().expand(*q.shape[:3])
    settings = {"causal": causal, "padding_mask": mask, "log_decay": log_decay, "lead": lead}
    of_queries = of_keys = None
    if positions is not None:
        of_queries = turns(positions, q.shape[-1], rope, torch.float32)
        of_keys = of_queries if key_positions is None else turns(key_positions, q.shape[-1], rope, torch.float32)
    if features in NAMES:
        (phi_q, rotated_q), (phi_k, rotated_k) = features_of(q, features, of_queries), features_of(k, features, of_keys)
    else:  # of tokens that were rotated themselves
        phi_q, phi_k = (t if features == "signed" else feature_map(t.float(), features).to(v.dtype) for t in (q, k))
        rotated_q, rotated_k = phi_q, phi_k
    if key_mask is not None:  # features of 0 in place of a second mask
        phi_k, rotated_k = zero_padding(phi_k, key_mask), zero_padding(rotated_k, key_mask)
    if features == "signed":
        numerators, _ = linear_sums(phi_q, phi_k, v, denominators=False, **settings)
        return zero_padding(numerators.to(v.dtype), padding_mask)
    # Where the numerators are those of rotated features, one channel of values is enough here.
    some = v if positions is None else v.detach()[..., :1]
    numerators, denominators = linear_sums(phi_q, phi_k, some, **settings)
    if positions is not None:
        numerators, _ = linear_sums(rotated_q, rotated_k, v, denominators=False, **settings)
    if decay is not None or (read is None and not causal):
        denominators = denominators.clamp_min(EPSILON * (1 if decay is not None else q.shape[1]))
    else:
        real = torch.ones(q.shape[:2], device=q.device) if read is None else read.float()
        count = (real.cumsum(1) if causal else real.sum(1, keepdim=True)).clamp_min(1)[..., None]
        denominators = torch.maximum(denominators, EPSILON * count)
    return zero_padding((numerators / denominators[..., None]).to(v.dtype), padding_mask)


def state_space_scan(
    c: Float[Tensor, "batch length state"],
    b: Float[Tensor, "batch length state"],
    v: Float[Tensor, "batch length heads channels"],
    log_kept: Float[Tensor, "batch length heads"],
) -> Float[Tensor, "batch length heads channels"]:
    """`state_space_scan` from an empty state, in the dtype of `c` or of autocast; the last state is not given."""
    from genoattn.attention.kernels.linear import linear_sums

    c, b, v = _as_computed(c, b, v)
    q, k = (t.to(c.dtype)[:, :, None].expand(-1, -1, v.shape[2], -1) for t in (c, b))
    y, _ = linear_sums(q, k, v.to(c.dtype), causal=True, log_decay=log_kept.float(), denominators=False)
    return y


def delta_rule(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    write: Float[Tensor, "batch length heads"],
    log_kept: Float[Tensor, "batch length heads"],
    ahead: bool = False,
    own: bool | None = None,
) -> Float[Tensor, "batch length heads dim_head"]:
    """`delta_rule` from an empty state; the last state is not given. From right to left the tokens are turned."""
    from genoattn.attention.kernels.delta import delta_rule as rule

    pieces = [*_as_computed(q, k, v), write.float(), log_kept.float()]
    own = not ahead if own is None else own
    return rule(*(t.flip(1) for t in pieces), own=own).flip(1) if ahead else rule(*pieces, own=own)


def sparse_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    *,
    causal: bool,
    block: int,
    blocks: int,
    pool: int,
    padding_mask: Bool[Tensor, "batch length"] | None = None,
    key_mask: Bool[Tensor, "batch length"] | None = None,
) -> Float[Tensor, "batch length heads dim_head"]:
    """`sparse_attention`, with the selected blocks as lists."""
    from genoattn.attention.kernels.blocks import block_attention

    length = q.shape[1]
    tail = -length % block
    # In the dtypes of torch's operator, or rounded scores would select other blocks.
    with torch.no_grad(), torch.autocast(q.device.type, enabled=False):
        q_blocks, k_blocks = (F.pad(t, (0, 0, 0, 0, 0, tail)).unflatten(1, (-1, block)) for t in (q, k))
        masks = masks_by_block(q, block, padding_mask, key_mask)
        table = select_blocks(q_blocks, k_blocks, *masks, causal=causal, blocks=blocks, pool=pool).transpose(1, 2)
    read = padding_mask if key_mask is None else key_mask
    bias = None if read is None else torch.zeros(q.shape[:2], device=q.device).masked_fill(~read, float("-inf"))
    ends = torch.arange(length, device=q.device) if causal else None
    q, k, v = _as_computed(q, k, v)
    y = block_attention(
        q, k, v, table, query_block=block, key_block=block, bias=bias, ends=ends, padding_mask=padding_mask
    )
    assert isinstance(y, Tensor)
    return y


def hierarchical_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    *,
    causal: bool,
    block: int,
    positions: Int[Tensor, "#batch length"] | None = None,
    padding_mask: Bool[Tensor, "batch length"] | None = None,
    key_mask: Bool[Tensor, "batch length"] | None = None,
    rope: Rope = Rope(),
) -> Float[Tensor, "batch length heads dim_head"]:
    """`hierarchical_attention`, with the cells of all levels one after another and read by lists."""
    from genoattn.attention.kernels.blocks import block_attention

    batch, length = q.shape[:2]
    cells = cells_of(length, block, causal, q.device)
    visible = padding_mask if key_mask is None else key_mask
    filling = cells.whole if visible is None else Filling.of(cells.sums(visible.long()))
    mean_k, mean_v = cell_means(k, v, visible, filling.weight, cells.levels)
    if positions is not None:
        placed = cells.sums(positions if visible is None else positions * visible) // filling.tokens
        if visible is not None:
            placed[:, :length] = positions  # the first cells are the tokens, and those of them that are hidden ask too
        turned = turns(placed, q.shape[-1], rope, torch.float32)
        mean_k = rotated(mean_k, turned)
        q = rotated(q, (turned[0][:, :length], turned[1][:, :length]))
    q, all_k, all_v = _as_computed(q, mean_k.to(q.dtype), mean_v.to(q.dtype))
    y = block_attention(
        q,
        all_k,
        all_v,
        cells.lists,
        query_block=block,
        key_block=block // 2,
        bias=filling.bias.expand(batch, -1),
        ends=cells.ends if causal else None,
        padding_mask=padding_mask,
    )
    assert isinstance(y, Tensor)
    return y


def _as_computed(*tensors: Tensor) -> list[Tensor]:
    """The tensors in the dtype of autocast, or unchanged without autocast."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    return [tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors]
