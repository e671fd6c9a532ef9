"""The report of training for a saved model: on the bundled genome, or on another genome and its variants."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from omegaconf import DictConfig

from genoattn.cli.values import data_of, output_folder, saved_model, value_of
from genoattn.data.tasks.base import Task
from genoattn.data.tasks.region import Region
from genoattn.data.tasks.variant_classification import VariantClassification
from genoattn.errors import UserError
from genoattn.evaluation.base import Candidate
from genoattn.evaluation.metrics import Metrics
from genoattn.evaluation.report import write_report
from genoattn.models import cost
from genoattn.models.build import build_from_card, load_predictor
from genoattn.models.devices import DevicePool, SpreadPredictor, local_devices


def main(config: DictConfig) -> None:
    """Load a model, and the control and pretrained model of its run, evaluate them on a genome, and report."""
    folder, loaded = output_folder(), saved_model(config)
    card, predictor = loaded.card, loaded.predictor
    candidates = [Candidate("model", card.name, predictor, card.calibration)]
    for key in ("control", "pretrained"):
        folder_of_other = loaded.folder.parent / key / "model"
        if folder_of_other.is_dir():
            other = load_predictor(folder_of_other, trust=tuple(config.trust))
            candidates.append(Candidate(key, other.card.name, other.predictor, other.card.calibration))
    set_labelled_file(predictor.task, config.task.file, config.task.label)
    data, source, both_strands = data_of(config, loaded)
    from genoattn.evaluation import build_evaluator  # late: a mistake in the data need not wait for torchmetrics

    evaluator = build_evaluator(source, data, value_of(config.test), predictor.task, both_strands)
    untrained = build_from_card(card, card.seed, tuple(config.trust))
    untrained.model.to(predictor.device).autocast_dtype = predictor.model.autocast_dtype
    candidates.append(Candidate("untrained", "untrained", untrained, card.untrained_calibration))
    with on_devices(candidates, local_devices(config.devices)) as spread:
        result = evaluator.evaluate(spread)

    tokens = predictor.task.context_tokens(data.length)
    metrics = result.metrics + Metrics(costs=cost.predicted_cost(predictor.model, tokens)._asdict())
    if result.replicates:
        result.replicates.write(folder)
    write_report(folder, result.tables, metrics, result.plots)


@contextmanager
def on_devices(candidates: Sequence[Candidate], devices: Sequence[str]) -> Iterator[Sequence[Candidate]]:
    """The same candidates, whose batches are computed by a process for each device if there are several."""
    if len(devices) == 1:
        yield candidates
        return
    print(f"{len(devices)} processes compute: {', '.join(devices)}")
    pool = DevicePool(devices)
    try:
        yield [replace(one, predictor=SpreadPredictor.of(one.predictor, pool)) for one in candidates]
    finally:
        pool.close()


def set_labelled_file(task: Task, file: str | None, label: str | None) -> None:
    """Have a task read another file of labelled variants or regions, or another label; None leaves that of training."""
    if file is None and label is None:
        return
    if not isinstance(task, (VariantClassification, Region)):
        given = f"task.file={file}" if label is None else f"task.label={label}"
        raise UserError(
            f"{given} is for models of task=variant and task=region; this model was trained for {type(task).__name__}"
        )
    if isinstance(task, VariantClassification) and task.fold is not None:
        raise UserError("this model was trained by task.fold; another file or label has other folds, so leave both out")
    task.file, task.label = file or task.file, label or task.label
