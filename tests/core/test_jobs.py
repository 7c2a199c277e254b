"""Jobs in worker processes: results, errors, and workers that die."""

from __future__ import annotations

import os
import signal
import tempfile
from functools import partial
from pathlib import Path

import pytest

from vaelab.core.errors import UserError
from vaelab.core.jobs import Executor, in_worker, results_or_raise, run_jobs


def number(value: int) -> int:
    return value


def die_once(marks: Path) -> int:
    """Kill the worker process on the first try."""
    mark = marks / "tried"
    if not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return 7


def die(marks: Path) -> None:
    with (marks / "tries").open("a") as file:
        file.write("x")
    os.kill(os.getpid(), signal.SIGKILL)


def refuse() -> None:
    raise UserError("no such picture")


def fail() -> None:
    raise ZeroDivisionError("a fault")


def test_results_carry_their_index_and_errors_their_kind() -> None:
    jobs = [partial(number, 5), refuse, fail, in_worker]
    for workers in (1, 2):
        results = {result.job_index: result for result in run_jobs(jobs, workers)}
        assert results[0].value == 5
        assert (results[1].error, results[1].is_user_error) == ("no such picture", True)
        assert (results[2].error, results[2].is_user_error) == ("ZeroDivisionError: a fault", False)
        assert "Traceback" in results[2].log
        assert results[3].value is True
    assert not in_worker()


def test_the_first_error_is_raised_where_asked() -> None:
    assert [result.value for result in results_or_raise(Executor(1)([partial(number, 1), partial(number, 2)]))] == [
        1,
        2,
    ]
    with pytest.raises(UserError, match="no such picture"):
        list(results_or_raise(Executor(1)([refuse])))
    with pytest.raises(RuntimeError, match="a fault"):
        list(results_or_raise(Executor(1)([fail])))


@pytest.mark.filterwarnings("ignore:A worker stopped")
def test_a_job_whose_worker_died_is_tried_once_more(tmp_path: Path) -> None:
    jobs = [
        partial(number, 1),
        partial(die_once, tmp_path),
        partial(die, tmp_path),
        *(partial(number, i) for i in range(6)),
    ]
    results = {result.job_index: result for result in run_jobs(jobs, 2)}
    assert set(results) == set(range(len(jobs)))
    assert results[1].value == 7
    assert "died twice" in (results[2].error or "")
    assert results[2].is_user_error
    assert (tmp_path / "tries").read_text() == "xx"
    assert [results[i + 3].value for i in range(6)] == list(range(6))


def test_no_file_of_the_jobs_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    assert [result.value for result in run_jobs([partial(number, 3)], 1)] == [3]
    assert not list(tmp_path.iterdir())
