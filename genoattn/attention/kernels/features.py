"""Feature maps of linear attention and their rotation, as one torch operator."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from genoattn.attention.kernels import heads, launch
from genoattn.attention.kernels.features_kernels import (
    FeaturesConstants,
    features_backward_kernel,
    features_forward_kernel,
)
from genoattn.errors import UserError

NAMES = ("elu", "relu", "exp")


def features(
    z: Float[Tensor, "batch length heads channels"], name: str, turned: tuple[Tensor, Tensor] | None = None
) -> tuple[
    Float[Tensor, "batch length heads channels"],
    Float[Tensor, "batch length heads channels"],
]:
    """Features φ(z), as `feature_map` makes them channel by channel, and the same rotated.

    Args:
        z: Queries or keys.
        name: "elu" (elu(z) + 1), "relu" (relu(z) + 0.01) or "exp".
        turned: Cosine and sine, as in `turned_heads`. None: the features come twice.

    Raises:
        UserError: Shapes, dtypes, a name or a device that the kernel does not support.
    """
    heads.check(z, turned)
    if name not in NAMES:
        raise UserError(f"features must be one of {', '.join(NAMES)}, got {name}")
    cos, sin = (None, None) if turned is None else turned
    phi, rotated = features_forward(z, cos, sin, name)
    return phi, phi if turned is None else rotated


def _constants(z: Tensor, name: str, cos: Tensor | None) -> dict[str, Any]:
    fixed = FeaturesConstants(*heads.tile(z.shape[-1]), name, cos is not None)
    return {"C": fixed, "num_warps": heads.WARPS, "num_stages": 1}


def forward(z: Tensor, cos: Tensor | None, sin: Tensor | None, name: str) -> tuple[Tensor, Tensor]:
    """Features, and the same rotated (empty without angles), both contiguous."""
    dtype, z = z.dtype, launch.readable(z)
    phi = torch.empty(z.shape, dtype=z.dtype, device=z.device)
    turned = torch.empty(z.shape if cos is not None else (0,), dtype=z.dtype, device=z.device)
    constants = _constants(z, name, cos)
    programs, group, _ = heads.programs_of(z, constants["C"].ROWS)
    cosine, sine, angle_stride = heads.angles(cos, sin, z)
    strides = launch.strides_of(z), launch.strides_of(phi), angle_stride
    arguments = [z, cosine, sine, phi, turned, strides, (z.shape[1], z.shape[2], group)]
    launch.launch(features_forward_kernel, programs, arguments, constants)
    return phi.to(dtype), turned.to(dtype)


features_forward = torch.library.custom_op("genoattn::features_forward", forward, mutates_args=())


@features_forward.register_fake
def _(z: Tensor, cos: Tensor | None, sin: Tensor | None, name: str):
    phi = torch.empty_like(z, memory_format=torch.contiguous_format)
    return phi, z.new_empty(0) if cos is None else torch.empty_like(phi)


def backward(
    dphi: Tensor, dturned: Tensor | None, phi: Tensor, cos: Tensor | None, sin: Tensor | None, name: str
) -> Tensor:
    """Gradient of z, contiguous."""
    dtype, (dphi, phi) = phi.dtype, (launch.readable(t) for t in (dphi, phi))
    dturned = dphi if dturned is None else launch.readable(dturned)
    dz = torch.empty(phi.shape, dtype=phi.dtype, device=phi.device)
    constants = _constants(phi, name, cos)
    programs, group, _ = heads.programs_of(phi, constants["C"].ROWS)
    cosine, sine, angle_stride = heads.angles(cos, sin, phi)
    strides = (*map(launch.strides_of, (dphi, dturned, phi)), angle_stride)
    arguments = [dphi, dturned, phi, cosine, sine, dz, strides, (phi.shape[1], phi.shape[2], group)]
    launch.launch(features_backward_kernel, programs, arguments, constants)
    return dz.to(dtype)


features_backward = torch.library.custom_op("genoattn::features_backward", backward, mutates_args=())


@features_backward.register_fake
def _(dphi: Tensor, dturned: Tensor | None, phi: Tensor, cos: Tensor | None, sin: Tensor | None, name: str):
    return torch.empty_like(phi, memory_format=torch.contiguous_format)


def _save_for_backward(ctx: Any, inputs: tuple, output: tuple[Tensor, Tensor]) -> None:
    _, cos, sin, ctx.name = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(output[0], cos, sin)


def _gradients(ctx: Any, dphi: Tensor | None, dturned: Tensor | None):
    phi, cos, sin = ctx.saved_tensors
    if cos is not None and dturned is None:
        cos = sin = None
    dphi = torch.zeros_like(phi) if dphi is None else dphi
    return features_backward(dphi, dturned if cos is not None else None, phi, cos, sin, ctx.name), None, None, None


features_forward.register_autograd(_gradients, setup_context=_save_for_backward)
