"""Workers: runs carried out in processes of their own, one thread each, with one display for all of them.

What a run comes to depends on its spec and its data alone, so it is the same in any process and beside any others. A
worker watches its master: when that dies, so does the worker; when it is asked to stop, the run under way writes its
state and stops. Progress is what lies on disk, the rows of history of each run.
"""

from __future__ import annotations

import contextlib
import io
import os
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from vaelab.core.errors import UserError
from vaelab.core.interrupts import interruption

__all__ = ["Crew", "Job", "Result", "attempt", "busy", "carry_out"]

WATCH = 0.3  # seconds between two looks of a worker at its master

BUSY = threading.Event()  # set in a worker while it carries out a job

Job = Callable[[], Any]


class Result(NamedTuple):
    """What came of job number `job`: its value, or the error and what was said on the way to it."""

    job: int
    value: Any
    error: str | None = None
    log: str = ""
    stopped: bool = False
    mendable: bool = False  # whether the error is the user's to mend


def busy() -> bool:
    """Whether this process is a worker, which asks no others for help."""
    return BUSY.is_set()


def carry_out(jobs: Sequence[Job], workers: int) -> Iterator[Result]:
    """The results of jobs, as they come. The first interruption lets those under way stop and save, then passes on."""
    from joblib import Parallel, delayed, parallel_config

    if not jobs:
        return
    with (
        tempfile.TemporaryDirectory(prefix="vaelab-") as folder,
        interruption((stop := Path(folder) / "stop").touch),
        parallel_config("loky", inner_max_num_threads=1),
    ):
        here = os.getpid(), str(Path.cwd()), stop
        left = (delayed(_carry_out)(i, job, *here) for i, job in enumerate(jobs) if not stop.exists())
        settings: dict[str, Any] = {"pre_dispatch": workers, "batch_size": 1, "return_as": "generator_unordered"}
        results: Any = Parallel(workers, **settings)(left)
        for result in results:
            if result.stopped:
                stop.touch()
            else:
                yield result
        if stop.exists():
            raise KeyboardInterrupt


def _carry_out(index: int, job: Job, master: int, folder: str, stop: Path) -> Result:
    """In a worker: one job, from the master's folder, while the master lives and no stop is asked for."""
    if os.getpid() != master:
        _watch(master, stop)
    BUSY.set()
    try:
        return attempt(index, job, folder)
    finally:
        BUSY.clear()


def attempt(index: int, job: Job, folder: str) -> Result:
    """Carry out one job, from the folder that relative paths are meant from, silently; its error is in the result."""
    said = io.StringIO()
    try:
        os.chdir(folder)  # a worker may have been started elsewhere, and for another call
        with contextlib.redirect_stderr(said):
            return Result(index, job())
    except KeyboardInterrupt:
        return Result(index, None, stopped=True)
    except UserError as error:
        return Result(index, None, str(error), said.getvalue(), mendable=True)
    except Exception as error:
        return Result(index, None, f"{type(error).__name__}: {error}", said.getvalue() + traceback.format_exc())


@cache
def _watch(master: int, stop: Path) -> None:
    """Leave when the master has died; interrupt the job under way when a stop is asked for."""

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt

    def watch() -> None:
        asked = False
        while os.getppid() == master:
            time.sleep(WATCH)
            if stop.exists() and BUSY.is_set() and not asked:
                asked = True
                os.kill(os.getpid(), signal.SIGTERM)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, which signals everybody: the master passes it on
    signal.signal(signal.SIGTERM, interrupt)
    threading.Thread(target=watch, daemon=True).start()


class Crew(NamedTuple):
    """Who carries out jobs: how many of them at a time, and by what."""

    workers: int
    by: Callable[[Sequence[Job], int], Iterator[Result]] = carry_out

    def __call__(self, jobs: Sequence[Job]) -> Iterator[Result]:
        """The results of jobs, as they come."""
        return self.by(jobs, self.workers)
