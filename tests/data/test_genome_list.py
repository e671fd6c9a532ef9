"""A list of FASTA files gives each its weight and group; mistakes name the list and the line."""

from pathlib import Path

import pytest

from genoattn.config.compose import compose
from genoattn.data.genome_list import GenomeFile, fasta_paths, genome_files
from genoattn.errors import UserError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("a", "b"):
        (tmp_path / f"{name}.fa").write_text(">chr1\nACGT\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(text: str) -> list[GenomeFile]:
    Path("files.tsv").write_text(text)
    return genome_files("@files.tsv", "data.fasta")


def test_paths_begin_at_the_folder_of_the_list(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read(f"# two assemblies\n\nweight\tpath\tgroup\n3\ta.fa\tx\n0.5\t{folder}/b.fa\ty\n")
    monkeypatch.chdir("/")
    found = genome_files(f"@{folder}/files.tsv", "data.fasta")
    assert found == [(folder / "a.fa", 3.0, "x"), (folder / "b.fa", 0.5, "y")]


def test_lists_stand_beside_paths_and_patterns(folder: Path) -> None:
    assert compose("train", ["data.fasta=@files.tsv"]).data.fasta == "@files.tsv"  # Hydra's grammar lets it through
    assert read("path\na.fa\n") == [(Path("a.fa"), None, "")]
    assert genome_files(["@files.tsv", "b.*"], "data.fasta") == [(Path("a.fa"), None, ""), (Path("b.fa"), None, "")]
    assert fasta_paths(["@files.tsv", "b.*"], "data.fasta") == [Path("files.tsv"), Path("a.fa"), Path("b.fa")]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("path\tweight\na.fa\t1\nb.fa\t-1\n", "files.tsv, line 3: weight must be a number above 0, got '-1'"),
        ("path\tweight\na.fa\tinf\n", "files.tsv, line 2: weight must be a number above 0, got 'inf'"),
        ("path\tweight\na.fa\n", "files.tsv, line 2: expected 2 columns (path, weight), got 1"),
        ("\n# x\npath\nc.fa\n", "files.tsv, line 4: there is no file c.fa"),
        ("path\twieght\na.fa\t1\n", "files.tsv, line 1: 'wieght' is no column of a list of FASTA files; did you mean"),
        ("path\tpath\na.fa\ta.fa\n", "files.tsv, line 1: the column path stands twice"),
        ("group\nx\n", "files.tsv, line 1: there is no column path; expected a header with path"),
        ("path\tgroup\n\tx\n", "files.tsv, line 2: the path is empty"),
        ("path\n", "files.tsv names no file; expected a header"),
    ],
)
def test_a_mistake_names_the_list_and_the_line(folder: Path, text: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        read(text)
    assert str(caught.value).startswith(sentence)


def test_a_list_that_is_missing_and_a_weight_that_only_some_files_have(folder: Path) -> None:
    with pytest.raises(UserError, match=r"data\.fasta=@none\.tsv: there is no file none\.tsv; expected a table"):
        genome_files("@none.tsv", "data.fasta")
    read("path\tweight\na.fa\t1\n")
    with pytest.raises(UserError, match=r"data\.fasta: b\.fa has no weight and other files have one"):
        genome_files(["@files.tsv", "b.fa"], "data.fasta")
