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
from vaelab.core.files import REPAIR_HINT
from vaelab.core.tensors import read_tensors, write_tensors
from vaelab.models.networks import Shape
from vaelab.models.vae import VAE
from vaelab.runs.run import Run
from vaelab.runs.spec import Spec, build_model
from vaelab.training.optimizer import Adam
from vaelab.training.plan import Plan

__all__ = ["TrainingState", "advance_state", "initial_state", "restore_state", "save_state", "update_ema"]


@dataclass
class TrainingState:
    """What a step changes, all that resuming needs: weights and moments after `step` steps, and the best weights."""

    model: VAE
    compute_model: VAE  # of which a step takes the gradient: the model itself, or a copy in lower precision
    optimizer: Adam
    ema_model: VAE | None
    step: int = 0
    seconds: float = 0.0
    best_loss: float = math.inf
    best_weights: dict[str, Tensor] = field(default_factory=dict)

    @property
    def eval_model(self) -> VAE:
        """The model that is evaluated and kept."""
        return self.ema_model or self.model


def initial_state(spec: Spec, plan: Plan, shape: Shape, parent: Run | None) -> TrainingState:
    """Weights of the run's seed, or of its parent, before the first step."""
    model = build_model(spec, shape, spec.seed)
    if parent is not None:
        load_parent_weights(model, parent)
    model = model.to(plan.device)
    if plan.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    working = model.bfloat16_copy() if plan.precision == "bfloat16" else model
    return TrainingState(
        model, working, Adam(model, working), copy.deepcopy(model).requires_grad_(False) if spec.ema else None
    )


def load_parent_weights(model: VAE, parent: Run) -> None:
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


def _state_tensors(state: TrainingState) -> dict[str, Tensor]:
    """Every tensor of the state under a name."""
    tensors = {f"model/{n}": t for n, t in state.model.state_dict().items()} | state.optimizer.state_tensors
    if state.ema_model is not None:
        tensors |= {f"averaged/{n}": t for n, t in state.ema_model.state_dict().items()}
    return tensors


def save_state(state: TrainingState, run: Run) -> None:
    """Write the state in one file, whole or not at all."""
    best = {f"best/{n}": t for n, t in state.best_weights.items()}
    numbers = {"step": state.step, "seconds": state.seconds, "best_loss": state.best_loss}
    write_tensors(run.path / "state" / "state.safetensors", _state_tensors(state) | best, numbers)


def restore_state(state: TrainingState, run: Run) -> bool:
    """Pour in the last state written, if there is one."""
    file = run.path / "state" / "state.safetensors"
    if not file.exists():
        return False
    tensors, numbers = read_tensors(file)
    if not {"step", "seconds", "best_loss"} <= set(numbers):
        raise UserError(f"{file} is damaged; {REPAIR_HINT}")
    state.step, state.seconds, state.best_loss = numbers["step"], numbers["seconds"], numbers["best_loss"]
    state.best_weights = {n.removeprefix("best/"): t for n, t in tensors.items() if n.startswith("best/")}
    try:
        with torch.no_grad():
            for name, t in _state_tensors(state).items():
                t.copy_(tensors[name])
        state.optimizer.sync_compute_copy()
    except (KeyError, RuntimeError):
        raise UserError(f"{file} is damaged; {REPAIR_HINT}") from None
    return True


@torch.no_grad()
def update_ema(state: TrainingState, decay: float) -> None:
    """Move the averaged weights towards the present ones: averaged <- decay averaged + (1 - decay) present."""
    for averaged, present in zip(state.eval_model.parameters(), state.model.parameters(), strict=True):
        averaged.lerp_(present, 1 - decay)


def advance_state(spec: Spec, state: TrainingState) -> None:
    """Let the averaged weights and the count follow a step."""
    if state.ema_model is not None:
        # Early on, the start is forgotten faster.
        update_ema(state, min(spec.ema, (1 + state.step) / (10 + state.step)))
    state.step += 1
