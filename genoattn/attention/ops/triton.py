"""Operators of the layers by the Triton kernels of this package; each is documented at torch's operator of its name.

Kernels are imported inside the functions, because the rest of the package works without triton.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.base import zero_padding
from genoattn.attention.modules.rotary import Rope, rotate, turns
from genoattn.attention.ops.beside import Beside, merge
from genoattn.attention.ops.block_sparse import masks_by_block, select_blocks
from genoattn.attention.ops.hierarchical_pooling import levels
from genoattn.attention.ops.linear import EPSILON


def softmax_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length kv_heads dim_head"],
    v: Float[Tensor, "batch length kv_heads dim_head"],
    *,
    causal: bool,
    window: tuple[int, int] | None = None,
    padding_mask: Bool[Tensor, "batch length"] | None = None,
    key_mask: Bool[Tensor, "batch length"] | None = None,
    beside: Beside | None = None,
) -> Float[Tensor, "batch length heads dim_head"]:
    """`full_attention`, or `window_attention` with the `left` and `right` of `window`."""
    from genoattn.attention.kernels.flash import flash_attention

    q, k, v = _as_computed(q, k, v)
    y, lse = flash_attention(
        q, k, v, causal=causal, window=window, padding_mask=padding_mask, key_mask=key_mask, return_lse=True
    )
    return y if beside is None else zero_padding(merge(y, lse, beside), padding_mask)


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
    """`linear_attention` without a decay, so without need of `lead`; rotated features need a second pass."""
    from genoattn.attention.kernels.features import features as features_of
    from genoattn.attention.kernels.linear import linear_sums

    assert decay is None, "the kernel gives a decay no gradient"
    q, k, v = _as_computed(q, k, v)
    of_queries = of_keys = None
    if positions is not None:
        of_queries = turns(positions, q.shape[-1], rope, torch.float32)
        of_keys = of_queries if key_positions is None else turns(key_positions, q.shape[-1], rope, torch.float32)
    (phi_q, rotated_q), (phi_k, rotated_k) = features_of(q, features, of_queries), features_of(k, features, of_keys)
    if key_mask is not None:  # features of 0 in place of a second mask
        phi_k, rotated_k = zero_padding(phi_k, key_mask), zero_padding(rotated_k, key_mask)
    mask, read = (padding_mask, padding_mask) if key_mask is None else (None, key_mask)
    # Where the numerators are those of rotated features, one channel of values is enough here.
    some = v if positions is None else v.detach()[..., :1]
    numerators, denominators = linear_sums(phi_q, phi_k, some, causal=causal, padding_mask=mask)
    if positions is not None:
        numerators, _ = linear_sums(rotated_q, rotated_k, v, causal=causal, padding_mask=mask)
    if read is None and not causal:
        denominators = denominators.clamp_min(EPSILON * q.shape[1])
    else:
        real = torch.ones(q.shape[:2], device=q.device) if read is None else read.float()
        count = (real.cumsum(1) if causal else real.sum(1, keepdim=True)).clamp_min(1)[..., None]
        denominators = torch.maximum(denominators, EPSILON * count)
    return zero_padding((numerators / denominators[..., None]).to(v.dtype), padding_mask)


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

    length, half = q.shape[1], block // 2
    visible = padding_mask if key_mask is None else key_mask
    real = torch.ones(q.shape[:2], dtype=torch.bool, device=q.device) if visible is None else visible
    position_ids = None if positions is None else positions.expand(q.shape[:2])
    count = levels(length, block)
    keys, values, biases, ends = [], [], [], []
    sums = [F.pad(zero_padding(t.float(), real), (0, 0, 0, 0, 0, -length % block)) for t in (k, v)]
    number = F.pad(real.long(), (0, -length % block))
    place = None if position_ids is None else F.pad(position_ids * real, (0, -length % block))
    for level in range(count):
        if level:  # pairs of cells are merged, and empty cells fill up the last block
            rest = -(number.shape[1] // 2) % block
            sums = [F.pad(t.unflatten(1, (-1, 2)).sum(2), (0, 0, 0, 0, 0, rest)) for t in sums]
            number = F.pad(number.unflatten(1, (-1, 2)).sum(2), (0, rest))
            place = None if place is None else F.pad(place.unflatten(1, (-1, 2)).sum(2), (0, rest))
        tokens = number.clamp_min(1)
        mean_k, mean_v = (t / tokens[..., None, None] for t in sums)
        keys.append(mean_k if place is None else rotate(mean_k, place // tokens, rope))
        values.append(mean_v)
        biases.append(torch.where(number > 0, tokens.float().log(), float("-inf")))
        ends.append((torch.arange(1, number.shape[1] + 1, device=q.device) << level) - 1)
    table = _runs(length, block, [len(level_ends) // half for level_ends in ends], causal, q.device)[None, None]
    q, all_k, all_v = _as_computed(
        q if position_ids is None else rotate(q, position_ids, rope),
        torch.cat(keys, 1).to(q.dtype),
        torch.cat(values, 1).to(q.dtype),
    )
    y = block_attention(
        q,
        all_k,
        all_v,
        table,
        query_block=block,
        key_block=half,
        bias=torch.cat(biases, 1),
        ends=torch.cat(ends) if causal else None,
        padding_mask=padding_mask,
    )
    assert isinstance(y, Tensor)
    return y


def _runs(length: int, block: int, counts: list[int], causal: bool, device: torch.device) -> Int[Tensor, "blocks runs"]:
    """Runs of half a block of cells that each query block reads, -1 for none; `counts` are the runs of each level.

    Of the tokens a query block reads those of its block and of the neighbouring blocks; of each higher level the three
    runs of these blocks that the level below does not cover.
    """
    own = torch.arange(-(-length // block), device=device)[:, None]
    wanted = [2 * own + torch.arange(-2, 4, device=device)]
    for level in range(1, len(counts)):
        below, here = own >> (level - 1), own >> level
        neighbours = 2 * here + torch.arange(-2, 4, device=device)
        unread = (neighbours - below).abs() > 1
        wanted.append(neighbours[unread].view(len(own), 3))
    first, lists = 0, []
    for level, (runs, count) in enumerate(zip(wanted, counts, strict=True)):
        last = 2 * own + 1 if level == 0 else own >> (level - 1)
        exists = (runs >= 0) & (runs < count) & ((runs <= last) | (not causal))
        lists.append(torch.where(exists, runs + first, -1))
        first += count
    return torch.cat(lists, dim=1)


def _as_computed(*tensors: Tensor) -> list[Tensor]:
    """The tensors in the dtype of autocast, or unchanged without autocast."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    return [tensor.to(torch.get_autocast_dtype(device)) for tensor in tensors]
