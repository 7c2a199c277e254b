"""The end of an epoch: measurements, history, warnings, the best weights and snapshots.

History is measured, not accumulated: the same training images and the validation split go through the model with the
same noise after every epoch. So curves of training and validation are comparable, curves of different runs are paired,
and no running sum has to survive an interruption.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from vaelab.core.console import command_line, notice
from vaelab.core.tensors import read_tensors, write_tensors
from vaelab.datasets.images import Images
from vaelab.evaluation.diagnostics import new_alarms
from vaelab.evaluation.metrics import fit_global_params, validate
from vaelab.runs.run import append_history, is_recorded
from vaelab.training.divergence import measurement_error, weights_error
from vaelab.training.state import ActiveRun

__all__ = ["SNAPSHOT_EPOCHS", "EpochRecorder", "history_interval", "num_monitored_images"]

SNAPSHOT_EPOCHS = [n * 10**k for k in range(5) for n in (1, 2, 5)]  # epochs after which a few reconstructions are kept

SNAPSHOT_IMAGES = 8

MAX_COMPLETE_EPOCHS, THIN_ROWS = 100, 60  # epochs up to which each has a row of history, and about how many rows beyond

MIN_MONITORED_IMAGES, MAX_MONITORED_IMAGES = 1000, 2000  # training images on which history is measured


class EpochRecorder:
    """Records what an epoch has come to.

    Args:
        snapshot_epochs: The epochs after which a few reconstructions are kept; those of the last one always are.
    """

    def __init__(self, snapshot_epochs: Sequence[int]) -> None:
        self.snapshot_epochs = set(snapshot_epochs)
        self.histories: dict[str, list[dict[str, Any]]] = {}  # rows by run, so that no epoch reads the file

    def record(self, run: ActiveRun) -> None:
        """Measure a run after an epoch, and write what it has come to.

        Raises:
            UserError: The run has diverged; nothing of this epoch is written then.
        """
        measurements = _measure(run)
        row = _history_row(run, measurements)
        if is_recorded(row["epoch"], run.job.plan.record_every) or run.is_done:
            rows = self.histories.setdefault(run.key, run.job.run.history)
            rows.append(row)
            append_history(run.job.run, row)
            _warn(run, rows)
        _keep_best_weights(run, row)
        if row["epoch"] in self.snapshot_epochs or run.is_done:
            _save_snapshot(run, row["epoch"])
        run.state.eval_model.train()


def _measure(run: ActiveRun) -> dict[str, dict[str, float]]:
    """The terms of the loss by split, over the monitored training images and the validation split."""
    job, model = run.job, run.state.eval_model
    splits = {"train": job.train_images.evenly_spaced(num_monitored_images(job.train_images))}
    fit_global_params(model, splits["train"])
    if "validation" in job.dataset.splits:
        splits["validation"] = job.dataset.splits["validation"]
    measured_model = model.bfloat16_copy() if job.plan.precision == "bfloat16" else model
    measured_model.eval()
    measurements = {}
    for split, images in splits.items():
        measurements[split] = validate(measured_model, job.spec.objective, images)
    for split, values in measurements.items():
        if error := measurement_error(run, split, values):
            raise error
    if error := weights_error(run):
        raise error
    return measurements


def _history_row(run: ActiveRun, measurements: dict[str, dict[str, float]]) -> dict[str, Any]:
    """The row of history of an epoch."""
    return {
        "epoch": math.ceil(run.state.step / run.job.steps_per_epoch),
        "step": run.state.step,
        "seconds": round(run.state.seconds, 3),
        "validation": measurements.get("validation", {}),
        "train": measurements["train"],
    }


def _warn(run: ActiveRun, rows: Sequence[dict[str, Any]]) -> None:
    """Say what this epoch shows to be wrong with the run."""
    for diagnosis in new_alarms(run.job.spec, rows, command_line()):
        notice(
            f"warning after epoch {rows[-1]['epoch']}: {diagnosis.ailment}: {diagnosis.number}; {diagnosis.meaning}.\n"
            f"  Try: {diagnosis.remedy}"
        )


def _keep_best_weights(run: ActiveRun, row: dict[str, Any]) -> None:
    """Remember the weights of the lowest validation loss, where the spec asks for them."""
    state = run.state
    if run.job.spec.keep != "best" or row["validation"]["loss"] >= state.best_loss:
        return
    state.best_loss = row["validation"]["loss"]
    state.best_weights = {name: tensor.detach().clone() for name, tensor in state.eval_model.state_dict().items()}


def _save_snapshot(run: ActiveRun, epoch: int) -> None:
    """Keep how the same few images are reconstructed after this epoch."""
    job = run.job
    file = job.run.path / "snapshots.safetensors"
    snapshots = read_tensors(file)[0] if file.exists() else {}
    images = job.dataset.splits.get("validation", job.train_images)
    pixels = torch.from_numpy(images.evenly_spaced(SNAPSHOT_IMAGES).uint8())
    with torch.no_grad():
        reconstructions = run.state.eval_model.reconstruct(pixels.to(job.plan.device).float().div_(255))
    snapshots["originals"] = pixels
    snapshots[f"epoch-{epoch:05d}"] = reconstructions.mul(255).round().to(torch.uint8)
    write_tensors(file, snapshots)


def history_interval(epochs: int) -> int:
    """The epochs from one row of a thin history to the next, in a training of so many epochs.

    Every epoch is measured all the same: `keep=best` and the tests for divergence look at each.

    Example:
        >>> history_interval(100), history_interval(300)
        (1, 5)
    """
    return 1 if epochs <= MAX_COMPLETE_EPOCHS else math.ceil(epochs / THIN_ROWS)


def num_monitored_images(images: Images) -> int:
    """On how many training images history is measured: all of a small set, a tenth of a large one."""
    tenth = len(images) // 10
    return min(len(images), max(MIN_MONITORED_IMAGES, min(MAX_MONITORED_IMAGES, tenth)))
