"""Answers about the other strand, read on this one: base by base, gaps before bases, letters by their complements."""

from functools import partial

import numpy as np
import pytest
import torch
from hydra.utils import instantiate

from genoattn.config.compose import compose
from genoattn.data.batch import collate
from genoattn.data.example import reverse_complement_example
from genoattn.data.tasks.base import MutationDetection, mutation_labels
from genoattn.data.tasks.paired import Paired
from genoattn.data.tasks.side_by_side import SideBySide
from genoattn.data.tokenizers.nucleotide import NucleotideTokenizer
from genoattn.genome.alphabet import COMPLEMENT
from genoattn.genome.mutations import Mutation, apply_mutations
from genoattn.genome.simulate import Rates
from genoattn.models.build import build_model
from genoattn.models.predictor import Predictor, predict, to_forward_strand
from genoattn.models.sequence_model import SequenceModel

TASKS = {"aligned": SideBySide(max_shift=3, shift_weight=0.2), "paired": Paired(mask_fraction=0.2, shift=2)}
TASKS["interleaved"] = Paired("interleaved", mask_fraction=0.2, shift=2)
OUTPUTS = ("substitution", "insertion", "deletion")


def build(task: MutationDetection, attention: str = "window") -> Predictor:
    factory = partial(SequenceModel, dim=16, depth=2, alignment_kernel=5, stem_conv=3, block_conv=3)
    return build_model(
        factory, instantiate(compose("train", [f"attention={attention}"]).attention), task, NucleotideTokenizer(), 0
    )


def drawn(task: MutationDetection, lengths=(30, 17, 24)):
    rng = np.random.default_rng(1)
    rates = Rates(0.1, 1.0, 0.0, 1.0, 1.0)
    made = [task.example(rng.integers(0, 15, task.reference_length(n), dtype=np.uint8), n, rates, rng) for n in lengths]
    return [one._replace(masking=None) for one in made]


@pytest.mark.parametrize("mirror", ["per_base", "between_bases", "complement", "invariant"])
def test_reflecting_twice_changes_nothing(mirror: str):
    answers, lengths = torch.randn(3, 9, 4), torch.tensor([9, 4, 1])
    again = to_forward_strand(to_forward_strand(answers, mirror, lengths), mirror, lengths)
    inside = torch.arange(9) < lengths[:, None]
    assert torch.equal(again[inside], answers[inside])


def test_a_gap_before_a_base_lies_before_another_on_the_other_strand():
    """Bases 3 and 4 of ten are gone: before sample base 3 of eight, which is base 4 read from the other end - and 5."""
    bases = np.array([0, 1, 2, 3, 0, 2, 1, 3, 0, 1], np.uint8)
    forward = mutation_labels(apply_mutations(bases, [Mutation(3, 5, b"")]))["deletion"]
    turned = COMPLEMENT[bases][::-1].copy()
    backward = mutation_labels(apply_mutations(turned, [Mutation(5, 7, b"")]))["deletion"]
    assert forward.tolist() == [0, 0, 0, 1, 0, 0, 0, 0] and backward.tolist() == [0, 0, 0, 0, 0, 1, 0, 0]
    read = to_forward_strand(torch.from_numpy(backward).float()[None, :, None], "between_bases", torch.tensor([8]))
    assert read.flatten().tolist() == forward.tolist()


def test_letters_are_read_as_their_complements():
    one_hot = torch.eye(4)[[0, 1, 2, 3]][None]
    assert to_forward_strand(one_hot, "complement", torch.tensor([4])).argmax(-1).tolist() == [[0, 1, 2, 3]]
    assert to_forward_strand(one_hot[:, :2], "complement", torch.tensor([2])).argmax(-1).tolist() == [[2, 3]]


@pytest.mark.parametrize("attention", ["full", "window", "linear"])
@pytest.mark.parametrize("name", TASKS)
def test_averaged_scores_do_not_depend_on_the_strand(name: str, attention: str):
    task = TASKS[name]
    made, examples = build(task, attention), drawn(task)
    here = list(made.probabilities_per_base(examples, OUTPUTS, both_strands=True))
    there = list(
        made.probabilities_per_base([reverse_complement_example(one) for one in examples], OUTPUTS, both_strands=True)
    )
    alone = list(made.probabilities_per_base(examples, OUTPUTS))
    for one, other, single in zip(here, there, alone, strict=True):
        turned = to_forward_strand(torch.from_numpy(other)[None], "per_base", torch.tensor([len(other)]))[0].numpy()
        gaps = to_forward_strand(torch.from_numpy(other)[None], "between_bases", torch.tensor([len(other)]))[0].numpy()
        np.testing.assert_allclose(one[:, :2], turned[:, :2], atol=1e-6)
        np.testing.assert_allclose(one[:, 2], gaps[:, 2], atol=1e-6)
        assert np.abs(one - single).max() > 1e-4  # one strand alone says something else


@pytest.mark.parametrize("name", ["paired", "interleaved"])
def test_the_equivariant_wrapper_is_equivariant_in_its_gradients_too(name: str):
    """Both strands go through the same weights: turned windows with turned targets pull the weights the same way."""
    task = TASKS[name]
    made, examples = build(task), drawn(task)
    pulls = []
    for shown in (examples, [reverse_complement_example(one) for one in examples]):
        batch = collate(shown, NucleotideTokenizer(), context_format=task.context_format, both_strands=True)
        made.model.zero_grad()
        answers = predict(made.model, batch, task.outputs)
        asked = batch.base_to_answer >= 0  # type: ignore[operator]
        torch.stack([answers[name][asked].square().sum() for name in (*OUTPUTS, "restore")]).sum().backward()
        pulls.append([one.grad.clone() for one in made.model.parameters() if one.grad is not None])
    assert len(pulls[0]) > 10
    for one, other in zip(*pulls, strict=True):
        torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)


def test_without_attention_an_interleaved_sample_is_read_alone():
    task = Paired("interleaved")
    made, examples = build(task, "none"), drawn(task)
    others = [one._replace(reference=one.bases[::-1].copy()) for one in examples]
    for one, other in zip(*(made.probabilities_per_base(shown, OUTPUTS) for shown in (examples, others)), strict=True):
        assert np.array_equal(one, other)
    seen = build(task).probabilities_per_base(others, OUTPUTS)
    for one, other in zip(build(task).probabilities_per_base(examples, OUTPUTS), seen, strict=True):
        assert np.abs(one - other).max() > 1e-4


def test_the_other_strand_of_the_other_strand():
    (example, *_) = drawn(TASKS["paired"])
    example = example._replace(allele_spans=((2, 5), (0, 1)))
    again = reverse_complement_example(reverse_complement_example(example))
    assert example.reference is not None and again.reference is not None
    assert again.bases.tolist() == example.bases.tolist() and again.reference.tolist() == example.reference.tolist()
    assert again.allele_spans == example.allele_spans
