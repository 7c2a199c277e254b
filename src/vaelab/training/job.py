"""A training job: one run with its data and plan, and the batches and noise of each step."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vaelab.core.distributed import Ranks
from vaelab.core.rng import stream
from vaelab.datasets.images import Dataset, Images
from vaelab.runs.run import Run
from vaelab.runs.spec import Spec
from vaelab.training.plan import Plan

__all__ = ["Work", "draw", "order"]


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


def order(work: Work, epoch: int) -> np.ndarray:
    """The order in which a run sees the training images in an epoch."""
    return torch.randperm(len(work.images), generator=stream(work.spec.seed, "order", epoch)).numpy()


def draw(work: Work, step: int, size: int) -> Tensor:
    """The noise of a step, (B, D) or (K, B, D)."""
    codes = (work.spec.objective.samples, size) if work.spec.objective.samples > 1 else (size,)
    return torch.randn(*codes, work.spec.latent_dim, generator=stream(work.spec.seed, "noise", step))
