"""Names of test sets: no VCF replaces the metrics of another one, or the headline."""

from pathlib import Path

import pytest

from genoattn.errors import UserError
from genoattn.evaluation.detection.evaluator import name_test_sets, placements


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["RN4220.vcf.gz", "x/N315.bcf"], ["RN4220", "N315"]),
        (["a/calls.vcf", "b/calls.vcf.gz", "c/other.vcf"], ["a-calls", "b-calls", "other"]),
        (["a/test.vcf", "a/simulated.vcf", "a/validation.vcf"], ["a-test", "a-simulated", "a-validation"]),
        (["a/x.vcf", "a/x_held_out.vcf"], ["x", "a-x_held_out"]),
        (["a/x_held_out.vcf"], ["x_held_out"]),
        (["a/x_oracle.vcf", "a/x.vcf"], ["a-x_oracle", "x"]),
    ],
)
def test_each_vcf_has_a_name_of_its_own(files: list[str], names: list[str]) -> None:
    named = name_test_sets([Path(file) for file in files])
    assert list(named) == names and list(named.values()) == [Path(file) for file in files]


def test_what_the_vcf_has_placed_is_named_so_beside_what_it_has_not() -> None:
    assert placements("x", "vcf") == {"x": True} and placements("x", "anchors") == {"x": False}
    assert placements("x", "both") == {"x": False, "x_oracle": True}


def test_a_name_without_a_folder_is_that_of_the_folder_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert list(name_test_sets([Path("test.vcf")])) == ["here-test"]
    assert list(name_test_sets([Path("test_128.vcf"), Path("test_a.vcf")])) == ["here-test_128", "test_a"]


@pytest.mark.parametrize(
    "files",
    [
        ["a/calls.vcf", "a/calls.vcf"],
        ["a/calls.vcf", "a/calls.bcf"],
        ["x/a/calls.vcf", "y/a/calls.vcf"],
        ["a/x.vcf", "b/x.vcf", "a/x_held_out.vcf"],
        ["a/x.vcf", "b/x.vcf", "c/a-x.vcf"],
    ],
)
def test_vcfs_that_cannot_be_told_apart_are_refused(files: list[str]) -> None:
    with pytest.raises(
        UserError, match=r"data\.vcf: .* and .* would both be reported as a-.*; rename one of the files"
    ):
        name_test_sets([Path(file) for file in files])
