"""Print the lowest version that pyproject.toml allows of each dependency, for `make test-lowest`.

torch, and triton which torch determines, are those of requirements-torch.lock; the tools of the tests are those of
requirements-dev.lock.
"""

import itertools
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT = Path(__file__).parents[1]
OF_THE_LOCK = ("torch", "triton", "pytest", "hypothesis", "beartype")


def lowest_versions(project: dict, lock: str) -> Iterator[str]:
    """Requirements of single versions.

    Args:
        project: The table `project` of pyproject.toml.
        lock: The text of both locks.
    """
    locked = [line.partition("\\")[0].strip() for line in lock.splitlines() if "==" in line and line[0] not in " #"]
    yield from (line for line in locked if canonicalize_name(line.partition("==")[0]) in OF_THE_LOCK)
    extras = [project["optional-dependencies"][name] for name in ("lora", "tracks", "joblib", "optuna")]
    for text in [*project["dependencies"], *itertools.chain(*extras)]:
        requirement = Requirement(text)
        if requirement.name not in OF_THE_LOCK:
            (floor,) = (bound.version for bound in requirement.specifier if bound.operator == ">=")
            yield f"{requirement.name}=={floor}"


if __name__ == "__main__":
    table = tomllib.loads((CHECKOUT / "pyproject.toml").read_text("utf-8"))["project"]
    locks = "".join(file.read_text("utf-8") for file in sorted(CHECKOUT.glob("requirements-*.lock")))
    sys.stdout.writelines(f"{line}\n" for line in lowest_versions(table, locks))
