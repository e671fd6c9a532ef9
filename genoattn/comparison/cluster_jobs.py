"""Jobs that run elsewhere for this program: whether their starter still runs, and those of Slurm, to be cancelled.

Hydra's submitit launcher leaves a folder for each job in `.submitit` of the folder of all jobs. It holds what was
submitted, and what came of it once the job has ended.
"""

import os
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from genoattn.files import HOST

SUBMITTED = ".submitit"
"""The folder of submitit inside that of all jobs."""

CANCELLED = "cancelled"
"""The file in the folder of a job that was cancelled."""

_TOGETHER = 500
"""Jobs that one call of scancel names."""


class Starter(NamedTuple):
    """The process that launches all jobs."""

    host: str
    process: int

    @classmethod
    def here(cls) -> "Starter":
        """This process."""
        return cls(HOST, os.getpid())

    @property
    def is_near(self) -> bool:
        """True on the machine of the starter, where its end can be seen."""
        return self.host == HOST

    @property
    def has_ended(self) -> bool:
        """True if it runs no longer; a process that has ended and was not waited for counts as ended."""
        try:
            os.kill(self.process, 0)
            status = Path(f"/proc/{self.process}/stat").read_text("latin-1")
        except ProcessLookupError:
            return True
        except OSError:  # of another user, or a system without /proc
            return False
        return status.rpartition(")")[2].split()[0] in "ZX"


def open_slurm_jobs(folder: Path) -> dict[str, Path]:
    """The Slurm jobs of a folder that were submitted, and neither ended nor were cancelled: each with its folder.

    Args:
        folder: The folder of all jobs.
    """
    jobs: dict[str, Path] = {}
    root = folder / SUBMITTED
    for submitted in sorted(root.glob("*/*_submitted.pkl")):
        place, name = submitted.parent, submitted.name.removesuffix("_submitted.pkl")
        array = name.partition("_")[0]
        is_of_slurm = (root / array / f"{array}_submission.sh").is_file()  # a local job has no script
        if is_of_slurm and not (place / CANCELLED).exists() and not any(place.glob(f"{name}_*_result.pkl")):
            jobs[name] = place
    return jobs


def cancel_slurm_jobs(folder: Path, why: str) -> None:
    """Cancel what Slurm still has to do for a folder, and say so; without `scancel` the line names the jobs.

    Args:
        folder: The folder of all jobs.
        why: The end of the sentence.
    """
    jobs = open_slurm_jobs(folder)
    names = list(jobs)
    for first in range(0, len(names), _TOGETHER):
        chosen = names[first : first + _TOGETHER]
        try:
            done = subprocess.run(["scancel", *chosen], capture_output=True, text=True, timeout=60, check=False)
            problem = done.stderr.strip() if done.returncode else ""
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = str(error)
        if problem:
            print(f"{len(chosen)} jobs may still run: scancel {' '.join(chosen)} ({problem})", file=sys.stderr)
            continue
        print(f"{len(chosen)} jobs of Slurm cancelled, {why}", file=sys.stderr)
        for name in chosen:
            with suppress(OSError):
                (jobs[name] / CANCELLED).touch()
