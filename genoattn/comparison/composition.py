"""The configs of other programs, composed inside a running one."""

from collections.abc import Sequence

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from genoattn.config.compose import check, compose


def compose_run(program: str, overrides: Sequence[str]) -> DictConfig:
    """The checked config of another program.

    Raises:
        UserError: Every mistake in the overrides.
    """
    config = compose(program, [*overrides, *search_path()])
    check(config, program)
    return config


def search_path() -> list[str]:
    """The override that names further folders of configs; the runs of this program search them too."""
    return [word for word in HydraConfig.get().overrides.hydra if word.startswith("hydra.searchpath=")]
