"""A small classifier of the same images, with which analyses compare the codes.

Two strided convolutions and a layer of 64 features, trained on the training split with its labels for a fixed number of
images. No run is trained with it. It measures how much of a category a decoded image shows, and its features are an
example of a representation that was trained to separate the categories.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vaelab.core.console import progress
from vaelab.core.rng import generator
from vaelab.datasets.images import Images

__all__ = ["Classifier", "apply_to_images", "classifier_accuracy", "has_two_categories", "train_classifier"]

NUM_FEATURES = 64

MAX_IMAGES_SEEN = 300_000  # training images, repetitions counted

BATCH_SIZE = 128

EVALUATION_BATCH_SIZE = 500

MIN_STEPS = 200

MAX_EPOCHS = 20

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
        """The input of the last layer, (B, 64)."""
        return self.body(x - 0.5)

    @torch.no_grad()
    def probabilities(self, x: Tensor) -> Tensor:
        """The probabilities of the categories, (B, K)."""
        return self(x).softmax(1)


@torch.enable_grad()  # callers may be evaluating
def train_classifier(images: Images, seed: int = 0) -> Classifier:
    """Train a classifier with Adam and a learning rate that falls to 0.

    Args:
        images: Training images, of which the labelled ones are used.
        seed: Of the weights and of the order.

    Returns:
        The classifier, ready for evaluation.
    """
    labels = images.label()
    images, labels = images.select(labels >= 0), torch.from_numpy(labels[labels >= 0])
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(generator(seed, "classifier").initial_seed())
        model = Classifier(images.shape, len(images.categories))
    optimizer = torch.optim.Adam(model.parameters(), lr=LEARNING_RATE, fused=True)
    steps = max(MIN_STEPS, min(MAX_IMAGES_SEEN, MAX_EPOCHS * len(images)) // BATCH_SIZE)
    batch_rows = torch.randint(len(images), (steps, BATCH_SIZE), generator=generator(seed, "classifier order"))
    with progress("training a classifier", steps) as advance:
        for step, rows in enumerate(batch_rows):
            optimizer.param_groups[0]["lr"] = LEARNING_RATE * (1 - step / steps)
            x = torch.from_numpy(images.uint8(rows.numpy())).float().div_(255)
            loss = F.cross_entropy(model(x), labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if step % 20 == 0:
                advance(step, f"cross entropy {loss.item():.3f}")
    return model.eval().requires_grad_(False)


def has_two_categories(images: Images) -> bool:
    """Whether the labels of images name at least two categories."""
    labels = images.label()
    return np.unique(labels[labels >= 0]).size >= 2


def apply_to_images(function: Callable[[Tensor], Tensor], images: Images) -> np.ndarray:
    """A function of images (B, C, H, W) -> (B, F), applied in batches; gives (N, F)."""
    parts = []
    for start in range(0, len(images), EVALUATION_BATCH_SIZE):
        x = torch.from_numpy(images.uint8(slice(start, start + EVALUATION_BATCH_SIZE))).float() / 255
        parts.append(function(x))
    return torch.cat(parts).numpy()


def classifier_accuracy(model: Classifier, images: Images) -> float:
    """The share of the labelled images that the classifier puts into their category."""
    labels = images.label()
    predicted = apply_to_images(lambda x: model(x).argmax(1), images)
    return float((predicted == labels)[labels >= 0].mean())
