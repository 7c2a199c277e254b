r"""The pictures of a run: each takes what it shows from the model and hands it to a figure.

A picture is a function of a `Subject` and stands in `PICTURES` under the name of its file; None means that there is
nothing to show. All show the test split, or what comes nearest to it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from vaelab.analysis import projections
from vaelab.analysis.interpolation import alphas, draw_pairs, interpolate
from vaelab.analysis.samples import has_prior, prior_samples
from vaelab.core.codec import word
from vaelab.core.console import progress
from vaelab.core.rng import stream
from vaelab.core.tensors import read_tensors
from vaelab.datasets.images import Dataset, Images
from vaelab.evaluation.metrics import encode_all
from vaelab.figures import curves as curve_figures
from vaelab.figures import diagram, layout, scatter, tiles
from vaelab.models.densities import Normal, kl_per_dimension, standard_normal
from vaelab.models.summary import layers
from vaelab.models.vae import VAE
from vaelab.runs.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["PICTURES", "Subject", "draw"]

POINTS = 2000  # in the feature figure of a single run

FEW = 100  # test images below which it shows training images

TRAVERSED = 10  # latent dimensions, those with the largest KL


@dataclass(frozen=True)
class Subject:
    """A finished run and the images that its pictures show."""

    run: Run
    dataset: Dataset

    @property
    def model(self) -> VAE:
        return self.run.model

    @property
    def title(self) -> str:
        spec = self.run.spec
        return (
            f"{Path(spec.data).name}, network {spec.network.name}, {spec.latent_dim} latent dimensions, "
            f"loss {word(spec.loss)}, objective {word(spec.objective)}"
        )

    @cached_property
    def images(self) -> Images:
        splits = self.dataset.splits
        return splits.get("test") or splits.get("validation") or splits["train"]

    @cached_property
    def posterior(self) -> Normal:
        """Of the points of the feature figure."""
        return encode_all(self.model, self.points)

    @cached_property
    def points(self) -> Images:
        """Of the feature figure: test images, or training images where there are few for testing."""
        images = self.images if len(self.images) >= FEW else self.dataset.splits["train"]
        order = torch.randperm(len(images), generator=stream("points")).numpy()
        return images.select(np.sort(order[:POINTS]))


def curves(subject: Subject) -> Figure:
    return curve_figures.curves(subject.run.history, subject.title)


@torch.no_grad()
def reconstructions(subject: Subject) -> Figure:
    pixels = subject.images.spread(10).uint8()
    decoded = subject.model.reconstruct(torch.from_numpy(pixels).float() / 255)
    return tiles.reconstructions(pixels, decoded.numpy(), subject.title)


def samples(subject: Subject) -> Figure | None:
    if not has_prior(subject.run.spec, subject.model.shape):
        return None
    return tiles.grid(prior_samples(subject.model, 64).numpy(), f"Samples of the prior: {subject.title}")


def interpolations(subject: Subject) -> Figure:
    images, names = subject.images, ("", "")
    if len(images.categories) == 2 and set(images.label()) >= {
        0,
        1,
    }:  # alpha = 0, on the left, is the second category, as in report A
        names = (images.categories[1], images.categories[0])
    start, end = draw_pairs(images, 7, names[0] or None, names[1] or None)
    made = interpolate(subject.model, images.uint8(start), images.uint8(end), alphas(6))
    return tiles.interpolations(made.originals.numpy(), made.images.numpy(), made.alphas.numpy(), names, subject.title)


@torch.no_grad()
def traversals(subject: Subject) -> Figure:
    q = subject.posterior
    kl = kl_per_dimension(q, standard_normal(q.mean)).mean(0)
    largest = kl.argsort(descending=True, stable=True)[:TRAVERSED]
    steps = torch.linspace(-3, 3, 7)
    codes = q.mean[0].repeat(len(largest), len(steps), 1)
    for row, d in enumerate(largest):
        codes[row, :, d] = q.mean[:, d].mean() + steps * q.mean[:, d].std(unbiased=False)
    images = subject.model.images(codes)
    labels = [f"z{d}   KL {kl[d]:.2f}" for d in largest.tolist()]
    return tiles.traversals(images.numpy(), labels, steps.numpy(), subject.title)


def latent(subject: Subject) -> Figure:
    images = subject.points
    clusters = len(images.categories) or 10
    pixels = images.uint8().reshape(len(images), -1).astype(np.float32) / 255
    raw = projections.panels(pixels, clusters, label="t-SNE of pixels")
    codes = projections.panels(subject.posterior.mean.numpy(), clusters, label="t-SNE of codes")
    labels, names = (images.label(), images.categories) if images.labels is not None else (None, ())
    if labels is not None and (labels < 0).any():
        labels, names = np.where(labels < 0, len(names), labels), (*names, "unlabelled")
    return scatter.latent(raw, codes, labels, names, subject.title)


def model(subject: Subject) -> Figure:
    return diagram.model(layers(subject.model), subject.model.latent_dim, word(subject.run.spec.loss), subject.title)


def epochs(subject: Subject) -> Figure | None:
    file = subject.run.path / "snapshots.safetensors"
    if not file.exists():
        return None
    kept = {name: t.numpy() for name, t in read_tensors(file)[0].items()}
    by_epoch = [(int(name.split("-")[1]), kept[name]) for name in sorted(kept) if name != "originals"]
    return tiles.epochs(kept["originals"], by_epoch, subject.title)


PICTURES = {
    f.__name__: f for f in (curves, reconstructions, samples, interpolations, traversals, latent, model, epochs)
}


def draw(run: Run, dataset: Dataset, *, pdf: bool = False, names: Iterable[str] = PICTURES) -> list[Path]:
    """Draw pictures of a finished run into its folder; gives the files."""
    subject, files = Subject(run, dataset), []
    names = list(names)
    with progress("drawing", len(names)) as advance:
        for done, name in enumerate(names, start=1):
            figure = PICTURES[name](subject)
            if figure is not None:
                files += layout.save(figure, run.path / "figures" / f"{name}.png", pdf)
            advance(done, name)
    return files
