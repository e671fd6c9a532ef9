"""Lightning's view of a run: a step, a validation, an optimiser and what is logged; no mathematics of its own."""

import time
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias, final

import lightning
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import BinaryAveragePrecision

from genoattn.data.batch import Batch
from genoattn.data.targets import IGNORE_INDEX, TargetSpec
from genoattn.models.predictor import predict
from genoattn.models.sequence_model import SequenceModel
from genoattn.training.loss import loss
from genoattn.training.schedule import WarmupCosine

OptimizerFactory: TypeAlias = Callable[[Iterable[nn.Parameter]], Optimizer]


@final
class SequenceModule(lightning.LightningModule):
    """Trains a model on batches of a task; `bases_seen` counts the bases it has learned from."""

    bases_seen: Tensor
    tokens_seen: Tensor
    """Real tokens, and padding."""

    def __init__(
        self,
        model: SequenceModel,
        outputs: Mapping[str, TargetSpec],
        optimizer: OptimizerFactory,
        schedule: WarmupCosine,
        steps: int,
    ):
        super().__init__()
        self.model, self.outputs = model, dict(outputs)
        self.optimizer, self.schedule, self.steps = optimizer, schedule, steps
        binary = {
            name: BinaryAveragePrecision(ignore_index=IGNORE_INDEX)
            for name, o in self.outputs.items()
            if o.classes == 1
        }
        right = {name: MeanMetric() for name, o in self.outputs.items() if o.classes != 1}
        self.validation_auprc = MetricCollection(dict(binary), prefix="validation/auprc_", compute_groups=False)
        self.validation_accuracy = MetricCollection(dict(right), prefix="validation/accuracy_", compute_groups=False)
        self.register_buffer("bases_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("tokens_seen", torch.zeros(2, dtype=torch.int64))
        self._began = (0.0, 0)

    def forward(self, batch: Batch) -> dict[str, Float[Tensor, "batch _ _"]]:
        return predict(self.model, batch, self.outputs)

    def on_fit_start(self) -> None:
        self._began = (time.perf_counter(), int(self.bases_seen))

    @property
    def bases_learned(self) -> int:
        """Bases seen since training began or was resumed."""
        return int(self.bases_seen) - self._began[1]

    def training_step(self, batch: Batch, _: int) -> Tensor:
        lost = loss(self(batch), batch.targets, self.outputs)
        real = batch.padding_mask.sum()
        self.bases_seen += batch.bases
        self.tokens_seen += torch.stack([real, batch.padding_mask.numel() - real])
        self.log("padding", 1 - real / batch.padding_mask.numel())
        self.log("loss", lost.total)
        self.log_dict({f"loss/{name}": part for name, part in lost.terms.items()})
        began, seen = self._began
        self.log("bases_per_second", (self.bases_seen - seen) / (time.perf_counter() - began))
        self.log("bases_seen", self.bases_seen.float())
        self.log("learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])
        if batch.stage is not None:
            rates, length = batch.stage
            shares = {name: getattr(rates, name) for name in ("rate", "snv", "mnv", "insertion", "deletion")}
            self.log_dict({f"curriculum/{name}": float(value) for name, value in shares.items()})
            self.log("curriculum/length", float(length))
        return lost.total

    def validation_step(self, batch: Batch, _: int) -> None:
        answers = self(batch)
        lost = loss(answers, batch.targets, self.outputs)
        self.log("validation/loss", lost.total, batch_size=len(batch.ids))
        for name, metric in self.validation_auprc.items(keep_base=True):
            metric.update(answers[str(name)][..., 0].float().flatten(), batch.targets[str(name)].long().flatten())
        for name, metric in self.validation_accuracy.items(keep_base=True):
            target = batch.targets[str(name)].long()
            asked = target != IGNORE_INDEX
            metric.update((answers[str(name)].argmax(-1) == target)[asked].float())
        for metrics in (self.validation_auprc, self.validation_accuracy):
            self.log_dict(metrics, batch_size=len(batch.ids))  # type: ignore[arg-type]

    def configure_optimizers(self) -> dict:
        optimizer = self.optimizer([one for one in self.model.parameters() if one.requires_grad])
        scheduler = LambdaLR(optimizer, lambda step: self.schedule(step, self.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
