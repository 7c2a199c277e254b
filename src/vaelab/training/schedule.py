r"""The length of a training run, and how far it has come at each step.

    progress(s) = p_j + (1 - p_j) (s - k_j) / (T_j - k_j)

with the last segment (k_j, p_j, T_j) that starts at or before step s. Learning rates and warm-ups are functions of
this progress, which rises from 0 to 1. A run of a fixed length T has the one segment (0, 0, T). Under a time budget the
length is estimated again and again; each new estimate adds a segment that starts from the progress reached so far.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Segment", "StepSchedule"]


class Segment(NamedTuple):
    """A part of a run during which its length is known as `total_steps`.

    Attributes:
        start: The first step of the segment.
        progress: The part of the training that is done before that step, from 0 to 1.
        total_steps: The number of steps of the run, as it is known from then on.
    """

    start: int
    progress: float
    total_steps: int


@dataclass(frozen=True)
class StepSchedule:
    """The segments of a run, the first of which starts at step 0.

    Example:
        >>> schedule = StepSchedule.of_length(100).revised(50, 150)
        >>> schedule.total_steps, schedule.progress(25), schedule.progress(50), schedule.progress(100)
        (150, 0.25, 0.5, 0.75)
    """

    segments: tuple[Segment, ...]

    @classmethod
    def of_length(cls, total_steps: int) -> StepSchedule:
        """The schedule of a run of a fixed length."""
        return cls((Segment(0, 0.0, total_steps),))

    @classmethod
    def from_lists(cls, segments: Sequence[Sequence[float]]) -> StepSchedule:
        """The schedule that was stored as JSON."""
        return cls(tuple(Segment(int(start), float(progress), int(total)) for start, progress, total in segments))

    @classmethod
    def from_estimates(cls, estimates: Sequence[int]) -> StepSchedule:
        """The schedule with these pairs of a step and the number of steps that was estimated there.

        Example:
            >>> StepSchedule.from_estimates((0, 100, 50, 150)) == StepSchedule.of_length(100).revised(50, 150)
            True
        """
        schedule = cls.of_length(estimates[1])
        for start, total in zip(estimates[2::2], estimates[3::2], strict=True):
            schedule = schedule.revised(start, total)
        return schedule

    @property
    def estimates(self) -> tuple[int, ...]:
        """Pairs of a step and the number of steps that was estimated there, from which the schedule follows."""
        pairs = [(segment.start, segment.total_steps) for segment in self.segments]
        return tuple(itertools.chain.from_iterable(pairs))

    @property
    def total_steps(self) -> int:
        """The number of steps of the run, as far as it is known."""
        return self.segments[-1].total_steps

    @property
    def last_revision(self) -> int:
        """The step before which the length was last estimated."""
        return self.segments[-1].start

    def progress(self, step: int) -> float:
        """The part of the training that is done before a step, from 0 to 1."""
        segment = self._segment(step)
        done = (step - segment.start) / (segment.total_steps - segment.start)
        return segment.progress + (1 - segment.progress) * done

    def progress_per_step(self, step: int) -> float:
        """How much a step adds to the progress."""
        segment = self._segment(step)
        return (1 - segment.progress) / (segment.total_steps - segment.start)

    def revised(self, step: int, total_steps: int) -> StepSchedule:
        """The schedule with a new number of steps, which shapes the progress from `step` on."""
        return StepSchedule((*self.segments, Segment(step, self.progress(step), total_steps)))

    def _segment(self, step: int) -> Segment:
        """The last segment that starts at or before a step."""
        for segment in reversed(self.segments):
            if segment.start <= step:
                return segment
        return self.segments[0]
