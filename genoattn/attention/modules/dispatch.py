"""Which code computes a layer: torch's operators, or this package's Triton kernels where they run."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Literal, final

import torch
from torch import Tensor

from genoattn.attention import kernels
from genoattn.errors import UserError

BACKENDS = ("auto", "torch", "triton")


KERNEL_BLOCKS = (16, 32, 64)


NO_SUCH_BLOCK = f"the kernel knows blocks of {', '.join(map(str, KERNEL_BLOCKS))} tokens"


_TORCH_ONLY = ContextVar("torch_only", default=False)


@contextmanager
def torch_backend() -> Iterator[None]:
    """Within it every layer computes with torch's operators, also under attention.backend=triton and on the CPU."""
    token = _TORCH_ONLY.set(True)
    try:
        yield
    finally:
        _TORCH_ONLY.reset(token)


@final
class Backend:
    """What was asked for by `attention.backend`, and what it comes to on a device.

    `kernel` says which family of kernels would compute the layer; `lacks`, why they cannot serve it as it is set.
    """

    def __init__(self, requested: str, kernel: Literal["flash", "linear", "blocks"], unsupported: str | None = None):
        if requested not in BACKENDS:
            raise UserError(f"attention.backend must be one of {', '.join(BACKENDS)}, got {requested}")
        self.requested, self.kernel, self.unsupported = requested, kernel, unsupported
        if requested == "triton":
            there, why = kernels.available(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
            reason = unsupported or (None if there else why)
            if reason:
                raise UserError(f"attention.backend=triton: {reason}; auto takes torch's operators there")

    def uses_triton(self, q: Tensor) -> bool:
        """Asked for, or nothing against it; what is asked for and cannot be had says why when it is tried."""
        if _TORCH_ONLY.get():
            return False
        if self.requested != "auto" or self.unsupported:
            return self.requested == "triton"
        return kernels.refusal(self.kernel, q.device, q.dtype, q.shape[-1]) is None

    def description(self, device: torch.device) -> str:
        """What computes the layer on a device, and why."""
        if self.requested != "auto":
            return f"{self.requested}, as asked"
        there, why = (False, self.unsupported) if self.unsupported else kernels.available(device)
        return f"triton: {why}" if there else f"torch, which computes the same: {why}"
