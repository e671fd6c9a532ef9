"""The loggers of a run: metrics.csv always, Weights & Biases by choice, offline where it cannot be reached."""

import netrc
import os
import socket
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger


def build_loggers(folder: Path, choice: Logger | None, config: Mapping) -> list[Logger]:
    """metrics.csv in the run folder, and the logger of choice, which is told the config."""
    loggers: list[Logger] = [CSVLogger(folder, name="", version="")]
    if choice is not None:
        choice.log_hyperparams(dict(config))
        loggers.append(choice)
    return loggers


def wandb_logger(
    project: str = "genoattn", name: str | None = None, group: str | None = None, save_dir: str = "."
) -> WandbLogger:
    """Logs to Weights & Biases; offline, and saying so, where there is no key or no network.

    $WANDB_MODE, where it is set, decides instead.
    """
    reason = "" if "WANDB_MODE" in os.environ else _unreachable()
    if reason:
        print(f"wandb: {reason}, so this run is logged offline; send it later with `wandb sync {save_dir}/wandb/…`")
    mode = "offline" if reason else None
    return WandbLogger(project=project, name=name, group=group, save_dir=save_dir, mode=mode)


def _unreachable() -> str:
    """Why nothing can be sent now; empty where it can."""
    address = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai")
    host, port = address.hostname or "", address.port or (80 if address.scheme == "http" else 443)
    try:
        known = netrc.netrc(os.environ.get("NETRC")).authenticators(host)
    except (OSError, netrc.NetrcParseError):
        known = None
    if not (os.environ.get("WANDB_API_KEY") or known):
        return "no key was found (wandb login, or WANDB_API_KEY)"
    try:
        socket.create_connection((host, port), timeout=3).close()
    except OSError:
        return f"{host} cannot be reached"
    return ""
