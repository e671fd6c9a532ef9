"""Linear attention by scans along the sequence: over all tokens, over earlier tokens, or decayed on both sides.

The state is [batch, heads, features, dim_value + 1], the sum of φ(k) [v, 1]ᵀ in at least float32 under any autocast
(bfloat16 is too coarse for a sum over a million tokens). Its last column gives the denominator.
"""

from functools import partial
from typing import Any, NamedTuple, TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from genoattn.attention.base import zero_padding
from genoattn.attention.modules.feature_maps import feature_dim, feature_map
from genoattn.attention.modules.rotary import Rope, rotate
from genoattn.attention.ops.chunk_state import CHUNK, decay_factor, read_chunks, read_totals
from genoattn.attention.ops.chunked_scan import Inputs, State, chunk_length, scan
from genoattn.attention.ops.sizes import sizes
from genoattn.attention.ops.whole_sums import Plan, whole_sums

EPSILON = 1e-6
"""Least denominator for each visible token, so that it has the same effect at any length."""


LinearState: TypeAlias = tuple[Tensor, Tensor]
"""The state matrix, and the number of tokens in it for each sequence of the batch."""


Features: TypeAlias = tuple[str, Rope]
"""Name of the feature map, and the frequencies by which features are rotated."""


class LinearOptions(NamedTuple):
    """Name of the feature map, masks, positions and decay rates, as in `linear_attention`."""

    features: str
    padding_mask: Tensor | None
    positions: Tensor | None
    decay: Tensor | None
    key_mask: Tensor | None = None
    key_positions: Tensor | None = None
    lead: float = 0.0
    rope: Rope = Rope()

    @property
    def of_queries(self) -> tuple[Tensor | None, Tensor | None]:
        """Mask and positions of the queries."""
        return self.padding_mask, self.positions

    @property
    def of_keys(self) -> tuple[Tensor | None, Tensor | None]:
        """Mask and positions of the keys."""
        mask = self.padding_mask if self.key_mask is None else self.key_mask
        return mask, self.positions if self.key_positions is None else self.key_positions


def empty_state(batch: int, heads: int, features: int, channels: int, like: Tensor) -> LinearState:
    """State before the first token, on the device of `like`."""
    dtype = torch.promote_types(like.dtype, torch.float32)
    memory = torch.zeros(batch, heads, features, channels + 1, dtype=dtype, device=like.device)
    return memory, torch.zeros(batch, dtype=torch.long, device=like.device)


def accumulate_state(k: Tensor, v: Tensor, state: LinearState, options: LinearOptions) -> LinearState:
    """Add these tokens to the state."""
    _, (memory, count) = scan_tokens(_accumulate_state, options, state, (k, v, *options.of_keys))
    return memory, count


def query_state(q: Tensor, state: LinearState, options: LinearOptions) -> Tensor:
    """Outputs of these queries from the state alone."""
    return scan_tokens(_query_state, options, (), (q, *options.of_queries), state)[0]


def causal_scan(
    q: Tensor, k: Tensor, v: Tensor, state: LinearState, options: LinearOptions
) -> tuple[Tensor, LinearState]:
    """Causal attention: the output of each token from the state and the tokens up to it, and the new state."""
    pieces = (q, k, v, *options.of_queries, *options.of_keys)
    step = partial(_causal_scan, lead=options.lead)
    y, (memory, count) = scan_tokens(step, options, state, pieces, (options.decay,))
    return y, (memory, count)


def reverse_states(k: Tensor, v: Tensor, ahead: Tensor, options: LinearOptions) -> Tensor:
    """Decayed state, at the first of these tokens, of these tokens and of those ahead of them."""
    pieces = (k, v, *options.of_keys)
    return scan_tokens(_reverse_states, options, (ahead,), pieces, (options.decay,), ahead=True)[1][0]


def bidirectional_scan(
    q: Tensor, k: Tensor, v: Tensor, memory: Tensor, ahead: Tensor, options: LinearOptions
) -> tuple[Tensor, Tensor]:
    """Outputs from these tokens and the decayed states at both ends, and the state after the last of them."""
    decay, step = (options.decay,), partial(_bidirectional_scan, lead=options.lead)
    if q.shape[1] <= _segment(q, options):
        borders = ahead[:, None]
    else:
        borders, _ = scan_tokens(_reverse_states, options, (ahead,), (k, v, *options.of_keys), decay, ahead=True)
    pieces = (q, k, v, *options.of_queries, *options.of_keys, borders)
    y, (memory,) = scan_tokens(step, options, (memory,), pieces, decay)
    return y, memory


def scan_tokens(
    step: Any, options: LinearOptions, state: State, pieces: Inputs, shared: Inputs = (), *, ahead: bool = False
) -> tuple[Any, State]:
    """Scan from the left, or with `ahead` from the right with one output for each segment."""
    step, segment = partial(step, features=(options.features, options.rope)), _segment(pieces[0], options)
    return scan(step, state, pieces, shared, segment=segment, backwards=ahead, sparse=ahead)


def _segment(x: Tensor, options: LinearOptions) -> int:
    """Tokens of a segment: of one head if one is computed at a time, else of all heads."""
    together = 1 if options.features == "signed" and x.device.type == "cpu" else x.shape[2]
    return chunk_length(together * len(x) * feature_dim(x.shape[3], options.features), CHUNK, sizes(x.device))


def _accumulate_state(state: State, pieces: Inputs, _: Inputs, *, features: Features) -> tuple[None, State]:
    """Add a segment to the state and to the count of its tokens."""
    (memory, count), (k, v, padding_mask, positions) = state, pieces
    phi, rotated = features_of(k, padding_mask, positions, features)
    written = rotated.permute(0, 2, 3, 1) @ v.to(phi.dtype).transpose(1, 2)
    memory = memory + torch.cat([written, phi.sum(1)[..., None]], dim=-1)
    return None, (memory, count + _ones(k, padding_mask).sum(1))


def _query_state(state: State, pieces: Inputs, shared: Inputs, *, features: Features) -> tuple[Tensor, State]:
    """Outputs from the state of all tokens."""
    (q, padding_mask, positions), (memory, count) = pieces, shared
    phi, rotated = features_of(q, None, positions, features)
    numerator = (rotated.transpose(1, 2) @ memory[..., :-1]).transpose(1, 2)
    signed = features[0] == "signed"
    denominator = None if signed else (phi.transpose(1, 2) @ memory[..., -1:]).transpose(1, 2)
    return _normalise(numerator, denominator, count[:, None], padding_mask).to(q.dtype), state


def _causal_scan(
    state: State, pieces: Inputs, shared: Inputs, *, features: Features, lead: float
) -> tuple[Tensor, State]:
    """Outputs from a segment and the state before it, and the state after it."""
    (memory, count), (q, k, v, padding_mask, positions, key_mask, key_positions), (decay,) = state, pieces, shared
    numerator, denominator, memory = _read(
        q, k, v, positions, (key_mask, key_positions), memory, decay, features=features, lead=lead
    )
    count = count[:, None] + _ones(k, key_mask).cumsum(1)
    visible = count if decay is None else None
    y = _normalise(numerator, denominator, visible, padding_mask).to(v.dtype)
    return y, (memory, count[:, -1].clone())


def _reverse_states(state: State, pieces: Inputs, shared: Inputs, *, features: Features) -> tuple[Tensor, State]:
    """Decayed state ahead of a segment, as its output, and the state at its first token."""
    (memory,), (k, v, padding_mask, positions), (decay,) = state, pieces, shared
    phi, rotated = features_of(k, padding_mask, positions, features)
    left = decay_factor(decay, torch.arange(k.shape[1] + 1, device=k.device))
    faded = v.to(phi.dtype).transpose(1, 2) * left[:, :-1, None]
    written = rotated.permute(0, 2, 3, 1) @ faded
    count = phi.permute(0, 2, 3, 1) @ left[:, :-1, None]
    after = memory * left[:, -1:, None] + torch.cat([written, count], dim=-1)
    return memory[:, None], (after,)


def _bidirectional_scan(
    state: State, pieces: Inputs, shared: Inputs, *, features: Features, lead: float
) -> tuple[Tensor, State]:
    """Outputs from a segment and the decayed states before and ahead of it."""
    (memory,), (q, k, v, padding_mask, positions, key_mask, key_positions, ahead), (decay,) = state, pieces, shared
    sums = _read(
        q, k, v, positions, (key_mask, key_positions), memory, decay, ahead[:, 0], features=features, lead=lead
    )
    numerator, denominator, memory = sums
    return _normalise(numerator, denominator, None, padding_mask).to(v.dtype), (memory,)


def _read(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    positions: Tensor | None,
    of_keys: Inputs,
    memory: Tensor,
    decay: Tensor | None,
    ahead: Tensor | None = None,
    *,
    features: Features,
    lead: float,
) -> tuple[Tensor, Tensor | None, Tensor]:
    """Numerator, denominator and the state after a segment; signed features have no denominator."""
    signed = features[0] == "signed"
    # Values are narrower than features, and a key without a value writes nothing: but only a key of 0 counts as none.
    by_head = decay is None and positions is None
    phi_q, rotated_q = features_of(q, None, positions, features, by_head)
    phi_k, rotated_k = features_of(k, None if signed else of_keys[0], of_keys[1], features, by_head)
    v = zero_padding(v.to(phi_k.dtype), of_keys[0] if signed else None)
    far, total = (None, None) if ahead is None else (ahead[..., :-1], ahead[..., -1:])
    if rotated_q is phi_q and not signed and decay is None:
        return read_totals(phi_q, phi_k, v, memory)
    if rotated_q is phi_q and not signed:
        sums, memory = read_chunks(phi_q, phi_k, F.pad(v, (0, 1), value=1.0), memory, decay, ahead, lead)
        numerator, denominator = sums.split([v.shape[-1], 1], dim=-1)
        return numerator, denominator, memory
    numerator, sums = read_chunks(rotated_q, rotated_k, v, memory[..., :-1], decay, far, lead)
    if signed:
        return numerator, None, torch.cat([sums, memory[..., -1:]], dim=-1)
    ones = torch.ones_like(v[..., :1])
    denominator, count = read_chunks(phi_q, phi_k, ones, memory[..., -1:], decay, total, lead)
    return numerator, denominator, torch.cat([sums, count], dim=-1)


def _normalise(
    numerator: Tensor, denominator: Tensor | None, count: Tensor | None, padding_mask: Tensor | None
) -> Tensor:
    """Numerator over denominator if there is one, 0 at padding.

    Without a `count` the least denominator is that of one token.
    """
    if denominator is None:
        return zero_padding(numerator, padding_mask)
    least = (
        denominator.new_tensor(EPSILON)
        if count is None
        else EPSILON * count.clamp_min(1)[..., None, None].to(denominator.dtype)
    )
    share = torch.maximum(denominator, least).reciprocal()
    y = numerator * share if torch.is_grad_enabled() else numerator.mul_(share)
    return zero_padding(y, padding_mask)


def features_of(
    x: Tensor, padding_mask: Tensor | None, positions: Tensor | None, features: Features, by_head: bool = False
) -> tuple[Tensor, Tensor]:
    """Features φ(x) in at least float32, 0 at padding, and the same rotated by the positions."""
    phi = feature_map(x.to(torch.promote_types(x.dtype, torch.float32)), features[0], by_head)
    phi = zero_padding(phi, padding_mask)
    return phi, phi if positions is None else rotate(phi, positions, features[1])


def _ones(x: Tensor, padding_mask: Tensor | None) -> Tensor:
    return torch.ones(x.shape[:2], dtype=torch.long, device=x.device) if padding_mask is None else padding_mask.long()


def linear_attention(
    q: Float[Tensor, "batch queries heads dim_head"],
    k: Float[Tensor, "batch keys heads dim_head"],
    v: Float[Tensor, "batch keys heads dim_value"],
    *,
    causal: bool,
    features: str = "elu",
    padding_mask: Bool[Tensor, "batch queries"] | None = None,
    positions: Int[Tensor, "#batch queries"] | None = None,
    decay: Float[Tensor, "heads"] | None = None,
    key_mask: Bool[Tensor, "batch keys"] | None = None,
    key_positions: Int[Tensor, "#batch keys"] | None = None,
    lead: float = 0.0,
    rope: Rope = Rope(),
) -> Float[Tensor, "batch queries heads dim_value"]:
    """Linear attention: y_i = sum_j φ(q_i)·φ(k_j) v_j / sum_j φ(q_i)·φ(k_j), by sums of φ(k) vᵀ and φ(k).

    The sums are at least float32 under any autocast: bfloat16 is too coarse for a million tokens. Padding may hold any
    finite values.

    Args:
        q: Queries.
        k: Keys.
        v: Values.
        causal: Sum over j ≤ i only.
        features: Name of the feature map φ.
        padding_mask: True for real tokens; the output is 0 at padding.
        positions: The features are rotated by them in the numerator only, so that the denominator stays positive.
        decay: Rate of each head: a token at distance d counts exp(-decay d) times, on both sides.
        key_mask: True for the keys to read, if not all real tokens; the output is 0 for a query without any.
        key_positions: Positions of the keys, if they are not those of the queries.
        lead: Tokens that query i stands after key i, above -1; a causal layer needs 0 or more.
        rope: Frequencies of the rotation.
    """
    if not q.numel() or not k.numel():
        return v.new_zeros(*q.shape[:3], v.shape[3])
    state = empty_state(len(q), q.shape[2], feature_dim(q.shape[3], features), v.shape[3], v)
    options = LinearOptions(features, padding_mask, positions, decay, key_mask, key_positions, lead, rope)
    if causal:
        return causal_scan(q, k, v, state, options)[0]
    if decay is not None:
        return bidirectional_scan(q, k, v, state[0], state[0], options)[0]
    if torch.compiler.is_compiling():  # which traces no gradient inside a backward pass
        return query_state(q, accumulate_state(k, v, state, options), options)
    mask, _ = options.of_keys
    keys = torch.full((len(k),), k.shape[1], device=k.device) if mask is None else mask.sum(1)
    plan = Plan(
        partial(features_of, features=(features, rope)),
        options.of_queries,
        options.of_keys,
        features != "signed",
        EPSILON * keys.clamp_min(1),
        _segment(k, options),
    )
    return whole_sums(q, k, v, plan)
