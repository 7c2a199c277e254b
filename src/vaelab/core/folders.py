"""Folders to write to, looked at before the work: whether they can be made, and whether names can stand in them."""

from __future__ import annotations

import os
from pathlib import Path

from vaelab.core.console import notice, printable
from vaelab.core.errors import UserError

__all__ = ["check_folder", "existing_parent", "folder_size"]


def check_folder(folder: Path, *names: str) -> None:
    """Refuse a folder that cannot be made or written to, and names of files that cannot stand in it.

    Nothing is written.

    Args:
        folder: The folder.
        names: Names of files and folders that will be made in it.

    Raises:
        UserError: The file system refuses the folder or a name.

    Example:
        >>> check_folder(Path("x" * 300))
        Traceback (most recent call last):
        vaelab.core.errors.UserError: ...
    """
    if folder.parts and folder.parts[0].startswith("~"):
        raise UserError(
            f"cannot write {folder}: the shell did not replace {folder.parts[0]}, which is quoted or names no user;\n"
            "give the whole path with --out"
        )
    folder = folder.absolute()
    parent = existing_parent(folder)
    if not parent.is_dir():
        raise UserError(f"cannot write {folder}: {parent} is no folder; give another place with --out")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise UserError(f"cannot write {folder}: {parent} is not writable; give another place with --out")
    for name in (*folder.relative_to(parent).parts, *names):
        _check_name(parent, name)


def _check_name(parent: Path, name: str) -> None:
    """Ask the file system whether a file may have a name; temporary files have a few characters more."""
    if name in ("", ".", ".."):
        raise UserError(f'"{name}" is no name for a folder; take another one')
    try:
        name.encode()  # a name of bytes that are no text would fail where a report shows it
        (parent / f".{name}-12345678.xxxx").lstat()
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:  # ValueError: no text, or a null character
        reason = getattr(error, "strerror", None) or "it is no text"
        shown = printable(name)
        raise UserError(
            f'"{shown}" cannot be the name of a file here ({reason}); take a short one of letters and digits'
        ) from None


def existing_parent(path: Path) -> Path:
    """The path, or the nearest folder above it that exists."""
    path = path.absolute()
    try:
        while not os.path.lexists(path):
            path = path.parent
    except (OSError, ValueError):
        return path.parent
    return path


def folder_size(folder: Path) -> int:
    """The size of all files below a folder in bytes. A notice says where a file or folder cannot be read."""
    size = 0
    errors: list[OSError] = []
    for inner, _, names in os.walk(folder, onerror=errors.append):
        for name in names:
            try:
                size += Path(inner, name).lstat().st_size
            except OSError as error:
                errors.append(error)
    for error in errors:
        if not isinstance(error, FileNotFoundError):  # a training renames its files meanwhile
            notice(f"cannot read {error.filename}: {error.strerror}; the disk use of {folder} is without it")
    return size
