"""The training loop: epochs and steps, history, checkpoints, and the runs that leave a group early."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch

from vaelab.core.console import ProgressCallback, notice, progress
from vaelab.core.errors import UserError
from vaelab.core.interrupts import deferred_interrupts
from vaelab.core.tensors import read_tensors, write_tensors
from vaelab.datasets.images import Images
from vaelab.evaluation.diagnostics import new_alarms
from vaelab.evaluation.metrics import fit_global_params, validate
from vaelab.objectives.terms import LossTerms
from vaelab.runs.run import write_history
from vaelab.training.job import TrainingJob, epoch_order
from vaelab.training.state import TrainingState, save_state
from vaelab.training.steps.choose import ActiveRun, choose_step, format_terms

__all__ = [
    "CheckpointSchedule",
    "Stopwatch",
    "TrainingInterrupted",
    "finish_epoch",
    "first_non_finite_error",
    "non_finite_error",
    "num_monitored_images",
    "train_epochs",
]

SHOW_SECONDS = 0.2  # between two updates of the display

STATE_SHARE = 20  # a state is written when training since the last took this many times as long as writing it

STATE_SECONDS = 60  # within an epoch, a state is written this often


class Stopwatch:
    """Seconds of training, those before a resumption included, and what the display shows of them."""

    def __init__(self, seconds_before: float, images_before: int) -> None:
        self.seconds_before, self.start, self.images_before, self.last_shown = (
            seconds_before,
            time.monotonic(),
            images_before,
            0.0,
        )

    def elapsed_seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.start

    def show_progress(self, advance: ProgressCallback, step: int, images: int, text: Callable[[], str]) -> None:
        """Show the step, the images seen so far a second, and the text, unless that was done just now."""
        now = time.monotonic()
        if now - self.last_shown >= SHOW_SECONDS:
            self.last_shown = now
            rate = (images - self.images_before) / (now - self.start)
            advance(step, f"{rate:,.0f} images/s, {text()}")


class CheckpointSchedule:
    """Says when a state is due: seldom enough that writing costs less than 5 % of the training."""

    def __init__(self) -> None:
        self.last_saved, self.save_seconds = time.monotonic(), 0.0

    def is_due(self, epoch_ended: bool) -> bool:
        since = time.monotonic() - self.last_saved
        return since > STATE_SHARE * self.save_seconds and (epoch_ended or since > STATE_SECONDS)

    @contextlib.contextmanager
    def time_save(self) -> Iterator[None]:
        """Time the writing of a state."""
        begun = time.monotonic()
        yield
        self.last_saved = time.monotonic()
        self.save_seconds = self.last_saved - begun


def non_finite_error(terms: LossTerms, epoch: int, step: int) -> UserError | None:
    """The error of a loss that is no number, with the term that it came from."""
    if math.isfinite(terms.loss.item()):
        return None
    named = {"distortion": terms.distortion, "KL": terms.rate, **terms.extra_terms, "loss": terms.loss}
    return first_non_finite_error({name: value.item() for name, value in named.items()}, epoch, step)


def first_non_finite_error(values: dict[str, float], epoch: int, step: int) -> UserError | None:
    """The error of values that are no numbers, naming the first, with what to try."""
    for name, value in values.items():
        if not math.isfinite(value):
            return UserError(
                f"training stopped in epoch {epoch}, step {step}: the {name} became "
                f"{'NaN' if math.isnan(value) else 'infinite'}.\nTry a lower learning rate (a third of --lr), "
                "--clip 100 or --lr-warmup 0.1; with bfloat16 --precision float32."
            )
    return None


TRAIN_EVAL_IMAGES = 1000, 2000  # training images on which history is measured: a tenth of them within these bounds

SYNC_EVERY = 50  # steps between two looks at the terms on a GPU, each of which waits for it


class TrainingInterrupted(KeyboardInterrupt):
    """The user's interruption, after the state was written."""


# The loop.


def train_epochs(
    group: Sequence[ActiveRun], snapshots: Sequence[int], errors: dict[str, UserError]
) -> Sequence[ActiveRun]:
    """Take the steps that are left; a row of history and perhaps a state after each epoch. Gives the runs that got by.

    The runs of a team are in step with each other; one whose loss is no number leaves it.
    """
    work, state, *_ = group[0]
    size, per_epoch = work.spec.batch_size, work.steps_per_epoch
    clock, saver = Stopwatch(state.seconds, work.images_seen_by(state.step) * len(group)), CheckpointSchedule()
    epochs = math.ceil(work.total_steps / per_epoch)
    step = choose_step(group)
    with deferred_interrupts() as interrupted, progress("training", work.total_steps, state.step) as advance:
        for epoch in range(state.step // per_epoch, epochs):
            orders = {one.job: epoch_order(one.job, epoch) for one in group}
            for at in range(state.step - epoch * per_epoch, min(per_epoch, work.total_steps - epoch * per_epoch)):
                coming = orders[work][(at + 1) * size : (at + 2) * size]
                if work.device_pixels is None:
                    work.train_images.prefetch(coming[work.distributed.share(len(coming))])
                terms = step([orders[one.job][at * size : (at + 1) * size] for one in group])
                last = at == per_epoch - 1 or state.step == work.total_steps
                broken: dict[str, UserError] = {}
                if last or work.plan.device == "cpu" or state.step % SYNC_EVERY == 0:
                    broken = non_finite_runs(group, terms, epoch + 1)
                    text = partial(format_terms, terms[0], epoch + 1, epochs)
                    clock.show_progress(advance, state.step, work.images_seen_by(state.step) * len(group), text)
                if last and work.distributed.is_main:
                    broken |= finish_epoch(active_runs(group, broken), epoch + 1, clock, snapshots)
                if broken:
                    errors |= broken
                    group = active_runs(group, broken)
                    if not group:
                        return []
                    (work, state, *_), step = group[0], choose_step(group)
                for one in group:
                    one.state.seconds = clock.elapsed_seconds()
                stop = interrupted()
                if work.distributed.world_size > 1:  # all of them stop after the same step
                    stop = (last or state.step % SYNC_EVERY == 0) and work.distributed.any(stop)
                if work.distributed.is_main and (stop or saver.is_due(last)):
                    with saver.time_save():
                        for one in group:
                            save_state(one.state, one.job.run)
                if stop:
                    raise TrainingInterrupted
    return group


def non_finite_runs(group: Sequence[ActiveRun], terms: Sequence[LossTerms], epoch: int) -> dict[str, UserError]:
    """The errors of those runs whose loss is no number."""
    found = {
        one.job.run.key: non_finite_error(some, epoch, one.state.step) for one, some in zip(group, terms, strict=True)
    }
    return {name: error for name, error in found.items() if error}


def active_runs(group: Sequence[ActiveRun], errors: Mapping[str, UserError]) -> list[ActiveRun]:
    return [one for one in group if one.job.run.key not in errors]


def finish_epoch(
    group: Sequence[ActiveRun], epoch: int, stopwatch: Stopwatch, snapshots: Sequence[int]
) -> dict[str, UserError]:
    """End the epoch of each run; gives the errors of those for which it was the last."""
    broken: dict[str, UserError] = {}
    for work, state, *_ in group:
        try:
            record_epoch(work, state, epoch, stopwatch.elapsed_seconds(), snapshots)
        except UserError as error:
            if work.distributed.world_size > 1:
                raise
            broken[work.run.key] = error
    return broken


def record_epoch(job: TrainingJob, state: TrainingState, epoch: int, seconds: float, snapshots: Sequence[int]) -> None:
    """Measure, note the row of history, keep the best weights and the snapshots."""
    spec, run = job.spec, job.run
    measured = {"train": job.train_images.evenly_spaced(num_monitored_images(job.train_images))}
    fit_global_params(state.eval_model, measured["train"])
    looked_at = (state.eval_model.bfloat16_copy() if job.plan.precision == "bfloat16" else state.eval_model).eval()
    if "validation" in job.dataset.splits:
        measured["validation"] = job.dataset.splits["validation"]
    terms = {split: validate(looked_at, spec.objective, images) for split, images in measured.items()}
    for split, values in terms.items():
        error = first_non_finite_error(
            {f"{name} of the {split} images": v for name, v in values.items()}, epoch, state.step
        )
        if error:
            raise error
    row = {"epoch": epoch, "step": state.step, "seconds": round(seconds, 3)} | {"validation": {}} | terms
    write_history(run, rows := [*run.history, row])
    for finding in new_alarms(spec, rows):
        notice(
            f"warning after epoch {epoch}: {finding.ailment}: {finding.number}; {finding.meaning}.\n"
            f"  Try: {finding.remedy}"
        )
    if spec.keep == "best" and row["validation"]["loss"] < state.best_loss:
        state.best_loss = row["validation"]["loss"]
        state.best_weights = {n: t.detach().clone() for n, t in state.eval_model.state_dict().items()}
    if epoch in snapshots or state.step == job.total_steps:
        save_snapshot(job, state, epoch)
    state.eval_model.train()


def num_monitored_images(images: Images) -> int:
    """On how many training images history is measured: all of a small set, a tenth of a large one."""
    return min(len(images), max(TRAIN_EVAL_IMAGES[0], min(TRAIN_EVAL_IMAGES[1], len(images) // 10)))


def save_snapshot(job: TrainingJob, state: TrainingState, epoch: int) -> None:
    """Keep how the same few images are reconstructed after this epoch."""
    file = job.run.path / "snapshots.safetensors"
    kept = read_tensors(file)[0] if file.exists() else {}
    images = job.dataset.splits.get("validation", job.train_images)
    pixels = torch.from_numpy(images.evenly_spaced(8).uint8())
    with torch.no_grad():
        x = state.eval_model.reconstruct(pixels.to(job.plan.device).float().div_(255))
    kept |= {"originals": pixels, f"epoch-{epoch:05d}": x.mul(255).round().to(torch.uint8)}
    write_tensors(file, kept)
