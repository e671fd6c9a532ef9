"""The choice between torch's operators and this package's Triton kernels."""

from importlib.util import find_spec
from inspect import signature
from typing import Literal, final

import torch
from torch import Tensor

from genoattn.attention import kernels
from genoattn.errors import UserError

BACKENDS = ("auto", "torch", "triton", "flex", "varlen")


KERNEL_BLOCKS = (16, 32, 64)


NO_SUCH_BLOCK = f"the kernel knows blocks of {', '.join(map(str, KERNEL_BLOCKS))} tokens"


@final
class Backend:
    """The value of `attention.backend` and its meaning for the tensors of a device.

    Args:
        requested: "auto" (Triton where its kernels run, else torch), "torch", "triton", "flex" (FlexAttention) or
            "varlen" (torch's `varlen_attn`).
        kernel: Family of kernels that would compute the layer.
        unsupported: Reason why no kernel can compute the layer as it is set; None if one can.
        flex: True if FlexAttention can compute the layer.
        varlen: True if `varlen_attn` can compute the layer.

    Raises:
        UserError: The value is unknown, or it is "triton", "flex" or "varlen" and these kernels cannot run.
    """

    def __init__(
        self,
        requested: str,
        kernel: Literal["flash", "linear", "delta", "blocks"],
        unsupported: str | None = None,
        flex: bool = False,
        varlen: bool = False,
    ):
        if requested not in BACKENDS:
            raise UserError(f"attention.backend must be one of {', '.join(BACKENDS)}, got {requested}")
        self.requested, self.kernel, self.unsupported, self.flex = requested, kernel, unsupported, flex
        if requested == "flex" and not (flex and torch.cuda.is_available()):
            reason = "FlexAttention needs a GPU to train and there is none" if flex else "attention=window has it alone"
            raise UserError(f"attention.backend=flex: {reason}; auto takes another")
        if requested == "varlen" and (reason := self._no_varlen(varlen)):
            raise UserError(f"attention.backend=varlen: {reason}; auto takes another")
        if requested == "triton":
            there, why = kernels.available(torch.device("cuda" if torch.cuda.is_available() else "cpu"))
            reason = unsupported or (None if there else why)
            if reason:
                raise UserError(f"attention.backend=triton: {reason}; auto takes torch's operators there")

    def uses_triton(self, q: Tensor) -> bool:
        """True if the kernels compute these queries."""
        return q.numel() > 0 and self._refusal(q.device, self._computed(q), q.shape[-1]) is None

    def uses_flex(self, q: Tensor) -> bool:
        """True if FlexAttention computes these queries; the memory estimate of a run takes its steps on the CPU."""
        return self.requested == "flex" and q.device.type == "cuda" and q.numel() > 0

    def uses_varlen(self, q: Tensor) -> bool:
        """True if `varlen_attn` computes these queries; the memory estimate of a run takes its steps on the CPU."""
        there = self.requested == "varlen" and q.device.type == "cuda" and q.numel() > 0
        return there and self._varlen_refusal(self._computed(q), q.shape[-1]) is None

    def description(self, device: torch.device, dtype: torch.dtype, width: int) -> str:
        """The backend and its reason, for heads of this width: `uses_triton` in words."""
        if self.requested == "torch":
            return "torch"
        if self.requested == "flex" and device.type == "cuda":
            return "flex, as requested"
        if self.requested == "varlen" and device.type == "cuda":
            refusal = self._varlen_refusal(dtype, width)
            return f"torch, which computes the same: {refusal}" if refusal else "varlen, as requested"
        if refusal := self._refusal(device, dtype, width):
            slow = "; it is slow on a GPU, and attention.backend=flex may be faster"
            return f"torch, which computes the same: {refusal}" + (slow if self.flex and device.type == "cuda" else "")
        return "triton, as requested" if self.requested == "triton" else f"triton: {kernels.available(device)[1]}"

    def _refusal(self, device: torch.device, dtype: torch.dtype, width: int) -> str | None:
        """The reason why torch computes heads of this width; None if the kernels do."""
        if self.requested in ("torch", "flex", "varlen"):
            return f"attention.backend={self.requested}"
        if self.unsupported:
            return self.unsupported
        if self.requested == "triton":
            # The memory estimate of a run on a GPU takes its steps on the CPU. Other heads that the kernels do not
            # know are refused by them in words.
            there, why = kernels.available(device)
            return None if there or device.type != "cpu" else why
        return kernels.refusal(self.kernel, device, dtype, width)

    @staticmethod
    def _computed(q: Tensor) -> torch.dtype:
        """The dtype in which these queries are computed."""
        autocast = q.device.type == "cuda" and torch.is_autocast_enabled("cuda")
        return torch.get_autocast_dtype("cuda") if autocast else q.dtype

    @staticmethod
    def _no_varlen(knows: bool) -> str | None:
        """The reason why `varlen_attn` cannot compute a layer here; None if it can."""
        if not knows:
            return "attention=full without a sink and registers has it alone"
        if not torch.cuda.is_available():
            return "varlen_attn needs a GPU and there is none"
        if find_spec("torch.nn.attention.varlen") is None:
            return f"torch {torch.__version__} has no varlen_attn"
        from torch.nn.attention.varlen import varlen_attn

        return None if "enable_gqa" in signature(varlen_attn).parameters else "it needs torch 2.12 or newer"

    @staticmethod
    def _varlen_refusal(dtype: torch.dtype, width: int) -> str | None:
        """The reason why `varlen_attn` does not know heads of this width; None if it does."""
        if dtype in (torch.float16, torch.bfloat16) and width <= 256 and width % 8 == 0:
            return None
        return (
            "varlen_attn knows float16 and bfloat16, and heads of a multiple of 8 channels up to 256, not "
            f"{width} in {str(dtype).removeprefix('torch.')}"
        )


def linear_engine(requested: str, *widths: int) -> Backend:
    """The choice for a layer whose kernels are those of linear attention, with heads of these widths."""
    fits = max(widths) <= kernels.WIDEST["linear"]
    return Backend(requested, "linear", None if fits else f"the kernel knows no heads of {max(widths)} features")
