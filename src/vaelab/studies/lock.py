"""The lock of a study: one process at a time carries it out or writes its report."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from vaelab.core.errors import UserError
from vaelab.core.files import remove_stale_temp_files
from vaelab.runs.run import Run

__all__ = ["check_unlocked", "is_trained_elsewhere", "lock_study", "wait_until_free"]

LOCK_NAME = ".lock"


@contextmanager
def lock_study(folder: Path) -> Iterator[None]:
    """Hold the folder of a study, so that no two processes write it.

    The lock ends with the process, whatever ends that.

    Args:
        folder: The folder of the study, which is made where it is not there.

    Raises:
        UserError: Another process holds it, or the folder cannot be written to.
    """
    from filelock import FileLock, Timeout

    lock = FileLock(folder / LOCK_NAME, timeout=0)
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
        for written_folder in (folder, folder / "figures"):  # what a killed process has left
            remove_stale_temp_files(written_folder, exclusive=True)
        yield
    finally:
        lock.release()


def check_unlocked(folder: Path) -> None:
    """Refuse a study that another process is carrying out, before any work.

    Raises:
        UserError: Another process holds the folder.
    """
    if (folder / LOCK_NAME).exists():
        with lock_study(folder):
            pass


# Runs, which several studies may share


def is_trained_elsewhere(run: Run) -> bool:
    """Whether another process is training a run just now."""
    from filelock import FileLock, Timeout

    file = _run_lock_file(run)
    if not file.exists():
        return False
    try:
        with FileLock(file, timeout=0):
            return False
    except Timeout:
        return True
    except (OSError, NotImplementedError):  # training says why
        return False


def wait_until_free(run: Run) -> None:
    """Wait while another process trains a run: it will be finished then, or can be resumed."""
    from filelock import FileLock

    file = _run_lock_file(run)
    if file.exists():
        with suppress(OSError, NotImplementedError), FileLock(file):
            pass


def _run_lock_file(run: Run) -> Path:
    return run.path / "state" / "lock"
