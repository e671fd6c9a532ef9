"""What layers ask of a GPU, counted on `meta`: launches, and no wait of the host in a training step."""

from functools import partial

import pytest
import torch
from torch import Tensor

from benchmarks.counts.counter import META, counting, on_meta
from benchmarks.counts.layers import CASES, count
from benchmarks.counts.run import ROWS, predicted, table
from genoattn.attention.modules.projections import HeadOptions
from genoattn.data.batch import Batch
from genoattn.data.targets import TargetSpec
from genoattn.models.predictor import predict
from genoattn.models.sequence_model import SequenceModel
from genoattn.training.loss import loss

LAUNCHES = {
    "window": 20,
    "flash": 20,
    "linear, elu": 30,
    "linear": 140,
    "linear, taylor": 100,
    "delta": 55,
    "ssd": 60,
    "hierarchical": 44,
    "sparse": 74,
    "nsa": 494,
    "topk": 1945,
    "hyena": 48,
}
"""Most launches of a forward pass at 65,536 tokens."""

OUTPUTS = {"mutation": TargetSpec(3, 1.0), "allele": TargetSpec(2, 0.5, balance=(1.0, 2.0))}


@pytest.mark.parametrize("layer", LAUNCHES)
def test_launches_of_a_layer(layer: str) -> None:
    forward, backward = count(CASES[layer], 2**16)
    assert 0 < forward.launches <= LAUNCHES[layer]
    assert forward.waits + backward.waits == 0
    assert forward.kernels <= forward.launches == sum(forward.names.values())


def paired_batch(turns: bool) -> Batch:
    """Two examples of two sequences, in turn or one after the other, one of them with padding at its end."""
    index = torch.arange(256).expand(2, -1)
    return Batch(
        ids=torch.randint(4, (2, 256)),
        reference_window=None,
        padding_mask=(index < torch.tensor([[256], [250]])),
        targets={name: torch.randint(2, (2, 256)) for name in OUTPUTS},
        events=((), ()),
        position_ids=index // 2 if turns else index % 128,
        segment_ids=index % 2 if turns else index // 128,
    )


@pytest.mark.parametrize("layer", CASES)
def test_a_training_step_never_waits(layer: str) -> None:
    factory = CASES[layer].factory
    if "ALiBi" not in layer:
        factory = partial(factory, heads=HeadOptions(count=4, cross_segment=0.5))
    with on_meta():
        model = SequenceModel(5, {"mutation": 3, "allele": 2}, None, factory, dim=64, depth=1).to(META)
        for turns in (True, False) if layer in ("window", "linear") else (True,):
            batch = paired_batch(turns).to(META)
            with counting() as counts:
                loss(predict(model, batch, OUTPUTS), batch.targets, OUTPUTS).total.backward()
            assert counts.waits == 0
            assert counts.launches > 50


def test_what_is_counted() -> None:
    x = torch.empty(4, 8, device=META)

    def waits(mask: Tensor) -> None:
        if mask.any():
            mask.cpu()

    with on_meta(), counting() as counts:
        y = x.view(8, 4) @ x + 1.0
        waits(y > 0)
        on_host = torch.zeros(3) + 1
    assert on_host.sum() == 3
    assert (counts.launches, counts.waits, dict(counts.flops)) == (5, 1, {"float32": 2 * 8 * 4 * 8})
    assert counts.product_bytes == 4 * (32 + 32 + 64)
    assert counts.bytes == 4 * (64 + 64) + (4 + 1) * 64 + 64 + 1 + 1


def test_a_prediction_is_the_longer_of_launches_and_device() -> None:
    row = {"layer": "window", "length": 2**16, "name": "after"}
    one = {"launches": 100, "kernels": 0, "waits": 0, "bytes": 3.35e9, "product_bytes": 0, "kernel_bytes": 0}
    row |= {"forward": one | {"flops": {"bfloat16": 989e9}}, "backward": one | {"flops": {"float32": 67e9}}}
    assert predicted(row) == pytest.approx((4e-3, 1e-3))
    (line,) = table([row], 2**16).rows
    assert line[0] == "`window`" and "4.0" in line[-2] and line[-1] == ""
    assert ROWS.parent.name == "gpu"
