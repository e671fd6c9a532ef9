"""The program `genoattn kernels`: kernels compiled for GPUs that need not be there, and what the compiler says."""

import sys
from importlib.util import find_spec

from omegaconf import DictConfig

from genoattn.errors import UserError
from genoattn.files import write_json


def main(config: DictConfig) -> None:
    """Compile the kernels that ship and print what the compiler says; exit status 1 if something is amiss."""
    if sys.platform != "linux" or find_spec("triton") is None:
        raise UserError("genoattn kernels needs triton, which is not installed")
    from genoattn.attention.kernels.ahead_of_time.report import show, show_ablations  # late: it imports triton

    if config["tune"]:
        tune()
        return
    if config["choices"]:
        show_ablations(config["family"])
        return
    if show(config["all"], config["family"], config["update"]):  # a config has a method update
        raise SystemExit(1)


def tune() -> None:
    """Time the tiles of flash attention on this machine's GPU and write those that are fastest into the table."""
    from genoattn.attention.kernels.ahead_of_time.tune import tune_here
    from genoattn.attention.kernels.configurations import TIMED, timed_tiles

    found = tune_here(print)
    write_json(TIMED, {**timed_tiles(), **found}, indent=1)
    print(f"the fastest tiles of this GPU now are those of its family: {TIMED}")
