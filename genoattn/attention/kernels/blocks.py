"""Exact softmax attention of blocks of queries over lists of key blocks, for sparse and hierarchical layers."""

from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.kernels import launch
from genoattn.attention.kernels.block_kernels import block_dkv_kernel, block_dq_kernel, block_forward_kernel
from genoattn.attention.kernels.configurations import INTERPRETED, block_tiles, power_of_two
from genoattn.attention.kernels.flash_backward import delta_kernel
from genoattn.errors import UserError

LOG2E = 1.4426950408889634


WIDEST = 128


QUERY_BLOCKS = (16, 32, 64)


KEY_BLOCKS = (1, 2, 4, 8, 16, 32, 64)


def block_attention(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch keys kv_heads dim_head"],
    v: Float[Tensor, "batch keys kv_heads dim_head"],
    block_table: Int[Tensor, "tables table_heads query_blocks slots"],
    *,
    query_block: int,
    key_block: int,
    bias: Float[Tensor, "batch keys"] | None = None,
    ends: Int[Tensor, "keys"] | None = None,
    keep: Bool[Tensor, "batch length"] | None = None,
    scale: float | None = None,
    return_lse: bool = False,
) -> Tensor | tuple[Tensor, Tensor]:
    """Softmax attention of each block of queries over the key blocks that its row of `table` lists, negative for none.

    One table may serve all sequences and all heads. Keys may be other than tokens: means of several, say, with the
    logarithm of their count as `bias`, added to every score with them (no gradient); -inf hides a key, which is not
    read. A query i sees key j only where ends[j] ≤ i, with `ends`: the last token that the key stands for. Query heads
    share key heads as in `flash_attention`, and `keep`, the log-sum-exp and a query that sees nothing are as there.
    """
    _check(q, k, v, block_table, query_block, key_block)
    for name, given, shape in (("bias", bias, k.shape[:2]), ("ends", ends, k.shape[1:2]), ("keep", keep, q.shape[:2])):
        if given is not None and given.shape != shape:
            raise UserError(f"{name} must be {list(shape)}, got {list(given.shape)}")
    factor = float(q.shape[-1] ** -0.5 if scale is None else scale)
    added = None if bias is None else bias.detach().float()
    last = None if ends is None else ends.int()
    out, lse = block_forward(q, k, v, block_table.int(), added, last, keep, query_block, key_block, factor)
    return (out, lse) if return_lse else out


def _check(q: Tensor, k: Tensor, v: Tensor, table: Tensor, query_block: int, key_block: int) -> None:
    launch.check_dtypes({"q": q, "k": k, "v": v})
    launch.check_device(q)
    batch, length, heads, dim_head = q.shape
    if k.shape != v.shape or k.shape[0] != batch or k.shape[3] != dim_head or heads % k.shape[2]:
        raise UserError(
            "k and v must be alike, with the batch and dim_head of q and a number of heads that divides q's, got "
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
    kernel: str, q: Tensor, bias: Tensor | None, ends: Tensor | None, keep: Tensor | None, sizes: tuple[int, int]
) -> dict[str, Any]:
    """What a kernel is compiled for; `sizes` are those of a query block and of a key block."""
    family, dim = launch.family(q.device), power_of_two(q.shape[-1])
    tiles = INTERPRETED if launch.INTERPRETED else block_tiles(kernel, family, dim, q.element_size())
    keys = min(tiles.keys, max(16, sizes[1])) if kernel == "dkv" else tiles.keys
    return {
        "QUERIES": sizes[0], "BLOCK_Q": min(sizes[0], tiles.queries), "BLOCK_K": keys, "SIZE": sizes[1],
        "DIM": dim, "WIDTH": q.shape[-1],
        "BIAS": bias is not None, "ENDS": ends is not None, "KEEP": keep is not None,
        "PRECISION": launch.precision(q.dtype, family), "num_warps": tiles.warps, "num_stages": tiles.stages,
    }  # fmt: skip


def _table_strides(table: Tensor) -> tuple[int, int]:
    """How far apart tables of a contiguous stack are by sequence and by head: 0 where one serves all."""
    return 0 if table.shape[0] == 1 else table.stride(0), 0 if table.shape[1] == 1 else table.stride(1)


def invert_block_table(
    table: Int[Tensor, "tables table_heads query_blocks slots"], blocks: int
) -> tuple[Tensor, Tensor]:
    """The lists turned round: the query blocks that read each of so many key blocks, and where each one's begin.

    In the order of tables, heads, key blocks and query blocks; `begins` holds one more, the end of the last.
    """
    tables, heads, count, slots = table.shape
    at = torch.arange(tables * heads, device=table.device)[:, None, None] * blocks
    owner = torch.where(table >= 0, at.view(tables, heads, 1, 1) + table, tables * heads * blocks).flatten()
    order = owner.argsort(stable=True)
    begins = torch.searchsorted(owner[order], torch.arange(tables * heads * blocks + 1, device=table.device))
    return (order // slots % count).int(), begins


def forward(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, bias: Tensor | None, ends: Tensor | None, keep: Tensor | None,
    query_block: int, key_block: int, scale: float,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Answers [batch, length, heads, dim_head] and natural log-sum-exps [batch, heads, length], these in float32."""
    batch, length, heads, _ = q.shape
    dtype, (q, k, v) = q.dtype, (launch.readable(tensor) for tensor in (q, k, v))
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(batch, heads, length, dtype=torch.float32, device=q.device)
    table = table.contiguous()
    byte_flags, keep_batch = launch.flags(keep, lse)
    constants = _constants("forward", q, bias, ends, keep, (query_block, key_block))
    launch.launch(
        block_forward_kernel, -(-length // constants["BLOCK_Q"]) * heads * batch, [
        q, k, v, table, _scores_added(bias, lse), lse if ends is None else ends.contiguous(), byte_flags, out, lse,
        *map(launch.strides_of, (q, k, v, out)), _table_strides(table), keep_batch,
        length, k.shape[1], heads, heads // k.shape[2], table.shape[3], scale * LOG2E,
        ], constants,
    )  # fmt: skip
    return out.to(dtype), lse


def _scores_added(bias: Tensor | None, stand_in: Tensor) -> Tensor:
    """The bias in base 2; any tensor where there is none, which no kernel then reads."""
    return stand_in if bias is None else (bias * LOG2E).contiguous()


def backward(
    dout: Tensor, dlse: Tensor, q: Tensor, k: Tensor, v: Tensor, table: Tensor, bias: Tensor | None,
    ends: Tensor | None, keep: Tensor | None, out: Tensor, lse: Tensor, query_block: int, key_block: int, scale: float,
) -> tuple[Tensor, Tensor, Tensor]:  # fmt: skip
    """Gradients of q, k and v, each in its own shape and dtype, contiguous."""
    batch, length, heads, width = q.shape
    keys, kv_heads, dtype = k.shape[1], k.shape[2], q.dtype
    q, k, v, out, dout = (launch.readable(tensor) for tensor in (q, k, v, out, dout))
    dlse, lse, table = dlse.contiguous(), lse.contiguous(), table.contiguous()
    delta = torch.empty(lse.shape, dtype=lse.dtype, device=lse.device)
    dq, dk, dv = (torch.empty(t.shape, dtype=t.dtype, device=t.device) for t in (q, k, v))
    byte_flags, keep_batch = launch.flags(keep, lse)
    added, last = _scores_added(bias, lse), lse if ends is None else ends.contiguous()
    strides = [launch.strides_of(t) for t in (q, k, v, dout)]
    rows = launch.ROWS_OF_DELTA
    launch.launch(
        delta_kernel, -(-length // rows) * heads * batch, [
        out, dout, dlse, byte_flags, delta, launch.strides_of(out), strides[3], keep_batch, length, heads,
        ], {"BLOCK": rows, "DIM": power_of_two(width), "WIDTH": width, "KEEP": keep is not None},
    )  # fmt: skip
    constants = _constants("dq", q, bias, ends, keep, (query_block, key_block))
    launch.launch(
        block_dq_kernel, -(-length // constants["BLOCK_Q"]) * heads * batch, [
        q, k, v, table, added, last, byte_flags, dout, lse, delta, dq, *strides, launch.strides_of(dq),
        _table_strides(table), keep_batch, length, keys, heads, heads // kv_heads, table.shape[3], scale * LOG2E,
        ], constants,
    )  # fmt: skip
    blocks = -(-keys // key_block)
    readers, begins = invert_block_table(table, blocks)
    table_of = (table.shape[1] if table.shape[0] > 1 else 0, 1 if table.shape[1] > 1 else 0)
    constants = _constants("dkv", q, bias, ends, keep, (query_block, key_block))
    tiles = blocks * max(1, key_block // constants["BLOCK_K"])
    launch.launch(
        block_dkv_kernel, tiles * kv_heads * batch, [
        q, k, v, readers, begins, added, last, byte_flags, dout, lse, delta, dk, dv, *strides,
        launch.strides_of(dk), launch.strides_of(dv), table_of, keep_batch,
        length, keys, kv_heads, heads // kv_heads, scale * LOG2E,
        ], constants,
    )  # fmt: skip
    return dq.to(dtype), dk.to(dtype), dv.to(dtype)


block_forward = torch.library.custom_op("genoattn::block_forward", forward, mutates_args=())


block_backward = torch.library.custom_op("genoattn::block_backward", backward, mutates_args=())


@block_forward.register_fake
def _(
    q: Tensor, k: Tensor, v: Tensor, table: Tensor, bias: Tensor | None, ends: Tensor | None, keep: Tensor | None,
    query_block: int, key_block: int, scale: float,
):  # fmt: skip
    batch, length, heads, _ = q.shape
    out = torch.empty_like(q, memory_format=torch.contiguous_format)
    return out, q.new_empty(batch, heads, length, dtype=torch.float32)


@block_backward.register_fake
def _(
    dout: Tensor, dlse: Tensor, q: Tensor, k: Tensor, v: Tensor, table: Tensor, bias: Tensor | None,
    ends: Tensor | None, keep: Tensor | None, out: Tensor, lse: Tensor, query_block: int, key_block: int, scale: float,
):  # fmt: skip
    return tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (q, k, v))


def _remember(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    *tensors, query_block, key_block, scale = inputs
    ctx.numbers = query_block, key_block, scale
    ctx.save_for_backward(*tensors, *output)


def _gradients(ctx: Any, dout: Tensor, dlse: Tensor):
    return *block_backward(dout, dlse, *ctx.saved_tensors, *ctx.numbers), *[None] * 7


block_forward.register_autograd(_gradients, setup_context=_remember)
