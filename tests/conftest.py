"""Fixtures of all tests: layers and models check the shapes in signatures; programs run apart from the machine."""

import sys
from collections.abc import Iterator

import pytest
import torch
from matplotlib.figure import Figure

from tests import gpus
from tests.plots import save_nothing
from tests.shapes import check_shapes

gpus.hide()
check_shapes("genoattn.attention", "genoattn.models")
collect_ignore = ["attention/kernels"]  # run by attention/test_kernels.py, in processes of their own


LONG = ("test_kernels.py", "test_package.py", "test_compare.py", "test_tutorials.py")
"""Tests that run first, so that no worker waits for them at the end."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.name not in LONG)


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
def quick() -> Iterator[None]:
    """Plots are empty files and no memory is estimated: half of the time of a tiny run. Other tests look at both."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", save_nothing)
        patch.setattr("genoattn.training.run.check_memory", lambda *_: None)
        yield
