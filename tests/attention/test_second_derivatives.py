"""A second derivative of what layers are made of is right or is refused; a check does the same for every layer."""

import pytest
import torch
from torch.autograd import gradgradcheck

from genoattn.attention.modules.feature_maps import feature_map
from genoattn.attention.modules.pieces import join, split
from genoattn.attention.modules.rotary import rotate
from genoattn.models.recompute import checkpointed_mlp


def slope_of_gradient(answer, x, direction):
    """The derivative of |gradient of the answers' squares|² along a direction, by autograd and by differences."""

    def penalty(x, create_graph):
        (gradient,) = torch.autograd.grad(answer(x).square().sum(), x, create_graph=create_graph)
        return gradient.square().sum()

    (second,) = torch.autograd.grad(penalty(x, True), x)
    ends = [penalty((x + step * direction).detach().requires_grad_(), False).item() for step in (1e-5, -1e-5)]
    return (second * direction).sum().item(), (ends[0] - ends[1]) / 2e-5


def check(answer, x):
    try:
        by_autograd, by_differences = slope_of_gradient(answer, x, torch.randn_like(x))
    except (NotImplementedError, RuntimeError) as refusal:
        if "derivative" not in str(refusal):
            raise
        return
    assert by_autograd == pytest.approx(by_differences, rel=1e-4)


def test_a_recomputed_mlp():
    torch.manual_seed(0)
    first, last = torch.nn.Linear(4, 8).double(), torch.nn.Linear(8, 4).double()
    x = torch.randn(1, 5, 4, dtype=torch.float64, requires_grad=True)
    check(lambda x: checkpointed_mlp(lambda rows: first(rows).tanh(), last, x, list(first.parameters())), x)


def test_rotations_and_features_have_second_derivatives():
    torch.manual_seed(0)
    x = torch.randn(1, 3, 2, 4, dtype=torch.float64, requires_grad=True)
    assert gradgradcheck(lambda x: rotate(x, torch.arange(3)[None]).pow(3), x)
    assert gradgradcheck(lambda x: feature_map(x, "elu").pow(3), x)


def test_pieces_are_put_together_again_with_all_their_derivatives():
    torch.manual_seed(0)
    x = torch.randn(2, 4, 3, 2, dtype=torch.float64, requires_grad=True)
    pieces = [(slice(None), slice(2)), (slice(0, None, 2), slice(2, None)), (slice(1, None, 2), slice(2, None))]
    assert torch.equal(join(split(x, pieces), pieces, x.shape), x)
    assert not join(split(x, pieces[:1]), pieces[:1], x.shape)[:, :, 2:].any()

    def squares(x):
        return join([part.pow(number) for number, part in enumerate(split(x, pieces), 2)], pieces, x.shape)

    assert torch.autograd.gradcheck(squares, x) and gradgradcheck(squares, x)
