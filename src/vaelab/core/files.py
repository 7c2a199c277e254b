"""Files: read safely, written whole or not at all.

A file is written under a temporary name in its folder and renamed, so that a reader sees the old content or the new
one, never a part. File and folder are flushed to the disk (fsync), so that this also holds after a power cut.

A temporary file is locked while it is written. What a killed process left behind is not locked, and the next process
that writes in the folder removes it.
"""

from __future__ import annotations

import errno
import fnmatch
import hashlib
import json
import math
import os
import re
import secrets
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vaelab.core.errors import UserError
from vaelab.core.schema import SchemaError, validate

__all__ = [
    "DISK_FULL",
    "REPAIR_HINT",
    "append_line",
    "atomic_write",
    "cache_folder",
    "content_digest",
    "damaged_error",
    "files_in",
    "make_folder",
    "parse_json",
    "read_bytes",
    "read_json",
    "remove_stale_temp_files",
    "sync_file",
    "to_json",
    "write_json",
    "write_text",
]

DISK_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}

REPAIR_HINT = "delete the run's folder and train it again, or restore the file from a copy"

# Temporary files of ours, and those of earlier versions and of safetensors, which are removed only where no other
# process writes.
TEMPORARY = re.compile(r"\.vaelab-.*-[0-9a-f]{8}(\.[^.]*)?")
OLD_TEMPORARY = re.compile(r"\..+-[0-9a-f]{8}\.[^.]*|\.tmp[A-Za-z0-9]{6}")

_swept_folders: set[Path] = set()  # where this process has removed the temporary files of others


def cache_folder() -> Path:
    """$VAELAB_CACHE, else the folder that the platform has for caches."""
    if root := os.environ.get("VAELAB_CACHE"):
        return Path(root).expanduser().absolute()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "vaelab" / "Cache"
    default = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or default) / "vaelab"


# Writing.


@contextmanager
def atomic_write(path: Path) -> Iterator[Path]:
    """Write a file whole or not at all.

    Args:
        path: The file; its folder is made where it is missing.

    Yields:
        A temporary path in the same folder, to be written in the block. It takes the place of `path` when the block
        ends without an error.

    Raises:
        UserError: The file cannot be written; what was there is unharmed.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp()) / "numbers.txt"
        >>> with atomic_write(file) as temporary:
        ...     _ = temporary.write_text("1 2 3")
        >>> file.read_text()
        '1 2 3'
    """
    try:
        make_folder(path.parent)
        if path.parent not in _swept_folders:
            _swept_folders.add(path.parent)
            remove_stale_temp_files(path.parent)
        with _temporary_file(path) as temporary:
            mode = temporary.stat().st_mode
            yield temporary
            temporary.chmod(mode)  # as the user's umask wants it, whoever wrote the file
            sync_file(temporary)
            temporary.replace(path)
            _sync_folder(path.parent)
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise UserError(f"cannot write {path}: {error.strerror or error}; give another place with --out") from None
        raise UserError(
            f"no room to write {path}: {error.strerror}; what was there is unharmed.\n"
            "Free some space and repeat the command, which goes on where it was, or give another place with --out."
        ) from None


@contextmanager
def _temporary_file(path: Path) -> Iterator[Path]:
    """A new, locked, empty file in the folder of `path`, removed at the end if it is still there."""
    while True:
        temporary = path.with_name(f".vaelab-{path.stem[:40]}-{secrets.token_hex(4)}{path.suffix}")
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            is_ours = not _lock(descriptor) or _is_at(temporary, descriptor)
        except OSError:
            _discard(temporary, descriptor)
            raise
        if is_ours:
            break
        os.close(descriptor)  # removed by another process before it was locked
    try:
        yield temporary
    finally:
        _discard(temporary, descriptor)


def _discard(temporary: Path, descriptor: int) -> None:
    """Close a temporary file, and remove it if it is still there."""
    os.close(descriptor)
    with suppress(OSError):  # where the folder itself cannot be used, that has been said
        temporary.unlink(missing_ok=True)


def _lock(descriptor: int) -> bool:
    """Lock an open file, if nobody else has and the file system can; False otherwise."""
    if sys.platform == "win32":
        return False
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_at(path: Path, descriptor: int) -> bool:
    """Whether an open file is still the one at a path."""
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def remove_stale_temp_files(folder: Path, exclusive: bool = False) -> None:
    """Remove the temporary files that killed processes have left in a folder.

    Args:
        folder: The folder; it may be missing.
        exclusive: Whether this process alone writes in the folder, so that the temporary files of earlier versions and
            of libraries can be removed as well.
    """
    with suppress(OSError):  # the folder is missing, or cannot be read: then nothing can be removed either
        for file in folder.iterdir():
            if TEMPORARY.fullmatch(file.name):
                _remove_if_unlocked(file)
            elif exclusive and OLD_TEMPORARY.fullmatch(file.name):
                file.unlink(missing_ok=True)


def _remove_if_unlocked(file: Path) -> None:
    """Remove a temporary file that no process is writing."""
    with suppress(OSError):
        descriptor = os.open(file, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
        try:
            if _lock(descriptor):
                file.unlink(missing_ok=True)
        finally:
            os.close(descriptor)


def make_folder(folder: Path) -> None:
    """Make a folder and those that it lies in, where they are missing, and flush their names to the disk."""
    missing = [part for part in (folder, *folder.parents) if not part.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for part in reversed(missing):
        _sync_folder(part.parent)


def sync_file(path: Path) -> None:
    """Flush the content of a file to the disk."""
    descriptor = os.open(path, os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_folder(folder: Path) -> None:
    """Flush the names in a folder to the disk, where the file system can."""
    if sys.platform == "win32":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write text in UTF-8."""
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def to_json(value: Any) -> str:
    """A value as JSON, for people to read: the content that `write_json` gives a file.

    Raises:
        UserError: A number in it is not finite, which JSON does not have; the field is named.

    Example:
        >>> to_json({"test": {"mse": float("nan")}})
        Traceback (most recent call last):
        vaelab.core.errors.UserError: test.mse is nan, which cannot be stored
    """
    try:
        return json.dumps(value, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    except ValueError:
        field, number = next(_not_finite(value, ""), ("a value", "not finite"))
        raise UserError(f"{field} is {number}, which cannot be stored") from None


def _not_finite(value: Any, field: str) -> Iterator[tuple[str, float]]:
    """The numbers in a value that are not finite, each with the path of its field."""
    if isinstance(value, float) and not math.isfinite(value):
        yield field or "a number", value
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list | tuple) else ()
    for name, inner in items:
        yield from _not_finite(inner, f"{field}.{name}".removeprefix("."))


def write_json(path: Path, value: Any) -> None:
    """Write a value as JSON."""
    write_text(path, to_json(value))


def append_line(path: Path, line: str) -> None:
    """Append a line to a text file. A power cut may tear the last line, so a reader drops one without its end.

    Raises:
        UserError: The line cannot be written; then no part of it stays.
    """
    content = f"{line}\n".encode()
    try:
        with path.open("ab", buffering=0) as file:
            size = file.tell()
            try:
                while content:  # a full disk takes a part, and refuses the next
                    content = content[file.write(content) :]
            except OSError:
                file.truncate(size)
                raise
    except OSError as error:
        text = "no room to write" if error.errno in DISK_FULL else "cannot write"
        raise UserError(
            f"{text} {path}: {error.strerror or error}; what was there is unharmed.\n"
            "Mend this and repeat the command, which goes on where it was, or give another place with --out."
        ) from None


# Reading.


def read_bytes(path: Path) -> bytes:
    """The content of a regular file.

    Raises:
        UserError: The file is missing, cannot be read, or is a folder, a pipe or a device.
    """
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise UserError(f"{path} is damaged (it is not a regular file); {REPAIR_HINT}")
            return file.read()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} is missing: is {path.parent} the folder of a run?") from None
    except IsADirectoryError:
        raise UserError(f"{path} is damaged (it is a folder); {REPAIR_HINT}") from None
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise UserError(f"{path} is damaged (it is a link to itself); {REPAIR_HINT}") from None
        raise UserError(f"cannot read {path}: {error.strerror or error}") from None


def files_in(folder: Path, pattern: str) -> list[Path]:
    """The files in a folder whose names match, such as "*.json", sorted; none where there is no such folder.

    Unlike `Path.glob` it does not take a folder that cannot be read for an empty one.

    Raises:
        OSError: The folder cannot be read.
    """
    try:
        return sorted(path for path in folder.iterdir() if fnmatch.fnmatchcase(path.name, pattern))
    except FileNotFoundError:
        return []


def _open_without_waiting(path: str, flags: int) -> int:
    """Open a file, and a pipe without waiting for its other end."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def content_digest(content: bytes) -> str:
    """A short hash of a file's content, which tells whether it has changed."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


def damaged_error(path: Path, reason: str) -> UserError:
    """The error for a stored file whose content is not what it must be."""
    return UserError(f"{path} is damaged ({reason}); {REPAIR_HINT}")


def parse_json(content: bytes | str, path: Path, schema: Any = Any) -> Any:
    """Read JSON and check its shape.

    Args:
        content: The text.
        path: The file that it comes from, for the error.
        schema: The type that the value must have; see `vaelab.core.schema`.

    Raises:
        UserError: The text is no JSON, holds NaN or infinite numbers, is nested too deeply, or has another shape.
    """
    try:
        value = json.loads(content, parse_constant=_refuse_constant)
        validate(value, schema)
    except (RecursionError, MemoryError):
        raise damaged_error(path, "it is nested too deeply") from None
    except SchemaError as error:
        raise damaged_error(path, str(error)) from None
    except ValueError as error:  # of JSON, or of UTF-8
        raise damaged_error(path, f"it is no JSON: {str(error)[:80]}") from None
    return value


def _refuse_constant(name: str) -> None:
    raise SchemaError(f"it holds the number {name}")


def read_json(path: Path, *required: str, schema: Any = dict[str, Any]) -> dict[str, Any]:
    """Read a stored JSON object.

    Args:
        path: The file.
        required: Names that the object must have.
        schema: The type that it must have; see `vaelab.core.schema`.

    Raises:
        UserError: The file is missing, cannot be read or is damaged.
    """
    value = parse_json(read_bytes(path), path, schema)
    missing = [name for name in required if name not in value]
    if missing:
        raise damaged_error(path, f"it lacks {', '.join(missing)}")
    return value
