"""Train a detector and its control on a genome, put both to their trials, and leave a run folder that says it all."""

from functools import partial
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning import seed_everything
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from genoattn import cost
from genoattn.assemble import Parts, Source, build, examples, open_source, trials, validation_trial
from genoattn.checkpoint import save_model
from genoattn.data import GenomeData
from genoattn.evaluation import AlignerScorer, ModelScorer, choose_thresholds, put_to
from genoattn.fitting import Fitted, fit
from genoattn.genome.regions import sizes
from genoattn.learner import Learner
from genoattn.report import flat, plot_curves, plot_training, print_table, send, write_metrics
from genoattn.tasks.curriculum import Curriculum
from genoattn.tracking import build_loggers


def main(config: DictConfig) -> None:
    """The whole run, from FASTA to report."""
    chosen = HydraConfig.get().runtime
    folder, attention = Path(chosen.output_dir), str(chosen.choices["attention"])
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    seed_everything(config.seed, verbose=False)
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    OmegaConf.save(config, folder / "config.yaml", resolve=True)

    task = build(config).task
    source = open_source(config.data, task, config.seed)
    announce(source)
    tests = trials(source, config.data, config.test, task, known=True)
    if not source.vcfs:
        print("no data.vcf: evaluation uses planted mutations only")

    detector = build_seeded(config, "attention")
    loggers = build_loggers(folder, instantiate(config.logger) if config.logger else None, plain)
    trained = learn(config, "attention", detector, source, folder, loggers)
    if trained.interrupted:
        print(f"stopped by Ctrl-C after step {trained.steps}; go on with trainer.resume={folder}/checkpoints/last.ckpt")
        raise SystemExit(130)
    rivals = {"untrained": build_seeded(config, "attention")}
    if config.control:
        control = build_seeded(config, "control")
        learn(config, "control", control, source, folder / "control", build_loggers(folder / "control", None, {}))
        rivals = {"control": control, **rivals}

    validation = validation_trial(source, config.data, config.test, task)
    names = {"control": f"{chosen.choices.get('attention@control', 'control')} (control)", "untrained": "untrained"}
    results, cut_offs = [], {}
    for key, parts in {"attention": detector, **rivals}.items():
        name = names.get(key, attention)
        scorer = ModelScorer(name, parts.model, parts.tokenizer)
        cut_offs[key] = choose_thresholds(validation, scorer)
        results += put_to(tests, scorer, name, cut_offs[key], config.test.resamples)
    half = dict.fromkeys(cut_offs["attention"], 0.5)
    results += put_to(tests, AlignerScorer(task.reach), "aligner", half, config.test.resamples)
    for key, place in (("attention", folder), ("control", folder / "control")):
        if key in cut_offs:
            node = {"tokenizer": plain["tokenizer"], "task": plain["task"], "model": plain["model"]}
            about = {"name": names.get(key, attention), "thresholds": cut_offs[key], "length": config.data.length}
            records = [record.sha256 for record in source.genome.records]
            saved = {**about, "genome": records, **node, "attention": plain[key]}
            save_model(place / "model", (detector if key == "attention" else rivals[key]).model, saved)

    figures = flat(results, attention) | costs(detector, config, trained)
    write_metrics(folder / "metrics.json", figures)
    plot_curves(results, folder / "plots" / "precision_recall.png")
    if (folder / "metrics.csv").exists():
        plot_training(folder / "metrics.csv", folder / "plots" / "training.png")
    send(loggers, figures, results, attention, folder / "plots")
    print_table(results, attention)
    print_costs(figures)
    print(f"run folder: {folder}")


def announce(source: Source) -> None:
    """Say which genome this is and how it was split."""
    genome = source.genome
    counts = sizes(source.splits)
    passed = f", {counts['passed_over']} records too short" if counts["passed_over"] else ""
    split = ", ".join(f"{name} {counts[name]:,}" for name in ("train", "validation", "test"))
    print(f"genome: {len(genome.records)} record(s), {genome.total:,} bases; {split}{passed}")


def build_seeded(config: DictConfig, key: str) -> Parts:
    """The parts of a config with the weights that its seed draws, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build(config, key)  # type: ignore[arg-type]


def learn(config: DictConfig, key: str, parts: Parts, source: Source, folder: Path, loggers: list[Logger]) -> Fitted:
    """Train one model with the same data, seed, schedule and number of steps as any other of the run."""
    layer, count = type(parts.model.blocks[0].mix).__name__, cost.predicted(parts.model, 1)["parameters"]
    print(f"{key}: {layer}, {count:,} parameters")
    settings, data = config.trainer, config.data
    total = settings.max_steps * settings.accumulate * data.batch
    make = partial(examples, source, data=data, task=parts.task, total=total)
    training = make(intervals=source.splits.train, seed=config.seed, curriculum=instantiate(config.curriculum))
    held_out = make(intervals=source.splits.validation, seed=config.test.seed, curriculum=Curriculum())
    module = GenomeData(
        training, held_out, parts.tokenizer, data.batch, settings.accumulate, data.validation_windows, data.workers
    )
    learner = Learner(
        parts.model, parts.task.outputs, instantiate(config.optimizer), instantiate(config.schedule), settings.max_steps
    )
    fitted = fit(learner, module, settings, folder, loggers)
    passed = training.windows.passed_over + held_out.windows.passed_over
    if passed:
        print(f"{passed} windows that are mostly N were passed over")
    return fitted


def costs(parts: Parts, config: DictConfig, trained: Fitted) -> dict[str, float]:
    """What the run cost, as flat keys."""
    seen = trained.steps * config.trainer.accumulate * config.data.batch * config.data.length
    measured = {
        "train_seconds": trained.seconds,
        "bases_per_second": seen / max(trained.seconds, 1e-9),
        "peak_bytes": cost.peak_bytes(next(parts.model.parameters()).device),
    }
    return {
        f"cost/{name}": value for name, value in (cost.predicted(parts.model, config.data.length) | measured).items()
    }


def print_costs(figures: dict[str, float]) -> None:
    """One line on what the run cost."""
    print(
        f"{figures['cost/parameters']:,.0f} parameters, {figures['cost/train_seconds']:.0f} s of training at"
        f" {figures['cost/bases_per_second']:,.0f} bases/s, {figures['cost/peak_bytes'] / 2**30:.2f} GiB at the peak,"
        f" attention {figures['cost/attention_flops'] / 1e6:,.1f} MFLOP a window"
    )
