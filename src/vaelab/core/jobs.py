"""Jobs: functions without arguments that are run in worker processes of this machine, one thread each.

What a training run gives depends on its spec and its data alone, so it is the same in any process. A worker watches its
parent process: when the parent dies, the worker exits; when the parent asks for a stop, the job under way saves its
state and ends. A job whose worker process died is tried once more.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from vaelab.core.errors import UserError
from vaelab.core.interrupts import deferred_interrupts

__all__ = ["Executor", "JobFunction", "JobResult", "in_worker", "results_or_raise", "run_job", "run_jobs"]

WATCH_SECONDS = 0.3  # between two checks of a worker whether its parent lives

IN_WORKER = threading.Event()  # set in a worker while it runs a job

JobFunction = Callable[[], Any]


class JobResult(NamedTuple):
    """The result of a job: its value, or its error with what was printed before it.

    Attributes:
        job_index: The position of the job in the sequence of jobs.
        value: What the job returned; None where it failed.
        error: The message of the error, if there was one.
        log: What the job printed to standard error, and the traceback of an unexpected error.
        interrupted: Whether the job was stopped before its end.
        is_user_error: Whether the error is one that the user can put right.
    """

    job_index: int
    value: Any
    error: str | None = None
    log: str = ""
    interrupted: bool = False
    is_user_error: bool = False


def in_worker() -> bool:
    """Whether this process is a worker, which starts no workers of its own."""
    return IN_WORKER.is_set()


def run_jobs(jobs: Sequence[JobFunction], workers: int) -> Iterator[JobResult]:
    """Run jobs in worker processes. The first interruption lets the jobs under way stop and save, and is then raised.

    Args:
        jobs: Functions without arguments; with several workers they are sent to other processes.
        workers: How many jobs run at a time. One worker is this process itself.

    Yields:
        The results of the jobs, in the order in which the jobs end.

    Raises:
        KeyboardInterrupt: There was an interruption, and all jobs under way have stopped.
    """
    if not jobs:
        return
    stop_file = Path(tempfile.gettempdir()) / f"vaelab-stop-{secrets.token_hex(8)}"
    try:
        with deferred_interrupts(on_first=stop_file.touch):
            for result in _run_with_retries(dict(enumerate(jobs)), workers, stop_file):
                if result.interrupted:
                    stop_file.touch()
                else:
                    yield result
            if stop_file.exists():
                raise KeyboardInterrupt
    finally:
        stop_file.unlink(missing_ok=True)


def _run_with_retries(pending: dict[int, JobFunction], workers: int, stop_file: Path) -> Iterator[JobResult]:
    """The results of jobs; those that were under way when a worker died are tried again, each by itself."""
    while pending:
        pool = _WorkerPool(pending, workers, stop_file)
        for result in pool.results():
            del pending[result.job_index]
            yield result
        if not pool.has_died:
            return
        for index in sorted(pool.started & set(pending)):
            yield from _retry(index, pending.pop(index), stop_file)


def _retry(index: int, job: JobFunction, stop_file: Path) -> Iterator[JobResult]:
    """Try a job again alone, in a process of its own, so that its death is its own fault."""
    pool = _WorkerPool({index: job}, 2, stop_file)
    yield from pool.results()
    if pool.has_died:
        message = "the worker process died twice, perhaps because the memory was full; fewer --workers need less memory"
        yield JobResult(index, None, message, is_user_error=True)


class _WorkerPool:
    """Runs jobs in processes until all are done, a stop is asked for, or a worker process dies."""

    def __init__(self, jobs: Mapping[int, JobFunction], workers: int, stop_file: Path) -> None:
        self.jobs = dict(jobs)
        self.workers = workers
        self.stop_file = stop_file
        self.started: set[int] = set()
        self.has_died = False

    def results(self) -> Iterator[JobResult]:
        """The results, in the order in which the jobs end."""
        from joblib import Parallel, parallel_config
        from joblib.externals.loky.process_executor import TerminatedWorkerError

        settings: dict[str, Any] = {"pre_dispatch": self.workers, "batch_size": 1, "return_as": "generator_unordered"}
        with parallel_config("loky", inner_max_num_threads=1):
            results: Any = Parallel(self.workers, **settings)(self._calls())
            try:
                yield from results
            except TerminatedWorkerError:
                self.has_died = True

    def _calls(self) -> Iterator[Any]:
        """The calls that workers make, one after another as workers become free; none after a stop is asked for."""
        from joblib import delayed

        parent, working_dir = os.getpid(), str(Path.cwd())
        for index, job in self.jobs.items():
            if self.stop_file.exists():
                return
            self.started.add(index)
            yield delayed(_run_job_in_worker)(index, job, parent, working_dir, self.stop_file)


def _run_job_in_worker(index: int, job: JobFunction, parent: int, working_dir: str, stop_file: Path) -> JobResult:
    """In a worker: run one job, while the parent process lives and does not ask for a stop."""
    if os.getpid() != parent:
        _watch_parent(parent, stop_file)
    IN_WORKER.set()
    try:
        return run_job(index, job, working_dir)
    finally:
        IN_WORKER.clear()


def run_job(index: int, job: JobFunction, working_dir: str) -> JobResult:
    """Run one job without showing what it prints; an error becomes part of the result.

    Args:
        index: The position of the job, which its result carries.
        job: The function to call.
        working_dir: The folder that relative paths refer to; a worker may have been started in another one.
    """
    log = io.StringIO()
    try:
        os.chdir(working_dir)
        with contextlib.redirect_stderr(log):
            value = job()
        return JobResult(index, value)
    except KeyboardInterrupt:
        return JobResult(index, None, interrupted=True)
    except UserError as error:
        return JobResult(index, None, str(error), log.getvalue(), is_user_error=True)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        return JobResult(index, None, message, log.getvalue() + traceback.format_exc())


@cache
def _watch_parent(parent: int, stop_file: Path) -> None:
    """In a worker: exit when the parent process has died, and interrupt the job under way when a stop is asked for."""

    def interrupt(number: int, _: object) -> None:
        raise KeyboardInterrupt

    def watch() -> None:
        stop_sent = False
        while os.getppid() == parent:
            time.sleep(WATCH_SECONDS)
            if not stop_sent and stop_file.exists() and IN_WORKER.is_set():
                stop_sent = True
                os.kill(os.getpid(), signal.SIGTERM)
        os._exit(1)

    # A terminal sends Ctrl-C to all processes: the parent passes it on.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, interrupt)
    threading.Thread(target=watch, daemon=True).start()


def results_or_raise(results: Iterable[JobResult]) -> Iterator[JobResult]:
    """The results of jobs, as long as none of them has failed.

    Raises:
        UserError: A job failed for a reason that the user can put right.
        RuntimeError: A job failed for another reason; the text holds its traceback.
    """
    for result in results:
        if result.error is None:
            yield result
        elif result.is_user_error:
            raise UserError(result.error)
        else:
            raise RuntimeError(f"{result.error}\n{result.log}")


class Executor(NamedTuple):
    """Runs jobs: at most `max_workers` at a time, by the function `submit`.

    Example:
        >>> [result.value for result in Executor(1)([lambda: 2 + 3])]
        [5]
    """

    max_workers: int
    submit: Callable[[Sequence[JobFunction], int], Iterator[JobResult]] = run_jobs

    def __call__(self, jobs: Sequence[JobFunction]) -> Iterator[JobResult]:
        """The results of jobs, in the order in which the jobs end."""
        return self.submit(jobs, self.max_workers)
