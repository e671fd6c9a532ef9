"""Lightning's view of a model: training step, validation step, optimiser and what is logged."""

import math
import time
from typing import final

import lightning
import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.optim.lr_scheduler import LambdaLR
from torchmetrics import MeanMetric, MetricCollection
from torchmetrics.classification import BinaryAveragePrecision

from genoattn.data.batch import Batch
from genoattn.data.targets import IGNORE_INDEX
from genoattn.errors import UserError
from genoattn.models.predictor import Predictor, predict
from genoattn.training.loss import loss
from genoattn.training.recipe import OptimizerFactory
from genoattn.training.schedule import WarmupCosine


@final
class SequenceModule(lightning.LightningModule):
    """Trains the model of a predictor on batches of its task, over `steps` steps of the optimiser."""

    bases_seen: Tensor
    """Bases that the model has learned from."""
    tokens_seen: Tensor
    """Real tokens, and tokens of padding."""

    def __init__(
        self, predictor: Predictor, optimizer: OptimizerFactory, schedule: WarmupCosine, steps: int, seed: int
    ):
        super().__init__()
        self.model, self.outputs = predictor.model, dict(predictor.task.outputs)
        self.optimizer, self.schedule, self.steps, self.seed = optimizer, schedule, steps, seed
        classes = {name: output.classes for name, output in self.outputs.items() if not output.number}
        auprc = {name: BinaryAveragePrecision(ignore_index=IGNORE_INDEX) for name, n in classes.items() if n == 1}
        accuracy = {name: MeanMetric() for name, n in classes.items() if n != 1}
        self.validation_auprc = MetricCollection(dict(auprc), prefix="validation/auprc_", compute_groups=False)
        self.validation_accuracy = MetricCollection(dict(accuracy), prefix="validation/accuracy_", compute_groups=False)
        self.register_buffer("bases_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("tokens_seen", torch.zeros(2, dtype=torch.int64))
        self._start_seconds, self._start_bases = 0.0, 0

    def forward(self, batch: Batch) -> dict[str, Float[Tensor, "batch _ _"]]:
        return predict(self.model, batch, self.outputs)

    def on_fit_start(self) -> None:
        self._start_seconds, self._start_bases = time.perf_counter(), int(self.bases_seen)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Dropout of a batch depends on the seed and the batch alone, so that a resumed run equals one without a stop.
        accumulate = self.trainer.accumulate_grad_batches
        number = self.trainer.global_step * accumulate + batch_idx % accumulate
        torch.manual_seed(int(np.random.SeedSequence((self.seed, number)).generate_state(1, np.uint64)[0]))

    @property
    def bases_since_start(self) -> int:
        """Bases seen since training began or was resumed."""
        return int(self.bases_seen) - self._start_bases

    def training_step(self, batch: Batch, _: int) -> Tensor:
        losses = loss(self(batch), batch.targets, self.outputs)
        real = batch.padding_mask.sum()
        self.bases_seen += batch.bases
        self.tokens_seen += torch.stack([real, batch.padding_mask.numel() - real])
        self.log("padding", 1 - real / batch.padding_mask.numel())
        self.log("loss", losses.total)
        self.log_dict({f"loss/{name}": term for name, term in losses.terms.items()})
        seconds = time.perf_counter() - self._start_seconds
        self.log("bases_per_second", (self.bases_seen - self._start_bases) / seconds)
        self.log("bases_seen", self.bases_seen.float())
        self.log("learning_rate", self.trainer.optimizers[0].param_groups[0]["lr"])
        if batch.stage is not None:
            rates, length = batch.stage
            shares = {name: getattr(rates, name) for name in ("rate", "snv", "mnv", "insertion", "deletion")}
            self.log_dict({f"curriculum/{name}": float(value) for name, value in shares.items()})
            self.log("curriculum/length", float(length))
        return losses.total

    def validation_step(self, batch: Batch, _: int) -> None:
        logits = self(batch)
        self.log("validation/loss", loss(logits, batch.targets, self.outputs).total, batch_size=len(batch.ids))
        for name, metric in self.validation_auprc.items(keep_base=True):
            metric.update(logits[str(name)][..., 0].float().flatten(), batch.targets[str(name)].long().flatten())
        for name, metric in self.validation_accuracy.items(keep_base=True):
            target = batch.targets[str(name)].long()
            labelled = target != IGNORE_INDEX
            metric.update((logits[str(name)].argmax(-1) == target)[labelled].float())
        for metrics in (self.validation_auprc, self.validation_accuracy):
            self.log_dict(metrics, batch_size=len(batch.ids))  # type: ignore[arg-type]

    def configure_optimizers(self) -> dict:
        try:
            optimizer = self.optimizer([weight for weight in self.model.parameters() if weight.requires_grad])
        except ValueError as error:  # of torch, such as "Invalid learning rate: -1"
            raise UserError(f"optimizer: {error}") from None
        rates = [group["lr"] for group in optimizer.param_groups]
        if not all(map(math.isfinite, rates)):
            raise UserError(f"optimizer.lr must be a finite number, got {rates[0]}")
        scheduler = LambdaLR(optimizer, lambda step: self.schedule(step, self.steps))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}
