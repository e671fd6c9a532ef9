"""The hook of the tests checks shapes: without it every shape in a signature would be a comment."""

import pytest
import torch
from jaxtyping import TypeCheckError

from genoattn.attention.full import FullAttention


@pytest.mark.parametrize("x", [torch.zeros(5, 16), torch.zeros(1, 5, 16, dtype=torch.int64)], ids=["shape", "dtype"])
def test_a_wrong_argument_is_refused(x: torch.Tensor) -> None:
    layer = FullAttention(dim=16, causal=False)
    assert layer(torch.zeros(1, 5, 16)).shape == (1, 5, 16)
    with pytest.raises(TypeCheckError):
        layer(x)
