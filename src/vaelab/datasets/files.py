"""Reading files of data: regular files only, and a failure of the system told from a verdict on the content.

A decoder's verdict ("not a picture") is a fact of the data and may be remembered. A failure of the system (a disk that
cannot be read, no memory, too many open files, no permission) may pass: it stops the work with a sentence, and nothing
is stored.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from pathlib import Path
from typing import IO

from vaelab.core.console import shown
from vaelab.core.errors import UserError

__all__ = [
    "NotRegularError",
    "ReadError",
    "UnusableImageError",
    "WatchedFile",
    "as_buffered",
    "available_memory",
    "error_text",
    "file_stamp",
    "format_bytes",
    "is_system_failure",
    "open_regular",
    "read_error",
    "read_regular",
    "require_memory",
    "require_regular",
]

LARGE_BYTES = 2**26  # of memory, from which it is compared with what is free


VERDICT_CODES = {errno.EINVAL, errno.ESPIPE, errno.EOVERFLOW}  # of seeking to an offset that a damaged file names


class ReadError(UserError):
    """The system failed to read something; it may succeed the next time."""


class NotRegularError(ValueError):
    """A folder, pipe, socket or device where a file is expected."""


class UnusableImageError(ValueError):
    """A picture cannot be used, for a reason of ours; the decoders have other words for what is damaged."""


class WatchedFile(io.FileIO):
    """A file that remembers the first error of the system, since decoders may hide it or turn it into a verdict."""

    failure: OSError | None = None

    def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]
        try:
            return super().readinto(buffer)
        except OSError as error:
            self.failure = self.failure or error
            raise

    def readall(self) -> bytes:
        try:
            return super().readall()
        except OSError as error:
            self.failure = self.failure or error
            raise


def open_regular(path: Path) -> WatchedFile:
    """Open a regular file for reading.

    Raises:
        NotRegularError: It is a pipe, a device or a folder; opening it neither waits nor reads.
        OSError: It cannot be opened.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise NotRegularError("not a regular file")
        return WatchedFile(descriptor, "rb")
    except BaseException:
        os.close(descriptor)
        raise


def read_regular(path: Path) -> bytes:
    """All bytes of a regular file."""
    with open_regular(path) as file:
        require_memory(os.fstat(file.fileno()).st_size, shown(path))
        return file.readall()


def require_regular(path: Path) -> None:
    """Refuse a path that is not a regular file, with a sentence.

    Raises:
        UserError: It is a pipe, a device or a folder.
        ReadError: It cannot be opened.
    """
    try:
        open_regular(path).close()
    except NotRegularError as error:
        raise UserError(f"{shown(path)} is not a regular file: pipes and devices are not read") from error
    except OSError as error:
        raise read_error(path, error) from error


def file_stamp(name: str, path: Path) -> list[str | int]:
    """What a file is known by in the cache: its name, size and times.

    The time of change stands beside that of modification because archives often set the latter to a constant.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise read_error(path, error) from error
    return [name, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def is_system_failure(error: BaseException) -> bool:
    """Whether an error is the system's, which may pass, and not a decoder's verdict.

    Pillow's verdicts are errors of the system by their class, but have no number. A damaged file may also send a
    decoder to a place that no file has.
    """
    if isinstance(error, OSError):
        return error.errno is not None and error.errno not in VERDICT_CODES
    return isinstance(error, MemoryError)


def read_error(path: object, error: BaseException) -> ReadError:
    """The sentence for a failure of the system in reading a file or folder."""
    name = shown(path)
    if isinstance(error, MemoryError):
        return ReadError(f"not enough memory to read {name}: nothing was stored\nfree some memory and repeat")
    return ReadError(
        f"{name} cannot be read: {error_text(error)}; nothing was stored\n"
        "repeat the command when it can be read, or move it away"
    )


def error_text(error: BaseException) -> str:
    """What an error says, on one line and without the path, which stands beside it."""
    if type(error).__name__ == "UnidentifiedImageError":
        return "not a picture"
    if type(error).__name__ == "DecompressionBombError":
        return "too large: more pixels than Pillow decodes"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return shown(str(error).split("\n")[0]) or type(error).__name__


def require_memory(needed: int, name: str, reason: str = "") -> None:
    """Refuse to read what does not fit into memory, before any of it is taken.

    Args:
        needed: Bytes of memory.
        name: What is to be read.
        reason: Why it takes so much.

    Raises:
        ReadError: Less is free.
    """
    if needed < LARGE_BYTES:
        return
    available = available_memory()
    if needed > available:
        detail = f" ({reason})" if reason else ""
        raise ReadError(
            f"{name} takes about {format_bytes(needed)} of memory{detail}, {format_bytes(available)} are free\n"
            "free some memory, or make it smaller; nothing was stored"
        )


def available_memory() -> int:
    """The bytes of memory that this process may still take: of the machine, or of its container where that is less."""
    limits = [_machine_memory(), _container_memory()]
    return min(limit for limit in limits if limit is not None)


def _machine_memory() -> int:
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except (OSError, ValueError, IndexError):
        pass
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return 2**32


def _container_memory() -> int | None:
    """What is left of the memory of a control group (version 2), where there is a limit."""
    group = Path("/sys/fs/cgroup")
    try:
        limit = int((group / "memory.max").read_text())
        used = int((group / "memory.current").read_text())
    except (OSError, ValueError):  # no such file, or the word "max"
        return None
    return max(0, limit - used)


def format_bytes(count: float) -> str:
    """A number of bytes for people to read.

    Example:
        >>> format_bytes(640), format_bytes(2_300_000_000)
        ('640 bytes', '2.3 GB')
    """
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count:,.0f} bytes"


def as_buffered(file: WatchedFile) -> IO[bytes]:
    """A file as decoders want it."""
    return io.BufferedReader(file)
