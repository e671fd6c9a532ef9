"""Layers brought to equal parameters and FLOPs: counts held to torch's own, and what cannot be matched is refused."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf
from torch.utils.flop_counter import FlopCounterMode

from genoattn.cli.values import model_of
from genoattn.config.compose import check, compose
from genoattn.errors import UserError
from genoattn.models.cost import model_flops
from genoattn.models.sequence_model import SequenceModel
from genoattn.models.size_matching import match_size

LAYERS = ("full", "window", "linear", "sparse", "hierarchical", "based", "none", "conv")
TOKENS = 513
REACH = 5


@cache
def config(layer: str, *words: str) -> DictConfig:
    return compose("train", ["task=paired", f"attention={layer}", *words])


def built(made: DictConfig, overrides: Sequence[str] = ()) -> SequenceModel:
    made = OmegaConf.merge(made, OmegaConf.from_dotlist(list(overrides)))  # type: ignore[assignment]
    return model_of(made, "attention", instantiate(made.task), instantiate(made.tokenizer)).model


def models(layers: Sequence[str], *words: str) -> dict[str, SequenceModel]:
    return {layer: built(config(layer, *words)) for layer in layers}


def parameters(model: SequenceModel) -> int:
    return sum(one.numel() for one in model.parameters())


def _sdpa(query, key, value, *_, out_shape=None, **__):
    """Two products for each query and key: torch's counter lacks the CPU kernel of its fused attention."""
    batch, heads, queries, width = query
    return 2 * batch * heads * queries * key[2] * (width + value[3])


def counted(model: SequenceModel, tokens: int) -> int:
    """FLOPs that torch counts in one forward pass."""
    ids = torch.randint(4, (1, tokens))
    wide = None if model.alignment_stem is None else torch.randint(4, (1, tokens + 2 * model.alignment_stem.max_shift))
    sites = torch.full((1, model.sites, tokens), 1 / tokens) if model.sites else None
    kernels: dict[Any, Any] = {torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _sdpa}
    with torch.no_grad(), FlopCounterMode(display=False, custom_mapping=kernels) as counter:
        model(ids, wide, pooling_weights=sites)
    return counter.get_total_flops()


@pytest.mark.parametrize(
    ("settings", "tokens"),
    [
        ({}, 50),
        ({"block_conv": 5, "stem_conv": 7, "depth": 3, "mlp_ratio": 2.5}, 50),
        ({"max_shift": REACH, "alignment_filters": 4, "alignment_kernel": 9}, 150),
        ({"max_shift": REACH, "alignment_filters": 0}, 50),
        ({"token_heads": {}, "sequence_heads": {"class": 3}, "sites": 2, "segment_count": 2}, 50),
    ],
    ids=["plain", "convolutions", "stem", "bare matches", "verdict"],
)
def test_flops_outside_attention_are_those_that_torch_counts(settings: dict[str, Any], tokens: int):
    layer = instantiate(config("none").attention)
    settings = {"vocabulary_size": 7, "token_heads": {"a": 2, "b": 3}, "max_shift": None, "dim": 16} | settings
    model = SequenceModel(attention=layer, **settings)
    assert model_flops(model, tokens) == counted(model, tokens)


@pytest.mark.parametrize("layer", LAYERS)
def test_flops_of_a_model_are_those_that_torch_counts(layer: str):
    model = built(config(layer))
    assert model_flops(model, TOKENS) == pytest.approx(counted(model, TOKENS), rel=0.02)


def test_parameters_are_matched():
    """The control, which has fewest in its layer, is brought up, and all others down to it where it stands first."""
    for order in (LAYERS, LAYERS[::-1]):
        unmatched = models(order)
        matches = match_size(unmatched, "parameters", TOKENS)
        assert list(matches) == list(order) and matches[order[0]].overrides == []
        target = parameters(unmatched[order[0]])
        for layer, match in matches.items():
            count = parameters(built(config(layer), match.overrides))
            assert (count, target) == (match.count, match.target) and match.relative_error == count / target - 1
            assert abs(count - target) <= 2 * 129 / 2  # half of a channel in each of the two MLPs of dim 64
    assert abs(parameters(built(config("none"))) / parameters(built(config("full"))) - 1) > 0.1  # they differ unmatched


def test_flops_are_matched():
    matches = match_size(models(LAYERS), "flops", TOKENS)
    target = counted(built(config("full")), TOKENS)
    assert matches["full"].overrides == [] and abs(counted(built(config("none")), TOKENS) / target - 1) > 0.3
    for layer, match in matches.items():
        model = built(config(layer), match.overrides)
        assert model_flops(model, TOKENS) == match.count and abs(match.relative_error) < 0.005
        assert counted(model, TOKENS) == pytest.approx(target, rel=0.05)


def test_overrides_are_what_a_user_may_write():
    """At a width that is no power of two, where most numbers of channels are no short fraction of it."""
    words = ("model.dim=48", "model.depth=3")
    match = match_size(models(("full", "none"), *words), "parameters", TOKENS)["none"]
    written = config("none", *words, *match.overrides)
    check(written, "train")
    assert parameters(built(written)) == match.count and abs(match.relative_error) < 0.002


def test_what_cannot_be_matched_is_refused():
    linear_first = models(("linear", "full"))
    with pytest.raises(
        UserError, match=r"^full cannot be matched to the FLOPs of a context \(\S+\) of linear: .*"
    ) as no:
        match_size(linear_first, "flops", 2048)
    assert "with model.mlp_ratio=0.015625, is " in str(no.value) and str(no.value).endswith("; name full first")
    assert match_size(dict(reversed(linear_first.items())), "flops", 2048)["linear"].overrides


def test_a_seeded_model_leaves_the_global_generator_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    first, second = built(config("full")), built(config("full"))
    assert torch.rand(3).equal(expected)
    assert all(map(torch.equal, first.parameters(), second.parameters()))
