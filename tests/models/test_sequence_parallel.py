"""A whole model whose sequence several processes hold: loss and all gradients are those of one process."""

from functools import partial

import numpy as np
import pytest
import torch

from genoattn.attention.base import TokenLayout
from genoattn.attention.conformance.probes import difference
from genoattn.attention.conv import ConvolutionAttention
from genoattn.attention.delta import DeltaAttention
from genoattn.attention.full import FullAttention
from genoattn.attention.linear import LinearAttention
from genoattn.attention.modules.projections import HeadOptions
from genoattn.attention.parallel.processes import processes
from genoattn.attention.ssd import StateSpaceAttention
from genoattn.attention.window import WindowAttention
from genoattn.data.batch import collate
from genoattn.data.targets import IGNORE_INDEX
from genoattn.models.embedding import alone
from genoattn.models.predictor import predict
from genoattn.models.sequence_model import SequenceModel
from tests.models.model_on_each_process import Step, answers, on_each, on_one
from tests.toy_models import MASKED, NUCLEOTIDE, TASKS, TOKENIZERS, toy_model

HEADS = HeadOptions(count=2, cross_segment=0.5)
LAYERS = [
    partial(WindowAttention, left=5, right=5, heads=HEADS),
    partial(LinearAttention, heads=HEADS, key_dim=8),
    partial(DeltaAttention, heads=HEADS),
    partial(FullAttention, heads=HEADS, registers=2),
    partial(StateSpaceAttention, heads=HEADS, state=4),
    ConvolutionAttention,
]
KMER = {"_target_": f"{TOKENIZERS}.kmer.KmerTokenizer", "k": 3}
MODELS = {
    "one sequence": {"length": 61, "causal": False, "activation_checkpointing": "none"},
    "causal": {"length": 64, "causal": True, "activation_checkpointing": "mlp"},
    "two that take turns": {"length": 58, "interleaved": True, "activation_checkpointing": "block"},
    "two side by side, with sites": {"length": 59, "sites": 2, "activation_checkpointing": "none"},
    "beside a reference": {"length": 63, "max_shift": 3, "activation_checkpointing": "block"},
}


def built(length, interleaved=False, sites=0, max_shift=None, causal=False, **settings):
    torch.manual_seed(0)
    two = interleaved or sites > 0
    words = {"dim": 16, "depth": len(LAYERS), "stem_conv": 5, "block_conv": 3, "sites": sites, "mlp_ratio": 1}
    words |= {"segment_count": 1 + two, "interleaved": interleaved, "causal": causal, "alignment_kernel": 5}
    words |= {"sequence_heads": {"kind": 3} if two else {}}
    model = SequenceModel(5, {"token": 4}, max_shift, LAYERS, **words, **settings).double().train()
    index = torch.arange(length).expand(2, -1)
    halves = index % 2 if interleaved else (index >= length // 3).long()
    mask = torch.rand(2, length) > 0.2 if not interleaved else index < torch.tensor([[length], [length - 9]])
    layout = TokenLayout(mask, index // 2 if interleaved else None, halves if two else None)
    weights = torch.rand(2, sites, length, dtype=torch.float64) if sites else None
    beside = None if max_shift is None else torch.randint(0, 4, (2, length + 2 * max_shift))
    labels = torch.randint(-1, 4, (2, length)).masked_fill(~mask, -1)
    sequences = torch.randint(0, 3, (2,)) if two else None
    return model, Step(torch.randint(0, 4, (2, length)), beside, layout, weights, labels, sequences)


@pytest.mark.parametrize("name", MODELS)
def test_a_step_is_that_of_one_process(name):
    model, step = built(**MODELS[name])
    loss, gradients = on_one(model, step)
    for world in (2, 4):
        for told, found in processes(world).run(on_each, model, step):
            assert torch.allclose(told, loss, rtol=1e-12, atol=0)
            assert found.keys() == gradients.keys()
            assert max(difference(found[key], gradients[key]) for key in gradients) < 1e-12


def test_a_shard_holds_whole_units_of_all_layers():
    model, _ = built(**MODELS["two that take turns"])
    model.blocks[0].attention.shard_multiple = 3
    model.blocks[1].attention.shard_multiple = 4
    assert model.shard_multiple == 12


TASKS_DIVIDED = {
    "masked": (MASKED, NUCLEOTIDE, {"token"}),
    "masked, k-mers": (MASKED, KMER, {"token"}),
    "side by side": ({"_target_": f"{TASKS}.side_by_side.SideBySide", "max_shift": 2}, NUCLEOTIDE, None),
    "paired": ({"_target_": f"{TASKS}.paired.Paired"}, NUCLEOTIDE, set()),
}


@pytest.mark.parametrize("name", TASKS_DIVIDED)
@pytest.mark.parametrize("both_strands", [False, True])
def test_answers_of_a_batch_are_those_of_one_process(name, both_strands):
    task, tokenizer, divided = TASKS_DIVIDED[name]
    predictor = toy_model(task, tokenizer).predictor
    model, outputs, rng = predictor.model.double().eval(), dict(predictor.task.outputs), np.random.default_rng(0)
    examples = [alone(predictor.task, rng.integers(0, 4, length, dtype=np.uint8)) for length in (37, 30)]
    batch = collate(examples, predictor.tokenizer, None, predictor.task.context_format, 0, both_strands)
    with torch.no_grad():
        expected = predict(model, batch, outputs)
    found = processes(2).run(answers, model, batch, outputs)
    parts = [answer for _, answer in found]
    assert parts[0].divided == (set() if both_strands else set(outputs) if divided is None else divided)
    for output in outputs:
        for whole, _ in found:
            assert torch.allclose(whole[output], expected[output], rtol=0, atol=1e-12)
        if output in parts[0].divided:
            logits, labels = (
                torch.cat([getattr(part, key)[output] for part in parts], 1) for key in ("logits", "targets")
            )
            length = expected[output].shape[1]
            assert torch.allclose(logits[:, :length], expected[output], rtol=0, atol=1e-12)
            assert torch.equal(labels[:, :length], batch.targets[output]) and (labels[:, length:] == IGNORE_INDEX).all()
        else:
            assert all(torch.allclose(part.logits[output], expected[output], rtol=0, atol=1e-12) for part in parts)
