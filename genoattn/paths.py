"""where conf/ and the genomes lie"""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def conf_dir() -> Path:
    """The folder of the configs: the checkout's conf/, or the copy inside an installed wheel."""
    return _shipped("conf", "conf")


def genomes_dir() -> Path:
    """The folder of the genomes that ship: the checkout's data/, or the copy inside an installed wheel."""
    return _shipped("data", "genomes")


def _shipped(in_checkout: str, in_wheel: str) -> Path:
    # pyproject.toml tells a checkout from site-packages, where another package may have left a folder of that name
    checkout = PACKAGE.parent
    return checkout / in_checkout if (checkout / "pyproject.toml").is_file() else PACKAGE / in_wheel
