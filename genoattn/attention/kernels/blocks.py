"""Exact softmax attention of blocks of queries over lists of key blocks, for sparse and hierarchical layers."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.kernels import launch
from genoattn.attention.kernels.block_gradients import block_dkv_kernel, block_sum_kernel
from genoattn.attention.kernels.block_kernels import BlockConstants, block_dq_kernel, block_forward_kernel
from genoattn.attention.kernels.block_lists import BlockLists, list_work, most_parts
from genoattn.attention.kernels.configurations import INTERPRETED, block_tiles, power_of_two
from genoattn.attention.kernels.flash_launch import row_deltas
from genoattn.errors import UserError

LOG2E = 1.4426950408889634


WIDEST = 128


QUERY_BLOCKS = (16, 32, 64)


KEY_BLOCKS = (1, 2, 4, 8, 16, 32, 64)


def block_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch keys kv_heads dim_head"],
    v: Float[Tensor, "batch keys kv_heads dim_head"],
    block_table: Int[Tensor, "tables table_heads query_blocks slots"] | BlockLists,
    *,
    query_block: int,
    key_block: int,
    bias: Float[Tensor, "batch keys"] | None = None,
    ends: Int[Tensor, "keys"] | None = None,
    padding_mask: Bool[Tensor, "batch length"] | None = None,
    scale: float | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Softmax attention of each block of queries over the key blocks that its row of `block_table` lists.

    Args:
        q: Queries.
        k: Keys; they may stand for several tokens each, for example as their mean.
        v: Values.
        block_table: Key blocks of each query block, negative for none; one table may serve all sequences or heads. Or
            lists with what is known of them, as from `cached_lists`.
        query_block: Queries of a block: 16, 32 or 64.
        key_block: Keys of a block: a power of two from 1 to 64.
        bias: Added to every score with a key, without a gradient; -inf hides the key, which is then not read.
        ends: Last token that each key stands for: query i attends to key j only if ends[j] ≤ i.
        padding_mask: True for real queries. Padded queries are not read, give 0 and have no gradient.
        scale: Factor of the scores q·k, 1 / sqrt(dim_head) by default.
        return_lse: Also return the log-sum-exp of the scores of each query, with its gradient.

    Returns:
        The output [batch, length, heads, dim_head], and with `return_lse` the natural log-sum-exp [batch, heads,
        length]; 0 and -inf for a query without a visible key. Query heads share key heads as in `flash_attention`.

    Raises:
        UserError: Shapes, dtypes, device or block sizes that the kernel does not support.
    """
    lists = block_table if isinstance(block_table, BlockLists) else BlockLists(block_table)
    _check(q, k, v, lists.table, query_block, key_block)
    shapes = {"bias": (bias, k.shape[:2]), "ends": (ends, k.shape[1:2]), "padding_mask": (padding_mask, q.shape[:2])}
    for name, (tensor, shape) in shapes.items():
        if tensor is not None and tensor.shape != shape:
            raise UserError(f"{name} must be {list(shape)}, got {list(tensor.shape)}")
    factor = float(q.shape[-1] ** -0.5 if scale is None else scale)
    key_bias = None if bias is None else bias.detach().float()
    key_ends = None if ends is None else ends.int()
    lists = lists._replace(table=lists.table.int())
    out, lse = block_forward(q, k, v, *lists, key_bias, key_ends, padding_mask, query_block, key_block, factor)
    return (out, lse) if return_lse else out


def _check(q: Tensor, k: Tensor, v: Tensor, table: Tensor, query_block: int, key_block: int) -> None:
    launch.check_dtypes({"q": q, "k": k, "v": v})
    launch.check_device(q)
    batch, length, heads, dim_head = q.shape
    if k.shape != v.shape or k.shape[0] != batch or k.shape[3] != dim_head or heads % k.shape[2]:
        raise UserError(
            "k and v must have one shape, with the batch and dim_head of q and a number of heads that divides q's, got "
            f"q {list(q.shape)}, k {list(k.shape)}, v {list(v.shape)}"
        )
    if query_block not in QUERY_BLOCKS or key_block not in KEY_BLOCKS:
        raise UserError(
            f"query_block must be one of {QUERY_BLOCKS} and key_block of {KEY_BLOCKS}, got {query_block}, {key_block}"
        )
    if not 1 <= dim_head <= WIDEST or not 1 <= min(length, k.shape[1]) <= max(length, k.shape[1]) <= launch.LONGEST:
        raise UserError(f"dim_head must be from 1 to {WIDEST}, length and keys from 1 to {launch.LONGEST}")
    blocks = -(-length // query_block)
    if table.shape[0] not in (1, batch) or table.shape[1] not in (1, heads) or table.shape[2] != blocks:
        raise UserError(
            f"table must be [1 or {batch}, 1 or {heads}, {blocks}, slots] for {length} tokens in blocks of "
            f"{query_block}, got {list(table.shape)}"
        )


def _constants(
    kernel: str,
    q: Tensor,
    bias: Tensor | None,
    ends: Tensor | None,
    counts: Tensor | None,
    padding_mask: Tensor | None,
    blocks: tuple[int, int],
) -> dict[str, Any]:
    """Constants that a kernel is compiled for; `blocks` are the queries and the keys of a block."""
    family, dim = launch.family(q.device), power_of_two(q.shape[-1])
    tiles = INTERPRETED if launch.INTERPRETED else block_tiles(kernel, family, dim, q.element_size())
    fixed = BlockConstants(
        QUERIES=blocks[0],
        BLOCK_Q=min(blocks[0], tiles.queries),
        BLOCK_K=min(tiles.keys, max(16, blocks[1])) if kernel == "dkv" else tiles.keys,
        SIZE=blocks[1],
        DIM=dim,
        WIDTH=q.shape[-1],
        BIAS=bias is not None,
        ENDS=ends is not None,
        COUNTED=counts is not None,
        PADDED=padding_mask is not None,
        PRECISION=launch.precision(q.dtype, family),
    )
    return {"C": fixed, "num_warps": tiles.warps, "num_stages": tiles.stages}


def _table_strides(table: Tensor) -> tuple[int, int]:
    """Rows of lists between sequences and between heads, over the query blocks; 0 where one table serves all."""
    return 0 if table.shape[0] == 1 else table.shape[1], 0 if table.shape[1] == 1 else 1


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor,
    counts: Tensor | None,
    readers: Tensor | None,
    work: Tensor | None,
    sums: Tensor | None,
    bias: Tensor | None,
    ends: Tensor | None,
    padding_mask: Tensor | None,
    query_block: int,
    key_block: int,
    scale: float,
) -> tuple[Tensor, Tensor]:
    """Outputs [batch, length, heads, dim_head] and natural log-sum-exps [batch, heads, length], these in float32."""
    batch, length, heads, _ = q.shape
    dtype, (q, k, v) = q.dtype, (launch.readable(tensor) for tensor in (q, k, v))
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(batch, heads, length, dtype=torch.float32, device=q.device)
    table = table.contiguous()
    byte_flags, mask_stride = launch.flags(padding_mask, lse)
    constants = _constants("forward", q, bias, ends, counts, padding_mask, (query_block, key_block))
    key_ends = lse if ends is None else ends.contiguous()
    strides = (*map(launch.strides_of, (q, k, v, out)), _table_strides(table), mask_stride)
    sizes = length, k.shape[1], heads, heads // k.shape[2], table.shape[3]
    lists = [table, table if counts is None else counts.contiguous()]
    arguments = [q, k, v, *lists, _base_2(bias, lse), key_ends, byte_flags, out, lse, strides, sizes, scale * LOG2E]
    programs = -(-length // constants["C"].BLOCK_Q) * heads * batch
    launch.launch(block_forward_kernel, programs, arguments, constants)
    return out.to(dtype), lse


def _base_2(bias: Tensor | None, stand_in: Tensor) -> Tensor:
    """The bias in base 2, or without a bias `stand_in`, which no kernel reads."""
    return stand_in if bias is None else (bias * LOG2E).contiguous()


def backward(
    dout: Tensor,
    dlse: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    table: Tensor,
    counts: Tensor | None,
    readers: Tensor | None,
    work: Tensor | None,
    sums: Tensor | None,
    bias: Tensor | None,
    ends: Tensor | None,
    padding_mask: Tensor | None,
    out: Tensor,
    lse: Tensor,
    query_block: int,
    key_block: int,
    scale: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of q, k and v, each in its own shape and dtype, contiguous."""
    batch, length, heads, _ = q.shape
    keys, kv_heads, dtype = k.shape[1], k.shape[2], q.dtype
    q, k, v, out, dout = (launch.readable(tensor) for tensor in (q, k, v, out, dout))
    dlse, lse, table = dlse.contiguous(), lse.contiguous(), table.contiguous()
    dq, dk, dv = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q, k, v))
    byte_flags, mask_stride = launch.flags(padding_mask, lse)
    delta = row_deltas(out, dout, dlse, None if padding_mask is None else byte_flags)
    key_masks = [_base_2(bias, lse), lse if ends is None else ends.contiguous()]
    strides = [launch.strides_of(tensor) for tensor in (q, k, v, dout)]
    factor, group = scale * LOG2E, heads // kv_heads
    constants = _constants("dq", q, bias, ends, counts, padding_mask, (query_block, key_block))
    arguments = [q, k, v, table, table if counts is None else counts.contiguous(), *key_masks, byte_flags]
    arguments += [dout, lse, delta, dq, (*strides, launch.strides_of(dq), _table_strides(table), mask_stride)]
    arguments += [(length, keys, heads, group, table.shape[3]), factor]
    launch.launch(block_dq_kernel, -(-length // constants["C"].BLOCK_Q) * heads * batch, arguments, constants)
    constants = _constants("dkv", q, bias, ends, counts, padding_mask, (query_block, key_block))
    lists = BlockLists(table, counts, readers, work, sums)
    sources = [q, k, v, *key_masks, byte_flags, dout, lse, delta]
    _launch_dkv(lists, sources, [dk, dv], (strides, mask_stride), (length, keys, kv_heads, group), factor, constants)
    return dq.to(dtype), dk.to(dtype), dv.to(dtype)


def _launch_dkv(
    lists: BlockLists,
    sources: list[Tensor],
    gradients: list[Tensor],
    strides: tuple[list[tuple[int, ...]], int],
    sizes: tuple[int, int, int, int],
    factor: float,
    constants: dict[str, Any],
) -> None:
    """Launch dK and dV by the work of the lists, and the sum of the parts of key blocks with many readers."""
    (q, k, v, bias, ends, byte_flags, dout, lse, delta), fixed = sources, constants["C"]
    _, keys, kv_heads, group = sizes
    shared = lists.table.shape[1] == 1
    table_heads, members = (1, group) if shared else (kv_heads, 1)
    readers, work, sums = lists.readers, lists.work, lists.sums
    if readers is None or work is None or sums is None:
        readers, work, sums = list_work(lists.table, table_heads, -(-keys // fixed.SIZE))
    shares = k.shape[0] // lists.table.shape[0] * (kv_heads // table_heads)
    many = most_parts(lists.table) * shares
    parts = k.new_empty(many, 2, fixed.SIZE, fixed.WIDTH, dtype=torch.float32) if many else delta
    own = [launch.strides_of(tensor) for tensor in gradients]
    arguments = [q, k, v, work, readers, bias, ends, byte_flags, dout, lse, delta, *gradients, parts]
    arguments += [(*strides[0], *own), (*sizes, members, work.shape[0], table_heads, shares, strides[1]), factor]
    tiles = work.shape[0] * max(1, fixed.SIZE // fixed.BLOCK_K)
    launch.launch(block_dkv_kernel, tiles * shares, arguments, constants)
    arguments = [sums, parts, *gradients, tuple(own), (keys, kv_heads, sums.shape[0], table_heads, shares)]
    launch.launch(block_sum_kernel, sums.shape[0] * shares, arguments, {"C": fixed})


block_forward = torch.library.custom_op("genoattn::block_forward", forward, mutates_args=())


block_backward = torch.library.custom_op("genoattn::block_backward", backward, mutates_args=())


@block_forward.register_fake
def _(q: Tensor, *_: Any):
    batch, length, heads = q.shape[:3]
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    return out, q.new_empty(batch, heads, length, dtype=torch.float32)


@block_backward.register_fake
def _(dout: Tensor, dlse: Tensor, q: Tensor, k: Tensor, v: Tensor, *_: Any):
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v))


def _save_for_backward(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    *tensors, query_block, key_block, scale = inputs
    ctx.numbers = query_block, key_block, scale
    ctx.save_for_backward(*tensors, *output)


def _gradients(ctx: Any, dout: Tensor, dlse: Tensor):
    return *block_backward(dout, dlse, *ctx.saved_tensors, *ctx.numbers), *[None] * 11


block_forward.register_autograd(_gradients, setup_context=_save_for_backward)
