"""A small classifier of the same images: what the reports hold the codes against.

Two strided convolutions and a layer of 64 features, trained on the training split with its labels for a fixed number of
images. It measures runs and takes part in none: how much of a category a decoded image shows, and how features look
that were made to tell categories apart.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaelab.core.console import progress
from vaelab.core.rng import generator
from vaelab.datasets.images import Images

__all__ = ["Classifier", "classifier_accuracy", "train_classifier"]

NUM_FEATURES = 64

MAX_IMAGES_SEEN = 300_000  # training images, repetitions counted

BATCH_SIZE = 128

LEARNING_RATE = 2e-3


class Classifier(nn.Module):
    """Images (B, C, H, W) in [0, 1] -> `features` (B, 64) -> logits (B, K)."""

    def __init__(self, shape: tuple[int, int, int], categories: int) -> None:
        super().__init__()
        channels, height, width = shape
        self.body = nn.Sequential(
            nn.Conv2d(channels, 32, 3, 2, 1),
            nn.ReLU(),
            nn.Conv2d(32, 64, 3, 2, 1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * math.ceil(height / 4) * math.ceil(width / 4), NUM_FEATURES),
            nn.ReLU(),
        )
        self.head = nn.Linear(NUM_FEATURES, categories)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x - 0.5))

    @torch.no_grad()
    def features(self, x: Tensor) -> Tensor:
        """What the last layer decides on, (B, 64)."""
        return self.body(x - 0.5)

    @torch.no_grad()
    def probabilities(self, x: Tensor) -> Tensor:
        """Of each category, (B, K)."""
        return self(x).softmax(1)


@torch.enable_grad()  # whoever asks for it may be evaluating
def train_classifier(images: Images, seed: int = 0) -> Classifier:
    """A classifier of the labelled ones among the images, by Adam with a rate that falls to 0."""
    labels = images.label()
    images, labels = images.select(labels >= 0), torch.from_numpy(labels[labels >= 0])
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator(seed, "classifier").initial_seed())
        model = Classifier(images.shape, len(images.categories))
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    steps = max(200, min(MAX_IMAGES_SEEN, 20 * len(images)) // BATCH_SIZE)
    draws = torch.randint(len(images), (steps, BATCH_SIZE), generator=generator(seed, "classifier order"))
    with progress("training a classifier", steps) as advance:
        for step, rows in enumerate(draws):
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - step / steps)
            x = torch.from_numpy(images.uint8(rows.numpy())).float().div_(255)
            loss = F.cross_entropy(model(x), labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if step % 20 == 0:
                advance(step, f"cross entropy {loss.item():.3f}")
    return model.eval().requires_grad_(False)


def classifier_accuracy(model: Classifier, images: Images) -> float:
    """The share of the labelled images that it puts into their category."""
    labels = images.label()
    hits = [
        model(torch.from_numpy(images.uint8(slice(i, i + 500))).float() / 255).argmax(1).numpy()
        for i in range(0, len(images), 500)
    ]
    return float((np.concatenate(hits) == labels)[labels >= 0].mean())
