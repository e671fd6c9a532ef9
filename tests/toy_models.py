"""Small untrained models of any task, in memory or saved, for tests of what is done with a trained one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from genoattn.models.build import LoadedModel, build_from_card
from genoattn.models.card import ModelCard
from genoattn.models.checkpoint import save_model
from genoattn.models.nodes import complete_node

TASKS, TOKENIZERS = "genoattn.data.tasks", "genoattn.data.tokenizers"
CAUSAL = {"_target_": f"{TASKS}.language_modeling.LanguageModeling", "objective": "causal"}
MASKED = {"_target_": f"{TASKS}.language_modeling.LanguageModeling"}
VARIANTS = {
    "_target_": f"{TASKS}.variant_classification.VariantClassification",
    "file": "a.vcf",
    "classes": {"benign": ["B"], "not benign": ["P"]},
}
NUCLEOTIDE = {"_target_": f"{TOKENIZERS}.nucleotide.NucleotideTokenizer"}
SHARES = (0.1, 0.2, 0.3, 0.4)
"""Probabilities of A, C, G and T under `memoryless`."""


def toy_card(
    task: Mapping[str, Any], tokenizer: Mapping[str, Any] = NUCLEOTIDE, length: int = 32, layer: str = "linear"
) -> ModelCard:
    """The card of a small model."""
    name = {"ssd": "StateSpace", "conv": "Convolution"}.get(layer, layer.capitalize())
    attention = {"_target_": f"genoattn.attention.{layer}.{name}Attention", "_partial_": True}
    model = {"_target_": "genoattn.models.sequence_model.SequenceModel", "_partial_": True, "dim": 16, "depth": 2}
    model |= {"stem_conv": 3, "block_conv": 3, "causal": task.get("objective") == "causal"}
    nodes = {"task": task, "tokenizer": tokenizer, "model": model, "attention": attention}
    return ModelCard(
        name=layer,
        **{name: complete_node(dict(node)) for name, node in nodes.items()},
        reverse_complement="none",
        length=length,
        split="block",
        min_length=None,
        seed=1,
        genome=("aa",),
    )


def toy_model(*args: Any, **settings: Any) -> LoadedModel:
    """A small model; the arguments are those of `toy_card`."""
    card = toy_card(*args, **settings)
    return LoadedModel(card, build_from_card(card, seed=0), Path())


def memoryless(loaded: LoadedModel) -> LoadedModel:
    """The same language model, but its bases have the probabilities `SHARES` whatever came before."""
    head = loaded.predictor.model.token_head
    assert isinstance(head, nn.Linear)
    with torch.no_grad():
        head.weight.zero_()
        head.bias.fill_(-1e4)
        head.bias[:4] = torch.tensor(SHARES).log()
    return loaded


def saved(folder: Path, loaded: LoadedModel) -> Path:
    """Save a model; returns its folder."""
    save_model(folder, loaded.predictor.model, loaded.card)
    return folder
