"""Train a model and its control on a genome, put both to an exam, and leave a run folder that says it all."""

from functools import partial
from pathlib import Path

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from lightning import seed_everything
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from genoattn import cost
from genoattn.assemble import Source, build, build_tokenizer, examples_of, open_source
from genoattn.checkpoint import save_model
from genoattn.data import GenomeData
from genoattn.errors import UserError
from genoattn.exams import open_exam
from genoattn.exams.base import Contestant
from genoattn.fitting import Fitted, fit
from genoattn.genome.regions import sizes
from genoattn.learner import Learner
from genoattn.parts import Parts
from genoattn.planning import refuse
from genoattn.report import plot_training, publish, send
from genoattn.tasks.base import Task
from genoattn.tasks.curriculum import Curriculum
from genoattn.tokenizers.contract import Tokenizer
from genoattn.tracking import build_loggers
from genoattn.tuning import (
    check_peft,
    choose_learning,
    merge_adapters,
    open_earlier,
    same_task,
    settle,
    take_weights,
)


def main(config: DictConfig) -> None:
    """The whole run, from FASTA to report."""
    chosen, overrides = HydraConfig.get().runtime, list(HydraConfig.get().overrides.task)
    folder = Path(chosen.output_dir)
    earlier = open_earlier(config.checkpoint) if config.checkpoint else None
    config = settle(config, earlier, overrides)
    check_peft(config.tune)
    attention = str(earlier.about["name"] if earlier else chosen.choices["attention"])
    if config.trainer.threads:
        torch.set_num_threads(config.trainer.threads)
    if config.trainer.resume and folder.resolve() in Path(config.trainer.resume).resolve().parents:
        raise UserError("trainer.resume lies in this run's folder, which would be written over; choose another folder")
    seed_everything(config.seed, verbose=False)
    plain = OmegaConf.to_container(config, resolve=True)
    assert isinstance(plain, dict)
    OmegaConf.save(config, folder / "config.yaml", resolve=True)

    task: Task = instantiate(config.task)
    source = open_source(config.data, task, config.seed)
    announce(source)
    tokenizer = build_tokenizer(config.tokenizer, source, config.seed)
    exam = open_exam(source, config.data, config.test, task, config.rc in ("average", "equivariant"), known=True)

    learned = build_seeded(config, task, tokenizer, "attention")
    if earlier:
        anew = take_weights(earlier, learned.model)
        choose_learning(learned.model, config.tune, config.lora, anew, config.seed)
    loggers = build_loggers(folder, instantiate(config.logger) if config.logger else None, plain)
    trained = learn(config, "attention", learned, source, folder, loggers)
    if config.tune == "lora":
        merge_adapters(learned.model)
    sitting = [Contestant("attention", attention, learned)]
    if config.control and config.control != config.attention:  # the same layer would only be trained twice
        control = build_seeded(config, task, tokenizer, "control")
        name = f"{chosen.choices.get('attention@control', 'control')} (control)"
        sitting.append(Contestant("control", name, control))
        learn(config, "control", control, source, folder, build_loggers(folder / "control", None, {}))
    if earlier and same_task(earlier.parts.task, task):
        earlier.parts.model.to(next(learned.model.parameters()).device)
        sitting.append(Contestant("before", "before", earlier.parts, earlier.about["kept"]))
    untrained = build_seeded(config, task, tokenizer, "attention")
    untrained.model.to(next(learned.model.parameters()).device)
    sitting.append(Contestant("untrained", "untrained", untrained))
    outcome = exam.hold(sitting)

    about = {"tokenizer": tokenizer.describe(), "task": plain["task"], "model": plain["model"], "rc": config.rc}
    about |= {
        "length": config.data.length,
        "split": config.data.split,
        "shortest": config.data.shortest,
        "seed": config.seed,
    }
    about |= {"genome": [record.sha256 for record in source.genome.records], "untrained": outcome.kept["untrained"]}
    for one in sitting[:-1]:
        home = folder if one.key == "attention" else folder / one.key
        if one.key == "before" and earlier:
            save_model(home / "model", one.parts.model, {**earlier.about, "name": one.name})
            continue
        own = {"name": one.name, "attention": plain[one.key], "kept": outcome.kept[one.key]}
        save_model(home / "model", one.parts.model, about | own)
    figures = outcome.figures | costs(learned, config, trained)
    if (folder / "metrics.csv").exists():  # a resumed run may have no step left to make
        plot_training(folder / "metrics.csv", folder / "plots" / "training.png")
    if outcome.evidence:
        outcome.evidence.write(folder)
    publish(folder, outcome.sheets, figures, outcome.plots)
    send(loggers, figures, outcome.sheets, folder / "plots")
    print_costs(figures)
    print(f"run folder: {folder}")


def announce(source: Source) -> None:
    """Say which genome this is and how it was split."""
    genome = source.genome
    counts = sizes(source.splits)
    passed = f", {counts['passed_over']} records too short" if counts["passed_over"] else ""
    split = ", ".join(f"{name} {counts[name]:,}" for name in ("train", "validation", "test"))
    print(f"genome: {len(genome.records)} record(s), {genome.total:,} bases; {split}{passed}")


def build_seeded(config: DictConfig, task: Task, tokenizer: Tokenizer, key: str) -> Parts:
    """The model of a config with the weights that its seed draws, whatever was drawn before."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build(config, task, tokenizer, key)  # type: ignore[arg-type]


def prepare(config: DictConfig, parts: Parts, source: Source) -> tuple[Learner, GenomeData]:
    """What learns, and from what: the same data, seed, schedule and number of steps for every model of a run."""
    settings, data = config.trainer, config.data
    total = settings.max_steps * settings.accumulate * data.batch
    make = partial(examples_of, source, data=data, task=parts.task, total=total)
    training = make(
        split="train",
        seed=config.seed,
        curriculum=instantiate(config.curriculum),
        both_strands=config.rc in ("augment", "average"),
    )
    held_out = make(split="validation", seed=config.test.seed, curriculum=Curriculum())
    module = GenomeData(
        training, held_out, parts.tokenizer, data.batch, settings.accumulate, data.validation_windows, data.workers,
        strands=config.rc == "equivariant",
    )  # fmt: skip
    learner = Learner(
        parts.model, parts.task.outputs, instantiate(config.optimizer), instantiate(config.schedule), settings.max_steps
    )
    return learner, module


def learn(config: DictConfig, key: str, parts: Parts, source: Source, run: Path, loggers: list[Logger]) -> Fitted:
    """Train one model of the run."""
    settings = config.trainer
    learner, module = prepare(config, parts, source)
    if settings.memory == "check":
        refuse(learner, module, settings.accelerator)
    resume = Path(settings.resume) if settings.resume else None
    if resume and key == "control":  # as far as the resumed run had come with it
        beside = resume.parent.parent / key / "checkpoints" / resume.name
        resume = beside if beside.is_file() else None
    fitted = fit(key, learner, module, settings, run if key == "attention" else run / key, loggers, resume)
    passed = module.training.maker.passed_over + module.validation.maker.passed_over
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
        "padding": trained.padding,
        "tokens": trained.tokens,
    }
    return {f"cost/{name}": value for name, value in (cost.predicted(parts.model, trained.tokens) | measured).items()}


def print_costs(figures: dict[str, int | float]) -> None:
    """One line on what the run cost."""
    print(
        f"{figures['cost/parameters']:,.0f} parameters, {figures['cost/train_seconds']:.0f} s of training at"
        f" {figures['cost/bases_per_second']:,.0f} bases/s, {figures['cost/peak_bytes'] / 2**30:.2f} GiB at the peak,"
        f" attention {figures['cost/attention_flops'] / 1e6:,.1f} MFLOP a window, {figures['cost/padding']:.1%} padding"
    )
