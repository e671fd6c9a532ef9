"""A genome is encoded once, whole or not at all, and opened at no cost, whoever else is at work."""

import gzip
import hashlib
import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genoattn.errors import UserError
from genoattn.files import HOST
from genoattn.genome import digests
from genoattn.genome import sequence_store as store
from genoattn.genome.alphabet import LETTERS, UNKNOWN, decode_bases, encode_bases
from genoattn.genome.fasta import Record
from genoattn.genome.sequence_store import Genome, open_genome

TEXT = ">chr1 one\nACGTNNacgtnR\n>chr2\n\n>chr3\nT\n"


@pytest.fixture
def fasta(tmp_path: Path) -> Path:
    path = tmp_path / "a.fa"
    path.write_text(TEXT)
    return path


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def folders(cache: Path) -> list[Path]:
    return [path for path in cache.iterdir() if path.is_dir()]


def test_contents_of_a_store(fasta: Path, cache: Path):
    genome = open_genome([fasta], cache)
    first, second, third = genome.records
    assert genome.names == ("chr1", "chr2", "chr3") and genome.lengths == (12, 0, 1) and genome.total == 13
    assert first.masked == 5 and first.unknown == 3 and second.masked == third.unknown == 0
    assert [record.offset for record in genome.records] == [0, 12, 12]
    assert first.sha256 == hashlib.sha256(b"ACGTNNACGTNR").hexdigest()
    assert decode_bases(genome.fetch(0, 0, 12)) == "ACGTNNACGTNR"
    assert decode_bases(genome.fetch(0, 3, 7)) == "TNNA" and decode_bases(genome.fetch(2, 0, 1)) == "T"
    assert len(genome.fetch(1, 0, 0)) == 0 and genome.index("chr3") == 2
    (folder,) = folders(cache)
    index = json.loads((folder / "index.json").read_text())
    assert index["format"] == store.FORMAT and index["sources"][0]["path"] == str(fasta)


def test_lower_case_is_kept_or_masked(fasta: Path, cache: Path):
    assert decode_bases(open_genome([fasta], cache, "mask").fetch(0, 0, 12)) == "ACGTNNNNNNNR"
    with pytest.raises(UserError, match=r"data\.soft_mask must be 'keep' or 'mask', got 'drop'"):
        open_genome([fasta], cache, "drop")


def test_bases_are_in_memory_of_their_own(fasta: Path, cache: Path):
    genome = open_genome([fasta], cache)
    for record in (0, 2):
        genome.fetch(record, 0, 1)[0] = 9
    assert genome.fetch(0, 0, 1)[0] == 0 and genome.fetch(2, 0, 1)[0] == 3
    with pytest.raises(ValueError, match="read-only"):
        genome.stored[0] = 1


@pytest.mark.parametrize(
    ("record", "start", "stop"), [(0, -1, 3), (0, 0, 13), (0, 5, 4), (1, 0, 1), (3, 0, 0), (-1, 0, 1)]
)
def test_nothing_is_read_outside_a_record(fasta: Path, cache: Path, record: int, start: int, stop: int):
    genome = open_genome([fasta], cache)
    with pytest.raises(IndexError):
        genome.fetch(record, start, stop)


def test_a_wrong_record_name_is_answered_by_a_similar_one_or_by_all(fasta: Path, cache: Path):
    with pytest.raises(UserError, match=r"holds no record 'chr33'; did you mean chr3\?"):
        open_genome([fasta], cache).index("chr33")
    with pytest.raises(UserError, match="holds no record 'NC_007795'; there are chr1, chr2, chr3"):
        open_genome([fasta], cache).index("NC_007795")


runs = st.lists(st.text(LETTERS + LETTERS.lower(), max_size=30), min_size=1, max_size=5).filter(any)


@settings(max_examples=40, deadline=None)
@given(runs, st.data())
def test_coordinates(tmp_path_factory: pytest.TempPathFactory, letters: list[str], data: st.DataObject):
    folder = tmp_path_factory.mktemp("coordinates")
    (folder / "a.fa").write_text("".join(f">r{i}\n{run}\n" for i, run in enumerate(letters)))
    genomes = {policy: open_genome([folder / "a.fa"], folder / "cache", policy) for policy in ("keep", "mask")}
    for record, run in enumerate(letters):
        stop = data.draw(st.integers(0, len(run)))
        start = data.draw(st.integers(0, stop))
        piece = run[start:stop]
        hidden = "".join("N" if letter.islower() else letter for letter in piece)
        np.testing.assert_array_equal(genomes["keep"].fetch(record, start, stop), encode_bases(piece))
        np.testing.assert_array_equal(genomes["mask"].fetch(record, start, stop), encode_bases(hidden))


def test_several_files_are_one_genome_in_order(fasta: Path, cache: Path, tmp_path: Path):
    other = tmp_path / "b.fa.gz"
    other.write_bytes(gzip.compress(b">plasmid\nGG\n"))
    assert open_genome([fasta, other], cache).names == ("chr1", "chr2", "chr3", "plasmid")
    assert open_genome([other, fasta], cache).names == ("plasmid", "chr1", "chr2", "chr3")
    assert len(folders(cache)) == 2


def test_names_must_differ_within_a_file(cache: Path, tmp_path: Path):
    twice = tmp_path / "twice.fa"
    twice.write_text(">x one\nA\n>x two\nC\n")
    with pytest.raises(UserError) as caught:
        open_genome([twice], cache)
    assert str(caught.value) == f"the record name x stands twice in {twice}; names must differ"
    with pytest.raises(UserError, match=r"twice\.fa is named twice; expected each file once"):
        open_genome([twice, twice], cache)
    assert list(cache.iterdir()) == []


def test_the_same_name_in_two_files(fasta: Path, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The file stands in front of the name where two are the same, whichever paths the cached store was built from."""
    for other in ("b.fa", "c d.fa"):
        (tmp_path / other).write_text(">new\nAA\n>chr3\nCC\n")
        genome = open_genome([fasta, tmp_path / other], cache)
        label = other[0] if other == "b.fa" else "c_d"
        assert genome.names == ("chr1", "chr2", "a:chr3", "new", f"{label}:chr3")
        assert decode_bases(genome.fetch(genome.index(f"{label}:chr3"), 0, 2)) == "CC"
        assert pickle.loads(pickle.dumps(genome)).names == genome.names
        message = f"the record name chr3 stands in 2 FASTA files: a:chr3 and {label}:chr3\n"
        assert capsys.readouterr().out == message
        with pytest.raises(UserError) as caught:
            genome.index("chr3")
        assert str(caught.value).endswith(f"stands in several FASTA files: name one of a:chr3 and {label}:chr3")
    assert len(folders(cache)) == 1
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "a.fa").write_text(TEXT)
    names = open_genome([fasta, tmp_path / "deep" / "a.fa"], cache).names
    assert names[0] == f"{tmp_path.name}/a:chr1" and names[3] == "deep/a:chr1"
    assert "3 record names stand in several FASTA files; chr1 is read as" in capsys.readouterr().out
    (tmp_path / "d.fa").write_text(">a:chr3\nA\n")
    with pytest.raises(UserError, match="two records of the FASTA files would be called a:chr3; rename one"):
        _ = open_genome([fasta, tmp_path / "b.fa", tmp_path / "d.fa"], cache).names


def test_letters_u_are_said_at_every_start(cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rna, mixed = tmp_path / "rna.fa", tmp_path / "mixed.fa"
    rna.write_text(">x\nACGUUu\n")
    mixed.write_text(">y\nACTt\n>z\nUT\n")
    for _ in range(2):
        genome = open_genome([rna, mixed], cache)
        assert decode_bases(genome.fetch(0, 0, 6)) == "ACGTTT"
        assert capsys.readouterr().out == (
            f"{rna}: 3 U are read as T\n{mixed}: 1 U are read as T; it mixes RNA and DNA: there are 3 T besides\n"
        )


@pytest.mark.parametrize("fresh", [digests.FRESH_NS, -1])
def test_the_content_is_the_key(fasta: Path, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fresh: int):
    monkeypatch.setattr(digests, "FRESH_NS", fresh)
    copy = tmp_path / "copy.fa"
    copy.write_text(TEXT)
    assert open_genome([fasta], cache).folder == open_genome([copy], cache).folder
    before = fasta.stat()
    time.sleep(0.05)  # longer than a tick of a file system's clock
    fasta.write_text(TEXT.replace("ACGTNN", "CCGTNN"))
    os.utime(fasta, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert decode_bases(open_genome([fasta], cache).fetch(0, 0, 4)) == "CCGT"


def test_a_settled_file_is_hashed_once(fasta: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    hashed: list[str] = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda file, name: hashed.append(file.name) or digest(file, name))
    bases = str(open_genome([fasta], cache).folder / "bases.u8")
    open_genome([fasta], cache)
    assert hashed == [str(fasta), bases] * 2, "a file written a moment ago might change within a tick of the clock"
    monkeypatch.setattr(digests, "FRESH_NS", -1)
    open_genome([fasta], cache)
    open_genome([fasta], cache)
    assert hashed == [str(fasta), bases] * 3
    for rubbish in ("", "{", "[]", "[" * 100_000, '{"a": 1}', f'{{"{fasta}": {{"signature": 3}}}}', "\0\xff"):
        (cache / "genome-digests.json").write_text(rubbish, "latin-1")
        assert open_genome([fasta], cache).total == 13
        assert str(fasta) in json.loads((cache / "genome-digests.json").read_text())
    fasta.write_text(">new\nAC\n")
    assert open_genome([fasta], cache).names == ("new",)


def test_a_built_store_is_not_built_again(fasta: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    open_genome([fasta], cache)
    monkeypatch.setattr(store, "_build", None)
    assert open_genome([fasta], cache).total == 13


def damage_bases(folder: Path):
    (folder / "bases.u8").write_bytes((folder / "bases.u8").read_bytes()[:-1])


def damage_index(folder: Path):
    (folder / "index.json").write_text('{"format": 1')


def damage_format(folder: Path):
    (folder / "index.json").write_text((folder / "index.json").read_text().replace('"format": 2', '"format": 0'))


def remove_bases(folder: Path):
    (folder / "bases.u8").unlink()


def flip_a_base(folder: Path):
    bases = (folder / "bases.u8").read_bytes()
    (folder / "bases.u8").write_bytes(bytes([bases[0] ^ 1]) + bases[1:])


def fill_bases(folder: Path):
    (folder / "bases.u8").write_bytes(b"\xff" * 13)


def zero_bases(folder: Path):
    (folder / "bases.u8").write_bytes(bytes(13))


def unmask_a_base(folder: Path):
    bases = (folder / "bases.u8").read_bytes()
    (folder / "bases.u8").write_bytes(bytes(code & ~store.SOFT for code in bases))


def rename_a_record(folder: Path):
    (folder / "index.json").write_text((folder / "index.json").read_text().replace('"chr3"', '"chr4"'))


def nest_index(folder: Path):
    (folder / "index.json").write_text("[" * 100_000)


def index_of_an_earlier_version(folder: Path):
    index = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({key: index[key] for key in ("format", "fields", "records")}))


DAMAGES = [
    *(damage_bases, damage_index, damage_format, remove_bases, flip_a_base, fill_bases, zero_bases, unmask_a_base),
    *(rename_a_record, nest_index, index_of_an_earlier_version),
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_store_is_built_again(
    fasta: Path, cache: Path, damage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(digests, "FRESH_NS", -1)
    folder = open_genome([fasta], cache).folder
    assert open_genome([fasta], cache).folder == folder and capsys.readouterr().out == ""
    damage(folder)
    genome = open_genome([fasta], cache)
    assert capsys.readouterr().out == f"the store {folder} is damaged or of an earlier version, and is built again\n"
    assert genome.folder == folder and genome.names == ("chr1", "chr2", "chr3")
    assert decode_bases(genome.fetch(0, 0, 12)) == "ACGTNNACGTNR" and decode_bases(genome.fetch(2, 0, 1)) == "T"
    assert decode_bases(open_genome([fasta], cache, "mask").fetch(0, 0, 12)) == "ACGTNNNNNNNR"
    assert folders(cache) == [folder]
    assert capsys.readouterr().out == ""


def test_an_index_of_another_store_is_noticed(fasta: Path, cache: Path, tmp_path: Path):
    other = tmp_path / "b.fa"
    other.write_text(TEXT.replace("ACGTNN", "CCGTNN"))
    first, second = (open_genome([path], cache).folder for path in (fasta, other))
    (first / "index.json").write_bytes((second / "index.json").read_bytes())
    assert open_genome([fasta], cache).records[0].sha256 == hashlib.sha256(b"ACGTNNACGTNR").hexdigest()


def test_a_cache_whose_digests_cannot_be_written_serves(fasta: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(digests, "FRESH_NS", -1)
    (cache / "genome-digests.json").mkdir(parents=True)
    assert open_genome([fasta], cache).total == open_genome([fasta], cache).total == 13


@pytest.mark.parametrize("accident", [KeyboardInterrupt, UserError, MemoryError])
def test_an_interrupted_build_leaves_nothing(
    fasta: Path, cache: Path, monkeypatch: pytest.MonkeyPatch, accident: type[BaseException]
):
    def broken(path: Path) -> Iterator[Record]:
        yield Record("chr1", encode_bases("ACGT"), 0)
        assert len(folders(cache)) == 1
        raise accident("in the middle")

    with monkeypatch.context() as patch:
        patch.setattr(store, "read_fasta", broken)
        with pytest.raises(accident):
            open_genome([fasta], cache)
    assert list(cache.iterdir()) == []
    assert open_genome([fasta], cache).total == 13


def test_a_bad_file_leaves_nothing(cache: Path, tmp_path: Path):
    (tmp_path / "bad.fa").write_text(">a\nACGT\n>b\nAC!T\n")
    with pytest.raises(UserError, match="record b, line 4, column 3: '!'"):
        open_genome([tmp_path / "bad.fa"], cache)
    assert list(cache.iterdir()) == []


def test_a_file_that_changes_under_the_build_is_refused(fasta: Path, cache: Path, monkeypatch: pytest.MonkeyPatch):
    def slow(path: Path) -> Iterator[Record]:
        yield Record("chr1", encode_bases("ACGT"), 0)
        path.write_text(">other\nA\n")

    monkeypatch.setattr(store, "read_fasta", slow)
    with pytest.raises(UserError, match=r"a\.fa changed while it was being read"):
        open_genome([fasta], cache)
    assert list(cache.iterdir()) == []


def test_what_killed_programs_left_is_removed_at_the_next_start(fasta: Path, cache: Path):
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    open_genome([fasta], cache)
    left = [f".building-{HOST}-{ended.pid}-a", f".genome-digests.json.{HOST}-{ended.pid}.part", ".building-1-a"]
    kept = [f".building-{HOST}-{os.getppid()}-b", ".building-elsewhere-1-c", ".building-2-d"]
    for name in (*left, *kept):
        (cache / name).touch() if name.endswith(".part") else (cache / name).mkdir()
    os.utime(cache / ".building-1-a", (time.time() - 90_000, time.time() - 90_000))
    open_genome([fasta], cache)
    assert sorted(path.name for path in cache.iterdir() if path.name.startswith(".")) == sorted(kept)


def test_a_cache_that_cannot_be_written(fasta: Path, monkeypatch: pytest.MonkeyPatch):
    for cache in (fasta / "cache", Path("/dev/null/x")):
        with pytest.raises(UserError) as caught:
            open_genome([fasta], cache)
        assert str(caught.value).startswith(f"the cache folder {cache} cannot be written (Not a directory)")
        assert "$GENOATTN_CACHE" in str(caught.value)
    monkeypatch.setattr(os, "fsync", lambda number: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    cache = fasta.parent / "full"
    with pytest.raises(UserError, match=r"cannot be written \(No space left on device\)"):
        open_genome([fasta], cache)
    assert list(cache.iterdir()) == []


def test_the_folder_of_the_cache(fasta: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("GENOATTN_CACHE", str(tmp_path / "here"))
    assert open_genome([fasta]).folder.parent == tmp_path / "here"
    monkeypatch.delenv("GENOATTN_CACHE")
    assert open_genome([fasta]).folder.parent == tmp_path / "home" / ".cache" / "genoattn"


def test_files_are_checked_first(cache: Path, tmp_path: Path):
    with pytest.raises(UserError, match=r"gone\.fa does not exist"):
        open_genome([tmp_path / "gone.fa"], cache)
    with pytest.raises(UserError, match=r"data\.fasta names no file"):
        open_genome([], cache)
    assert not cache.exists()


def test_a_pickled_genome_is_an_address(cache: Path, tmp_path: Path):
    path = tmp_path / "long.fa"
    path.write_text(">a\n" + "ACGt" * 50_000)
    genome = open_genome([path], cache, "mask")
    pickled = pickle.dumps(genome)
    assert len(pickled) < 1000
    again: Genome = pickle.loads(pickled)
    assert again.records == genome.records and decode_bases(again.fetch(0, 0, 4)) == "ACGN"


OPEN = """
import pathlib, sys, time
from genoattn.genome.sequence_store import open_genome
time.sleep(max(0, float(sys.argv[3]) - time.time()))
genome = open_genome([pathlib.Path(sys.argv[1])], pathlib.Path(sys.argv[2]))
print(genome.folder, genome.total, int(genome.fetch(0, 0, genome.total).sum()))
"""


@pytest.mark.parametrize("damaged", [False, True])
def test_processes_that_start_at_once_share_a_store(cache: Path, tmp_path: Path, damaged: bool):
    path = tmp_path / "a.fa"
    codes = np.random.default_rng(0).integers(0, 4, 2_000_000, dtype=np.uint8)
    path.write_text(">a\n" + decode_bases(codes))
    if damaged:
        damage_bases(open_genome([path], cache).folder)
    command = [sys.executable, "-c", OPEN, str(path), str(cache), str(time.time() + 1.5)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    started = [
        subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    results = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0] * 4, results
    (line,) = {out.splitlines()[-1] for out, _ in results}  # the line before it may say that the store is damaged
    (folder,) = folders(cache)
    assert line.split() == [str(folder), "2000000", str(int(codes.sum()))]
    assert [path.name for path in cache.iterdir() if path.name.startswith(".")] == []


MEMORY = """
import pathlib, sys
from genoattn.genome.sequence_store import open_genome

def resident():
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmRSS:")[1].split()[0]) * 1024

open_genome([pathlib.Path(sys.argv[1])], pathlib.Path(sys.argv[3]))
before = resident()
genome = open_genome([pathlib.Path(sys.argv[2])], pathlib.Path(sys.argv[3]))
genome.fetch(0, 10_000_000, 10_100_000)
print(genome.total, resident() - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_opening_costs_no_memory(fasta: Path, cache: Path, tmp_path: Path):
    big = tmp_path / "big.fa"
    big.write_bytes(b">big\n" + b"ACGTTGCANACGtacg" * (50_000_000 // 16))
    open_genome([fasta], cache)
    open_genome([big], cache)
    command = [sys.executable, "-c", MEMORY, str(fasta), str(big), str(cache)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    total, grown = map(int, subprocess.check_output(command, env=environment, text=True).split())
    assert total == 50_000_000 and grown < 5_000_000


def test_unknown_is_the_highest_plain_code():
    assert UNKNOWN == len(LETTERS) - 1 < store.SOFT, "hiding soft bases by a minimum needs this"
