"""The state space recurrence over shards: a shard adds to a memory, of which it keeps a factor for each head."""

from collections.abc import Sequence

from torch import Tensor

from genoattn.attention.layout import Span
from genoattn.attention.modules.state_space_parts import ScanInputs
from genoattn.attention.ops.state_space import state_space_memory, state_space_scan
from genoattn.attention.parallel.states import carried, gather_states


def state_space_over_shards(parts: Sequence[tuple[ScanInputs, bool]], span: Span) -> list[Tensor]:
    """Outputs `[batch, shard, heads, channels]` of heads that are scanned together, each part by itself.

    Args:
        parts: Inputs of `state_space_scan` in the order of their direction, which is True from right to left.
        span: The shard.
    """
    states, outputs = [], []
    for (_, b, written, log_kept), _ in parts:
        empty = written.new_zeros(len(b), written.shape[2], b.shape[2], written.shape[3])
        states += [state_space_memory(b, written, log_kept, empty), log_kept.sum(1)]
    told = iter(gather_states(states, span))
    for inputs, ahead in parts:
        added, kept = next(told), next(told).exp()[..., None, None]
        memory = carried(added, span, lambda rank, state, kept=kept: kept[rank] * state, ahead)
        outputs.append(state_space_scan(*inputs, memory)[0])
    return outputs
