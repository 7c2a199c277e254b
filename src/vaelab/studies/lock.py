"""The lock of a study: one process at a time carries it out or writes its report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vaelab.core.errors import UserError

__all__ = ["lock_study"]


@contextmanager
def lock_study(folder: Path) -> Iterator[None]:
    """Hold the folder of a study, so that no two processes write it.

    The lock is released when the process ends, whatever ends it.

    Args:
        folder: The folder of the study, which is made where it is not there.

    Raises:
        UserError: Another process holds it, or the folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock", timeout=0)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise UserError(
            f"another process is carrying out the study in {folder} just now, or writing its report;\n"
            "wait for it and repeat the command, or stop it first"
        ) from None
    except (OSError, NotImplementedError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot write in {folder}: {reason}; give another place with --out") from None
    try:
        yield
    finally:
        lock.release()
