"""`torch.compile` sees layers as one graph each, without padding.

They are compiled in a process of their own, because the checks of shapes that tests turn on are not traced.
"""

import subprocess
import sys

PROGRAM = """
import torch
from genoattn.attention.hyena import HyenaAttention
from genoattn.attention.ssd import StateSpaceAttention

for layer in (HyenaAttention(8, True), StateSpaceAttention(8, True)):
    graphs, x = [], torch.randn(1, 70, 8, requires_grad=True)

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    found = torch.compile(layer, backend=backend, fullgraph=True)(x)
    inputs = [x, *layer.parameters()]
    both = [torch.autograd.grad(y.square().sum(), inputs) for y in (found, layer(x))]
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other)
    print(type(layer).__name__, len(graphs))
"""


def test_layers_are_one_graph():
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["HyenaAttention", "1", "StateSpaceAttention", "1"], done.stderr
