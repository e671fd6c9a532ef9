"""The gated delta rule: a memory that fades, and in which each token replaces what its key held."""

from collections.abc import Callable
from typing import final

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from genoattn.attention.base import Attention, Layout, blank
from genoattn.attention.heads import Heads

CHUNK = 64
SEGMENT = 4096  # tokens whose squares stand in memory together
FRESH = 4.0  # the bias of what is kept from token to token, at first sigmoid(4) = 0.98


def delta_rule(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    write: Float[Tensor, "batch length heads"],
    log_kept: Float[Tensor, "batch length heads"],
    own: bool = True,
) -> Float[Tensor, "batch length heads dim_head"]:
    """y_t = S_tᵀ q_t of S_t = a_t (I - b_t k_t k_tᵀ) S_{t-1} + b_t k_t v_tᵀ, or S_{t-1}ᵀ q_t without its `own`.

    b is `write`, a the exponential of `log_kept`, and k has length 1. What the tokens of a chunk write depends on one
    another through a triangular system, solved for many chunks at once; the memory is carried from chunk to chunk.
    """
    state = q.new_zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3])
    answers = []
    for pieces in zip(*(t.split(SEGMENT, dim=1) for t in (q, k, v, write, log_kept)), strict=True):
        y, state = _segment(*pieces, state=state, own=own)
        answers.append(y)
    return torch.cat(answers, dim=1)


def _segment(
    q: Tensor, k: Tensor, v: Tensor, write: Tensor, log_kept: Tensor, *, state: Tensor, own: bool
) -> tuple[Tensor, Tensor]:
    """The answers of a segment after a memory [batch, heads, dim_head, dim_head], and the memory after it."""
    length = q.shape[1]
    tail = -length % CHUNK
    q, k, v = (F.pad(t, (0, 0, 0, 0, 0, tail)).unflatten(1, (-1, CHUNK)).transpose(2, 3) for t in (q, k, v))
    b, log_a = (F.pad(t, (0, 0, 0, tail)).unflatten(1, (-1, CHUNK)).transpose(2, 3) for t in (write, log_kept))
    faded = log_a.cumsum(-1)
    # Differences of logarithms before the exponential, and only of later tokens less earlier ones: never above 1.
    between = (faded[..., :, None] - faded[..., None, :]).clamp_max(0).exp()
    system = ((k @ k.transpose(-1, -2)) * between * b[..., None]).tril(-1)
    system = system + torch.eye(CHUNK, dtype=q.dtype, device=q.device)
    wanted = torch.cat([v, k * faded.exp()[..., None]], dim=-1) * b[..., None]
    solved = torch.linalg.solve_triangular(system, wanted, upper=False, unitriangular=True)
    fresh, against = solved.split(v.shape[-1], dim=-1)
    read = faded if own else faded - log_a
    seen = (q @ k.transpose(-1, -2)) * (read[..., :, None] - faded[..., None, :]).clamp_max(0).exp()
    seen = seen.tril(0 if own else -1)
    q = q * read.exp()[..., None]
    last = faded[..., -1:]
    k = k * (last - faded).exp()[..., None]
    answers = []
    for at in range(q.shape[1]):
        written = fresh[:, at] - against[:, at] @ state
        answers.append(q[:, at] @ state + seen[:, at] @ written)
        state = state * last[:, at, :, :, None].exp() + k[:, at].transpose(-1, -2) @ written
    return torch.stack(answers, dim=1).transpose(2, 3).flatten(1, 2)[:, :length], state


def naive_delta_rule(
    q: Float[Tensor, "batch length heads dim_head"],
    k: Float[Tensor, "batch length heads dim_head"],
    v: Float[Tensor, "batch length heads dim_head"],
    write: Float[Tensor, "batch length heads"],
    log_kept: Float[Tensor, "batch length heads"],
    own: bool = True,
) -> Float[Tensor, "batch length heads dim_head"]:
    """The same answer, token by token."""
    state = q.new_zeros(q.shape[0], q.shape[2], q.shape[3], v.shape[3])
    answers = []
    for at in range(q.shape[1]):
        before = state
        kept = state * log_kept[:, at, :, None, None].exp()
        held = torch.einsum("bhmd,bhm->bhd", kept, k[:, at])
        change = (v[:, at] - held) * write[:, at, :, None]
        state = kept + torch.einsum("bhm,bhd->bhmd", k[:, at], change)
        answers.append(torch.einsum("bhmd,bhm->bhd", state if own else before, q[:, at]))
    return torch.stack(answers, dim=1)


@final
class DeltaAttention(Attention):
    """Each token reads a memory that all before it wrote; looking both ways, also one that all after it wrote.

    The token's own writing is read once, in the pass from the left.
    """

    cost = "linear"

    def __init__(self, dim: int, causal: bool, heads: int = 4):
        super().__init__()
        self.heads = Heads(dim, heads, qk_norm=False)
        self.write = nn.Linear(dim, heads)
        self.kept = nn.Linear(dim, heads)
        nn.init.constant_(self.kept.bias, FRESH)
        self.causal = causal
        self.averages = False
        self.sided = "a token's own writing is read in the pass from the left alone"

    def forward(
        self, x: Float[Tensor, "batch length dim"], layout: Layout = Layout()
    ) -> Float[Tensor, "batch length dim"]:
        q, k, v, write, log_kept = self._split(x, layout)
        with torch.autocast(x.device.type, enabled=False):
            wide = torch.promote_types(v.dtype, torch.float32)
            y = self._passes(delta_rule, *(t.to(wide) for t in (q, k, v, write, log_kept)))
        return self.heads.merge(blank(y, layout.keep).to(v.dtype))

    def naive(
        self, x: Float[Tensor, "batch length dim"], layout: Layout = Layout()
    ) -> Float[Tensor, "batch length dim"]:
        y = self._passes(naive_delta_rule, *self._split(x, layout))
        return self.heads.merge(blank(y, layout.keep))

    def _passes(
        self, rule: Callable[..., Tensor], q: Tensor, k: Tensor, v: Tensor, write: Tensor, log_kept: Tensor
    ) -> Tensor:
        """From the left and, looking both ways, from the right without a token's own."""
        y = rule(q, k, v, write, log_kept)
        if self.causal:
            return y
        turned = (t.flip(1) for t in (q, k, v, write, log_kept))
        return y + rule(*turned, own=False).flip(1)

    def _split(self, x: Tensor, layout: Layout) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        x = blank(x, layout.keep)
        q, k, v = self.heads.split(x)
        # Padding writes nothing, and nothing fades there. (eps keeps the gradient of a key of zeros finite.)
        write = blank(self.write(x).sigmoid(), layout.keep)
        log_kept = blank(F.logsigmoid(self.kept(x)), layout.keep)
        return F.normalize(q, dim=-1, eps=1e-6), F.normalize(k, dim=-1, eps=1e-6), v, write, log_kept

    def flops(self, length: int) -> int:
        """Projections and the products of every chunk; its triangular system, CHUNK / 2 of them a number, is apart."""
        heads, width = self.heads.count, self.heads.dim_head
        padded = -(-length // CHUNK) * CHUNK
        gates = 4 * length * heads * width * heads
        inside = 2 * padded * heads * (3 * CHUNK * width + 3 * width * width)
        return self.heads.flops(length) + gates + inside * (1 if self.causal else 2)

    def state_bytes(self, length: int) -> int:
        """The memory; the same at any length."""
        return 4 * self.heads.count * self.heads.dim_head**2
