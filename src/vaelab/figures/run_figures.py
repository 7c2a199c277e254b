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
from vaelab.analysis.interpolation import alpha_values, draw_pairs, interpolate_images
from vaelab.analysis.samples import has_prior_term, sample_prior
from vaelab.core.codec import to_word
from vaelab.core.console import progress
from vaelab.core.rng import evaluation_noise, generator
from vaelab.core.tensors import read_tensors
from vaelab.datasets.images import Dataset, Images
from vaelab.evaluation.metrics import encode_all
from vaelab.figures import curves as curve_figures
from vaelab.figures import diagram, layout, scatter, tiles
from vaelab.models.densities import Normal
from vaelab.models.summary import layers
from vaelab.models.vae import VAE
from vaelab.runs.run import Run

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["RUN_FIGURES", "FigureContext", "draw_run_figures"]

FEATURE_POINTS = 2000  # in the feature figure of a single run

MIN_TEST_IMAGES = 100  # test images below which it shows training images

MAX_TRAVERSALS = 10  # latent dimensions, those with the largest KL


@dataclass(frozen=True)
class FigureContext:
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
            f"loss {to_word(spec.loss)}, objective {to_word(spec.objective)}"
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
        images = self.images if len(self.images) >= MIN_TEST_IMAGES else self.dataset.splits["train"]
        order = torch.randperm(len(images), generator=generator("points")).numpy()
        return images.select(np.sort(order[:FEATURE_POINTS]))


def run_curves(context: FigureContext) -> Figure:
    return curve_figures.plot_curves(context.run.history, context.title)


@torch.no_grad()
def run_reconstructions(context: FigureContext) -> Figure:
    pixels = context.images.evenly_spaced(10).uint8()
    decoded = context.model.reconstruct(torch.from_numpy(pixels).float() / 255)
    return tiles.plot_reconstructions(pixels, decoded.numpy(), context.title)


def run_samples(context: FigureContext) -> Figure | None:
    if not has_prior_term(context.run.spec, context.model.shape):
        return None
    return tiles.plot_grid(sample_prior(context.model, 64).numpy(), f"Samples of the prior: {context.title}")


def run_interpolations(context: FigureContext) -> Figure:
    images, names = context.images, ("", "")
    if len(images.categories) == 2 and set(images.label()) >= {
        0,
        1,
    }:  # alpha = 0, on the left, is the second category, as in report A
        names = (images.categories[1], images.categories[0])
    start, end = draw_pairs(images, 7, names[0] or None, names[1] or None)
    made = interpolate_images(context.model, images.uint8(start), images.uint8(end), alpha_values(6))
    return tiles.plot_interpolations(
        made.originals.numpy(), made.images.numpy(), made.alphas.numpy(), names, context.title
    )


@torch.no_grad()
def run_traversals(context: FigureContext) -> Figure:
    q = context.posterior
    codes = q.sample(evaluation_noise(context.points.rows, context.model.latent_dim))
    kl = context.model.prior.kl_per_dimension(q, codes).mean(0)
    largest = kl.argsort(descending=True, stable=True)[:MAX_TRAVERSALS]
    steps = torch.linspace(-3, 3, 7)
    codes = q.mean[0].repeat(len(largest), len(steps), 1)
    for row, d in enumerate(largest):
        codes[row, :, d] = q.mean[:, d].mean() + steps * q.mean[:, d].std(unbiased=False)
    images = context.model.decode_mean(codes)
    labels = [f"z{d}   KL {kl[d]:.2f}" for d in largest.tolist()]
    return tiles.plot_traversals(images.numpy(), labels, steps.numpy(), context.title)


def run_latent_spaces(context: FigureContext) -> Figure:
    images = context.points
    clusters = len(images.categories) or 10
    pixels = images.uint8().reshape(len(images), -1).astype(np.float32) / 255
    raw = projections.compute_projection(pixels, clusters, label="t-SNE of pixels")
    codes = projections.compute_projection(context.posterior.mean.numpy(), clusters, label="t-SNE of codes")
    labels, names = (images.label(), images.categories) if images.labels is not None else (None, ())
    if labels is not None and (labels < 0).any():
        labels, names = np.where(labels < 0, len(names), labels), (*names, "unlabelled")
    return scatter.plot_latent_spaces(raw, codes, labels, names, context.title)


def run_model(context: FigureContext) -> Figure:
    return diagram.plot_model(
        layers(context.model), context.model.latent_dim, to_word(context.run.spec.loss), context.title
    )


def run_epochs(context: FigureContext) -> Figure | None:
    file = context.run.path / "snapshots.safetensors"
    if not file.exists():
        return None
    kept = {name: t.numpy() for name, t in read_tensors(file)[0].items()}
    by_epoch = [(int(name.split("-")[1]), kept[name]) for name in sorted(kept) if name != "originals"]
    return tiles.plot_epochs(kept["originals"], by_epoch, context.title)


RUN_FIGURES = {
    "curves": run_curves,
    "reconstructions": run_reconstructions,
    "samples": run_samples,
    "interpolations": run_interpolations,
    "traversals": run_traversals,
    "latent": run_latent_spaces,
    "model": run_model,
    "epochs": run_epochs,
}


def draw_run_figures(
    run: Run, dataset: Dataset, *, pdf: bool = False, names: Iterable[str] = RUN_FIGURES
) -> list[Path]:
    """Draw pictures of a finished run into its folder; gives the files."""
    subject, files = FigureContext(run, dataset), []
    names = list(names)
    with progress("drawing", len(names)) as advance:
        for done, name in enumerate(names, start=1):
            figure = RUN_FIGURES[name](subject)
            if figure is not None:
                files += layout.save_figure(figure, run.path / "figures" / f"{name}.png", pdf)
            advance(done, name)
    return files
