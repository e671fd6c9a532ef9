"""Hierarchical attention over shards: the neighbours' keys one by one, and the pooled cells of all shards."""

import torch
import torch.nn.functional as F
from torch import Tensor

from genoattn.attention.base import zero_padding
from genoattn.attention.layout import Span
from genoattn.attention.modules.cross_segment import View
from genoattn.attention.ops.hierarchical import HierarchicalFunction, Part, Schedule, answerable
from genoattn.attention.ops.hierarchical_pooling import NEAR_LEVELS, levels, pool_to_level, unpooled_tokens
from genoattn.attention.parallel.shards import gather_tokens, mask_of_all


def hierarchical_over_shards(
    q: Tensor, k: Tensor, v: Tensor, positions: Tensor | None, view: View, before: int, span: Span, schedule: Schedule
) -> Tensor:
    """Outputs `[batch, shard, heads, dim_head]` of queries, 0 where they are not asked for or see nothing.

    Args:
        q: Queries of the shard.
        k: Keys of the shard and a unit beyond it on each side that is read, as far as there are tokens.
        v: Their values.
        positions: Positions of the whole sequence; None if keys are not rotated.
        view: Masks of the whole sequence.
        before: Keys before the shard.
        span: The shard.
        schedule: Settings of the whole sequence.
    """
    mask, first, own = view.padding_mask, span.start - before, slice(before, before + span.length)
    shown = mask if view.key_mask is None else view.key_mask
    some_positions, real = (None if t is None else t[:, first : first + k.shape[1]] for t in (positions, shown))
    part, far_k, far_v = Part(span.start, first), None, None
    if levels(schedule.length, schedule.block) > NEAR_LEVELS:
        cells = pool_to_level(unpooled_tokens(k[:, own], v[:, own], None, None if real is None else real[:, own]))
        far_k, far_v = gather_tokens(torch.cat(cells[:2], dim=-1), span).chunk(2, dim=-1)
        numbers = mask_of_all(k, span, shown).long()
        places = None if positions is None else _by_cell(positions * numbers)
        part = part._replace(count=_by_cell(numbers), positions=places)
    y = HierarchicalFunction.apply(q, k, v, some_positions, real, far_k, far_v, schedule, part)
    answers = answerable(mask, view.key_mask, schedule.causal)
    return zero_padding(y, None if answers is None else answers[:, span.start : span.stop])


def _by_cell(x: Tensor) -> Tensor:
    """Sums over the tokens of each cell of the lowest far level."""
    size = 1 << NEAR_LEVELS
    return F.pad(x, (0, -x.shape[1] % size)).unflatten(1, (-1, size)).sum(2)
