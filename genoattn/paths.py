"""The folders of the configs, of the bundled genomes and of the bundled models."""

from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent

ENTRY_POINTS = "genoattn.layers"
"""Group of entry points; each names a package that holds `attention/NAME.yaml`."""


def conf_dir() -> Path:
    """The folder of the configs: the checkout's conf/, or the copy inside an installed wheel."""
    return _bundled("conf", "conf")


def genomes_dir() -> Path:
    """The folder of the bundled genomes: the checkout's data/, or the copy inside an installed wheel."""
    return _bundled("data", "genomes")


def models_dir() -> Path:
    """The folder of the bundled models, beside the genomes."""
    return genomes_dir() / "models"


def package_folders() -> list[Path]:
    """Folders of configs that other installed packages add by an entry point."""
    folders = []
    for point in entry_points(group=ENTRY_POINTS):
        package, *inner = point.value.split(".")
        spec = find_spec(package)  # of the top package, which is thereby not imported
        folders += [Path(root, *inner) for root in (spec and spec.submodule_search_locations) or ()]
    return folders


def _bundled(in_checkout: str, in_wheel: str) -> Path:
    # Only a checkout has pyproject.toml; in site-packages another package may have left a folder of the same name.
    checkout = PACKAGE.parent
    return checkout / in_checkout if (checkout / "pyproject.toml").is_file() else PACKAGE / in_wheel
