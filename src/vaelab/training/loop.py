"""The training loop: epochs and steps, history, checkpoints, and the runs that leave a group early."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial

import torch

from vaelab.core.console import Advance, notice, progress
from vaelab.core.errors import UserError
from vaelab.core.interrupts import interruption
from vaelab.core.tensors import read_tensors, write_tensors
from vaelab.datasets.images import Images
from vaelab.evaluation.diagnostics import watch
from vaelab.evaluation.metrics import calibrate, monitor
from vaelab.objectives.terms import Terms
from vaelab.runs.run import write_history
from vaelab.training.job import Work, order
from vaelab.training.state import State, save
from vaelab.training.steps.choose import Ready, steps_of, tell

__all__ = ["Clock", "Saver", "Stopped", "descend", "ended", "monitored", "unfit", "unfit_among"]

SHOW_SECONDS = 0.2  # between two updates of the display

STATE_SHARE = 20  # a state is written when training since the last took this many times as long as writing it

STATE_SECONDS = 60  # within an epoch, a state is written this often


class Clock:
    """Seconds of training, those before a resumption included, and what the display shows of them."""

    def __init__(self, before: float, images: int) -> None:
        self.before, self.start, self.images, self.shown = before, time.monotonic(), images, 0.0

    def seconds(self) -> float:
        return self.before + time.monotonic() - self.start

    def show(self, advance: Advance, step: int, images: int, text: Callable[[], str]) -> None:
        """Show the step, the images seen so far a second, and the text, unless that was done just now."""
        now = time.monotonic()
        if now - self.shown >= SHOW_SECONDS:
            self.shown = now
            rate = (images - self.images) / (now - self.start)
            advance(step, f"{rate:,.0f} images/s, {text()}")


class Saver:
    """Says when a state is due: seldom enough that writing costs less than 5 % of the training."""

    def __init__(self) -> None:
        self.last, self.cost = time.monotonic(), 0.0

    def due(self, epoch_ended: bool) -> bool:
        since = time.monotonic() - self.last
        return since > STATE_SHARE * self.cost and (epoch_ended or since > STATE_SECONDS)

    @contextlib.contextmanager
    def timed(self) -> Iterator[None]:
        """Time the writing of a state."""
        begun = time.monotonic()
        yield
        self.last = time.monotonic()
        self.cost = self.last - begun


def unfit(terms: Terms, epoch: int, step: int) -> UserError | None:
    """The error of a loss that is no number, with the term that it came from."""
    if math.isfinite(terms.loss.item()):
        return None
    named = {"distortion": terms.distortion, "KL": terms.rate, **terms.parts, "loss": terms.loss}
    return unfit_among({name: value.item() for name, value in named.items()}, epoch, step)


def unfit_among(values: dict[str, float], epoch: int, step: int) -> UserError | None:
    """The error of values that are no numbers, naming the first, with what to try."""
    for name, value in values.items():
        if not math.isfinite(value):
            return UserError(
                f"training stopped in epoch {epoch}, step {step}: the {name} became "
                f"{'NaN' if math.isnan(value) else 'infinite'}.\nTry a lower learning rate (a third of --lr), "
                "--clip 100 or --lr-warmup 0.1; with bfloat16 --precision float32."
            )
    return None


MONITORED = 1000, 2000  # training images on which history is measured: a tenth of them within these bounds

LOOK = 50  # steps between two looks at the terms on a GPU, each of which waits for it


class Stopped(KeyboardInterrupt):
    """The user's interruption, after the state was written."""


# The loop.


def descend(team: Sequence[Ready], snapshots: Sequence[int], errors: dict[str, UserError]) -> Sequence[Ready]:
    """Take the steps that are left; a row of history and perhaps a state after each epoch. Gives the runs that got by.

    The runs of a team are in step with each other; one whose loss is no number leaves it.
    """
    work, state, *_ = team[0]
    size, per_epoch = work.spec.batch_size, work.steps_per_epoch
    clock, saver = Clock(state.seconds, work.images_until(state.step) * len(team)), Saver()
    epochs = math.ceil(work.steps / per_epoch)
    step = steps_of(team)
    with interruption() as interrupted, progress("training", work.steps, state.step) as advance:
        for epoch in range(state.step // per_epoch, epochs):
            orders = {one.work: order(one.work, epoch) for one in team}
            for at in range(state.step - epoch * per_epoch, min(per_epoch, work.steps - epoch * per_epoch)):
                coming = orders[work][(at + 1) * size : (at + 2) * size]
                if work.resident is None:
                    work.images.expect(coming[work.ranks.share(len(coming))])
                terms = step([orders[one.work][at * size : (at + 1) * size] for one in team])
                last = at == per_epoch - 1 or state.step == work.steps
                broken: dict[str, UserError] = {}
                if last or work.plan.device == "cpu" or state.step % LOOK == 0:
                    broken = lost(team, terms, epoch + 1)
                    text = partial(tell, terms[0], epoch + 1, epochs)
                    clock.show(advance, state.step, work.images_until(state.step) * len(team), text)
                if last and work.ranks.leads:
                    broken |= ended(without(team, broken), epoch + 1, clock, snapshots)
                if broken:
                    errors |= broken
                    team = without(team, broken)
                    if not team:
                        return []
                    (work, state, *_), step = team[0], steps_of(team)
                for one in team:
                    one.state.seconds = clock.seconds()
                stop = interrupted()
                if work.ranks.size > 1:  # all of them stop after the same step
                    stop = (last or state.step % LOOK == 0) and work.ranks.any(stop)
                if work.ranks.leads and (stop or saver.due(last)):
                    with saver.timed():
                        for one in team:
                            save(one.state, one.work.run)
                if stop:
                    raise Stopped
    return team


def lost(team: Sequence[Ready], terms: Sequence[Terms], epoch: int) -> dict[str, UserError]:
    """The errors of those runs whose loss is no number."""
    found = {one.work.run.key: unfit(some, epoch, one.state.step) for one, some in zip(team, terms, strict=True)}
    return {name: error for name, error in found.items() if error}


def without(team: Sequence[Ready], broken: Mapping[str, UserError]) -> list[Ready]:
    return [one for one in team if one.work.run.key not in broken]


def ended(team: Sequence[Ready], epoch: int, clock: Clock, snapshots: Sequence[int]) -> dict[str, UserError]:
    """End the epoch of each run; gives the errors of those for which it was the last."""
    broken: dict[str, UserError] = {}
    for work, state, *_ in team:
        try:
            end_epoch(work, state, epoch, clock.seconds(), snapshots)
        except UserError as error:
            if work.ranks.size > 1:
                raise
            broken[work.run.key] = error
    return broken


def end_epoch(work: Work, state: State, epoch: int, seconds: float, snapshots: Sequence[int]) -> None:
    """Measure, note the row of history, keep the best weights and the snapshots."""
    spec, run = work.spec, work.run
    measured = {"train": work.images.spread(monitored(work.images))}
    calibrate(state.kept, measured["train"])
    looked_at = (state.kept.lowered() if work.plan.precision == "bfloat16" else state.kept).eval()
    if "validation" in work.dataset.splits:
        measured["validation"] = work.dataset.splits["validation"]
    terms = {split: monitor(looked_at, spec.objective, images) for split, images in measured.items()}
    for split, values in terms.items():
        error = unfit_among({f"{name} of the {split} images": v for name, v in values.items()}, epoch, state.step)
        if error:
            raise error
    row = {"epoch": epoch, "step": state.step, "seconds": round(seconds, 3)} | {"validation": {}} | terms
    write_history(run, rows := [*run.history, row])
    for finding in watch(spec, rows):
        notice(
            f"warning after epoch {epoch}: {finding.ailment}: {finding.number}; {finding.meaning}.\n"
            f"  Try: {finding.remedy}"
        )
    if spec.keep == "best" and row["validation"]["loss"] < state.best_loss:
        state.best_loss = row["validation"]["loss"]
        state.best = {n: t.detach().clone() for n, t in state.kept.state_dict().items()}
    if epoch in snapshots or state.step == work.steps:
        snapshot(work, state, epoch)
    state.kept.train()


def monitored(images: Images) -> int:
    """On how many training images history is measured: all of a small set, a tenth of a large one."""
    return min(len(images), max(MONITORED[0], min(MONITORED[1], len(images) // 10)))


def snapshot(work: Work, state: State, epoch: int) -> None:
    """Keep how the same few images are reconstructed after this epoch."""
    file = work.run.path / "snapshots.safetensors"
    kept = read_tensors(file)[0] if file.exists() else {}
    images = work.dataset.splits.get("validation", work.images)
    pixels = torch.from_numpy(images.spread(8).uint8())
    with torch.no_grad():
        x = state.kept.reconstruct(pixels.to(work.plan.device).float().div_(255))
    kept |= {"originals": pixels, f"epoch-{epoch:05d}": x.mul(255).round().to(torch.uint8)}
    write_tensors(file, kept)
