"""The task conditional: labels by hand, what a prediction may read, and strains of training."""

from pathlib import Path

import numpy as np
import pytest
import torch

from genoattn.data.batch import collate
from genoattn.data.curriculum import Curriculum, CurriculumStage
from genoattn.data.example import MASK
from genoattn.data.settings import DataSettings
from genoattn.data.source import build_dataset, open_data_source
from genoattn.data.targets import IGNORE_INDEX
from genoattn.data.tasks.conditional import Conditional
from genoattn.data.tasks.language_modeling import LanguageModeling
from genoattn.data.tokenizers.nucleotide import NucleotideTokenizer
from genoattn.errors import UserError
from genoattn.genome.mutations import Mutation
from genoattn.genome.simulate import Rates
from genoattn.genome.strains import simulated_block
from genoattn.models.predictor import predict
from tests.toy_genomes import write_genome
from tests.toy_models import toy_model

RATES = Rates(rate=0.02, snv=0.6, insertion=0.2, deletion=0.2)
NODE = {"_target_": "genoattn.data.tasks.conditional.Conditional"}


def example(task: Conditional, length: int = 200, rates: Rates = RATES):
    rng = np.random.default_rng(0)
    return task.example(rng.integers(0, 4, task.reference_length(length), np.uint8), length, rates, rng)


def test_without_mutations_the_relative_runs_ahead_by_the_lead() -> None:
    made = example(Conditional(lead=5), rates=Rates(rate=0))
    assert made.reference is not None and len(made.reference) == len(made.bases) == 200
    assert np.array_equal(made.reference[:-5], made.bases[5:])
    assert (made.targets["base"][:5] == IGNORE_INDEX).all()
    assert np.array_equal(made.targets["base"][5:], made.bases[5:])


def test_the_relative_before_the_strain() -> None:
    task = Conditional(layout="before")
    made = example(task, rates=Rates(rate=0))
    assert made.reference is not None and np.array_equal(made.reference, made.bases)
    assert np.array_equal(made.targets["base"], made.bases)
    batch = collate([made], NucleotideTokenizer(), None, task.context_format)
    assert batch.base_to_answer is not None
    assert batch.base_to_answer[0].tolist() == list(range(200, 400))  # the separator is token 200


def test_a_long_insertion_has_no_labels() -> None:
    bases = np.random.default_rng(0).integers(0, 4, 200, np.uint8)
    block = simulated_block(bases, [Mutation(100, 100, bytes(11)), Mutation(150, 150, bytes(9))])
    made = Conditional(layout="before").window_of(block, 0, 200, np.random.default_rng(0))
    assert np.flatnonzero(made.targets["base"] == IGNORE_INDEX).tolist() == list(range(100, 111))


def test_masked_bases_are_predicted_where_they_stand() -> None:
    task = Conditional("masked", mask_fraction=0.3)
    made = example(task)
    assert made.masking is not None and 0.2 < (made.masking == MASK).mean() < 0.4
    assert np.array_equal(made.masking == MASK, made.targets["base"] != IGNORE_INDEX)
    batch = collate([made], NucleotideTokenizer(), None, task.context_format)
    assert batch.base_to_answer is not None and batch.base_to_answer[0].tolist() == list(range(1, 401, 2))


@pytest.mark.parametrize("layout", ["interleaved", "before"])
@pytest.mark.parametrize("layer", ["full", "linear"])
def test_a_base_is_predicted_from_those_before_it(layout: str, layer: str) -> None:
    """No later base of the strain is read, and of an interleaved relative `lead` bases beyond the one predicted."""
    loaded = toy_model({**NODE, "layout": layout, "lead": 4, "objective": "causal"}, layer=layer)
    task, model = loaded.predictor.task, loaded.predictor.model.eval()
    assert isinstance(task, Conditional)
    made = example(task, 32)
    at = 20

    def logits(bases: np.ndarray, reference: np.ndarray) -> torch.Tensor:
        changed = made._replace(bases=bases, reference=reference)
        batch = collate([changed], loaded.predictor.tokenizer, None, task.context_format)
        with torch.no_grad():
            return predict(model, batch, task.outputs)["base"][0]

    assert made.reference is not None
    usual = logits(made.bases, made.reference)
    other = made.bases.copy()
    other[at:] = (other[at:] + 1) % 4
    differs = (logits(other, made.reference) - usual).abs().amax(-1) > 1e-5
    assert not differs[: at + 1].any() and differs[at + 1]
    relative = made.reference.copy()
    relative[at:] = (relative[at:] + 1) % 4
    differs = (logits(made.bases, relative) - usual).abs().amax(-1) > 1e-5
    assert differs[at + 1] and (layout == "before" or not differs[: at + 1].any())


@pytest.mark.usefixtures("alone")
@pytest.mark.parametrize("both_strands", [False, True])
def test_training_on_a_strain(both_strands: bool, tmp_path: Path) -> None:
    fasta, vcf = write_genome(tmp_path, "chr", 5)
    data = DataSettings(length=64, fasta=str(fasta), strains=str(vcf))
    task = Conditional()
    source = open_data_source(data, task, 0)
    dataset = build_dataset(source, "train", data, task, 0, 1, Curriculum(), both_strands)
    same = []
    for number in range(20):
        made = dataset.example(number, CurriculumStage(task.rates, 64))
        assert made.reference is not None and len(made.bases) == len(made.reference) == 64
        same.append((made.bases[16:] == made.reference[:-16]).mean())
    assert np.mean(same) > 0.85
    with pytest.raises(UserError, match=r"data\.strains=.* is for task=conditional alone"):
        open_data_source(data, LanguageModeling(), 0)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"objective": "both"}, "task.objective must be 'causal' or 'masked', got 'both'"),
        ({"lead": 0}, "task.lead must be at least 1 base, got 0"),
        ({"mask_fraction": 1.0}, "task.mask_fraction must be a share of the bases above 0 and below 1, got 1.0"),
    ],
)
def test_settings_out_of_range(settings: dict, sentence: str) -> None:
    with pytest.raises(UserError) as raised:
        Conditional(**settings)
    assert str(raised.value) == sentence


def test_what_does_not_fit() -> None:
    task = Conditional()
    assert task.refuse(1, causal=True) == ""
    assert "needs model.causal=true, got false" in task.refuse(1, causal=False)
    assert "needs model.causal=false, got true" in Conditional("masked").refuse(1, causal=True)
    assert "use tokenizer=nucleotide" in task.refuse(3, causal=True)
    with pytest.raises(UserError, match=r"a window of 16 bases.* must be longer than task\.lead=16"):
        example(task, 16)
