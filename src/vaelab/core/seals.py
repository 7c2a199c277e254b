"""Seals: whether files are still what they were when they were written.

A seal holds the digest of each file, with its size and time of change. A file whose size and time are as they were is
taken to be unchanged, so that large files are not read again and again; otherwise its digest decides.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypedDict

from vaelab.core.errors import UserError
from vaelab.core.files import read_json, write_json

__all__ = ["is_intact", "seal_files"]

NEVER = -1  # a time of change that no file has


class FileSeal(TypedDict):
    """What a file held."""

    digest: str
    bytes: int
    modified: int


def seal_files(seal: Path, files: Iterable[Path], planned: Mapping[str, bytes] | None = None) -> None:
    """Store what some files hold now.

    Args:
        seal: The file that holds the digests, in the folder of the files.
        files: The files.
        planned: The content of files that are written next, by name; they are small enough to be read each time.
    """
    file_seals = {file.name: _file_seal(file) for file in files}
    for name, content in (planned or {}).items():
        file_seals[name] = {"digest": _content_digest(content), "bytes": len(content), "modified": NEVER}
    write_json(seal, file_seals)


def is_intact(seal: Path, *names: str) -> bool:
    """Whether the files of a seal still hold what they held when they were sealed.

    Args:
        seal: The file that holds the digests.
        names: The names of files that it must have.

    Returns:
        False where the seal is damaged or lacks a name, or one of its files is missing or has changed.
    """
    try:
        file_seals = read_json(seal, *names, schema=dict[str, FileSeal])
        for name, file_seal in file_seals.items():
            if Path(name).name != name or not _is_unchanged(seal.parent / name, file_seal):
                return False
    except (UserError, OSError):
        return False
    return True


def _is_unchanged(file: Path, seal: FileSeal) -> bool:
    """Whether a file holds what it held."""
    status = file.stat()
    if status.st_size != seal["bytes"]:
        return False
    return status.st_mtime_ns == seal["modified"] or _digest(file) == seal["digest"]


def _file_seal(file: Path) -> FileSeal:
    """What a file holds now."""
    status = file.stat()
    return {"digest": _digest(file), "bytes": status.st_size, "modified": status.st_mtime_ns}


def _content_digest(content: bytes) -> str:
    """The digest of a content, which is that of a file that holds it."""
    return hashlib.blake2b(content).hexdigest()[:32]


def _digest(file: Path) -> str:
    """The digest of a file's content, read in pieces."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "blake2b").hexdigest()[:32]
