"""Time budgets: the steps are estimated again and again, and a resumed run takes the steps that were stored."""

from __future__ import annotations

import os
import shlex
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from vaelab.cli.main import run_cli
from vaelab.core.errors import UserError
from vaelab.datasets.images import Dataset
from vaelab.models.likelihoods import CrossEntropy
from vaelab.models.networks import Mlp
from vaelab.runs.run import Run, load
from vaelab.runs.spec import Spec, check_spec
from vaelab.training import budget, progress
from vaelab.training.budget import StepTimes, TimeBudget
from vaelab.training.fit import fit
from vaelab.training.loop import TrainingInterrupted
from vaelab.training.schedule import Segment, StepSchedule
from vaelab.training.steps.eager import EagerStep

SECONDS = 60.0

SPEC = Spec(
    network=Mlp((8,)),
    distortion=CrossEntropy(),
    latent_dim=2,
    batch_size=200,
    minutes=SECONDS / 60,
    schedule="cosine",
    lr_warmup=0.1,
)


def simulate(seconds_of_step: list[float], first_estimate: int) -> tuple[float, StepSchedule]:
    """The part of the budget that a run uses whose steps take these times, and its schedule."""
    time_budget, schedule = TimeBudget(SECONDS), StepSchedule.of_length(first_estimate)
    step, elapsed = 0, 0.0
    while step < schedule.total_steps:
        elapsed += seconds_of_step[step]
        step += 1
        schedule = time_budget.revised_schedule(schedule, step, elapsed) or schedule
    assert step == schedule.total_steps
    return elapsed / SECONDS, schedule


@pytest.mark.parametrize(
    ("seconds_of_step", "first_estimate"),
    [
        ([0.01] * 20_000, 5_800),
        ([0.01] * 20_000, 600),  # the machine was busy when it was tried out
        ([0.1] * 20_000, 5_800),  # it was idle then
        ([0.01] * 2_000 + [0.05] * 300 + [0.01] * 20_000, 5_800),
        ([0.01, 0.04] * 10_000, 3_000),
        ([0.01] * 20_000, 2),
    ],
)
def test_a_budget_is_used_whatever_the_machine_does(seconds_of_step: list[float], first_estimate: int) -> None:
    used, schedule = simulate(seconds_of_step, first_estimate)
    assert 0.93 <= used <= 1.0
    progress = [schedule.progress(step) for step in range(schedule.total_steps + 1)]
    assert progress == sorted(progress)
    assert (progress[0], progress[-1]) == (0.0, pytest.approx(1.0))


def test_one_segment_is_plain_division() -> None:
    schedule = StepSchedule.of_length(7)
    assert [schedule.progress(step) for step in range(8)] == [step / 7 for step in range(8)]
    assert schedule.progress_per_step(3) == 1 / 7
    lists = [list(segment) for segment in schedule.revised(3, 9).segments]
    assert StepSchedule.from_lists(lists).segments == (Segment(0, 0.0, 7), Segment(3, 3 / 7, 9))


class FakeClock:
    """Every step takes the same time, and an interruption comes after one of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.seconds_per_step, self.stop_at = 0.0, 0.5, 0
        take_step = EagerStep.__call__

        def timed_step(step, rows):
            self.now += self.seconds_per_step
            if step.run.state.step + 1 == self.stop_at:
                os.kill(os.getpid(), signal.SIGINT)
            return take_step(step, rows)

        def elapsed_seconds(stopwatch) -> float:
            begin = stopwatch.__dict__.setdefault("fake_begin", self.now)
            return stopwatch.seconds_before + self.now - begin

        monkeypatch.setattr(EagerStep, "__call__", timed_step)
        monkeypatch.setattr(progress.Stopwatch, "elapsed_seconds", elapsed_seconds)
        monkeypatch.setattr(budget, "time_steps", lambda job, seconds: StepTimes(0.3, 0.0, 0.0))


def train(digits: Dataset, out: Path) -> Run:
    return fit([SPEC], digits, out, device="cpu", precision="float32", threads=1)[0]


def test_a_resumed_run_takes_the_stored_steps(digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the clock says: it is another one after each interruption, up to the last stored estimate."""
    clock = FakeClock(monkeypatch)
    whole = train(digits, tmp_path / "whole")
    segments = whole.origin["plan"]["segments"]
    last_step = whole.history[-1]["step"]
    assert len(segments) > 3
    assert last_step == whole.origin["plan"]["steps"] == segments[-1][2]
    assert 0.9 * SECONDS < last_step * 0.5 <= SECONDS

    clock.stop_at = segments[2][0] + 1
    with pytest.raises(TrainingInterrupted):
        train(digits, tmp_path / "parts")
    [path] = (tmp_path / "parts").iterdir()
    assert Run(path).origin["plan"]["segments"] == segments[:3]
    clock.seconds_per_step, clock.stop_at = 0.4, 0
    parts = train(digits, tmp_path / "parts")
    assert parts.outcome == "resumed"
    assert parts.origin["plan"]["segments"][:3] == segments[:3]
    assert parts.history[-1]["step"] == parts.origin["plan"]["steps"] > last_step


def test_a_run_killed_after_an_estimate_repeats_it(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its state is older than its last estimate: the steps between them are the same, with any clock."""
    clock = FakeClock(monkeypatch)
    whole = train(digits, tmp_path / "whole")
    origin = (whole.path / "origin.json").read_bytes()
    clock.stop_at = 20
    with pytest.raises(TrainingInterrupted):
        train(digits, tmp_path / "parts")
    run = Run(tmp_path / "parts" / whole.key)
    (run.path / "origin.json").write_bytes(origin)  # as if all estimates had been stored before the kill
    clock.seconds_per_step, clock.stop_at = 0.0, 0
    monkeypatch.setattr(TimeBudget, "_estimated_total", lambda budget, total_steps, *_: total_steps)
    resumed = train(digits, tmp_path / "parts")
    assert (resumed.path / "weights.safetensors").read_bytes() == (whole.path / "weights.safetensors").read_bytes()
    assert resumed.origin["plan"]["segments"] == whole.origin["plan"]["segments"]


def test_a_repeated_run_is_the_same_where_the_length_shapes_nothing(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a constant learning rate `steps` in place of `minutes` gives the same weights."""
    FakeClock(monkeypatch)
    settings = {"device": "cpu", "precision": "float32", "threads": 1}
    constant = replace(SPEC, schedule="constant", lr_warmup=0.0)
    [timed] = fit([constant], digits, tmp_path, **settings)
    [repeated] = fit([replace(constant, minutes=None, steps=timed.history[-1]["step"])], digits, tmp_path, **settings)
    assert repeated.key != timed.key
    assert (repeated.path / "weights.safetensors").read_bytes() == (timed.path / "weights.safetensors").read_bytes()


@pytest.mark.parametrize("length", [{"minutes": SECONDS / 60}, {"preset": "fast", "minutes": SECONDS / 60}])
def test_the_command_that_is_printed_repeats_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], length: dict[str, object]
) -> None:
    """With a learning rate that falls, so that each estimate of the length counts, to the byte."""
    FakeClock(monkeypatch)
    settings = {"network": "mlp:hidden=8", "latent_dim": 2, "batch_size": 200, "schedule": "cosine", "out": tmp_path}
    flags = [f"--{name.replace('_', '-')}={value}" for name, value in (settings | length).items()]

    def carry_out(words: list[str]) -> None:
        monkeypatch.setattr(sys, "argv", words)
        assert run_cli(words[1:]) == 0

    carry_out(["vaelab", "train", "digits", *flags, "--lr-warmup", "0.1", "--no-figures"])
    [command] = [line for line in capsys.readouterr().err.splitlines() if line.startswith("  vaelab train")]
    timed = load(tmp_path)
    assert len(timed.origin["plan"]["segments"]) > 3
    carry_out(shlex.split(command))
    runs = list(tmp_path.glob("*/weights.safetensors"))
    assert len(runs) == 2
    assert runs[0].read_bytes() == runs[1].read_bytes()


@pytest.mark.parametrize("estimates", [(), (0,), (1, 9), (0, 8), (0, 5, 7, 9, 6, 9), (0, 9, 9, 9)])
def test_estimates_that_no_run_has_are_refused(estimates: tuple[int, ...]) -> None:
    with pytest.raises(UserError, match="estimates must be pairs"):
        check_spec(Spec(steps=9, estimates=estimates))
    check_spec(Spec(steps=9, estimates=(0, 7, 3, 9)))
