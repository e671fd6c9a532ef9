"""The folders of the configs and of the bundled genomes."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parent


def conf_dir() -> Path:
    """The folder of the configs: the checkout's conf/, or the copy inside an installed wheel."""
    return _bundled("conf", "conf")


def genomes_dir() -> Path:
    """The folder of the bundled genomes: the checkout's data/, or the copy inside an installed wheel."""
    return _bundled("data", "genomes")


def _bundled(in_checkout: str, in_wheel: str) -> Path:
    # Only a checkout has pyproject.toml; in site-packages a folder conf/ or data/ may belong to another package.
    checkout = PACKAGE.parent
    return checkout / in_checkout if (checkout / "pyproject.toml").is_file() else PACKAGE / in_wheel
