"""Where configs and genomes lie, and how a program turns a user's overrides into a checked config and a run folder."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import InstantiationException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from genoattn.config.overrides import FAULTS, bring_layers, conflicts, faults, first_line, jobs
from genoattn.config.schema import SPINE
from genoattn.config.validate import mistakes
from genoattn.errors import UserError
from genoattn.paths import conf_dir


def compose(program: str, overrides: list[str]) -> DictConfig:
    """The config of a program under overrides, read-only, not yet checked; raises UserError with all that is wrong."""
    return _without_hydra(_composed(program, bring_layers(overrides, conf_dir())))


def check(config: DictConfig, spine: type) -> None:
    """Hold a config to its spine and to the signature of every `_target_`; raises UserError with all that is wrong."""
    try:
        missing = sorted(OmegaConf.missing_keys(config))
        plain = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {first_line(error)}") from None
    found = [f"{key} must be given: {key}=…" for key in missing]
    found += [one for one in mistakes(plain, taker=spine) if not one.startswith(tuple(f"{key}:" for key in missing))]
    if found:
        raise UserError("\n".join(found))


def choices(program: str) -> dict[str, tuple[str | None, list[Path]]]:
    """For every group of a program, the choice it makes by itself (None: none) and the files of all there are."""
    made = _composed(program, []).hydra.runtime.choices
    groups = [str(group) for group in made if "/" not in str(group)]  # hydra's own, and what experiments hold
    return {group: (made[group], sorted((conf_dir() / group.partition("@")[0]).glob("*.yaml"))) for group in groups}


def run_program(
    program: str, main: Callable[[DictConfig], float | None], overrides: list[str], flags: list[str]
) -> int:
    """Run `main` under Hydra in a run folder of its own; returns the exit status.

    0: done; 2: a mistake of the user's, told in sentences on stderr; 130: interrupted; 1: a mistake of ours.
    `flags` are Hydra's, such as --multirun or --cfg job.
    """

    def guarded(config: DictConfig) -> float | None:
        OmegaConf.set_readonly(config, True)  # what was logged is what ran
        try:
            return main(config)
        except UserError as mistake:
            raise SystemExit(_tell(mistake)) from None
        except InstantiationException as error:  # Hydra wraps what a constructor raises
            if isinstance(error.__cause__, UserError):
                raise SystemExit(_tell(error.__cause__)) from None
            raise

    try:
        overrides = bring_layers(overrides, conf_dir())
        folder = _prepare(program, overrides, flags)
        sys.argv = [program, *flags, f"hydra.job.name={program}", *overrides, *folder]
        hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=program)(guarded)()
    except UserError as mistake:
        return _tell(mistake)
    except KeyboardInterrupt:
        return 130
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def _prepare(program: str, overrides: list[str], flags: list[str]) -> list[str]:
    """Compose and check before Hydra does, which would end with a traceback; returns the override of the run folder."""
    multirun = "--multirun" in flags
    config = None
    for job in jobs(overrides) if multirun else [overrides]:
        config = _composed(program, job)
        check(_without_hydra(config), SPINE[program])
    if config is None or "--cfg" in flags:
        return []
    key = "hydra.sweep.dir" if multirun else "hydra.run.dir"
    folder = Path(OmegaConf.select(config, key))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"{key}: the run folder {folder} cannot be made ({error.strerror})") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise UserError(f"{key}: the run folder {folder} cannot be written to")
    quoted = str(folder).replace("'", "\\'")
    return [f"{key}='{quoted}'"]  # the name holds the time, and Hydra would look at the clock again


def _tell(mistake: UserError) -> int:
    print(mistake, file=sys.stderr)
    return 2


def _without_hydra(config: DictConfig) -> DictConfig:
    task = config.copy()
    with open_dict(task):
        del task["hydra"]
    OmegaConf.set_readonly(task, True)
    return task


def _composed(program: str, overrides: list[str]) -> DictConfig:
    """The config with Hydra's own node, which knows the run folder and the choice of every group."""
    with hydra.initialize_config_dir(str(conf_dir()), job_name=program, version_base="1.3"):
        try:
            config = hydra.compose(program, overrides, return_hydra_config=True)
            with open_dict(config):  # known only once a run has its folder; configs may refer to it
                config.hydra.runtime.output_dir = str(Path(config.hydra.run.dir).absolute())
        except FAULTS as error:
            raise UserError("\n".join(faults(program, overrides, error, conf_dir()))) from None
        HydraConfig.instance().set_config(config)
    if found := conflicts(overrides, config):
        raise UserError("\n".join(found))
    return config
