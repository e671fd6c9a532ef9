"""What layers compute, by this package's Triton kernels: the same as their own functions, which say what that is.

Kernels are imported where they are called: the rest of the package does without triton.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.base import zero_padding
from genoattn.attention.modules.feature_maps import feature_map
from genoattn.attention.modules.rotary import rotate
from genoattn.attention.ops.block_sparse import select_blocks
from genoattn.attention.ops.hierarchical_pooling import levels
from genoattn.attention.ops.linear import EPSILON


def softmax_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    *,
    causal: bool,
    window: tuple[int, int] | None = None,
    padding_mask: Bool[Tensor, "batch length"] | None = None,
    scale: float | None = None,
) -> Float[Tensor, "batch length heads dim_head"]:
    """`full_attention`, or `window_attention` of a window's `left` and `right`."""
    from genoattn.attention.kernels.flash import flash_attention

    q, k, v = _as_computed(q, k, v)
    y = flash_attention(q, k, v, causal=causal, window=window, keep=padding_mask, scale=scale)
    assert isinstance(y, Tensor)
    return y


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
) -> Float[Tensor, "batch length heads dim_value"]:
    """`linear_attention` of the layer's file, without a decay; features that are turned need a second pass."""
    from genoattn.attention.kernels.linear import linear_sums

    assert decay is None, "the kernel gives a decay no gradient"
    phi_q, phi_k, v = _as_computed(feature_map(q, features), feature_map(k, features), v)
    numerators, denominators = linear_sums(phi_q, phi_k, v, causal=causal, keep=padding_mask)
    if positions is not None:
        turned_q, turned_k = rotate(phi_q, positions), rotate(phi_k, positions)
        numerators, _ = linear_sums(turned_q, turned_k, v, causal=causal, keep=padding_mask)
    real = torch.ones(q.shape[:2], device=q.device) if padding_mask is None else padding_mask.float()
    count = (real.cumsum(1) if causal else real.sum(1, keepdim=True)).clamp_min(1)[..., None]
    return zero_padding(
        (numerators / torch.maximum(denominators, EPSILON * count)[..., None]).to(v.dtype), padding_mask
    )


def sparse_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    *,
    causal: bool,
    block: int,
    blocks: int,
    padding_mask: Bool[Tensor, "batch length"] | None = None,
    scale: float | None = None,
) -> Float[Tensor, "batch length heads dim_head"]:
    """`sparse_attention` of the layer's file, the chosen blocks as lists."""
    from genoattn.attention.kernels.blocks import block_attention

    length = q.shape[1]
    tail = -length % block
    real = torch.ones(q.shape[:2], dtype=torch.bool, device=q.device) if padding_mask is None else padding_mask
    # In the dtypes of torch's operator, or rounded scores would select other blocks.
    with torch.no_grad(), torch.autocast(q.device.type, enabled=False):
        q_blocks, k_blocks = (F.pad(t, (0, 0, 0, 0, 0, tail)).unflatten(1, (-1, block)) for t in (q, k))
        whole = F.pad(real, (0, tail)).unflatten(1, (-1, block))
        table = select_blocks(q_blocks, k_blocks, whole, causal=causal, blocks=blocks).transpose(1, 2)
    bias = (
        None
        if padding_mask is None
        else torch.zeros(q.shape[:2], device=q.device).masked_fill(~padding_mask, float("-inf"))
    )
    ends = torch.arange(length, device=q.device) if causal else None
    q, k, v = _as_computed(q, k, v)
    y = block_attention(
        q, k, v, table, query_block=block, key_block=block, bias=bias, ends=ends, keep=padding_mask, scale=scale
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
) -> Float[Tensor, "batch length heads dim_head"]:
    """`hierarchical_attention` of the layer's file, the cells of all levels one after another and read in lists."""
    from genoattn.attention.kernels.blocks import block_attention

    length, half = q.shape[1], block // 2
    shown = padding_mask if key_mask is None else key_mask
    real = torch.ones(q.shape[:2], dtype=torch.bool, device=q.device) if shown is None else shown
    position_ids = None if positions is None else positions.expand(q.shape[:2])
    count = levels(length, block)
    keys, values, biases, ends = [], [], [], []
    sums = [F.pad(zero_padding(t.float(), real), (0, 0, 0, 0, 0, -length % block)) for t in (k, v)]
    number = F.pad(real.long(), (0, -length % block))
    place = None if position_ids is None else F.pad(position_ids * real, (0, -length % block))
    for level in range(count):
        if level:  # two cells make one, and empty ones a whole block
            rest = -(number.shape[1] // 2) % block
            sums = [F.pad(t.unflatten(1, (-1, 2)).sum(2), (0, 0, 0, 0, 0, rest)) for t in sums]
            number = F.pad(number.unflatten(1, (-1, 2)).sum(2), (0, rest))
            place = None if place is None else F.pad(place.unflatten(1, (-1, 2)).sum(2), (0, rest))
        some = number.clamp_min(1)
        mean_k, mean_v = (t / some[..., None, None] for t in sums)
        keys.append(mean_k if place is None else rotate(mean_k, place // some))
        values.append(mean_v)
        biases.append(torch.where(number > 0, some.float().log(), float("-inf")))
        ends.append((torch.arange(1, number.shape[1] + 1, device=q.device) << level) - 1)
    table = _runs(length, block, [len(one) // half for one in ends], causal, q.device)[None, None]
    q, all_k, all_v = _as_computed(
        q if position_ids is None else rotate(q, position_ids),
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
        keep=padding_mask,
    )
    assert isinstance(y, Tensor)
    return y


def _runs(length: int, block: int, counts: list[int], causal: bool, device: torch.device) -> Int[Tensor, "blocks runs"]:
    """The runs of half a block of cells that each block of queries reads, -1 for none; `counts` of each level's runs.

    Of tokens those of its block and of the blocks beside it; of each level above what of its block and of those beside
    it the level below has not read: three runs.
    """
    own = torch.arange(-(-length // block), device=device)[:, None]
    wanted = [2 * own + torch.arange(-2, 4, device=device)]
    for level in range(1, len(counts)):
        denominator, here = own >> (level - 1), own >> level
        neighbours = 2 * here + torch.arange(-2, 4, device=device)
        unread = (neighbours - denominator).abs() > 1
        wanted.append(neighbours[unread].view(len(own), 3))
    first, lists = 0, []
    for level, (runs, count) in enumerate(zip(wanted, counts, strict=True)):
        last = 2 * own + 1 if level == 0 else own >> (level - 1)
        there = (runs >= 0) & (runs < count) & ((runs <= last) | (not causal))
        lists.append(torch.where(there, runs + first, -1))
        first += count
    return torch.cat(lists, dim=1)


def _as_computed(*tensors: Tensor) -> list[Tensor]:
    """The tensors in the dtype that autocast gives to products, or, without it, as they are."""
    device = tensors[0].device.type
    if not torch.is_autocast_enabled(device):
        return list(tensors)
    return [one.to(torch.get_autocast_dtype(device)) for one in tensors]
