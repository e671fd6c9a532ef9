"""The loggers of a run: metrics.csv always, Weights & Biases by choice, offline where it cannot be reached."""

import os
import socket
from collections.abc import Mapping
from pathlib import Path

import wandb
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger


def build_loggers(folder: Path, choice: Logger | None, config: Mapping) -> list[Logger]:
    """metrics.csv in the run folder, and the logger of choice, which is told the config."""
    loggers: list[Logger] = [CSVLogger(folder, name="", version="")]
    if choice is not None:
        choice.log_hyperparams(dict(config))
        loggers.append(choice)
    return loggers


def wandb_logger(project: str = "genoattn", name: str | None = None, save_dir: str = ".") -> WandbLogger:
    """Logs to Weights & Biases; offline, and saying so, where there is no key or no network."""
    mode = os.environ.get("WANDB_MODE")
    if mode is None and (reason := _unreachable()):
        mode = "offline"
        print(f"wandb: {reason}, so this run is logged offline; send it later with `wandb sync {save_dir}/wandb/…`")
    return WandbLogger(project=project, name=name, save_dir=save_dir, offline=mode == "offline")


def _unreachable() -> str:
    """Why nothing can be sent now; empty where it can."""
    if not wandb.api.api_key:
        return "no key was found (wandb login, or WANDB_API_KEY)"
    try:
        socket.create_connection(("api.wandb.ai", 443), timeout=3).close()
    except OSError:
        return "api.wandb.ai cannot be reached"
    return ""
