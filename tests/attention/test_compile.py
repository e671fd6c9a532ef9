"""`torch.compile` sees layers as one graph each, without padding; nothing needs it.

They are compiled in a process of their own, because the checks of shapes that tests turn on are not traced.
"""

import subprocess
import sys

PROGRAM = """
import torch
from genoattn.attention.conv import ConvolutionAttention
from genoattn.attention.full import FullAttention
from genoattn.attention.hyena import HyenaAttention
from genoattn.attention.linear import LinearAttention
from genoattn.attention.ops import sizes
from genoattn.attention.ssd import StateSpaceAttention
from genoattn.attention.window import WindowAttention

sizes.BY_DEVICE["cpu"] = sizes.CPU._replace(segment=1)  # 70 tokens are two segments of a scan
BOTH_WAYS = (ConvolutionAttention, FullAttention, LinearAttention, WindowAttention)
for kind in (*BOTH_WAYS, HyenaAttention, StateSpaceAttention):
    for causal in (False, True) if kind in BOTH_WAYS else (True,):
        torch.compiler.reset()
        layer, graphs = kind(8, causal).double(), []
        x = torch.randn(1, 70, 8, requires_grad=True, dtype=torch.float64)

        def backend(graph, inputs):
            graphs.append(graph)
            return graph.forward

        found = torch.compile(layer, backend=backend, fullgraph=True)(x)
        inputs = [x, *layer.parameters()]
        both = [torch.autograd.grad(y.square().sum(), inputs) for y in (found, layer(x))]
        for one, other in zip(*both, strict=True):
            torch.testing.assert_close(one, other)
        print(kind.__name__, causal, len(graphs))
"""

LAYERS = [
    "ConvolutionAttention False 1",
    "ConvolutionAttention True 1",
    "FullAttention False 1",
    "FullAttention True 1",
    "LinearAttention False 1",
    "LinearAttention True 1",
    "WindowAttention False 1",
    "WindowAttention True 1",
    "HyenaAttention True 1",
    "StateSpaceAttention True 1",
]


def test_layers_are_one_graph():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert done.stdout.splitlines() == LAYERS, done.stderr
