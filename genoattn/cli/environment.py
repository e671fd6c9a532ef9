"""The machine, the versions and the source of this program, for reports."""

import json
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

CHECKOUT = Path(__file__).parents[2]
"""The folder of the checkout, if the package lies in one."""


def processor() -> str:
    """The name of the processor, such as AMD EPYC 7B13."""
    names = Path("/proc/cpuinfo")
    lines = names.read_text("utf-8").splitlines() if names.is_file() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def versions() -> dict[str, str]:
    """The versions of the libraries that results depend on."""
    return {name: version(name) for name in ("genoattn", "torch", "lightning", "numpy")}


def commit() -> str | None:
    """The commit of the checkout, or that from which pip installed the package; None: it is not known."""
    if (CHECKOUT / ".git").exists():
        words = ("describe", "--always", "--exclude=*", "--abbrev=12", "--dirty= and edits")
        command = ["git", "-C", str(CHECKOUT), *words]
        try:
            return subprocess.run(command, capture_output=True, text=True, timeout=5, check=True).stdout.strip()
        except (OSError, subprocess.SubprocessError):
            return None
    try:
        origin = json.loads(distribution("genoattn").read_text("direct_url.json") or "{}")
        return origin.get("vcs_info", {}).get("commit_id")
    except (PackageNotFoundError, ValueError, AttributeError):
        return None


def device() -> str:
    """The GPU if this process has computed on one, else the processor."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        return str(torch.cuda.get_device_name())
    return processor()


def threads() -> int | None:
    """The number of threads that torch computes with; None: it was not needed."""
    torch = sys.modules.get("torch")
    return None if torch is None else int(torch.get_num_threads())
