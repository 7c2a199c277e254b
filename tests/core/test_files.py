"""Files are written whole or not at all, and what cannot be read is named."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from vaelab.core import files
from vaelab.core.errors import UserError
from vaelab.core.files import (
    append_line,
    atomic_write,
    files_in,
    read_bytes,
    read_json,
    remove_stale_temp_files,
    write_json,
)
from vaelab.core.tensors import read_tensors, write_tensors

KILLED_WHILE_WRITING = """
import os, signal, sys
from pathlib import Path
from vaelab.core.files import atomic_write
with atomic_write(Path(sys.argv[1])) as temporary:
    temporary.write_text("a part")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_writer_leaves_the_old_file_and_the_next_writer_cleans_up(tmp_path: Path) -> None:
    file = tmp_path / "values.json"
    write_json(file, {"a": 1})
    subprocess.run([sys.executable, "-c", KILLED_WHILE_WRITING, str(file)], check=False)
    assert len(list(tmp_path.iterdir())) == 2
    assert read_json(file) == {"a": 1}
    files._swept_folders.clear()  # as in a new process
    write_json(tmp_path / "other.json", {})
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["other.json", "values.json"]


def test_a_file_that_is_being_written_is_not_cleaned_up(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "slow.txt") as temporary:
        temporary.write_text("still at work")
        remove_stale_temp_files(tmp_path, exclusive=True)
        assert temporary.exists()
    assert (tmp_path / "slow.txt").read_text() == "still at work"


def test_only_our_own_temporary_files_are_cleaned_up(tmp_path: Path) -> None:
    others = [".cache-0123abcd.json", ".vaelab", "notes-0123abcd.txt", ".vaelab-notes.txt"]
    for name in others:
        (tmp_path / name).write_text("mine")
    remove_stale_temp_files(tmp_path)
    assert {entry.name for entry in tmp_path.iterdir()} == set(others)
    (tmp_path / ".tmpAb3dE6").write_text("of safetensors")
    remove_stale_temp_files(tmp_path, exclusive=True)
    assert {entry.name for entry in tmp_path.iterdir()} == set(others) - {".cache-0123abcd.json"}


def test_long_names_can_be_written(tmp_path: Path) -> None:
    file = tmp_path / ("n" * 250 + ".txt")
    files.write_text(file, "text")
    assert file.read_text() == "text"


def test_an_error_in_the_block_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), atomic_write(tmp_path / "file") as temporary:
        temporary.write_text(str(1 / 0))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="names of open files are read from /proc")
def test_content_and_names_are_on_the_disk_before_and_after_the_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []

    def kind_of(descriptor: int) -> str:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        return "folder " + path.name if path.is_dir() else "file"

    monkeypatch.setattr(files.os, "fsync", lambda descriptor: events.append(kind_of(descriptor)))
    rename = Path.replace
    monkeypatch.setattr(Path, "replace", lambda self, target: (events.append("rename"), rename(self, target))[1])
    files.write_text(tmp_path / "a" / "b" / "values.txt", "text")
    assert events == [f"folder {tmp_path.name}", "folder a", "file", "rename", "folder b"]


def test_lines_are_appended(tmp_path: Path) -> None:
    for line in ("one", "two"):
        append_line(tmp_path / "lines", line)
    assert (tmp_path / "lines").read_text() == "one\ntwo\n"
    with pytest.raises(UserError, match="cannot write"):
        append_line(tmp_path, "into a folder")


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(UserError, match=r"pipe is damaged \(it is not a regular file\)"):
        read_bytes(tmp_path / "pipe")
    with pytest.raises(UserError, match=r"folder is damaged \(it is a folder\)"):
        read_bytes(tmp_path / "folder")
    with pytest.raises(UserError, match=r"loop is damaged \(it is a link to itself\)"):
        read_bytes(tmp_path / "loop")
    with pytest.raises(UserError, match="is missing"):
        read_bytes(tmp_path / "nowhere")


def test_a_file_that_cannot_be_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "values.json"
    write_json(file, {})

    def refuse(*_: object, **__: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(files.os, "open", refuse)
    with pytest.raises(UserError, match=r"cannot read .*values\.json: Permission denied$"):
        read_json(file)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
        (b'{"a": NaN}', "the number NaN"),
        (b'{"a": -Infinity}', "the number -Infinity"),
        (b'{"a": "\xff"}', "no JSON"),
        (b"", "no JSON"),
        (b"[]", "must be an object, got a list"),
        (b"null", "must be an object, got null"),
        (b"{}", "it lacks a"),
    ],
)
def test_damaged_json_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "values.json").write_bytes(content)
    with pytest.raises(UserError) as caught:
        read_json(tmp_path / "values.json", "a")
    assert f"{tmp_path / 'values.json'} is damaged (" in str(caught.value)
    assert reason in str(caught.value)


def test_tensors_with_a_digest_notice_every_flipped_bit(tmp_path: Path) -> None:
    file = tmp_path / "tensors.safetensors"
    write_tensors(file, {"a": torch.arange(6.0)}, {"step": 3, "best": float("inf")}, with_digest=True)
    tensors, metadata = read_tensors(file)
    assert torch.equal(tensors["a"], torch.arange(6.0))
    assert metadata == {"step": 3, "best": float("inf")}
    content = file.read_bytes()
    for index in range(len(content)):
        file.write_bytes(content[:index] + bytes([content[index] ^ 1]) + content[index + 1 :])
        try:
            changed, changed_metadata = read_tensors(file)
        except UserError:
            continue
        assert torch.equal(changed["a"], tensors["a"]), index  # a space of the header, or a name of the digest
        assert {name: changed_metadata.get(name) for name in metadata} == metadata, index


def test_a_folder_that_cannot_be_read_is_not_taken_for_an_empty_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("b.json", "a.json", ".hidden", "c.txt"):
        (tmp_path / name).touch()
    assert [file.name for file in files_in(tmp_path, "*.json")] == ["a.json", "b.json"]
    assert [file.name for file in files_in(tmp_path, ".*")] == [".hidden"]
    assert files_in(tmp_path / "missing", "*") == []

    def refuse(folder: str) -> list[str]:
        raise PermissionError(errno.EACCES, "Permission denied", folder)

    monkeypatch.setattr(os, "listdir", refuse)
    with pytest.raises(PermissionError):
        files_in(tmp_path, "*.json")
