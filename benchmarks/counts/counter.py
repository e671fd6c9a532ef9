"""Counts of what runs on a GPU, taken on the `meta` device: launches, waits of the host, bytes and FLOPs.

Every operation of torch that computes counts as one launch. The Triton kernels are not run but recorded: each counts
as one launch, as on an H100. Autocast does not exist on `meta` and is off.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor
from torch._library.custom_ops import OPDEFS
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry
from triton.tools.tensor_descriptor import TensorDescriptor

from genoattn.attention import kernels
from genoattn.attention.kernels import launch
from genoattn.attention.ops import triton as by_triton

META = torch.device("meta")

FAMILY = "sm_90"

ALLOCATIONS = frozenset(
    [
        *("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided"),
        *("detach", "lift_fresh", "_unsafe_view", "alias"),
    ]
)
"""Operations that compute nothing, beside views."""

WAITS = frozenset(
    [
        *("_local_scalar_dense", "nonzero", "equal", "masked_select", "is_nonzero"),
        *("_unique2", "unique_dim", "unique_consecutive"),
    ]
)
"""Operations whose result the host has to wait for."""


@dataclass
class Counts:
    """Sums over the operations of a pass."""

    launches: int = 0
    kernels: int = 0
    """Launches of this package's Triton kernels; they are among `launches`."""
    waits: int = 0
    """Times that the host waits for the device."""
    bytes: int = 0
    """Bytes read and written by all but products of matrices and the Triton kernels."""
    product_bytes: int = 0
    kernel_bytes: int = 0
    """Bytes of the tensors that Triton kernels are given."""
    flops: Counter[str] = field(default_factory=Counter)
    """FLOPs of products of matrices by their dtype."""
    names: Counter[str] = field(default_factory=Counter)
    """Launches by operation."""


class Count(TorchDispatchMode):
    """Count the operations inside on `meta`; those on the CPU are not counted, but for copies from `meta`."""

    def __init__(self) -> None:
        super().__init__()
        self.counts, self.everywhere = Counts(), False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        name, inputs = func.__name__.split(".")[0], [t for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)]
        if func.namespace == "genoattn":
            return self._kernels(func, args, kwargs)
        known = self._waited(name, args, kwargs, inputs)
        result = func(*args, **kwargs) if known is None else known
        outputs = [t for t in tree_leaves(result) if isinstance(t, Tensor)]
        if not self._counted(*inputs, *outputs) or name in ALLOCATIONS or func.is_view:
            return result
        self.counts.launches += 1
        self.counts.names[name] += 1
        moved = sum(map(_bytes, inputs)) + sum(map(_bytes, outputs))
        if func._overloadpacket in flop_registry:
            flops = flop_registry[func._overloadpacket](*args, **kwargs, out_val=result)
            self.counts.flops[str(inputs[0].dtype).removeprefix("torch.")] += flops
            self.counts.product_bytes += moved
        else:
            self.counts.bytes += moved
        return result

    def _waited(self, name: str, args: Any, kwargs: Any, inputs: list[Tensor]) -> Any:
        """Count a wait of the host; a made-up result if the operation has none on `meta`."""
        if not self._counted(*inputs):
            return None
        by_mask = name in ("index", "index_put", "index_put_") and any(
            t is not None and t.dtype == torch.bool for t in args[1]
        )
        to_host = name in ("_to_copy", "copy_") and (
            kwargs.get("device") == torch.device("cpu") or (name == "copy_" and args[0].device.type == "cpu")
        )
        if not (name in WAITS or by_mask or to_host):
            return None
        self.counts.waits += 1
        if inputs[0].device != META:
            return None
        if name == "_local_scalar_dense":
            return False if inputs[0].dtype == torch.bool else 64
        return torch.zeros(inputs[0].shape, dtype=kwargs.get("dtype") or inputs[0].dtype) if to_host else None

    def _counted(self, *tensors: Tensor) -> bool:
        return self.everywhere or any(t.device == META for t in tensors)

    def _kernels(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Record the launches of an operator of this package, and count what torch computes in it."""
        assert launch._recorder is not None
        recorded = launch._recorder.launches
        before = len(recorded)
        with self:
            result = OPDEFS[func._schema.name]._init_fn(*args, **kwargs)
        for one in recorded[before:]:
            self.counts.launches += 1
            self.counts.kernels += 1
            self.counts.names[one.kernel.__name__] += 1
            tensors = (t.base if isinstance(t, TensorDescriptor) else t for t in one.arguments)
            distinct = {id(t): t for t in tensors if isinstance(t, Tensor)}
            self.counts.kernel_bytes += sum(map(_bytes, distinct.values()))
        return result


def _bytes(x: Tensor) -> int:
    """Bytes of the distinct numbers of a tensor."""
    return min(x.numel() * x.element_size(), x.untyped_storage().nbytes())


@contextmanager
def on_meta() -> Iterator[None]:
    """Let layers treat `meta` as a GPU whose Triton kernels are recorded, without autocast."""
    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(kernels, "available", return_value=(True, "counted")))
        stack.enter_context(mock.patch.object(torch, "autocast", return_value=nullcontext()))
        stack.enter_context(mock.patch.object(torch, "is_autocast_enabled", return_value=False))
        stack.enter_context(launch.record_launches(FAMILY))
        if hasattr(by_triton, "_runs"):
            stack.enter_context(mock.patch.object(by_triton, "_runs", partial(_on_cpu, by_triton._runs)))
        yield


def _on_cpu(function: Callable[..., Tensor], *args: Any) -> Tensor:
    """A result whose shape depends on the values, computed on the CPU and counted all the same."""
    mode = _modes[-1]
    mode.everywhere = True
    try:
        return function(*(torch.device("cpu") if value == META else value for value in args)).to(META)
    finally:
        mode.everywhere = False


_modes: list[Count] = []


@contextmanager
def counting() -> Iterator[Counts]:
    """Count what runs inside, which must be within `on_meta`."""
    with Count() as mode:
        _modes.append(mode)
        try:
            yield mode.counts
        finally:
            _modes.pop()
