"""The choice of Triton's kernel for the norm and the rotation of queries and keys."""

from torch import Tensor

from genoattn.attention import kernels


def fuses(x: Tensor) -> bool:
    """True if one kernel norms and rotates these heads: on a GPU it does, whatever then computes attention."""
    if x.device.type == "cpu" or not x.numel():
        return False
    return kernels.refusal("heads", x.device, x.dtype, x.shape[-1]) is None
