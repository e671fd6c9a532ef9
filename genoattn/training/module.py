"""Lightning's view of a model: training step, validation step, optimiser and what is logged."""

import math
import time
from functools import cached_property
from typing import Any, NamedTuple, final

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
from genoattn.models.sequence_model import SequenceModel
from genoattn.training.loss import LossSums, mean_loss, sum_losses
from genoattn.training.processes import place, sum_over_processes
from genoattn.training.recipe import OptimizerFactory
from genoattn.training.schedule import WarmupCosine
from genoattn.training.sequence_parallel import is_first, sequence_group, sum_losses_of_shard
from genoattn.training.sharding import fill, full_weights, shard


@final
class SequenceModule(lightning.LightningModule):
    """Trains the model of a predictor on batches of its task, over `steps` steps of the optimiser."""

    bases_seen: Tensor
    """Bases that the model has learned from."""
    tokens_seen: Tensor
    """Real tokens, and tokens of padding."""
    _whole: list[SequenceModel] | None
    """The model of the predictor while its weights are shared out; in a list, as it is no part of this module."""

    def __init__(
        self,
        predictor: Predictor,
        optimizer: OptimizerFactory,
        schedule: WarmupCosine,
        steps: int,
        seed: int,
        by_length: bool = False,
        sequence_parallel: int = 1,
    ):
        super().__init__()
        self.by_length, self._sequence_parallel, self._whole = by_length, sequence_parallel, None
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
        return predict(self.model, batch, self.outputs, self.group)

    @cached_property
    def group(self) -> Any:
        """The processes that hold a sequence together with this one; None if it holds its own."""
        return sequence_group(self._sequence_parallel, self.device)

    def configure_model(self) -> None:
        """Share out the weights, once, if the strategy has a mesh of processes for it."""
        if self.device_mesh is None or self._whole is not None:
            return
        self.trainer.precision_plugin.convert_module(self.model)  # in place
        narrow = self.trainer.precision == "bf16-mixed"
        self._whole = [self.model]
        self.model = shard(self.model, self.device_mesh["data_parallel"], narrow)

    def gather(self) -> None:
        """Put the model of the predictor back in place of a sharded one; on the first process, with the weights."""
        if self._whole is not None:
            weights = full_weights(self)
            (self.model,) = self._whole
            if place().rank == 0:
                fill(self.model, weights)

    def on_fit_start(self) -> None:
        self._start_seconds, self._start_bases = time.perf_counter(), int(self.bases_seen)

    def on_train_batch_start(self, batch: Batch, batch_idx: int) -> None:
        # Dropout of a batch depends on seed, batch and process alone: a resumed run equals one without a stop.
        accumulate = self.trainer.accumulate_grad_batches
        number = self.trainer.global_step * accumulate + batch_idx % accumulate
        entropy = (self.seed, number, place().rank) if place().rank else (self.seed, number)
        torch.manual_seed(int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]))

    @property
    def bases_since_start(self) -> int:
        """Bases seen since training began or was resumed."""
        return int(self.bases_seen) - self._start_bases

    def training_step(self, batch: Batch, _: int) -> dict[str, Tensor]:
        """The loss to descend, and the loss of the batch over all processes, `of_all`.

        The first is summed by the backward passes of a step and averaged over processes: then it is the mean over all
        labels of the step, however they are dealt out.
        """
        if self.group is None:
            own = sum_losses(self(batch), batch.targets, self.outputs)
        else:
            own = sum_losses_of_shard(self.model, batch, self.outputs, self.group)
        seen = _over_all(own, batch, is_first(self.group))
        self.bases_seen += seen.bases
        self.tokens_seen += torch.stack([seen.real, seen.padding])
        losses = mean_loss(*seen.of_batch, self.outputs)
        self.log("padding", 1 - seen.real / (seen.real + seen.padding))
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
        times = self.trainer.accumulate_grad_batches * place().world
        return {"loss": mean_loss(own.sums, seen.step_labels, self.outputs).total * times, "of_all": losses.total}

    def validation_step(self, batch: Batch, _: int) -> None:
        logits = self(batch)
        seen = _over_all(sum_losses(logits, batch.targets, self.outputs), batch, is_first(self.group))
        self.log("validation/loss", mean_loss(*seen.of_batch, self.outputs).total, batch_size=seen.rows)
        for name, metric in self.validation_auprc.items(keep_base=True):
            metric.update(logits[str(name)][..., 0].float().flatten(), batch.targets[str(name)].long().flatten())
        for name, metric in self.validation_accuracy.items(keep_base=True):
            target = batch.targets[str(name)].long()
            labelled = target != IGNORE_INDEX
            right = (logits[str(name)].argmax(-1) == target)[labelled].float()
            metric.update(right)
            if self.by_length and batch.stage is not None:
                number, count = sum_over_processes(torch.stack([right.sum(), labelled.sum().float()]))
                if count > 0:
                    key = f"validation/accuracy_{name}_{batch.stage.length}"
                    self.log(key, number / count, batch_size=int(count))
        for metrics in (self.validation_auprc, self.validation_accuracy):
            self.log_dict(metrics, batch_size=seen.rows)  # type: ignore[arg-type]

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


class _Seen(NamedTuple):
    """A batch in numbers, over all processes."""

    of_batch: LossSums
    step_labels: Tensor
    bases: int | Tensor
    real: Tensor
    padding: Tensor
    rows: int


def _over_all(own: LossSums, batch: Batch, counts_batch: bool) -> _Seen:
    """The numbers of a batch, added up by one collective if there are several processes.

    Of several that have the same batch, one counts its bases and tokens.
    """
    sums, labels = own.sums.detach(), own.labels
    step_labels = labels if batch.step_labels is None else batch.step_labels
    real, rows = batch.padding_mask.sum(), len(batch.ids)
    if place().world == 1:
        return _Seen(LossSums(sums, labels), step_labels, batch.bases, real, batch.padding_mask.numel() - real, rows)
    counts = torch.tensor([batch.bases, batch.padding_mask.numel(), rows], device=sums.device)
    if not counts_batch:
        real, counts = torch.zeros_like(real), torch.zeros_like(counts)
        step_labels = step_labels if batch.step_labels is None else torch.zeros_like(step_labels)
    numbers = torch.cat([sums.double(), *(part.double() for part in (labels, step_labels, real[None], counts))])
    sums, labels, step_labels, others = sum_over_processes(numbers).split([*3 * [len(sums)], 4])
    real, bases, tokens, rows = others.long().unbind()
    return _Seen(
        LossSums(sums.to(own.sums.dtype), labels.long()), step_labels.long(), bases, real, tokens - real, int(rows)
    )
