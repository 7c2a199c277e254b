"""The figures of a run, which `train` draws into its folder.

A figure of a run is a function from a `FigureContext` to a matplotlib figure, or to None where there is nothing to
show. The decorator gives it its name, which is also the name of its file. A new figure is one such function here.

Figures show the test split; without one the validation split, and without that the training images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from vaelab.analysis.interpolation import alpha_values, draw_pairs, interpolate_images
from vaelab.analysis.projections import compute_projection
from vaelab.analysis.samples import has_prior_term, sample_prior
from vaelab.core.console import progress
from vaelab.core.rng import evaluation_noise, generator
from vaelab.datasets.images import Dataset, Images
from vaelab.evaluation.metrics import encode_all
from vaelab.figures.colors import SPLIT_COLORS
from vaelab.figures.curves import MeanCurve, plot_curves
from vaelab.figures.diagram import plot_model
from vaelab.figures.layout import save_figure
from vaelab.figures.scatter import plot_latent_spaces
from vaelab.figures.tiles import (
    path_caption,
    plot_epochs,
    plot_grid,
    plot_interpolations,
    plot_reconstructions,
    plot_traversals,
)
from vaelab.models.densities import Normal
from vaelab.models.summary import layers
from vaelab.models.vae import VAE
from vaelab.runs.run import Run
from vaelab.runs.summary import run_title
from vaelab.studies.curves import run_curves, term_heading
from vaelab.studies.results import read_record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["RUN_FIGURES", "FigureContext", "RunFigure", "draw_run_figures", "run_figure"]

FEATURE_POINTS = 2000  # images in the figure of latent spaces

MIN_TEST_IMAGES = 100  # test images below which it shows training images

MAX_TRAVERSALS = 10  # latent dimensions, those with the largest KL

RECONSTRUCTED_IMAGES = 10
SAMPLED_IMAGES = 64
INTERPOLATED_PAIRS = 7
INTERPOLATION_STEPS = 6

SPLIT_WORDS = {"train": "training"}  # other splits are called by their names


@dataclass(frozen=True)
class FigureContext:
    """A finished run and the data that its figures show.

    Attributes:
        run: The run.
        dataset: The images that it was trained on, with all splits.
    """

    run: Run
    dataset: Dataset

    @property
    def model(self) -> VAE:
        """The trained model."""
        return self.run.model

    @property
    def title(self) -> str:
        """The data and the settings of the run."""
        return run_title(self.run.spec)

    @cached_property
    def images(self) -> Images:
        """The images that figures of single images show."""
        splits = self.dataset.splits
        return splits.get("test") or splits.get("validation") or splits["train"]

    @cached_property
    def points(self) -> Images:
        """The images of the figures of the latent space: of the test split, or of training where that is small."""
        images = self.images if len(self.images) >= MIN_TEST_IMAGES else self.dataset.splits["train"]
        order = torch.randperm(len(images), generator=generator("points")).numpy()
        return images.select(np.sort(order[:FEATURE_POINTS]))

    @cached_property
    def posterior(self) -> Normal:
        """The posteriors of `points`, with parameters (N, D)."""
        return encode_all(self.model, self.points)


RunFigure = Callable[[FigureContext], "Figure | None"]

RUN_FIGURES: dict[str, RunFigure] = {}


def run_figure(name: str) -> Callable[[RunFigure], RunFigure]:
    """A decorator that makes a function a figure of every run.

    Args:
        name: The name of the figure, and of its file without suffix.

    Returns:
        The decorator.
    """

    def register(function: RunFigure) -> RunFigure:
        RUN_FIGURES[name] = function
        return function

    return register


def draw_run_figures(
    run: Run, dataset: Dataset, *, pdf: bool = False, names: Iterable[str] = RUN_FIGURES
) -> list[Path]:
    """Draw figures of a finished run into its folder.

    Args:
        run: The run.
        dataset: The images that it was trained on.
        pdf: Whether to write each as a PDF too.
        names: Which figures.

    Returns:
        The files written.
    """
    context = FigureContext(run, dataset)
    files: list[Path] = []
    names = list(names)
    with progress("drawing", len(names)) as advance:
        for num_done, name in enumerate(names, start=1):
            figure = RUN_FIGURES[name](context)
            if figure is not None:
                files += save_figure(figure, run.path / "figures" / f"{name}.png", pdf)
            advance(num_done, name)
    return files


@run_figure("curves")
def _curves(context: FigureContext) -> Figure:
    run_terms = run_curves(read_record(context.run), context.run.spec)
    panels = {}
    for term, by_split in run_terms.terms.items():
        curves = {split: MeanCurve(curve.epochs, curve.mean) for split, curve in by_split.items()}
        panels[term_heading(term, run_terms.loss_term)] = curves
    caption = "Means over images, of one sample of each posterior, after every epoch."
    return plot_curves(panels, SPLIT_COLORS, context.title, caption=caption)


@run_figure("reconstructions")
@torch.no_grad()
def _reconstructions(context: FigureContext) -> Figure:
    pixels = context.images.evenly_spaced(RECONSTRUCTED_IMAGES).uint8()
    decoded = context.model.reconstruct(torch.from_numpy(pixels).float() / 255)
    caption = f"{count_text(context.images, len(pixels))}, and the images decoded from their posterior means."
    return plot_reconstructions(pixels, decoded.numpy(), context.title, caption=caption)


@run_figure("samples")
def _samples(context: FigureContext) -> Figure | None:
    if not has_prior_term(context.run.spec, context.model.shape):
        return None
    images = sample_prior(context.model, SAMPLED_IMAGES).numpy()
    return plot_grid(images, f"Samples of the prior. {context.title}", caption=sample_caption(len(images)))


@run_figure("interpolations")
def _interpolations(context: FigureContext) -> Figure:
    images = context.images
    names = ("", "")
    if len(images.categories) == 2 and set(images.label()) >= {0, 1}:
        names = (images.categories[1], images.categories[0])  # report A has the second category on the left
    start, end = draw_pairs(images, INTERPOLATED_PAIRS, names[0] or None, names[1] or None)
    alphas = alpha_values(INTERPOLATION_STEPS)
    result = interpolate_images(context.model, images.uint8(start), images.uint8(end), alphas)
    caption = f"Pairs of {split_word(images)} images. {path_caption(names)}"
    paths = result.images.numpy()
    return plot_interpolations(result.originals.numpy(), paths, alphas.numpy(), names, context.title, caption=caption)


@run_figure("traversals")
@torch.no_grad()
def _traversals(context: FigureContext) -> Figure:
    q = context.posterior
    samples = q.sample(evaluation_noise(context.points.rows, context.model.latent_dim))
    kl = context.model.prior.kl_per_dimension(q, samples).mean(0)
    largest = kl.argsort(descending=True, stable=True)[:MAX_TRAVERSALS]
    steps = torch.linspace(-3, 3, 7)
    codes = q.mean[0].repeat(len(largest), len(steps), 1)
    for row, d in enumerate(largest):
        codes[row, :, d] = q.mean[:, d].mean() + steps * q.mean[:, d].std(unbiased=False)
    images = context.model.decode_mean(codes).numpy()
    labels = [f"z{d}   KL {kl[d]:.2f}" for d in largest.tolist()]
    caption = (
        f"In each row one latent dimension varies by so many standard deviations around its mean over "
        f"{count_text(context.points)}. The others are the posterior mean of the first of these images. "
        "KL in nats per image; the dimensions with the largest KL."
    )
    return plot_traversals(images, labels, steps.numpy(), context.title, caption=caption)


@run_figure("latent")
def _latent_spaces(context: FigureContext) -> Figure:
    images = context.points
    num_clusters = len(images.categories) or 10
    pixels = images.uint8().reshape(len(images), -1).astype(np.float32) / 255
    raw = compute_projection(pixels, num_clusters, label="t-SNE of pixels")
    codes = compute_projection(context.posterior.mean.numpy(), num_clusters, label="t-SNE of codes")
    labels = images.label() if images.labels is not None else None
    labels, categories = with_unlabelled(labels, images.categories)
    caption = f"{count_text(images)}; codes are posterior means. Clusters: k-means in the three components shown."
    return plot_latent_spaces(raw, codes, labels, categories, context.title, caption=caption)


@run_figure("model")
def _model(context: FigureContext) -> Figure:
    model = context.model
    return plot_model(layers(model), model.latent_dim, context.run.spec.distortion.title, context.title)


@run_figure("epochs")
def _epochs(context: FigureContext) -> Figure | None:
    snapshots = {name: tensor.numpy() for name, tensor in context.run.snapshots.items()}
    if not snapshots:
        return None
    originals = snapshots.pop("originals")
    by_epoch = [(int(name.split("-")[1]), snapshots[name]) for name in sorted(snapshots)]
    split = "validation" if "validation" in context.dataset.splits else "training"
    caption = f"The same {split} images after several epochs, decoded from their posterior means."
    return plot_epochs(originals, by_epoch, context.title, caption=caption)


# Texts that figures of runs and of studies share


def split_word(images: Images) -> str:
    """What the split of some images is called in a caption.

    Args:
        images: The images.

    Returns:
        "training", "validation" or "test".
    """
    return SPLIT_WORDS.get(images.split, images.split)


def count_text(images: Images, count: int | None = None) -> str:
    """How many images of which split are shown, such as "2,000 test images".

    Args:
        images: The images.
        count: How many of them are shown; all if not given.

    Returns:
        The text.
    """
    shown = len(images) if count is None else count
    return f"{shown:,} {split_word(images)} image{'s' * (shown != 1)}"


def sample_caption(count: int) -> str:
    """What samples of the prior are.

    Args:
        count: How many there are.

    Returns:
        A sentence.
    """
    codes = "One code is" if count == 1 else f"{count:,} codes are"
    return f"{codes} drawn from the prior and decoded to the mean of the likelihood, without pixel noise."


def with_unlabelled(
    labels: np.ndarray | None, categories: tuple[str, ...]
) -> tuple[np.ndarray | None, tuple[str, ...]]:
    """Labels and categories of points, with one more category for images that have no label.

    Args:
        labels: The category of each image, with shape (N,), -1 where it is not known; none where no image has one.
        categories: Their names.

    Returns:
        The labels and the categories.
    """
    if labels is None or (labels < 0).all():
        return None, ()
    if (labels >= 0).all():
        return labels, tuple(categories)
    return np.where(labels < 0, len(categories), labels), (*categories, "unlabelled")
