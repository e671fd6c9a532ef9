"""Fixtures of all tests: shapes in signatures are checked at every call, programs run apart from the machine."""

import sys
from collections.abc import Iterator

import pytest
import torch
from jaxtyping import install_import_hook
from matplotlib.figure import Figure

from tests.plots import save_nothing

install_import_hook("genoattn", "beartype.beartype")
collect_ignore = ["attention/kernels"]  # run by attention/test_kernels.py, in processes of their own


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of its own, and words of pytest that Hydra does not see; threads as they were."""
    threads = torch.get_num_threads()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GENOATTN_CACHE", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(sys, "argv", ["pytest"])
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def undrawn() -> Iterator[None]:
    """Plots are empty files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save_nothing)
        yield
