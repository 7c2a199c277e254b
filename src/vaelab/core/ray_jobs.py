"""The cluster: runs carried out by Ray, on whatever machines it has; the counterpart of `workers`.

A task is one job on one processor. Ray starts it again where a machine or its process died, and the run goes on from
the state that it left in the folder, which all machines must see under the same path, as they must the data. Without a
cluster (RAY_ADDRESS, or one that was started on this machine) Ray makes one of this machine's processors.
"""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from vaelab.core.errors import UserError
from vaelab.core.interrupts import deferred_interrupts
from vaelab.core.jobs import Executor, JobFunction, JobResult, run_job

__all__ = ["ray_executor"]

MAX_RETRIES = 5  # of a task whose machine or process died

STOP_SECONDS = 60  # seconds in which tasks that are stopped have saved their state

POLL_SECONDS = 0.5  # seconds between two looks whether to stop

FORWARDED_VARIABLES = (
    "VAELAB_DATA",
    "VAELAB_CACHE",
    "HF_HOME",
    "HF_ENDPOINT",
    "CXX",
)  # where things lie, wherever the task runs


def ray_executor(workers: int | None) -> Executor:
    """The cluster as one that carries out jobs: one for each of its processors, unless it is told how many."""
    return Executor(workers or max(1, int(connect_to_ray().cluster_resources().get("CPU", 1))), run_ray_jobs)


def run_ray_jobs(jobs: Sequence[JobFunction], workers: int) -> Iterator[JobResult]:
    """The results of jobs, as they come. The first interruption lets those under way stop and save, then passes on."""
    if not jobs:
        return
    ray = connect_to_ray()
    task = ray.remote(num_cpus=1, max_retries=MAX_RETRIES)(run_job)
    left, stopped = list(enumerate(jobs))[::-1], Counter[int]()
    under_way: dict[Any, int] = {}
    with deferred_interrupts() as interrupted:
        try:
            while left or under_way:
                while left and len(under_way) < workers:
                    index, job = left.pop()
                    under_way[task.remote(index, job, str(Path.cwd()))] = index
                done, _ = ray.wait(list(under_way), timeout=POLL_SECONDS)
                for reference in done:
                    result = ray_result(ray, reference, under_way.pop(reference))
                    if (
                        result.interrupted and stopped[result.job_index] < MAX_RETRIES
                    ):  # as a machine does that is taken away
                        stopped[result.job_index] += 1
                        left.append((result.job_index, jobs[result.job_index]))
                    else:
                        yield result
                if interrupted():
                    raise KeyboardInterrupt
        finally:
            for reference in under_way:
                ray.cancel(reference, force=False)
            if under_way:
                ray.wait(list(under_way), num_returns=len(under_way), timeout=STOP_SECONDS)


def connect_to_ray() -> Any:
    """Ray, connected to its cluster."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    try:
        import ray
    except ImportError:
        raise UserError('the backend ray needs Ray: pip install "vaelab[ray]"') from None
    if not ray.is_initialized():
        environment = {
            name: str(Path(os.environ[name]).absolute()) if name.startswith("VAELAB") else os.environ[name]
            for name in FORWARDED_VARIABLES
            if name in os.environ
        }
        try:
            ray.init(
                runtime_env={"env_vars": environment},
                log_to_driver=False,
                logging_level=logging.ERROR,
                include_dashboard=False,
            )
        except (ConnectionError, ValueError) as error:
            where = os.environ.get("RAY_ADDRESS", "on this machine")
            raise UserError(
                f"Ray's cluster {where} does not answer: {' '.join(str(error).split())[:200]}\n"
                "start it, or set RAY_ADDRESS to one that runs"
            ) from None
    return ray


def ray_result(ray: Any, reference: Any, index: int) -> JobResult:
    """What came of a task; that all of its tries died is an error of the job."""
    try:
        return ray.get(reference)
    except ray.exceptions.RayError as error:
        return JobResult(index, None, f"Ray gave up: {' '.join(str(error).split())}")
