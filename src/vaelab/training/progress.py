"""The progress of a training: its time, and what the display shows of it."""

from __future__ import annotations

import math
import time

from vaelab.core.console import ProgressCallback
from vaelab.objectives.terms import LossTerms
from vaelab.training.state import ActiveRun

__all__ = ["ProgressDisplay", "Stopwatch"]

SHOW_SECONDS = 0.2  # between two updates of the display


class Stopwatch:
    """Measures the training time, to which the time before a resumption belongs."""

    def __init__(self, seconds_before: float) -> None:
        self.seconds_before = seconds_before
        self.begin = time.monotonic()

    def elapsed_seconds(self) -> float:
        """Seconds of training up to now."""
        return self.seconds_before + time.monotonic() - self.begin


class ProgressDisplay:
    """Shows how far training has come, the images seen per second, and the terms of the loss.

    Args:
        advance: Receives the steps that are done and the text.
        run: The run that is shown, before its first step.
        num_runs: How many runs are trained as one.
    """

    def __init__(self, advance: ProgressCallback, run: ActiveRun, num_runs: int) -> None:
        self.advance = advance
        self.num_runs = num_runs
        self.total_steps = run.job.total_steps
        self.images_before = run.job.images_seen_by(run.state.step)
        self.begin = time.monotonic()
        self.last_shown = 0.0

    def show(self, run: ActiveRun, terms: LossTerms) -> None:
        """Update the display, unless that was done just now."""
        now = time.monotonic()
        if now - self.last_shown < SHOW_SECONDS:
            return
        self.last_shown = now
        images = run.job.images_seen_by(run.state.step) - self.images_before
        images_per_second = images * self.num_runs / (now - self.begin)
        steps_done = round(run.progress * self.total_steps)  # of those that were planned when training began
        self.advance(steps_done, f"{images_per_second:,.0f} images/s, {format_terms(run, terms)}")


def format_terms(run: ActiveRun, terms: LossTerms) -> str:
    """The epoch and the terms of a step in words."""
    epoch = math.ceil(run.state.step / run.job.steps_per_epoch)
    epochs = math.ceil(run.job.total_steps / run.job.steps_per_epoch)
    loss, distortion, rate = terms.loss.item(), terms.distortion.item(), terms.rate.item()
    return f"epoch {epoch} of {epochs}, loss {loss:.2f} (distortion {distortion:.2f}, KL {rate:.2f})"
