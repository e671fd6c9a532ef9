"""Files are written whole or not at all, with the mode of any new file; killed writers leave nothing for long."""

import errno
import os
import socket
import stat
from pathlib import Path

import pytest

from genoattn import files
from genoattn.errors import UserError, shorten


def names(folder: Path) -> set[str]:
    return {file.name for file in folder.iterdir()}


def test_a_block_that_raises_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    files.write_text(file, "old")

    def fail() -> None:
        with files.replace_when_done(file) as temporary:
            temporary.write_text("half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert file.read_text() == "old" and names(tmp_path) == {"a.txt"}


def test_file_and_folder_are_on_the_disk_before_and_after_the_renaming(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    replace = os.replace

    def fsync(number: int) -> None:
        events.append("folder" if stat.S_ISDIR(os.fstat(number).st_mode) else "file")

    def renamed(*paths: Path) -> None:
        events.append("rename")
        replace(*paths)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", renamed)
    files.write_text(tmp_path / "a.txt", "new")
    assert events == ["file", "rename", "folder"]


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o007, 0o660)])
def test_permissions_follow_the_umask_even_if_the_writer_replaces_the_file(
    tmp_path: Path, umask: int, mode: int
) -> None:
    before = os.umask(umask)
    try:
        with files.replace_when_done(tmp_path / "a") as temporary:
            private = tmp_path / "private"
            private.write_text("x")
            private.chmod(0o600)
            private.replace(temporary)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_nothing_goes_through_the_temporary_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path / "missing"))
    files.write_json(tmp_path / "a.json", {"a": 1})
    assert names(tmp_path) == {"a.json"}


def test_a_full_disk_is_a_sentence_that_names_it(tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught, files.replace_when_done(tmp_path / "a"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    text = f"{tmp_path / 'a'} cannot be written: No space left on device; free space on the disk of {tmp_path}"
    assert str(caught.value) == text and not names(tmp_path)


def test_a_missing_folder_is_a_sentence(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be written: No such file or directory"):
        files.write_text(tmp_path / "missing" / "a", "x")


def test_an_error_of_another_file_is_not_taken_for_one_of_writing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), files.replace_when_done(tmp_path / "a"):
        (tmp_path / "other").read_text()


def test_files_of_killed_writers_are_removed_and_those_of_others_stay(tmp_path: Path) -> None:
    dead = os.fork()
    if not dead:
        os._exit(0)
    os.waitpid(dead, 0)
    inside = tmp_path / "checkpoints"
    inside.mkdir()
    (inside / f".last.ckpt.{files.HOST}-{dead}.part").touch()
    (inside / f".last.ckpt.{files.unfinished_name()}.part").touch()
    (inside / ".last.ckpt.another-1.part").touch()
    (old := inside / ".best.ckpt.another-2.part").touch()
    os.utime(old, (0, 0))
    files.remove_unfinished(tmp_path)
    assert names(inside) == {f".last.ckpt.{files.unfinished_name()}.part", ".last.ckpt.another-1.part"}
    assert "." not in files.HOST and files.HOST.replace("_", "") == socket.gethostname().replace(".", "").replace(
        "_", ""
    )


def test_the_next_writer_of_a_file_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    dead = os.fork()
    if not dead:
        os._exit(0)
    os.waitpid(dead, 0)
    (tmp_path / f".a[1].{files.HOST}-{dead}.part").touch()
    files.write_text(tmp_path / "a[1]", "new")
    assert names(tmp_path) == {"a[1]"}


def test_json_without_infinity(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        files.write_json(tmp_path / "a", [float("inf")])
    assert not names(tmp_path)


def test_input_in_a_message_is_short_and_harmless() -> None:
    assert shorten("chr1") == "chr1"
    assert len(shorten("A" * 140_000)) == 80 and shorten("A" * 140_000).endswith("A…")
    assert shorten("a\x1b[31mb\n") == r"a\x1b[31mb\n"


def test_patterns_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("b.fa.gz", "a.fa.gz", "a.fa.gz.fai", "a.fa.gz.gzi", "c[1].fa", "deep/d.fa.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    assert files.input_paths("*.fa.*", "fasta") == [Path("a.fa.gz"), Path("b.fa.gz")]
    assert files.input_paths(["c[1].fa", "**/*.fa.gz"], "fasta")[1:] == [
        Path(f"{x}.fa.gz") for x in ("a", "b", "deep/d")
    ]
    assert files.input_paths("none.fa", "fasta") == [Path("none.fa")]
    with pytest.raises(UserError, match=rf"data\.fasta=x/\*\.fa matches no file in {tmp_path}"):
        files.input_paths("x/*.fa", "data.fasta")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a.gff3", ("a.gff3", "")), ("a.gff3:CDS", ("a.gff3", "CDS")), ("a:b", ("a:b", "")), ("none:x", ("none:x", ""))],
)
def test_a_file_and_a_type(text: str, expected: tuple[str, str], tmp_path: Path) -> None:
    for name in ("a.gff3", "a:b", "a"):
        (tmp_path / name).touch()
    path, kind = files.path_and_type(f"{tmp_path}/{text}")
    assert (path, kind) == (tmp_path / expected[0], expected[1])
