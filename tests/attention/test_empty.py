"""A batch without sequences and sequences without tokens: every layer returns as many outputs and learns from none."""

import pytest
import torch

from genoattn.attention.base import TokenLayout
from tests.attention.test_conformance import DIM, DIRECTIONS, OTHER_SETTINGS, VARIANTS, build


@DIRECTIONS
@pytest.mark.parametrize(("variant", "settings"), [(variant, {}) for variant in VARIANTS] + OTHER_SETTINGS, ids=str)
def test_nothing_in_nothing_out(variant, settings, causal):
    layer = build(variant, **settings)(dim=DIM, causal=causal)
    for batch, length in ((0, 70), (2, 0), (0, 0)):
        x = torch.randn(batch, length, DIM, requires_grad=True)
        segments = torch.arange(length).expand(batch, -1) % 2
        for layout in (TokenLayout(), TokenLayout(torch.ones(batch, length, dtype=torch.bool), segment_ids=segments)):
            y = layer(x, layout)
            y.sum().backward()
            assert y.shape == x.shape
    assert not any(parameter.grad.any() for parameter in layer.parameters() if parameter.grad is not None)
