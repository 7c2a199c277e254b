"""Jobs on a Ray cluster: the counterpart of `jobs` for several machines.

A task is one job on one processor. Ray starts it again where its machine or its process died, and a training run then
goes on from the state in its folder. All machines must see this folder and the data under the same paths. Without a
cluster (RAY_ADDRESS, or one that was started on this machine) Ray makes one of this machine's processors.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vaelab.core.errors import UserError
from vaelab.core.interrupts import deferred_interrupts
from vaelab.core.jobs import Executor, JobFunction, JobResult, run_job

__all__ = ["ray_executor"]

MAX_RETRIES = 5  # of a task whose machine or process died

STOP_SECONDS = 60  # in which tasks that are asked to stop have saved their state

POLL_SECONDS = 0.5  # between two checks whether to stop

FORWARDED_VARIABLES = ("VAELAB_DATA", "VAELAB_CACHE", "HF_HOME", "HF_ENDPOINT", "CXX")  # the same in every task


def ray_executor(workers: int | None) -> Executor:
    """An executor that runs jobs on the cluster, `workers` at a time, or one for each of its processors."""
    if workers is None:
        processors = connect_to_ray().cluster_resources().get("CPU", 1)
        workers = max(1, int(processors))
    return Executor(workers, run_ray_jobs)


def run_ray_jobs(jobs: Sequence[JobFunction], workers: int) -> Iterator[JobResult]:
    """Run jobs on the cluster. The first interruption lets the tasks under way stop and save, and is then raised.

    Args:
        jobs: Functions without arguments.
        workers: How many tasks run at a time.

    Yields:
        The results of the jobs, in the order in which the jobs end.
    """
    if not jobs:
        return
    tasks = _Tasks(jobs)
    with deferred_interrupts() as is_interrupted:
        try:
            while tasks.waiting or tasks.running:
                tasks.start(workers)
                yield from tasks.collect()
                if is_interrupted():
                    raise KeyboardInterrupt
        finally:
            tasks.cancel()


class _Tasks:
    """The tasks of some jobs: those that wait, and those that run."""

    def __init__(self, jobs: Sequence[JobFunction]) -> None:
        self.ray = connect_to_ray()
        self.remote = self.ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(run_job)
        self.jobs = jobs
        self.waiting = deque(range(len(jobs)))
        self.running: dict[Any, int] = {}
        self.num_interrupted = Counter[int]()

    def start(self, max_running: int) -> None:
        """Start tasks that wait, until so many run."""
        while self.waiting and len(self.running) < max_running:
            index = self.waiting.popleft()
            reference = self.remote.remote(index, self.jobs[index], str(Path.cwd()))
            self.running[reference] = index

    def collect(self) -> Iterator[JobResult]:
        """The results of tasks that have ended. One that was interrupted, as by its machine, waits again."""
        done, _ = self.ray.wait(list(self.running), timeout=POLL_SECONDS)
        for reference in done:
            index = self.running.pop(reference)
            result = self._result(reference, index)
            if result.interrupted and self.num_interrupted[index] < MAX_RETRIES:
                self.num_interrupted[index] += 1
                self.waiting.appendleft(index)
            else:
                yield result

    def cancel(self) -> None:
        """Ask the tasks under way to stop, and wait until they have saved their state."""
        for reference in self.running:
            self.ray.cancel(reference, force=False)
        if self.running:
            self.ray.wait(list(self.running), num_returns=len(self.running), timeout=STOP_SECONDS)

    def _result(self, reference: Any, index: int) -> JobResult:
        """The result of a task; it is an error where all tries of it died."""
        try:
            return self.ray.get(reference)
        except self.ray.exceptions.RayError as error:
            return JobResult(index, None, f"Ray gave up: {_in_one_line(error)}")


def connect_to_ray() -> Any:
    """The module `ray`, connected to its cluster.

    Raises:
        UserError: Ray is not installed, or its cluster does not answer.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise UserError('the backend ray needs Ray: pip install "ray>=2.50,<3"') from None
    if ray.is_initialized():
        return ray
    try:
        ray.init(
            runtime_env={"env_vars": _forwarded_environment()},
            log_to_driver=False,
            logging_level=logging.ERROR,
            include_dashboard=False,
        )
    except (ConnectionError, ValueError) as error:
        address = os.environ.get("RAY_ADDRESS", "on this machine")
        raise UserError(
            f"Ray's cluster {address} does not answer: {_in_one_line(error)[:200]}\n"
            "start it, or set RAY_ADDRESS to one that runs"
        ) from None
    return ray


def _forwarded_environment() -> dict[str, str]:
    """The variables that tasks need; paths are absolute, since a task runs in another folder."""
    environment = {}
    for name in FORWARDED_VARIABLES:
        value = os.environ.get(name)
        if value is not None and name.startswith("VAELAB"):
            value = str(Path(value).absolute())
        if value is not None:
            environment[name] = value
    return environment


def _in_one_line(error: Exception) -> str:
    """The text of an error without line breaks."""
    return " ".join(str(error).split())
