"""The state of a run in training: what a step changes, and so all that resuming needs.

Randomness is named by the step, so a state is weights, moments and a number; it may be written after any step.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from vaelab.core.errors import UserError
from vaelab.core.files import MEND
from vaelab.core.tensors import read_tensors, write_tensors
from vaelab.models.networks import Shape
from vaelab.models.vae import VAE
from vaelab.runs.run import Run
from vaelab.runs.spec import Spec, build
from vaelab.training.optimizer import Adam
from vaelab.training.plan import Plan

__all__ = ["State", "average", "moved", "restore", "save", "start"]


@dataclass
class State:
    """What a step changes, all that resuming needs: weights and moments after `step` steps, and the best weights."""

    model: VAE
    working: VAE  # of which a step takes the gradient: the model itself, or a copy in lower precision
    optimizer: Adam
    averaged: VAE | None
    step: int = 0
    seconds: float = 0.0
    best_loss: float = math.inf
    best: dict[str, Tensor] = field(default_factory=dict)

    @property
    def kept(self) -> VAE:
        """The model that is evaluated and kept."""
        return self.averaged or self.model


def start(spec: Spec, plan: Plan, shape: Shape, parent: Run | None) -> State:
    """Weights of the run's seed, or of its parent, before the first step."""
    model = build(spec, shape, spec.seed)
    if parent is not None:
        inherit(model, parent)
    model = model.to(plan.device)
    if plan.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    working = model.lowered() if plan.precision == "bfloat16" else model
    return State(model, working, Adam(model, working), copy.deepcopy(model).requires_grad_(False) if spec.ema else None)


def inherit(model: VAE, parent: Run) -> None:
    """Pour in the weights of another run."""
    ours = {name: t for name, t in model.state_dict().items() if name.startswith("critic.")}  # of another loss, perhaps
    theirs = {name: t for name, t in parent.model.state_dict().items() if not name.startswith("critic.")}
    try:
        model.load_state_dict(theirs | ours)
    except RuntimeError:
        raise UserError(
            f"the weights of {parent.path} do not fit: network, latent_dim, loss and the shape of the images must be\n"
            "those of that run; leave out --preset, --network, --latent-dim, --loss and --size to take them over"
        ) from None


def _tensors(state: State) -> dict[str, Tensor]:
    """Every tensor of the state under a name."""
    tensors = {f"model/{n}": t for n, t in state.model.state_dict().items()} | state.optimizer.tensors
    if state.averaged is not None:
        tensors |= {f"averaged/{n}": t for n, t in state.averaged.state_dict().items()}
    return tensors


def save(state: State, run: Run) -> None:
    """Write the state in one file, whole or not at all."""
    best = {f"best/{n}": t for n, t in state.best.items()}
    numbers = {"step": state.step, "seconds": state.seconds, "best_loss": state.best_loss}
    write_tensors(run.path / "state" / "state.safetensors", _tensors(state) | best, numbers)


def restore(state: State, run: Run) -> bool:
    """Pour in the last state written, if there is one."""
    file = run.path / "state" / "state.safetensors"
    if not file.exists():
        return False
    tensors, numbers = read_tensors(file)
    if not {"step", "seconds", "best_loss"} <= set(numbers):
        raise UserError(f"{file} is damaged; {MEND}")
    state.step, state.seconds, state.best_loss = numbers["step"], numbers["seconds"], numbers["best_loss"]
    state.best = {n.removeprefix("best/"): t for n, t in tensors.items() if n.startswith("best/")}
    try:
        with torch.no_grad():
            for name, t in _tensors(state).items():
                t.copy_(tensors[name])
        state.optimizer.pass_on()
    except (KeyError, RuntimeError):
        raise UserError(f"{file} is damaged; {MEND}") from None
    return True


@torch.no_grad()
def average(state: State, decay: float) -> None:
    """Move the averaged weights towards the present ones: averaged <- decay averaged + (1 - decay) present."""
    for averaged, present in zip(state.kept.parameters(), state.model.parameters(), strict=True):
        averaged.lerp_(present, 1 - decay)


def moved(spec: Spec, state: State) -> None:
    """Let the averaged weights and the count follow a step."""
    if state.averaged is not None:
        # Early on, the start is forgotten faster.
        average(state, min(spec.ema, (1 + state.step) / (10 + state.step)))
    state.step += 1
