"""A genome is split for training, and for a saved model what its training held out is held out again."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hydra.utils import instantiate

from genoattn.config.compose import compose
from genoattn.data.curriculum import Curriculum
from genoattn.data.settings import DataSettings, TrainingSplit
from genoattn.data.source import DataSource, build_dataset, describe_source, open_data_source
from genoattn.data.tasks.language_modeling import LanguageModeling
from genoattn.data.tasks.side_by_side import SideBySide
from genoattn.data.tasks.variant_classification import VariantClassification
from genoattn.errors import UserError
from genoattn.genome.intervals import Interval
from genoattn.genome.vcf import read_variants
from genoattn.training.identity import identify

pytestmark = pytest.mark.usefixtures("alone")
TASK = SideBySide(max_shift=4)
LETTERS = {
    name: "".join(np.random.default_rng(seed).choice(list("ACGT"), size))
    for seed, (name, size) in enumerate({"a": 20_000, "b": 12_000, "plasmid": 3_000, "scrap": 8}.items())
}


def settings(folder: Path, records: dict[str, str], length: int = 64, **others: object) -> DataSettings:
    fasta = folder / f"{'_'.join(records)}.fa"
    fasta.write_text("".join(f">{name}\n{letters}\n" for name, letters in records.items()))
    return DataSettings(length=length, fasta=str(fasta), **others)  # type: ignore[arg-type]


def training_split(source: DataSource, data: DataSettings, seed: int = 0) -> TrainingSplit:
    return TrainingSplit(tuple(record.sha256 for record in source.genome.records), data.length, data.split, seed)


def chosen(*names: str) -> dict[str, str]:
    return {name: LETTERS[name] for name in names}


@pytest.mark.parametrize("split", ["block", "record"])
def test_the_genome_of_the_training_has_the_same_split_whatever_the_settings_say(tmp_path: Path, split: str) -> None:
    data = settings(tmp_path, {**chosen("a", "b", "plasmid"), "copy": LETTERS["a"]}, split=split, max_leak=None)
    source = open_data_source(data, TASK, seed=3)
    assert source.new_records == () and "sequence" not in describe_source(source)
    other = replace(data, length=32, split="block" if split == "record" else "record")
    again = open_data_source(other, TASK, seed=4, trained=training_split(source, data, seed=3))
    assert again.splits == source.splits and again.trained_on and again.new_records == ()


def test_records_that_training_did_not_have_are_held_out_as_a_whole(tmp_path: Path) -> None:
    data = settings(tmp_path, chosen("a", "b"))
    trained = open_data_source(data, TASK, seed=0)
    known = training_split(trained, data)
    more = settings(tmp_path, chosen("plasmid", "a", "scrap", "b"))
    source = open_data_source(more, TASK, seed=0, trained=known)
    moved = {
        name: [(2 * interval.record + 1, *interval[1:]) for interval in getattr(trained.splits, name)]
        for name in ("train", "validation", "test")
    }
    assert source.splits.train == tuple(moved["train"]) and source.splits.validation == tuple(moved["validation"])
    assert source.splits.test == (Interval(0, 0, 3_000), *moved["test"])
    assert source.splits.skipped == ("scrap",) and source.new_records == (0, 2) and source.trained_on
    text = describe_source(source)
    assert "records that the model was trained on: a, b; only their test blocks are held out" in text
    assert "records with another sequence: plasmid, scrap; held out as a whole" in text


def test_a_trimmed_record_counts_as_another_sequence_and_the_text_says_so(tmp_path: Path) -> None:
    data = settings(tmp_path, chosen("a", "b"))
    trained = open_data_source(data, TASK, seed=0)
    known = training_split(trained, data)
    trimmed = settings(tmp_path, {"a": LETTERS["a"], "b": LETTERS["b"][10:]}, length=48)
    source = open_data_source(trimmed, TASK, seed=0, trained=known)
    assert source.new_records == (1,)
    of_a = tuple(interval for interval in trained.splits.test if interval.record == 0)
    assert source.splits.test == (*of_a, Interval(1, 0, 11_990))
    assert all(interval.record == 0 for interval in (*source.splits.train, *source.splits.validation))
    assert "a record that was trimmed or edited after training counts as another sequence" in describe_source(source)


def test_some_of_the_records_of_the_training_keep_their_blocks(tmp_path: Path) -> None:
    data = settings(tmp_path, chosen("a", "b"))
    trained = open_data_source(data, TASK, seed=0)
    source = open_data_source(settings(tmp_path, chosen("b")), TASK, seed=0, trained=training_split(trained, data))
    of_b = tuple(interval._replace(record=0) for interval in trained.splits.test if interval.record == 1)
    assert source.splits.test == of_b and source.trained_on


def test_a_split_by_records_that_cannot_be_repeated_holds_out_new_records_alone(tmp_path: Path) -> None:
    data = settings(tmp_path, chosen("a", "b", "plasmid"), split="record")
    known = training_split(open_data_source(data, TASK, seed=0), data)
    some = settings(tmp_path, {**chosen("a", "b"), "new": LETTERS["plasmid"][::-1]})
    source = open_data_source(some, TASK, seed=0, trained=known)
    assert source.splits.test == source.splits.validation == (Interval(2, 0, 3_000),)
    assert [interval.record for interval in source.splits.train] == [0, 1]
    with pytest.raises(UserError, match="holds no base that the training of this model held out"):
        open_data_source(settings(tmp_path, chosen("a", "b")), TASK, seed=0, trained=known)


def test_a_genome_that_was_not_trained_on_is_tested_as_a_whole(tmp_path: Path) -> None:
    data = settings(tmp_path, chosen("plasmid", "scrap"), length=2_000)
    with pytest.raises(UserError, match="no record can be split"):  # training would have to
        open_data_source(data, SideBySide(), 0)
    known = TrainingSplit(("another",), length=64, split="block", seed=0)
    source = open_data_source(data, SideBySide(), 0, known)
    assert source.splits.test == source.splits.validation == ((0, 0, 3_000),)
    assert source.splits.train == () and source.splits.skipped == ("scrap",) and not source.trained_on
    assert describe_source(source).endswith("the model was trained on no record of this genome: all of it is held out")
    short = replace(data, length=100)  # a language model's baselines learn from the rest
    assert open_data_source(short, LanguageModeling(), 0, known).splits.train


def test_what_is_held_out_is_audited(tmp_path: Path) -> None:
    source = open_data_source(settings(tmp_path, chosen("a", "b", "plasmid"), split="record"), TASK, seed=0)
    assert describe_source(source).splitlines()[1].startswith("leak audit: 0.0% of the test minimizers and 0.0% ")
    twice = {**chosen("a", "b", "plasmid"), "copy": LETTERS["b"]}
    with pytest.raises(UserError, match="holds the sequence of record b again as copy, and "):
        open_data_source(settings(tmp_path, twice, split="record"), TASK, seed=0)
    assert ", 1 duplicate record" in describe_source(open_data_source(settings(tmp_path, twice), TASK, seed=0))
    near = settings(tmp_path, {**chosen("a"), "near": LETTERS["a"][9_000:]})  # its blocks lie on others of a
    with pytest.raises(UserError, match=r"minimizers .* occur in training blocks, and data\.max_leak=0\.1 allows"):
        open_data_source(replace(near, max_leak=0.1), TASK, seed=0)
    assert open_data_source(replace(near, max_leak=None), TASK, seed=0).leak
    known = TrainingSplit(("another",), length=64, split="block", seed=0)
    assert open_data_source(near, TASK, 0, known).leak is None  # the training blocks are not at hand


@pytest.fixture(scope="module")
def assemblies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six files with the records chr1 and chr2 each, three groups, and a list of them with weights."""
    folder, rows = tmp_path_factory.mktemp("assemblies"), ["path\tweight\tgroup"]
    for number in range(6):
        letters = "".join(np.random.default_rng(number).choice(list("ACGT"), 4_000))
        (folder / f"s{number}.fa").write_text(f">chr1\n{letters[:3_000]}\n>chr2\n{letters[3_000:]}\n")
        rows.append(f"s{number}.fa\t{number + 1}\t{'xyz'[number % 3]}")
    (folder / "files.tsv").write_text("\n".join(rows) + "\n")
    return folder


def held(source: DataSource) -> list[set[int]]:
    """The files of each split."""
    return [{source.genome.records[interval.record].file for interval in part} for part in source.splits[:3]]


@pytest.mark.parametrize(("split", "sizes"), [("file", [1, 1, 4]), ("group", [2, 2, 2])])
def test_files_and_groups_stay_whole_and_a_saved_model_repeats_their_split(
    assemblies: Path, split: str, sizes: list[int]
) -> None:
    data = DataSettings(length=64, fasta=f"@{assemblies}/files.tsv", split=split)  # type: ignore[arg-type]
    source = open_data_source(data, TASK, seed=1)
    files = held(source)
    assert sorted(map(len, files)) == sizes and set.union(*files) == set(range(6))
    assert all(len({file % 3 for file in own}) == 1 for own in files) or split == "file"
    assert [interval[1:] for part in source.splits[:3] for interval in part] == [(0, 3_000), (0, 1_000)] * 6
    text = describe_source(source)
    assert re.search(
        r"\ntrain: [xyz]; validation: [xyz]; test: [xyz]\n" if split == "group" else r"\ntrain: s\d.fa, s", text
    )
    trained = replace(training_split(source, data, seed=1), units=source.units)
    plain = replace(data, fasta=f"{assemblies}/s*.fa", split="block", length=32)
    assert open_data_source(plain, TASK, seed=2, trained=trained).splits == source.splits
    plain = replace(data, fasta=f"{assemblies}/s*.fa", split="group")
    with pytest.raises(UserError, match=r"data\.split=group: .*s0\.fa has no group; expected data\.fasta=@files\.tsv"):
        open_data_source(plain, TASK, seed=2)


def test_weights_are_shares_of_the_training_windows(assemblies: Path) -> None:
    data = DataSettings(length=64, fasta=f"@{assemblies}/files.tsv")
    source = open_data_source(data, TASK, seed=0)
    assert "training windows by file: s0.fa 4.8%, s1.fa 9.5%, " in describe_source(source)

    def counts(split: str) -> np.ndarray:
        dataset = build_dataset(source, split, data, TASK, 0, 1, Curriculum())
        blocks = [dataset.example(number, dataset.stage(0)).block for number in range(2_100)]
        return np.bincount([source.genome.records[block[0]].file for block in blocks if block], minlength=6)

    expected = 100 * np.arange(1, 7)
    assert np.all(np.abs(counts("train") - expected) < 4 * np.sqrt(expected))
    assert np.all(np.abs(counts("test") - 350) < 4 * np.sqrt(350))  # every base alike
    table = Path(assemblies / "variants.tsv")
    table.write_text("chrom\tpos\tref\talt\n")
    own, plain = (identify({}, replace(source, files=files)).inputs for files in (source.files, ()))
    other = identify({}, replace(source, files=(source.files[0]._replace(weight=9.0), *source.files[1:]))).inputs
    assert "weights" not in plain and own["weights"] != other["weights"]  # a resumed run would see other examples
    with pytest.raises(UserError, match=r"weights are shares of windows .* this task draws labelled examples"):
        open_data_source(data, VariantClassification(str(table), "kind", {"cold": ["x"], "hot": ["y"]}), 0)


def test_a_name_that_stands_in_several_files_is_that_of_the_file_and_the_record(
    assemblies: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = DataSettings(length=64, fasta=f"@{assemblies}/files.tsv")
    genome = open_data_source(data, TASK, seed=0).genome
    assert genome.names[:4] == ("s0:chr1", "s0:chr2", "s1:chr1", "s1:chr2") and genome.index("s5:chr2") == 11
    said = "2 record names stand in several FASTA files; chr1 is read as s0:chr1, s1:chr1, s2:chr1 and 3 more"
    assert said in capsys.readouterr().out
    with pytest.raises(UserError, match="'chr1' stands in several FASTA files: name one of s0:chr1, s1:chr1"):
        genome.index("chr1")
    vcf = assemblies / "x.vcf"
    vcf.write_text("##fileformat=VCFv4.2\n#CHROM\tPOS\tID\tREF\tALT\tQUAL\tFILTER\tINFO\nchr1\t9\t.\tA\tC\t.\t.\t.\n")
    with pytest.raises(UserError, match="the contig 'chr1' stands in several FASTA files, and may be any of s0:chr1"):
        read_variants(vcf, dict(zip(genome.names, genome.lengths, strict=True)))
    letters = "ACGT"[genome.fetch(genome.index("s3:chr1"), 8, 9)[0]]
    other = "ACGT".replace(letters, "")[0]
    vcf.write_text(vcf.read_text().replace("chr1\t9\t.\tA\tC", f"s3:chr1\t9\t.\t{letters}\t{other}"))
    found = read_variants(vcf, dict(zip(genome.names, genome.lengths, strict=True)))
    assert [(v.contig, v.start) for v in found.by_contig["s3:chr1"]] == [("s3:chr1", 8)]


def test_classes_of_a_user_take_the_place_of_those_of_clinvar() -> None:
    assert list(VariantClassification("x.tsv").classes) == ["benign", "pathogenic"]
    own = VariantClassification("x.tsv", classes={"cold": ["x"], "hot": ["y"]})
    assert own.classes == {"cold": ["x"], "hot": ["y"]} and own.outputs["class"].classes == 2
    config = compose("train", ["task=variant", "task.file=x.tsv", "task.classes={cold: [x], hot: [y]}"])
    assert instantiate(config.task).classes == own.classes


def test_variants_are_assigned_to_splits_without_a_word_or_a_change_of_the_task(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = settings(tmp_path, chosen("a"))
    rows = ["chrom\tpos\tref\talt\tkind"]
    for number, position in enumerate(range(100, 20_000, 100)):
        base = LETTERS["a"][position - 1]
        rows.append(f"a\t{position}\t{base}\t{'ACGT'['ACGT'.index(base) - 1]}\t{'xyz'[number % 3]}")
    (tmp_path / "kinds.tsv").write_text("\n".join(rows) + "\n")
    classes = {"cold": ["x"], "hot": ["y"]}
    task = VariantClassification(str(tmp_path / "kinds.tsv"), "kind", classes, weights="balanced")
    source = open_data_source(data, task, 0)
    assert set(source.labelled) == {"train", "validation", "test"} and source.skipped_variants["labelled z"] == 66
    assert task.outputs["class"].balance == () and capsys.readouterr().out == ""
    assert f"labelled variants: 199 rows; train {len(source.labelled['train'])}, " in describe_source(source)
    assert "; left out: 66 labelled z, " in describe_source(source)
    task.set_targets(source.labelled["train"])
    genes = [f"a\t{start}\t{start + 150}" for start in range(0, 20_000, 200)]
    (tmp_path / "genes.bed").write_text("\n".join(["# genes", *genes, "track x"]))
    by_gene = VariantClassification(str(tmp_path / "kinds.tsv"), "kind", classes, split_bed=str(tmp_path / "genes.bed"))
    lines = describe_source(open_data_source(data, by_gene, 0)).splitlines()
    assert lines[-2].startswith("labelled variants: 199 rows; train ")
    assert lines[-1] == "genes.bed: 102 lines; 100 intervals; left out: 1 comment, 1 'track' line"
    assert len(task.outputs["class"].balance) == 2
