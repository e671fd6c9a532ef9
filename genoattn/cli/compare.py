"""Compare attention layers: the same data, seeds and budget for each, a learning rate of its own, and a verdict."""

from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from genoattn.comparison import report as comparison
from genoattn.comparison.grid import parse
from genoattn.comparison.launcher import composed
from genoattn.comparison.runner import chosen_rate, gather, matched, measured, probe, steps, train
from genoattn.errors import UserError
from genoattn.training.loggers import build_loggers, log_report


def main(config: DictConfig) -> None:
    """Every run that is not there yet, then what they say: tables, plots, comparison.json, .csv and .html."""
    folder = Path(HydraConfig.get().runtime.output_dir)
    overrides = list(HydraConfig.get().overrides.task)
    design = parse(config, overrides, lambda words: composed("train", words))
    if config.match_size:
        design = matched(design, config.match_size)
    said = expectations(config.hypotheses)
    OmegaConf.save(config, folder / "config.yaml")
    print(f"{len(design.layers)} layers × {len(design.lengths)} lengths: {', '.join(design.layers)}")

    costs = measured(design, config, folder)
    sweep = [
        design.run(layer, length, rate, design.seeds[0], "sweep", steps(design, config.sweep, costs, layer, length))
        for length in design.lengths
        for layer in design.layers
        for rate in design.learning_rates
        if len(design.learning_rates) > 1
    ]
    failed = train(folder, sweep)
    chosen = {
        (layer, length): rate
        for length in design.lengths
        for layer in design.layers
        if (rate := chosen_rate(folder, design, sweep, layer, length)) is not None
    }
    final = [
        design.run(layer, length, rate, seed, "final", steps(design, config.budget, costs, layer, length))
        for (layer, length), rate in chosen.items()
        for seed in design.seeds
    ]
    failed += train(folder, final)
    failed += probe(folder, design, final, config.extrapolate)

    whole = gather(folder, design, config, [*sweep, *final], costs, chosen) | {"expectations": said, "failed": failed}
    comparison.write(folder, whole)
    for sheet in comparison.sheets(whole):
        sheet.print()
    chosen_loggers = [
        instantiate(node, **({"group": config.name} if key == "wandb" else {})) for key, node in config.logger.items()
    ]
    loggers = build_loggers(folder, chosen_loggers, {})
    tables = [sheet.plain for sheet in comparison.tables(whole)]
    log_report(loggers, comparison.figures(whole), tables, folder / "plots")
    print(f"comparison: {folder / 'comparison.html'}")
    if failed:
        raise UserError(
            f"{len(failed)} runs ended badly and are missing from the comparison; what they said stands in"
            f" {folder / failed[0] / 'log.txt'}; the same command tries them again"
        )


def expectations(file: str | None) -> str | None:
    """What the user expected to come out, from a text file."""
    try:
        return Path(file).read_text("utf-8") if file else None
    except FileNotFoundError:
        raise UserError(f"hypotheses={file} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"hypotheses={file} is no text that can be read ({error})") from None
