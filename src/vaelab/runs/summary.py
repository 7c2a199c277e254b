"""What is said of a data set and a run before training starts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from vaelab.datasets.images import Dataset
    from vaelab.runs.spec import Spec

__all__ = ["dataset_remarks", "startup_lines"]

MAX_SKIPPED_NAMED = 50  # skipped files that train names

MIN_USEFUL_STEPS = 100  # of training, below which a model has hardly begun to learn


def startup_lines(spec: Spec, dataset: Dataset) -> list[str]:
    """What is said where training starts: the data, the model and what its loss really means."""
    import torch

    from vaelab.datasets.images import is_binary
    from vaelab.runs.spec import build_model

    images = dataset.splits["train"]
    counts = ", ".join(f"{len(part):,} {split}" for split, part in dataset.splits.items())
    weight = spec.objective.effective_kl_weight(images.shape)
    with torch.device("meta"):  # no weights are drawn only to be counted
        model = build_model(spec, images.shape)
        count = sum(p.numel() for half in (model.encoder, model.decoder) for p in half.parameters())
    lines = [
        f"data: {dataset.location}, {' x '.join(map(str, images.shape))}, {counts} images",
        f"model: {spec.network.name}, {spec.latent_dim} latent dimensions, {count:,} parameters",
        f"loss: {spec.loss.explain(weight, is_binary(images))}",
    ]
    lines += filter(None, [spec.objective.explain(images.shape)])
    likelihood = spec.loss.as_likelihood(weight)
    if likelihood is not None and likelihood.support != "binary" and is_binary(images):
        lines.append("note: the pixels are black or white, of which this is no likelihood; --loss ce is")
    steps = spec.epochs * math.ceil(len(images) / spec.batch_size)
    if steps < MIN_USEFUL_STEPS and spec.minutes is None:
        lines.append(f"note: {steps} steps in all, which is little: more --epochs or a smaller --batch-size make more")
    return lines + dataset_remarks(dataset)


def dataset_remarks(dataset: Dataset) -> list[str]:
    """What is to be said of a data set wherever it is used: its notes, and each file that was left out."""
    lines = [f"note: {note}" for note in dataset.notes]
    if dataset.skipped:
        lines.append(f"skipped, {len(dataset.skipped)} in all:")
        lines += [f"  {file}: {reason}" for file, reason in dataset.skipped[:MAX_SKIPPED_NAMED]]
    if len(dataset.skipped) > MAX_SKIPPED_NAMED:
        lines.append(
            f"  and {len(dataset.skipped) - MAX_SKIPPED_NAMED} more; `vaelab data {dataset.source}` names them all"
        )
    return lines
