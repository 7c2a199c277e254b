r"""Steps: a run at work, and the step that it takes, alone or stacked with others.

A step draws a batch, maps it to `Terms`, and descends. Everything random is a function of (seed, purpose, step), and
nothing accumulates between steps but weights and moments. Images stay what they are on disk, uint8, and are gathered by
index into a batch: no loader, no workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import Tensor, nn

from vaelab.compiled import Program, program
from vaelab.errors import UserError
from vaelab.images import Dataset, Images
from vaelab.models import Draw
from vaelab.objectives import Terms
from vaelab.plan import Plan
from vaelab.ranks import Ranks
from vaelab.spec import Spec
from vaelab.stack import Stack
from vaelab.state import State, average
from vaelab.store import Run
from vaelab.streams import stream

__all__ = ["Ready", "Work", "order", "rate_factor", "steps_of", "take_step", "tell", "unfit", "unfit_among"]


@dataclass(frozen=True)
class Work:
    """What does not change while a run is trained."""

    run: Run
    spec: Spec
    dataset: Dataset
    plan: Plan
    parent: Run | None = None
    ranks: Ranks = field(default_factory=Ranks)

    @property
    def images(self) -> Images:
        return self.dataset.splits["train"]

    def planned(self, **changes: Any) -> Work:
        """The same work with another plan."""
        work = replace(self, plan=replace(self.plan, **changes))
        work.__dict__["resident"] = self.resident
        return work

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.images) / self.spec.batch_size)

    @property
    def steps(self) -> int:
        return self.plan.steps or self.spec.epochs * self.steps_per_epoch

    def images_until(self, step: int) -> int:
        """How many images the first steps see; the last batch of an epoch may be smaller."""
        epochs, rest = divmod(step, self.steps_per_epoch)
        return epochs * len(self.images) + min(rest * self.spec.batch_size, len(self.images))

    @cached_property
    def resident(self) -> Tensor | None:
        """The training pixels on the device; on a CPU they stay mapped from disk."""
        return None if self.plan.device == "cpu" else torch.from_numpy(self.images.grey()).to(self.plan.device)

    def pixels(self, rows: np.ndarray, step: int, share: slice = slice(None)) -> Tensor:
        """Training images by index for one step, or a share of them, as uint8 on the device, (B, C, H, W)."""
        mine = rows[share]
        if self.resident is None:
            pixels = torch.from_numpy(self.images.grey(mine))
        else:
            pixels = self.resident[torch.from_numpy(mine).to(self.plan.device)]
        if self.spec.binarise == "dynamic":
            chance, shape = stream(self.spec.seed, "binarise", step), (len(rows), *pixels.shape[1:])
            drawn = torch.randint(255, shape, dtype=torch.uint8, generator=chance)[share].to(self.plan.device)
            pixels = 255 * (drawn < pixels).byte()
        if self.spec.flips:
            mirrored = torch.rand(len(rows), generator=stream(self.spec.seed, "flips", step))[share] < 0.5
            pixels = torch.where(mirrored.to(self.plan.device).view(-1, 1, 1, 1), pixels.flip(-1), pixels)
        return pixels

    def gather(self, rows: np.ndarray, step: int, share: slice = slice(None)) -> Tensor:
        """The same in [0, 1], in float32."""
        return self.pixels(rows, step, share).to(torch.float32, memory_format=self.plan.layout).div_(255)

    def compiled(self, state: State) -> Program | None:
        """The compiled step, where the plan has one and it can be made; of a whole batch, alone, on a CPU."""
        fits = self.plan.device == "cpu" and self.ranks.size == 1 and len(self.images) >= self.spec.batch_size
        if not (self.plan.compiled and fits):
            return None
        rows = np.arange(self.spec.batch_size)
        return program(self.spec, self.plan, state, self.pixels(rows, 0), draw(self, 0, len(rows)))


class Ready(NamedTuple):
    """A run that can take its next step."""

    work: Work
    state: State
    resumed: bool
    program: Program | None = None


def order(work: Work, epoch: int) -> np.ndarray:
    """The order in which a run sees the training images in an epoch."""
    return torch.randperm(len(work.images), generator=stream(work.spec.seed, "order", epoch)).numpy()


def tell(terms: Terms, epoch: int, epochs: int) -> str:
    """The terms of a step, for the display."""
    loss, distortion, rate = (t.item() for t in terms[:3])
    return f"epoch {epoch} of {epochs}, loss {loss:.2f} (distortion {distortion:.2f}, KL {rate:.2f})"


def steps_of(team: Sequence[Ready]) -> Callable[[Sequence[np.ndarray]], list[Terms]]:
    """The function that takes a step of each run, on the rows of each: alone, or stacked."""
    if len(team) == 1:
        [(work, state, _, program)] = team
        return lambda rows: [take_step(work, state, rows[0], program)]
    return partial(take_steps, Stack([one.work.spec for one in team], [one.state for one in team]), team)


def take_steps(stack: Stack, team: Sequence[Ready], rows: Sequence[np.ndarray]) -> list[Terms]:
    """One step of each run of a team, as one."""
    x = torch.stack([one.work.gather(some, one.state.step) for one, some in zip(team, rows, strict=True)])
    noise = torch.stack([draw(one.work, one.state.step, len(rows[0])) for one in team]).to(x.device)
    done, part = team[0].state.step / team[0].work.steps, 1 / team[0].work.steps
    rates = [one.work.spec.lr * rate_factor(one.work.spec, done, part) for one in team]
    found = stack.step(x, noise, done, rates)
    for one in team:
        moved(one.work, one.state)
    return [terms_of({name: values[i] for name, values in found.items()}) for i in range(len(team))]


def terms_of(found: dict[str, Tensor]) -> Terms:
    """The terms of a step whose passes are not kept."""
    loss, distortion, rate = (found.pop(name) for name in ("loss", "distortion", "rate"))
    return Terms(loss, distortion, rate, found, cast(Draw, None))


def draw(work: Work, step: int, size: int) -> Tensor:
    """The noise of a step, (B, D) or (K, B, D)."""
    codes = (work.spec.objective.samples, size) if work.spec.objective.samples > 1 else (size,)
    return torch.randn(*codes, work.spec.latent_dim, generator=stream(work.spec.seed, "noise", step))


def moved(work: Work, state: State) -> None:
    """Let the averaged weights and the count follow a step."""
    if state.averaged is not None:
        # Early on, the start is forgotten faster.
        average(state, min(work.spec.ema, (1 + state.step) / (10 + state.step)))
    state.step += 1


def take_step(work: Work, state: State, rows: np.ndarray, program: Program | None = None) -> Terms:
    """One step of Adam on the training images `rows`: by the compiled program, where the batch is a whole one."""
    spec, step, size = work.spec, state.step, len(rows)
    done, noise = step / work.steps, draw(work, step, size)
    rate = spec.lr * rate_factor(spec, done, 1 / work.steps)
    if program is not None and size == spec.batch_size:
        terms = terms_of(program.step(work.pixels(rows, step), noise, done, rate))
    else:
        terms = descend(work, state, rows, noise, rate)
    moved(work, state)
    return terms


def descend(work: Work, state: State, rows: np.ndarray, noise: Tensor, rate: float) -> Terms:
    """The same by autograd, where several processes train together each on its share."""
    spec, size, device = work.spec, len(rows), work.plan.device
    share = work.ranks.share(size)
    part = share.stop - share.start
    share = share if part else slice(0, 1)  # of weight 0
    x = work.gather(rows, state.step, share)
    terms = spec.objective(
        state.working, x, noise[..., share, :].to(device), torch.tensor(state.step / work.steps, device=device)
    )
    state.optimizer.clear()
    terms.loss.backward()
    if work.ranks.size > 1:
        gradients, numbers = state.optimizer.gradients, [*terms[:3], *terms.parts.values()]
        loss, distortion, kl, *rest = work.ranks.combine(part / size, gradients, numbers)
        terms = Terms(loss, distortion, kl, dict(zip(terms.parts, rest, strict=True)), terms.draw)
    if spec.clip is not None:
        nn.utils.clip_grad_norm_(state.working.parameters(), spec.clip)
    state.optimizer.step(rate)
    return terms


def rate_factor(spec: Spec, done: float, step: float) -> float:
    """The learning rate as a part of `lr`, when a part `done` of the training is behind and a `step` comes."""
    if done < spec.lr_warmup:
        return min(1.0, (done + step) / spec.lr_warmup)
    left = 1 - (done - spec.lr_warmup) / max(1 - spec.lr_warmup, step)
    return {"constant": 1.0, "linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left)}[spec.schedule]


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
