"""A training job: one run with its data and its plan; the batches and the noise of each step.

Images stay what they are on disk, uint8, and are gathered by index into a batch: no loader, no workers. Everything
random is a function of the seed, a purpose and the number of the step.
"""

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
from vaelab.training.augmentation import random_shifts, shift_images
from vaelab.training.plan import Plan
from vaelab.training.schedule import StepSchedule

__all__ = ["TrainingJob", "epoch_order", "sample_noise"]


@dataclass(frozen=True)
class TrainingJob:
    """A run with all that does not change from step to step.

    Attributes:
        run: The folder of the run.
        spec: What is trained.
        dataset: The images, loaded with the settings of the spec.
        plan: How the run is computed on this machine.
        parent: The run whose weights this one starts from.
        distributed: The processes that train the run together.
        pixels_on_device: The training pixels, for each device that they were copied to; jobs on one data set share it.
        thin_history: Whether a history of very many epochs gets a row after some of them only.
    """

    run: Run
    spec: Spec
    dataset: Dataset
    plan: Plan
    parent: Run | None = None
    distributed: DistributedContext = field(default_factory=DistributedContext)
    pixels_on_device: dict[str, Tensor] = field(default_factory=dict, compare=False)
    thin_history: bool = False

    @property
    def key(self) -> str:
        """The key of the run."""
        return self.run.key

    @property
    def train_images(self) -> Images:
        """The training split."""
        return self.dataset.splits["train"]

    @property
    def steps_per_epoch(self) -> int:
        """The number of batches in an epoch; the last one may be smaller."""
        return math.ceil(len(self.train_images) / self.spec.batch_size)

    @property
    def num_epochs(self) -> int:
        """The number of epochs, the last of which may be a part."""
        return math.ceil(self.total_steps / self.steps_per_epoch)

    @cached_property
    def schedule(self) -> StepSchedule:
        """The length of the run, and how far it has come at each step."""
        if self.plan.schedule is not None:
            return self.plan.schedule
        if self.spec.estimates is not None:
            return StepSchedule.from_estimates(self.spec.estimates)
        steps = self.plan.steps or self.spec.steps or self.spec.epochs * self.steps_per_epoch
        return StepSchedule.of_length(steps)

    @property
    def total_steps(self) -> int:
        """The number of steps of the run."""
        return self.schedule.total_steps

    def with_plan(self, **changes: Any) -> TrainingJob:
        """The same job with some fields of its plan changed."""
        return replace(self, plan=replace(self.plan, **changes))

    def images_seen_by(self, step: int) -> int:
        """How many images the first `step` steps see."""
        epochs, batches = divmod(step, self.steps_per_epoch)
        images = len(self.train_images)
        return epochs * images + min(batches * self.spec.batch_size, images)

    def load_pixels(self, rows: np.ndarray, step: int, share: slice = slice(None)) -> Tensor:
        """Training images for one step, as uint8 on the device.

        Args:
            rows: The indices of the batch in the training split, with shape (B,).
            step: The number of the step, which names the random numbers of binarisation and flips.
            share: The part of the batch that is wanted.

        Returns:
            The pixels of that part, with shape (B, C, H, W).
        """
        pixels = self._gather(rows[share])
        device, seed = self.plan.device, self.spec.seed
        if self.spec.binarise == "dynamic":
            shape = (len(rows), *pixels.shape[1:])
            thresholds = torch.randint(255, shape, dtype=torch.uint8, generator=generator(seed, "binarise", step))
            pixels = 255 * (thresholds[share].to(device) < pixels).byte()
        if self.spec.flips:
            is_flipped = torch.rand(len(rows), generator=generator(seed, "flips", step))[share] < 0.5
            pixels = torch.where(is_flipped.to(device).view(-1, 1, 1, 1), pixels.flip(-1), pixels)
        if self.spec.shift:
            shifts = random_shifts(len(rows), self.spec.shift, generator(seed, "shift", step))
            pixels = shift_images(pixels, shifts[share])
        return pixels

    def load_batch(self, rows: np.ndarray, step: int, share: slice = slice(None)) -> Tensor:
        """The same images in [0, 1], in float32."""
        pixels = self.load_pixels(rows, step, share)
        return pixels.to(torch.float32, memory_format=self.plan.memory_format).div_(255)

    def prefetch(self, rows: np.ndarray) -> None:
        """Have this process's share of a coming batch read from disk, where pixels are mapped from there."""
        if self.plan.device == "cpu":
            self.train_images.prefetch(rows[self.distributed.share(len(rows))])

    def _gather(self, rows: np.ndarray) -> Tensor:
        """The stored pixels of some images, on the device; on a CPU they are read from the mapped file."""
        device = self.plan.device
        if device == "cpu":
            return torch.from_numpy(self.train_images.unbinarised(rows))
        if device not in self.pixels_on_device:
            self.pixels_on_device[device] = torch.from_numpy(self.train_images.unbinarised()).to(device)
        return self.pixels_on_device[device][torch.from_numpy(rows).to(device)]


def epoch_order(job: TrainingJob, epoch: int) -> np.ndarray:
    """The order in which a run sees the training images in an epoch, counted from 0."""
    order_generator = generator(job.spec.seed, "order", epoch)
    return torch.randperm(len(job.train_images), generator=order_generator).numpy()


def sample_noise(job: TrainingJob, step: int, batch_size: int) -> Tensor:
    """The standard normal noise of a step, with shape (B, D), or (K, B, D) for an objective of K samples."""
    samples = job.spec.objective.num_samples
    sample_axis = (samples,) if samples > 1 else ()
    noise_generator = generator(job.spec.seed, "noise", step)
    return torch.randn(*sample_axis, batch_size, job.spec.latent_dim, generator=noise_generator)
