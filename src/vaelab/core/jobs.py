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
from vaelab.core.interrupts import deferred_interrupts

__all__ = ["Executor", "JobFunction", "JobResult", "in_worker", "run_job", "run_jobs"]

WATCH_SECONDS = 0.3  # seconds between two looks of a worker at its master

IN_WORKER = threading.Event()  # set in a worker while it carries out a job

JobFunction = Callable[[], Any]


class JobResult(NamedTuple):
    """What came of job number `job`: its value, or the error and what was said on the way to it."""

    job_index: int
    value: Any
    error: str | None = None
    log: str = ""
    interrupted: bool = False
    is_user_error: bool = False  # whether the error is the user's to mend


def in_worker() -> bool:
    """Whether this process is a worker, which asks no others for help."""
    return IN_WORKER.is_set()


def run_jobs(jobs: Sequence[JobFunction], workers: int) -> Iterator[JobResult]:
    """The results of jobs, as they come. The first interruption lets those under way stop and save, then passes on."""
    from joblib import Parallel, delayed, parallel_config

    if not jobs:
        return
    with (
        tempfile.TemporaryDirectory(prefix="vaelab-") as folder,
        deferred_interrupts((stop := Path(folder) / "stop").touch),
        parallel_config("loky", inner_max_num_threads=1),
    ):
        here = os.getpid(), str(Path.cwd()), stop
        left = (delayed(_run_job_in_worker)(i, job, *here) for i, job in enumerate(jobs) if not stop.exists())
        settings: dict[str, Any] = {"pre_dispatch": workers, "batch_size": 1, "return_as": "generator_unordered"}
        results: Any = Parallel(workers, **settings)(left)
        for result in results:
            if result.interrupted:
                stop.touch()
            else:
                yield result
        if stop.exists():
            raise KeyboardInterrupt


def _run_job_in_worker(index: int, job: JobFunction, parent: int, folder: str, stop_file: Path) -> JobResult:
    """In a worker: one job, from the master's folder, while the master lives and no stop is asked for."""
    if os.getpid() != parent:
        _watch_parent(parent, stop_file)
    IN_WORKER.set()
    try:
        return run_job(index, job, folder)
    finally:
        IN_WORKER.clear()


def run_job(index: int, job: JobFunction, working_dir: str) -> JobResult:
    """Carry out one job, from the folder that relative paths are meant from, silently; its error is in the result."""
    said = io.StringIO()
    try:
        os.chdir(working_dir)  # a worker may have been started elsewhere, and for another call
        with contextlib.redirect_stderr(said):
            return JobResult(index, job())
    except KeyboardInterrupt:
        return JobResult(index, None, interrupted=True)
    except UserError as error:
        return JobResult(index, None, str(error), said.getvalue(), is_user_error=True)
    except Exception as error:
        return JobResult(index, None, f"{type(error).__name__}: {error}", said.getvalue() + traceback.format_exc())


@cache
def _watch_parent(parent: int, stop_file: Path) -> None:
    """Leave when the master has died; interrupt the job under way when a stop is asked for."""

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt

    def watch() -> None:
        asked = False
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
            if stop_file.exists() and IN_WORKER.is_set() and not asked:
                asked = True
                os.kill(os.getpid(), signal.SIGTERM)
        os._exit(1)

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal, which signals everybody: the master passes it on
    signal.signal(signal.SIGTERM, interrupt)
    threading.Thread(target=watch, daemon=True).start()


class Executor(NamedTuple):
    """Who carries out jobs: how many of them at a time, and by what."""

    max_workers: int
    submit: Callable[[Sequence[JobFunction], int], Iterator[JobResult]] = run_jobs

    def __call__(self, jobs: Sequence[JobFunction]) -> Iterator[JobResult]:
        """The results of jobs, as they come."""
        return self.submit(jobs, self.max_workers)
