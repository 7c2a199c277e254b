"""A seal notices whatever changes in its files, and does not read large files again while they stay as they were."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vaelab.core import seals
from vaelab.core.seals import is_intact, seal_files


@pytest.fixture
def sealed(tmp_path: Path) -> Path:
    for name in ("one.txt", "two.txt"):
        (tmp_path / name).write_text(name)
    seal_files(tmp_path / "seal", [tmp_path / "one.txt", tmp_path / "two.txt"])
    return tmp_path / "seal"


def test_unchanged_files_are_not_read_again(sealed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seals, "_digest", lambda file: pytest.fail(f"{file} was read"))
    assert is_intact(sealed, "one.txt", "two.txt")


def test_a_copy_with_another_time_is_intact(sealed: Path) -> None:
    os.utime(sealed.parent / "one.txt", (0, 0))
    assert is_intact(sealed, "one.txt")


@pytest.mark.parametrize("change", ["content", "length", "missing", "another name", "seal", "not in it", "outside"])
def test_changes_are_noticed(sealed: Path, change: str) -> None:
    file, names = sealed.parent / "two.txt", ["one.txt"]
    match change:
        case "content":
            file.write_text("TWO.txt")
            os.utime(file, (0, 0))
        case "length":
            file.write_text("two")
        case "missing":
            file.unlink()
        case "another name":
            file.rename(sealed.parent / "three.txt")
        case "seal":
            sealed.write_text(sealed.read_text()[:-5])
        case "not in it":
            names = ["three.txt"]
        case "outside":
            sealed.write_text(sealed.read_text().replace("two.txt", "../two.txt"))
    assert not is_intact(sealed, *names)
