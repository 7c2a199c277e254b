"""Time budgets: how long a step takes here, and how many fit."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vaelab.core.devices import keep_freed_memory, using
from vaelab.datasets.images import Dataset
from vaelab.evaluation.metrics import evaluate, monitor
from vaelab.runs.run import Run
from vaelab.runs.spec import Spec
from vaelab.training.job import Work
from vaelab.training.loop import monitored
from vaelab.training.plan import choose_plan
from vaelab.training.state import start
from vaelab.training.steps.choose import compiled_step, take_step

__all__ = ["forecast", "per_epoch", "probe"]


class Pace(NamedTuple):
    """Seconds of a step, of an image that an epoch's end measures, and of one that the run's end does."""

    step: float
    monitored: float
    measured: float


def pace(work: Work, seconds: float) -> Pace:
    """The pace of a run, from some seconds of training that is thrown away."""
    state = start(work.spec, work.plan, work.images.shape, work.parent)
    trial = replace(work, plan=replace(work.plan, steps=10**9))
    rows, program = np.arange(min(work.spec.batch_size, len(work.images))), compiled_step(work, state)
    for _ in range(3):  # the first steps are slower
        take_step(trial, state, rows, program).loss.item()
    begun, steps = time.monotonic(), 0
    while work.ranks.agree(steps < 5 or time.monotonic() - begun < seconds):
        take_step(trial, state, rows, program).loss.item()
        steps += 1
    per_step = (time.monotonic() - begun) / steps
    some = work.dataset.splits.get("validation", work.images).spread(1000)
    per_monitored = _timed(partial(monitor, state.working, work.spec.objective, some)) / len(some)
    few = some.spread(500)
    return Pace(per_step, per_monitored, _timed(partial(evaluate, state.model, work.spec.objective, few)) / len(few))


def _timed(work: Callable[[], object]) -> float:
    begun = time.monotonic()
    work()
    return time.monotonic() - begun


def per_epoch(work: Work, found: Pace) -> float:
    """Seconds of an epoch with the measurement at its end."""
    images = len(work.dataset.splits.get("validation", ())) + monitored(work.images)
    return work.steps_per_epoch * found.step + images * found.monitored


def probe(work: Work) -> int:
    """How many steps the time budget holds."""
    budget = 60 * (work.spec.minutes or 0)
    epoch = per_epoch(work, pace(work, min(3.0, 0.05 * budget)))
    return max(1, int(0.95 * budget * work.steps_per_epoch / epoch))


def forecast(
    spec: Spec, dataset: Dataset, *, device: str | None = None, threads: int | None = None
) -> tuple[float, float]:
    """About how many seconds an epoch takes, and the measurement at the end of a run: from a second of training."""
    work = Work(Run(Path()), spec, dataset, choose_plan(spec, dataset.splits["train"], device, threads=threads))
    keep_freed_memory()
    with using(work.plan.threads):
        found = pace(work, 1.0)
    held_out = sum(len(images) for split, images in dataset.splits.items() if split != "train")
    return per_epoch(work, found), held_out * found.measured
