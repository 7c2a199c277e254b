"""A training job: one run with its data and plan, and the batches and noise of each step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaelab.core.distributed import DistributedContext
from vaelab.core.rng import generator
from vaelab.datasets.images import Dataset, Images
from vaelab.runs.run import Run
from vaelab.runs.spec import Spec
from vaelab.training.plan import Plan

__all__ = ["TrainingJob", "epoch_order", "sample_noise"]


@dataclass(frozen=True)
class TrainingJob:
    """What does not change while a run is trained."""

    run: Run
    spec: Spec
    dataset: Dataset
    plan: Plan
    parent: Run | None = None
    distributed: DistributedContext = field(default_factory=DistributedContext)

    @property
    def train_images(self) -> Images:
        return self.dataset.splits["train"]

    def with_plan(self, **changes: Any) -> TrainingJob:
        """The same work with another plan."""
        work = replace(self, plan=replace(self.plan, **changes))
        work.__dict__["device_pixels"] = self.device_pixels
        return work

    @property
    def steps_per_epoch(self) -> int:
        return math.ceil(len(self.train_images) / self.spec.batch_size)

    @property
    def total_steps(self) -> int:
        return self.plan.steps or self.spec.epochs * self.steps_per_epoch

    def images_seen_by(self, step: int) -> int:
        """How many images the first steps see; the last batch of an epoch may be smaller."""
        epochs, rest = divmod(step, self.steps_per_epoch)
        return epochs * len(self.train_images) + min(rest * self.spec.batch_size, len(self.train_images))

    @cached_property
    def device_pixels(self) -> Tensor | None:
        """The training pixels on the device; on a CPU they stay mapped from disk."""
        return (
            None
            if self.plan.device == "cpu"
            else torch.from_numpy(self.train_images.unbinarised()).to(self.plan.device)
        )

    def load_pixels(self, rows: np.ndarray, step: int, share: slice = slice(None)) -> Tensor:
        """Training images by index for one step, or a share of them, as uint8 on the device, (B, C, H, W)."""
        mine = rows[share]
        if self.device_pixels is None:
            pixels = torch.from_numpy(self.train_images.unbinarised(mine))
        else:
            pixels = self.device_pixels[torch.from_numpy(mine).to(self.plan.device)]
        if self.spec.binarise == "dynamic":
            chance, shape = generator(self.spec.seed, "binarise", step), (len(rows), *pixels.shape[1:])
            drawn = torch.randint(255, shape, dtype=torch.uint8, generator=chance)[share].to(self.plan.device)
            pixels = 255 * (drawn < pixels).byte()
        if self.spec.flips:
            mirrored = torch.rand(len(rows), generator=generator(self.spec.seed, "flips", step))[share] < 0.5
            pixels = torch.where(mirrored.to(self.plan.device).view(-1, 1, 1, 1), pixels.flip(-1), pixels)
        return pixels

    def load_batch(self, rows: np.ndarray, step: int, share: slice = slice(None)) -> Tensor:
        """The same in [0, 1], in float32."""
        return self.load_pixels(rows, step, share).to(torch.float32, memory_format=self.plan.memory_format).div_(255)


def epoch_order(job: TrainingJob, epoch: int) -> np.ndarray:
    """The order in which a run sees the training images in an epoch."""
    return torch.randperm(len(job.train_images), generator=generator(job.spec.seed, "order", epoch)).numpy()


def sample_noise(job: TrainingJob, step: int, size: int) -> Tensor:
    """The noise of a step, (B, D) or (K, B, D)."""
    codes = (job.spec.objective.num_samples, size) if job.spec.objective.num_samples > 1 else (size,)
    return torch.randn(*codes, job.spec.latent_dim, generator=generator(job.spec.seed, "noise", step))
