"""The gated delta rule over shards: a shard turns a memory S into M S + A, and these compose."""

from collections.abc import Sequence

import torch
from torch import Tensor

from genoattn.attention.layout import Span
from genoattn.attention.ops.delta_rule import DeltaInputs, delta_rule
from genoattn.attention.parallel.states import carried, gather_states


def delta_over_shards(parts: Sequence[DeltaInputs], ways: Sequence[bool], span: Span) -> list[Tensor]:
    """Outputs `[batch, shard, heads, dim_head]` of heads that are scanned together, summed over the directions.

    Two scans of a shard, one from an empty memory with its values and one from the identity without values, give A and
    M, and outputs of which the second are to be multiplied by the memory that the shard meets: outputs are linear in
    it. One gather of all parts and directions follows.

    Args:
        parts: Inputs of `delta_rule`.
        ways: The directions: False from left to right, True from right to left.
        span: The shard.
    """
    outputs, states = [], []
    for q, k, v, write, log_kept in parts:
        width = v.shape[-1]
        wide = torch.promote_types(v.dtype, torch.float32)
        eye = torch.eye(width, dtype=wide, device=v.device).expand(len(q), q.shape[2], -1, -1).contiguous()
        nothing = v.new_zeros(1).expand(v.shape)
        for ahead in ways:
            own, added = delta_rule(q, k, v, write, log_kept, torch.zeros_like(eye), ahead)
            passed, kept = delta_rule(q, k, nothing, write, log_kept, eye, ahead)
            outputs.append((own, passed))
            states += [added, kept]
    told = iter(gather_states(states, span))
    sums: list[Tensor] = []
    for at, (own, passed) in enumerate(outputs):
        added, kept = next(told), next(told)
        memory = carried(added, span, lambda rank, state, kept=kept: kept[rank] @ state, ways[at % len(ways)])
        y = own + torch.einsum("blhm,bhmd->blhd", passed, memory)
        if at % len(ways):
            sums[-1] = sums[-1] + y
        else:
            sums.append(y)
    return sums
