"""Figures that verbs write to a file of the user's choice: reconstructions, samples, interpolations, the model."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from vaelab.analysis.interpolation import Interpolation
from vaelab.datasets.images import Images
from vaelab.figures.animation import path_labels, save_animation
from vaelab.figures.diagram import plot_model
from vaelab.figures.layout import save_figure
from vaelab.figures.run_figures import sample_caption, split_word
from vaelab.figures.tiles import path_caption, plot_grid, plot_interpolations, plot_reconstructions
from vaelab.models.summary import layers
from vaelab.runs.run import Run
from vaelab.runs.summary import run_title

__all__ = ["save_interpolations", "save_model", "save_reconstructions", "save_samples"]


def save_reconstructions(run: Run, pixels: np.ndarray, reconstructions: np.ndarray, out: Path) -> None:
    """Draw images above their reconstructions.

    Args:
        run: The run whose model made them.
        pixels: The images, uint8 with shape (N, C, H, W).
        reconstructions: In [0, 1], with the same shape.
        out: The file to write.
    """
    caption = "Decoded from the posterior means."
    save_figure(plot_reconstructions(pixels, reconstructions, run_title(run.spec), caption=caption), out)


def save_samples(run: Run, images: np.ndarray, out: Path) -> None:
    """Draw samples of the prior.

    Args:
        run: The run whose model made them.
        images: In [0, 1], with shape (N, C, H, W).
        out: The file to write.
    """
    title = f"Samples of the prior. {run_title(run.spec)}"
    save_figure(plot_grid(images, title, caption=sample_caption(len(images))), out)


def save_interpolations(
    run: Run,
    result: Interpolation,
    names: tuple[str, str],
    out: Path,
    source: Images | None = None,
    *,
    path: str = "linear",
    sampled: bool = False,
) -> None:
    """Draw interpolations as a table of images, or as an animation where the file is a GIF.

    Args:
        run: The run whose model made them.
        result: The originals, the images on the way and their values of alpha.
        names: What is at alpha = 0 and at alpha = 1.
        out: The file to write.
        source: The images that pairs were drawn from; None where both ends are files.
        path: The kind of path, such as "linear".
        sampled: Whether codes were samples of the posteriors in place of their means.
    """
    images = result.images.numpy()
    alphas = result.alphas.numpy()
    if out.suffix.lower() == ".gif":
        save_animation(list(images.swapaxes(0, 1)), out, labels=path_labels(alphas, names))
        return
    drawn = f"Pairs drawn from {split_word(source)} images. " if source else ""
    caption = drawn + path_caption(names, path, sampled)
    title = run_title(run.spec)
    save_figure(plot_interpolations(result.originals.numpy(), images, alphas, names, title, caption=caption), out)


def save_model(run: Run, out: Path) -> None:
    """Draw the model of a run as a diagram.

    Args:
        run: The run.
        out: The file to write.
    """
    model = run.model
    figure = plot_model(layers(model), model.latent_dim, run.spec.distortion.title, run_title(run.spec))
    save_figure(figure, out)
