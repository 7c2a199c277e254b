r"""Training: the only loop. It alone knows that runs may be many, and on what machine.

A step draws a batch, maps it to `Terms`, and descends. Everything random is a function of (seed, purpose, step), and
nothing accumulates between steps but weights and moments, so the state of a run is small, may be written after any
step, and resumes exactly: the same machine, versions and plan give the same bytes.

Images stay what they are on disk, uint8, and are gathered by index into a batch: no loader, no workers.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
import os
import platform
import shlex
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor, nn

from vaelab.console import Advance, notice, progress
from vaelab.errors import UserError
from vaelab.images import Dataset, Images
from vaelab.metrics import evaluate, footnotes, monitor
from vaelab.models import VAE
from vaelab.objectives import Terms
from vaelab.plan import Plan, choose_device, choose_plan
from vaelab.spec import Spec, check, encode, key
from vaelab.store import Run, build, read_tensors, write_json, write_tensors, write_text
from vaelab.streams import stream

__all__ = ["Stopped", "fit", "measure"]

MONITORED = 5000  # training images on which history is measured, at most, and at most a tenth of them
CHECK_SECONDS = 0.2  # between two looks at the terms, which cost a wait for the device
STATE_SHARE = 20  # a state is written when training since the last took this many times as long as writing it
STATE_SECONDS = 60  # within an epoch, a state is written this often
SNAPSHOTS = [n * 10**k for k in range(5) for n in (1, 2, 5)]  # epochs after which a few reconstructions are kept


class Stopped(KeyboardInterrupt):
    """The user's interruption, after the state was written."""


def fit(
    specs: Sequence[Spec],
    dataset: Dataset,
    out: Path,
    *,
    device: str | None = None,
    precision: str | None = None,
    threads: int | None = None,
    snapshots: Sequence[int] | None = None,
    parent: Run | None = None,
) -> list[Run]:
    """Train specs on a data set into folders OUT/<key>: those that exist are returned, unfinished ones resumed.

    `parent` is the run whose weights specs with its key as `parent` start from; `snapshots` are the epochs after which
    a few reconstructions are kept.
    """
    runs = []
    for spec in specs:
        check(spec)
        plan = choose_plan(spec, dataset.splits["train"].shape, device, precision, threads)
        run = Run(out / key(spec, dataset.fingerprint, plan.precision))
        if run.finished:
            run = replace(run, outcome="existing", from_epoch=len(run.history))
        else:
            with _alone(run):
                run = carry_out(Work(run, spec, dataset, plan, parent), snapshots or SNAPSHOTS)
            shutil.rmtree(run.path / "state")
        runs.append(run)
    return runs


@contextlib.contextmanager
def _alone(run: Run) -> Iterator[None]:
    """Hold the run's folder, so that no two processes train it at once."""
    state = run.path / "state"
    try:
        state.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot make {state}: {error.strerror}; give another folder with --out") from None
    try:
        with FileLock(state / "lock", timeout=0):
            yield
    except Timeout:
        raise UserError(f"another process is training {run.path} just now; wait for it, or stop it first") from None


def carry_out(work: Work, snapshots: Sequence[int]) -> Run:
    """Train one run to its end, from where it stands."""
    run, spec = work.run, work.spec
    work = replace(work, plan=begin(work))
    torch.set_num_threads(work.plan.threads)
    state = start(work)
    resumed = restore(state, run)
    if spec.minutes is not None and work.plan.steps is None:
        work = replace(work, plan=replace(work.plan, steps=probe(work)))
        write_json(run.path / "origin.json", run.origin | {"plan": asdict(work.plan)})
    first = state.step
    descend(work, state, snapshots)
    finish(work, state)
    trained = work.images_until(state.step) - work.images_until(first)
    outcome = "resumed" if resumed else "trained"
    return replace(run, outcome=outcome, from_epoch=first // work.steps_per_epoch, images_trained=trained)


# What a run comes from.


def begin(work: Work) -> Plan:
    """Write what the run will be, or take up the plan that it began with."""
    run, dataset, plan = work.run, work.dataset, work.plan
    if (run.path / "origin.json").exists():
        began = Plan(**run.origin["plan"])
        choose_device(began.device)  # refuses where it is gone
        if run.origin["versions"] != versions():
            notice(f"resuming with other versions than the run began with ({run.origin['versions']}): not bit for bit")
        return began
    write_json(run.path / "spec.json", encode(work.spec))
    write_json(run.path / "origin.json", {
        "key": run.key,
        "data": {
            "source": dataset.source,
            "location": dataset.location,
            "fingerprint": dataset.fingerprint,
            "shape": list(dataset.splits["train"].shape),
            "categories": list(dataset.splits["train"].categories),
            "images": {split: len(images) for split, images in dataset.splits.items()},
        },
        "plan": asdict(plan),
        "parent": str(work.parent.path) if work.parent else None,
        "versions": versions(),
        "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} processors, {platform.node()}",
        "command": shlex.join(["vaelab", *sys.argv[1:]]) if Path(sys.argv[0]).name == "vaelab" else None,
        "started": now(),
    })  # fmt: skip
    return plan


def versions() -> dict[str, str]:
    from vaelab import __version__

    return {"vaelab": __version__, "torch": torch.__version__, "python": platform.python_version()}


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


# The work and its state.


@dataclass(frozen=True)
class Work:
    """What does not change while a run is trained."""

    run: Run
    spec: Spec
    dataset: Dataset
    plan: Plan
    parent: Run | None = None

    @property
    def images(self) -> Images:
        return self.dataset.splits["train"]

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
        return None if self.plan.device == "cpu" else torch.from_numpy(self.images.uint8()).to(self.plan.device)

    def gather(self, rows: np.ndarray) -> Tensor:
        """Training images by index, in [0, 1], on the device, (B, C, H, W)."""
        if self.resident is None:
            pixels = torch.from_numpy(self.images.uint8(rows))
        else:
            pixels = self.resident[torch.from_numpy(rows).to(self.plan.device)]
        layout = torch.channels_last if self.plan.channels_last else torch.contiguous_format
        return pixels.to(torch.float32, memory_format=layout).div_(255)

    def autocast(self) -> torch.autocast:
        kind = torch.device(self.plan.device).type
        return torch.autocast(kind, torch.bfloat16, enabled=self.plan.precision == "bfloat16")


@dataclass
class State:
    """What a step changes, all that resuming needs: weights and moments after `step` steps, and the best weights."""

    model: VAE
    optimizer: torch.optim.Adam
    averaged: VAE | None
    step: int = 0
    seconds: float = 0.0
    best_loss: float = math.inf
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def kept(self) -> VAE:
        """The model that is evaluated and kept."""
        return self.averaged or self.model


def start(work: Work) -> State:
    """Weights of the run's seed, or of its parent, before the first step."""
    spec, plan = work.spec, work.plan
    model = build(spec, work.images.shape, spec.seed)
    if work.parent is not None:
        inherit(model, work.parent)
    model = model.to(plan.device)
    if plan.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(model.parameters(), lr=spec.lr, fused=True)
    for p in model.parameters():  # made now and not at the first step, so that a state is written and read in one way
        optimizer.state[p] = {"step": torch.zeros((), device=plan.device),
                              "exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}  # fmt: skip
    return State(model, optimizer, copy.deepcopy(model).requires_grad_(False) if spec.ema else None)


def inherit(model: VAE, parent: Run) -> None:
    """Pour in the weights of another run."""
    try:
        model.load_state_dict(parent.model.state_dict())
    except RuntimeError as error:
        last = str(error).splitlines()[-1].strip()
        raise UserError(f"the weights of {parent.path} do not fit ({last}); leave out --network, --latent-dim and "
                        "--size to take those of that run") from None  # fmt: skip


def _tensors(state: State) -> dict[str, Tensor]:
    """Every tensor of the state under a name."""
    names: dict[Tensor, str] = {p: name for name, p in state.model.named_parameters()}
    tensors = {f"model/{n}": t for n, t in state.model.state_dict().items()}
    for p, moments in state.optimizer.state.items():
        tensors |= {f"{moment}/{names[p]}": t for moment, t in moments.items()}
    if state.averaged is not None:
        tensors |= {f"averaged/{n}": t for n, t in state.averaged.state_dict().items()}
    return tensors


def save(state: State, run: Run) -> None:
    """Write the state in one file, whole or not at all."""
    best = {f"best/{n}": t for n, t in state.best.items()}
    numbers = {"step": state.step, "seconds": state.seconds, "best_loss": state.best_loss}
    write_tensors(run.path / "state" / "state.safetensors", _tensors(state) | best, numbers)


def restore(state: State, run: Run) -> bool:
    """Pour in the last state written, if any; what history has beyond it is dropped."""
    file = run.path / "state" / "state.safetensors"
    if not file.exists():
        write_history(run, [])
        return False
    tensors, numbers = read_tensors(file)
    state.step, state.seconds, state.best_loss = numbers["step"], numbers["seconds"], numbers["best_loss"]
    state.best = {n.removeprefix("best/"): t for n, t in tensors.items() if n.startswith("best/")}
    with torch.no_grad():
        for name, t in _tensors(state).items():
            t.copy_(tensors[name])
    write_history(run, [row for row in run.history if row["step"] <= state.step])
    return True


def write_history(run: Run, rows: list[dict[str, Any]]) -> None:
    write_text(run.path / "history.jsonl", "".join(json.dumps(row) + "\n" for row in rows))


# The loop.


def descend(work: Work, state: State, snapshots: Sequence[int]) -> None:
    """Take the steps that are left; a row of history and perhaps a state after each epoch."""
    spec, per_epoch = work.spec, work.steps_per_epoch
    clock, saver = Clock(state.seconds), Saver(work.run)
    epochs = math.ceil(work.steps / per_epoch)
    with interruption() as interrupted, progress("training", work.steps, state.step) as advance:
        for epoch in range(state.step // per_epoch, epochs):
            order = torch.randperm(len(work.images), generator=stream(spec.seed, "order", epoch)).numpy()
            for at in range(state.step - epoch * per_epoch, min(per_epoch, work.steps - epoch * per_epoch)):
                terms = take_step(work, state, order[at * spec.batch_size : (at + 1) * spec.batch_size])
                last = at == per_epoch - 1 or state.step == work.steps
                if last or work.plan.device == "cpu" or state.step % 50 == 0:  # reading a term waits for the device
                    refuse_nan(terms, epoch + 1, state.step)
                    clock.show(advance, work, state.step, terms)
                if last:
                    end_epoch(work, state, epoch + 1, clock, snapshots)
                state.seconds = clock.seconds()
                if interrupted() or saver.due(last):
                    saver.save(state)
                if interrupted():
                    raise Stopped


def take_step(work: Work, state: State, rows: np.ndarray) -> Terms:
    """One step of Adam on the training images `rows`."""
    spec, step, size = work.spec, state.step, len(rows)
    device = work.plan.device
    x = work.gather(rows)
    if spec.flips:
        mirrored = torch.rand(size, generator=stream(spec.seed, "flips", step)) < 0.5
        x = torch.where(mirrored.to(device).view(-1, 1, 1, 1), x.flip(-1), x)
    noise = torch.randn(size, spec.latent_dim, generator=stream(spec.seed, "noise", step)).to(device)
    done = step / work.steps
    with work.autocast():
        terms = spec.objective(state.model, x, noise, torch.tensor(done, device=device))
    state.optimizer.zero_grad(set_to_none=True)
    terms.loss.backward()
    if spec.clip is not None:
        nn.utils.clip_grad_norm_(state.model.parameters(), spec.clip)
    state.optimizer.param_groups[0]["lr"] = spec.lr * rate_factor(spec, done)
    state.optimizer.step()
    if state.averaged is not None:
        average(state, min(spec.ema, (1 + step) / (10 + step)))  # early on, the start is forgotten faster
    state.step += 1
    return terms


@torch.no_grad()
def average(state: State, decay: float) -> None:
    """Move the averaged weights towards the present ones: averaged <- decay averaged + (1 - decay) present."""
    for averaged, present in zip(state.kept.parameters(), state.model.parameters(), strict=True):
        averaged.lerp_(present, 1 - decay)


def rate_factor(spec: Spec, done: float) -> float:
    """The learning rate as a part of `lr`, when a part `done` of the training is behind."""
    if done < spec.lr_warmup:
        return (done + 1e-3) / (spec.lr_warmup + 1e-3)
    left = 1 - (done - spec.lr_warmup) / max(1 - spec.lr_warmup, 1e-12)
    return {"constant": 1.0, "linear": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left)}[spec.schedule]


def end_epoch(work: Work, state: State, epoch: int, clock: Clock, snapshots: Sequence[int]) -> None:
    """Measure, note the row of history, keep the best weights and the snapshots."""
    spec, run = work.spec, work.run
    dtype = getattr(torch, work.plan.precision)
    measured = {"train": work.images.spread(max(1, min(MONITORED, len(work.images) // 10)))}
    if "validation" in work.dataset.splits:
        measured["validation"] = work.dataset.splits["validation"]
    terms = {split: monitor(state.kept.eval(), spec.objective, images, dtype) for split, images in measured.items()}
    row = {"epoch": epoch, "step": state.step, "seconds": round(clock.seconds(), 3)} | {"validation": {}} | terms
    write_history(run, [*run.history, row])
    if spec.keep == "best" and row["validation"]["loss"] < state.best_loss:
        state.best_loss = row["validation"]["loss"]
        state.best = {n: t.detach().clone() for n, t in state.kept.state_dict().items()}
    if epoch in snapshots or state.step == work.steps:
        snapshot(work, state, epoch)


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


def refuse_nan(terms: Terms, epoch: int, step: int) -> None:
    """Stop at a loss that is no number, with the term that it came from and what to try."""
    if math.isfinite(terms.loss.item()):
        return
    named = {"distortion": terms.distortion, "KL": terms.rate, **terms.parts}
    bad = [name for name, value in named.items() if not math.isfinite(value.item())] or ["loss"]
    raise UserError(
        f"training stopped in epoch {epoch}, step {step}: the {' and the '.join(bad)} became "
        f"{'NaN' if math.isnan(terms.loss.item()) else 'infinite'}.\n"
        "Try a lower learning rate (a third of --lr), --clip 100 or --lr-warmup 0.1; with bfloat16 --precision float32."
    )


class Clock:
    """Seconds of training, those before a resumption included, and what the display shows of them."""

    def __init__(self, before: float) -> None:
        self.before, self.start, self.shown = before, time.monotonic(), 0.0
        self.first: int | None = None

    def seconds(self) -> float:
        return self.before + time.monotonic() - self.start

    def show(self, advance: Advance, work: Work, step: int, terms: Terms) -> None:
        now = time.monotonic()
        self.first = step - 1 if self.first is None else self.first
        if now - self.shown >= CHECK_SECONDS:
            self.shown = now
            rate = (work.images_until(step) - work.images_until(self.first)) / (now - self.start)
            epoch = math.ceil(step / work.steps_per_epoch)
            advance(step, f"epoch {epoch}, {rate:,.0f} images/s, loss {terms.loss.item():.2f} "
                          f"(distortion {terms.distortion.item():.2f}, KL {terms.rate.item():.2f})")  # fmt: skip


class Saver:
    """Writes states seldom enough to cost less than 5 % of the training."""

    def __init__(self, run: Run) -> None:
        self.run, self.last, self.cost = run, time.monotonic(), 0.0

    def due(self, epoch_ended: bool) -> bool:
        since = time.monotonic() - self.last
        return since > STATE_SHARE * self.cost and (epoch_ended or since > STATE_SECONDS)

    def save(self, state: State) -> None:
        begun = time.monotonic()
        save(state, self.run)
        self.last = time.monotonic()
        self.cost = self.last - begun


@contextlib.contextmanager
def interruption() -> Iterator[Callable[[], bool]]:
    """Hold back the first Ctrl-C or SIGTERM, so that a step and its state are completed; the second one strikes."""
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # signals reach the main thread alone
        yield lambda: False
        return

    def receive(number: int, _: object) -> None:
        received.append(number)
        for name, handler in before.items():
            signal.signal(name, handler)

    before = {name: signal.signal(name, receive) for name in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(received)
    finally:
        for name, handler in before.items():
            signal.signal(name, handler)


def probe(work: Work) -> int:
    """How many steps the time budget holds: from a few seconds of training that is thrown away."""
    budget = 60 * (work.spec.minutes or 0)
    state, rows = start(work), np.arange(min(work.spec.batch_size, len(work.images)))
    trial = replace(work, plan=replace(work.plan, steps=10**9))
    for _ in range(3):  # the first steps are slower
        take_step(trial, state, rows)
    begun, steps = time.monotonic(), 0
    while steps < 5 or time.monotonic() - begun < min(3.0, 0.05 * budget):
        take_step(trial, state, rows).loss.item()
        steps += 1
    per_step = (time.monotonic() - begun) / steps
    begun = time.monotonic()
    validation = work.dataset.splits.get("validation", work.images).spread(1000)
    monitor(state.model, work.spec.objective, validation, getattr(torch, work.plan.precision))
    per_image = (time.monotonic() - begun) / len(validation)
    measured = len(work.dataset.splits.get("validation", ())) + min(MONITORED, len(work.images) // 10)
    per_epoch = work.steps_per_epoch * per_step + measured * per_image
    return max(1, int(0.95 * budget * work.steps_per_epoch / per_epoch))


# The end.


def finish(work: Work, state: State) -> None:
    """Write the weights and the metrics; with these the run is finished."""
    run, dataset = work.run, work.dataset
    weights = state.best or state.kept.state_dict()
    write_tensors(run.path / "weights.safetensors", weights, {"shape": list(work.images.shape)})
    model = run.model
    metrics = {split: measure(run, model, dataset.source, images)
               for split, images in dataset.splits.items() if split != "train"}  # fmt: skip
    rate = work.images_until(state.step) / state.seconds
    ended = {"finished": now(), "seconds": round(state.seconds, 3), "images_per_second": round(rate, 1)}
    write_json(run.path / "origin.json", run.origin | ended)
    write_json(run.path / "metrics.json", metrics)


def measure(run: Run, model: VAE, source: str, images: Images) -> dict[str, Any]:
    """The metrics of a model on some images, as evaluate prints and metrics.json holds them."""
    with progress(f"evaluating {images.split}", len(images)) as advance:
        values = evaluate(model, run.spec.objective, images, advance)
    for name, note in footnotes(run.spec.loss, values, images).items():
        values[name]["note"] = note
    return {"run": run.key, "data": source, "split": images.split, "n": len(images), "metrics": values}
