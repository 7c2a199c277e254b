"""The state of a run in training: what a step changes, and so all that resuming needs.

Random numbers are named by the step, so the state is weights, moments and the number of the step. It may be stored
after any step.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from vaelab.core.errors import UserError
from vaelab.core.files import damaged_error
from vaelab.core.schema import SchemaError, validate
from vaelab.core.tensors import read_tensors, write_tensors
from vaelab.datasets.images import Images
from vaelab.models.vae import VAE
from vaelab.runs.run import Run, check_training_record, training_record
from vaelab.runs.schemas import StateMetadata
from vaelab.runs.spec import Spec, build_model
from vaelab.training.job import TrainingJob
from vaelab.training.optimizer import Adam, lr_multiplier

__all__ = ["ActiveRun", "TrainingState", "initial_model", "initial_state", "restore_state", "save_state"]

STORED_NUMBERS = ("step", "seconds", "best_loss")


@dataclass
class TrainingState:
    """What a step changes.

    Attributes:
        model: The weights, in float32.
        compute_model: The model of which a step takes the gradient: the same one, or a copy in lower precision.
        optimizer: The moments.
        ema_model: The averaged weights, where the spec asks for them.
        step: How many steps were taken.
        seconds: The training time so far, in seconds.
        best_loss: The lowest validation loss so far, where the spec keeps the best weights.
        best_weights: The weights that gave it.
    """

    model: VAE
    compute_model: VAE
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

    def advance(self, ema_decay: float) -> None:
        """Count a step, and let the averaged weights follow it."""
        if self.ema_model is not None:
            early_decay = (1 + self.step) / (10 + self.step)  # the first weights are forgotten sooner
            self.update_ema(min(ema_decay, early_decay))
        self.step += 1

    @torch.no_grad()
    def update_ema(self, decay: float) -> None:
        """Move the averaged weights towards the present ones: average <- decay average + (1 - decay) present."""
        for average, present in zip(self.eval_model.parameters(), self.model.parameters(), strict=True):
            average.lerp_(present, 1 - decay)


@dataclass
class ActiveRun:
    """A run in training: its job and its state.

    Attributes:
        job: The run with its data and plan; under a time budget the plan's number of steps changes.
        state: What a step changes.
        resumed: Whether the run goes on from a stored state.
    """

    job: TrainingJob
    state: TrainingState
    resumed: bool = False

    @property
    def key(self) -> str:
        """The key of the run."""
        return self.job.key

    @property
    def progress(self) -> float:
        """The part of the training that is done, from 0 to 1."""
        return self.job.schedule.progress(self.state.step)

    @property
    def learning_rate(self) -> float:
        """The learning rate of the next step."""
        spec = self.job.spec
        return spec.lr * lr_multiplier(spec, self.progress, self.job.schedule.progress_per_step(self.state.step))

    @property
    def is_done(self) -> bool:
        """Whether all steps were taken."""
        return self.state.step >= self.job.total_steps

    @property
    def at_epoch_end(self) -> bool:
        """Whether the last step was the last one of an epoch, or of the run."""
        return self.state.step % self.job.steps_per_epoch == 0 or self.is_done


def initial_model(spec: Spec, train_images: Images) -> VAE:
    """The model of a run's seed before the first step, on the CPU; without the weights of a parent.

    Args:
        spec: The settings.
        train_images: The images that it will be trained on.
    """
    starts_at_mean = spec.network.output_bias == "mean"
    mean_image = torch.from_numpy(train_images.mean_image()) if starts_at_mean else None
    return build_model(spec, train_images.shape, spec.seed, mean_image)


def initial_state(job: TrainingJob) -> TrainingState:
    """The state before the first step, with the weights of the run's seed or of its parent."""
    spec, plan = job.spec, job.plan
    model = initial_model(spec, job.train_images)
    if job.parent is not None:
        _load_parent_weights(model, job.parent)
    model = model.to(plan.device)
    if plan.channels_last:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    compute_model = model.bfloat16_copy() if plan.precision == "bfloat16" else model
    ema_model = copy.deepcopy(model).requires_grad_(False) if spec.ema else None
    return TrainingState(model, compute_model, Adam(model, compute_model), ema_model)


def _load_parent_weights(model: VAE, parent: Run) -> None:
    """Start from the weights of another run; a critic keeps its own, since the other run's loss may have had none."""
    parent_weights = {name: t for name, t in parent.model.state_dict().items() if not name.startswith("critic.")}
    own_critic = {name: t for name, t in model.state_dict().items() if name.startswith("critic.")}
    try:
        model.load_state_dict(parent_weights | own_critic)
    except RuntimeError:
        raise UserError(
            f"the weights of {parent.path} do not fit: network, latent_dim, loss and the shape of the images must be\n"
            "those of that run; leave out --preset, --network, --latent-dim, --loss and --size to take them over"
        ) from None


def _state_tensors(state: TrainingState) -> dict[str, Tensor]:
    """The tensors of the state under names; those of the best weights excepted."""
    tensors = {f"model/{name}": tensor for name, tensor in state.model.state_dict().items()}
    tensors.update(state.optimizer.state_tensors)
    if state.ema_model is not None:
        for name, tensor in state.ema_model.state_dict().items():
            tensors[f"averaged/{name}"] = tensor
    return tensors


def save_state(state: TrainingState, run: Run) -> None:
    """Store the state in one file, whole or not at all."""
    tensors = _state_tensors(state)
    for name, tensor in state.best_weights.items():
        tensors[f"best/{name}"] = tensor
    numbers = {"step": state.step, "seconds": state.seconds, "best_loss": state.best_loss}
    write_tensors(_state_file(run), tensors, numbers | {"files": training_record(run)}, with_digest=True)


def restore_state(state: TrainingState, run: Run) -> bool:
    """Put the stored state into `state`.

    Returns:
        Whether there was a stored state.

    Raises:
        UserError: The file is damaged.
    """
    file = _state_file(run)
    if not file.exists():
        return False
    tensors, numbers = read_tensors(file)
    try:
        validate(numbers, StateMetadata)
    except SchemaError as error:
        raise damaged_error(file, str(error)) from None
    if numbers["step"] < 0 or not isinstance(numbers["best_loss"], float | int) or math.isnan(numbers["best_loss"]):
        raise damaged_error(file, f"step {numbers['step']}, best loss {numbers['best_loss']}")
    check_training_record(run, numbers.get("files", {}))
    state.step, state.seconds, state.best_loss = (numbers[name] for name in STORED_NUMBERS)
    for name, tensor in tensors.items():
        if name.startswith("best/"):
            state.best_weights[name.removeprefix("best/")] = tensor
    try:
        with torch.no_grad():
            for name, tensor in _state_tensors(state).items():
                if tensors[name].shape != tensor.shape or tensors[name].dtype != tensor.dtype:
                    raise RuntimeError(f"{name} has another shape or type")
                tensor.copy_(tensors[name])
        state.optimizer.sync_compute_copy()
    except (KeyError, RuntimeError) as error:
        raise damaged_error(file, str(error)[:100]) from None
    return True


def _state_file(run: Run) -> Path:
    """Where the state of an unfinished run lies."""
    return run.path / "state" / "state.safetensors"
