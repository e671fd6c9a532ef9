"""Kernels of the feature maps of linear attention and of their rotation, forward and backward.

Programs and halves are those of `heads_kernels`. Legend: z, phi, turned and their gradients [batch, length, heads,
WIDTH], all but z and the gradients contiguous; `strides` of these, then of the angles (batch).
"""

# pyright takes a kernel for plain Python, and does not know that a tl.constexpr has the attributes of its value.
# pyright: reportGeneralTypeIssues=false, reportAttributeAccessIssue=false

from typing import NamedTuple

import triton
import triton.language as tl

from genoattn.attention.kernels.heads_kernels import halves, load_angles, load_halves, place, store_halves


class FeaturesConstants(NamedTuple):
    """Compile-time constants, as in `HeadsConstants`; NAME is "elu", "relu" or "exp"."""

    ROWS: int
    WIDTH: int
    HALF: int
    DIM: int
    NAME: str
    TURNED: bool


@triton.jit
def feature(z, C: tl.constexpr):
    """φ(z)."""
    if C.NAME == "elu":
        phi = tl.where(z > 0, z + 1, tl.exp(tl.minimum(z, 0.0)))
    elif C.NAME == "relu":
        phi = tl.maximum(z, 0.0) + 0.01
    else:
        phi = tl.exp(z)
    return phi


@triton.jit
def slope(phi, source, C: tl.constexpr):
    """Derivative of φ from its value, which was rounded to the dtype of `source`."""
    if C.NAME == "elu":
        by = tl.minimum(phi, 1.0)
    elif C.NAME == "relu":
        by = tl.where(phi > tl.full([1, 1], 0.01, tl.float32).to(source.dtype.element_ty).to(tl.float32), 1.0, 0.0)
    else:
        by = phi
    return by


@triton.jit
def features_forward_kernel(z, cosine, sine, phi, turned, strides, sizes, C: tl.constexpr):
    """phi, and with TURNED the same turned."""
    of_z, of_phi, of_angles = strides
    length = sizes[0]
    batch, first, head, stop, _ = place(sizes, C)
    if C.TURNED:
        cos, sin = load_angles(cosine, sine, batch, first, of_angles, length, C)
    while head < stop:
        one, other = load_halves(z, halves(batch, first, head, of_z, length, C), C)
        one, other, at = feature(one, C), feature(other, C), halves(batch, first, head, of_phi, length, C)
        store_halves(phi, one, other, at, C)
        if C.TURNED:
            store_halves(turned, one * cos - other * sin, one * sin + other * cos, at, C)
        head += 1


@triton.jit
def features_backward_kernel(dphi, dturned, phi, cosine, sine, dz, strides, sizes, C: tl.constexpr):
    """dz from the gradients of phi and of the turned features."""
    of_dphi, of_dturned, of_phi, of_angles = strides
    length = sizes[0]
    batch, first, head, stop, _ = place(sizes, C)
    if C.TURNED:
        cos, sin = load_angles(cosine, sine, batch, first, of_angles, length, C)
    while head < stop:
        at = halves(batch, first, head, of_phi, length, C)
        one, other = load_halves(dphi, halves(batch, first, head, of_dphi, length, C), C)
        if C.TURNED:
            by_one, by_other = load_halves(dturned, halves(batch, first, head, of_dturned, length, C), C)
            one += by_one * cos + by_other * sin
            other += by_other * cos - by_one * sin
        phi_one, phi_other = load_halves(phi, at, C)
        store_halves(dz, one * slope(phi_one, phi, C), other * slope(phi_other, phi, C), at, C)
        head += 1
