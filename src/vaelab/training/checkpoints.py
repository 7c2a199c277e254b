"""Checkpoints: when the state of the runs in training is stored."""

from __future__ import annotations

import time
from collections.abc import Sequence

from vaelab.training.state import ActiveRun, save_state

__all__ = ["CheckpointSchedule"]

MIN_TRAINING_RATIO = 20  # training since the last save must have taken this many times as long as the save

MIN_SECONDS_WITHIN_EPOCH = 60  # between two saves that are not at the end of an epoch


class CheckpointSchedule:
    """Stores states seldom enough that this takes less than 5 % of the training time."""

    def __init__(self) -> None:
        self.last_saved = time.monotonic()
        self.save_seconds = 0.0

    def is_due(self, at_epoch_end: bool) -> bool:
        """Whether the states should be stored now."""
        seconds_since = time.monotonic() - self.last_saved
        if seconds_since <= MIN_TRAINING_RATIO * self.save_seconds:
            return False
        return at_epoch_end or seconds_since > MIN_SECONDS_WITHIN_EPOCH

    def save(self, group: Sequence[ActiveRun]) -> None:
        """Store the states of all runs of a group, and note how long it took."""
        begin = time.monotonic()
        for run in group:
            save_state(run.state, run.job.run)
        self.last_saved = time.monotonic()
        self.save_seconds = self.last_saved - begin
