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
from genoattn.errors import UserError
from genoattn.evaluation import CALLS, AlignerScorer, ModelScorer, brief, choose_thresholds, put_to
from genoattn.fitting import Fitted, fit
from genoattn.genome.regions import sizes
from genoattn.learner import Learner
from genoattn.report import flat, plot_training, publish, send
from genoattn.tasks.curriculum import Curriculum
from genoattn.tracking import build_loggers


def main(config: DictConfig) -> None:
    """The whole run, from FASTA to report."""
    chosen = HydraConfig.get().runtime
    folder, attention = Path(chosen.output_dir), str(chosen.choices["attention"])
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    if config.trainer.resume and folder.resolve() in Path(config.trainer.resume).resolve().parents:
        raise UserError("trainer.resume lies in this run's folder, which would be written over; choose another folder")
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
    rivals = {"untrained": build_seeded(config, "attention")}
    rivals["untrained"].model.to(next(detector.model.parameters()).device)
    names = {"attention": attention, "untrained": "untrained"}
    if config.control and config.control != config.attention:  # the same layer would only be trained twice
        rivals = {"control": build_seeded(config, "control"), **rivals}
        names["control"] = f"{chosen.choices.get('attention@control', 'control')} (control)"
        learn(config, "control", rivals["control"], source, folder, build_loggers(folder / "control", None, {}))

    validation = validation_trial(source, config.data, config.test, task)
    results, cut_offs = [], {}
    for key, parts in {"attention": detector, **rivals}.items():
        scorer = ModelScorer(names[key], parts.model, parts.tokenizer)
        cut_offs[key] = choose_thresholds(validation, scorer)
        results += put_to(tests if key != "untrained" else brief(tests), scorer, cut_offs[key], config.test.resamples)
    results += put_to(brief(tests), AlignerScorer(task.reach), CALLS, config.test.resamples)

    split = {"length": config.data.length, "split": config.data.split, "seed": config.seed}
    split["genome"] = [record.sha256 for record in source.genome.records]
    shared = {key: plain[key] for key in ("tokenizer", "task", "model")} | split | {"untrained": cut_offs["untrained"]}
    for key, parts, home in (("attention", detector, folder), ("control", rivals.get("control"), folder / "control")):
        if parts is not None:
            about = {"name": names[key], "thresholds": cut_offs[key], "attention": plain[key]}
            save_model(home / "model", parts.model, about | shared)
    figures = flat(results, attention) | costs(detector, config, trained)
    if (folder / "metrics.csv").exists():  # a resumed run may have no step left to make
        plot_training(folder / "metrics.csv", folder / "plots" / "training.png")
    publish(folder, results, figures, attention)
    send(loggers, figures, results, folder / "plots")
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


def learn(config: DictConfig, key: str, parts: Parts, source: Source, run: Path, loggers: list[Logger]) -> Fitted:
    """Train one model with the same data, seed, schedule and number of steps as any other of the run."""
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
    resume = Path(settings.resume) if settings.resume else None
    if resume and key == "control":  # as far as the resumed run had come with it
        beside = resume.parent.parent / key / "checkpoints" / resume.name
        resume = beside if beside.is_file() else None
    fitted = fit(key, learner, module, settings, run if key == "attention" else run / key, loggers, resume)
    passed = training.windows.passed_over + held_out.windows.passed_over
    if passed:
        print(f"{passed} windows that are mostly N were passed over")
    if fitted.interrupted:
        last = run / "checkpoints" / "last.ckpt"
        print(f"{key} was stopped by Ctrl-C after step {fitted.steps}; go on with trainer.resume={last}")
        raise SystemExit(130)
    return fitted


def costs(parts: Parts, config: DictConfig, trained: Fitted) -> dict[str, int | float]:
    """What the run cost, as flat keys."""
    measured = {
        "train_seconds": trained.seconds,
        "bases_per_second": trained.bases / max(trained.seconds, 1e-9),
        "peak_bytes": cost.peak_bytes(next(parts.model.parameters()).device),
    }
    return {
        f"cost/{name}": value for name, value in (cost.predicted(parts.model, config.data.length) | measured).items()
    }


def print_costs(figures: dict[str, int | float]) -> None:
    """One line on what the run cost."""
    print(
        f"{figures['cost/parameters']:,.0f} parameters, {figures['cost/train_seconds']:.0f} s of training at"
        f" {figures['cost/bases_per_second']:,.0f} bases/s, {figures['cost/peak_bytes'] / 2**30:.2f} GiB at the peak,"
        f" attention {figures['cost/attention_flops'] / 1e6:,.1f} MFLOP a window"
    )
