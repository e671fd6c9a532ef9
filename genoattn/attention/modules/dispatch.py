"""The choice between torch's operators and this package's Triton kernels."""

from typing import Literal, final

import torch
from torch import Tensor

from genoattn.attention import kernels
from genoattn.errors import UserError

BACKENDS = ("auto", "torch", "triton")


KERNEL_BLOCKS = (16, 32, 64)


NO_SUCH_BLOCK = f"the kernel knows blocks of {', '.join(map(str, KERNEL_BLOCKS))} tokens"


@final
class Backend:
    """The value of `attention.backend` and its meaning for the tensors of a device.

    Args:
        requested: "auto" (Triton where its kernels run, else torch), "torch" or "triton".
        kernel: Family of kernels that would compute the layer.
        unsupported: Reason why no kernel can compute the layer as it is set; None if one can.

    Raises:
        UserError: The value is unknown, or it is "triton" and the kernels cannot run.
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
        """True if the kernels compute these queries."""
        autocast = q.device.type == "cuda" and torch.is_autocast_enabled("cuda")
        dtype = torch.get_autocast_dtype("cuda") if autocast else q.dtype
        return q.numel() > 0 and self._refusal(q.device, dtype, q.shape[-1]) is None

    def description(self, device: torch.device, dtype: torch.dtype, width: int) -> str:
        """The backend and its reason, for heads of this width: `uses_triton` in words."""
        if self.requested == "torch":
            return "torch"
        if refusal := self._refusal(device, dtype, width):
            return f"torch, which computes the same: {refusal}"
        return "triton, as requested" if self.requested == "triton" else f"triton: {kernels.available(device)[1]}"

    def _refusal(self, device: torch.device, dtype: torch.dtype, width: int) -> str | None:
        """The reason why torch computes heads of this width; None if the kernels do."""
        if self.requested == "torch":
            return "attention.backend=torch"
        if self.unsupported:
            return self.unsupported
        if self.requested == "triton":
            # The memory estimate of a run on a GPU takes its steps on the CPU. Other heads that the kernels do not
            # know are refused by them in words.
            there, why = kernels.available(device)
            return None if there or device.type != "cpu" else why
        return kernels.refusal(self.kernel, device, dtype, width)
