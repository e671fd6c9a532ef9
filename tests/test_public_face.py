"""The names of the package: present when they are used, and free when it is imported."""

import subprocess
import sys

import pytest

import genoattn
from genoattn.evaluation import evaluate
from genoattn.models.build import build_model


def test_public_names() -> None:
    assert genoattn.build_model is build_model
    assert genoattn.evaluate is evaluate
    assert all(callable(getattr(genoattn, name)) for name in genoattn.__all__)
    with pytest.raises(AttributeError, match="module 'genoattn' has no attribute 'train'"):
        genoattn.train  # noqa: B018


def test_importing_the_package_imports_no_heavy_library() -> None:
    program = "import sys, genoattn; print(sorted({'torch', 'numpy', 'hydra', 'lightning'} & set(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output == "[]\n"


def test_a_program_finds_mistakes_in_the_data_before_slow_libraries_are_imported() -> None:
    names = ", ".join(
        f"genoattn.cli.{name}" for name in ("train", "finetune", "evaluate", "context", "tokenizer_report")
    )
    program = f"import sys, {names}; print(sorted({{'lightning', 'torchmetrics'}} & set(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert output == "[]\n"
