"""What is printed about a data set and a run before training starts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from vaelab.core.console import count_text, printable, shown
from vaelab.datasets.skipped import SkippedFile, group_skipped

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from vaelab.datasets.images import Dataset
    from vaelab.runs.spec import Spec

__all__ = ["dataset_remarks", "run_title", "skipped_lines", "startup_lines"]

MIN_USEFUL_STEPS = 100  # of training, below which a model has hardly begun to learn


def run_title(spec: Spec) -> str:
    """The data and the settings of a run in one line, as the title of figures and reports.

    Args:
        spec: The settings.

    Returns:
        The line.

    Example:
        >>> from vaelab.runs.spec import Spec
        >>> run_title(Spec(data="digits"))
        'digits: VAE, Gaussian likelihood, conv network, 32 latent dimensions, 20 epochs'
    """
    data = Path(spec.data).name
    if spec.subset is not None:
        data = f"{data} ({spec.subset:,} training images)"
    settings = [
        spec.objective.title,
        spec.distortion.title,
        f"{spec.network.name} network",
        count_text(spec.latent_dim, "latent dimension"),
    ]
    settings.append(_length_text(spec))
    return f"{data}: {', '.join(settings)}"


def _length_text(spec: Spec) -> str:
    """The length of the training."""
    if spec.minutes:
        return f"{spec.minutes:g} {'minute' if spec.minutes == 1 else 'minutes'}"
    return count_text(spec.steps, "step") if spec.steps else count_text(spec.epochs, "epoch")


def startup_lines(spec: Spec, dataset: Dataset) -> list[str]:
    """What is printed before training starts: the data, the model, the settings and what the loss really means.

    Args:
        spec: The settings.
        dataset: The images.

    Returns:
        Lines of text.
    """
    import torch

    from vaelab.datasets.images import is_binary
    from vaelab.runs.spec import build_model, to_argv

    images = dataset.splits["train"]
    kl_weight = spec.objective.effective_kl_weight(images.shape, spec.latent_dim)
    with torch.device("meta"):  # no weights are drawn only to be counted
        model = build_model(spec, images.shape)
    num_parameters = 0
    for half in (model.encoder, model.decoder):
        num_parameters += sum(parameter.numel() for parameter in half.parameters())
    counts = ", ".join(f"{len(part):,} {split}" for split, part in dataset.splits.items())
    dimensions = count_text(spec.latent_dim, "latent dimension")
    lines = [
        f"data: {shown(dataset.location)}, {' x '.join(map(str, images.shape))}, {counts} images",
        f"model: {spec.network.name}, {dimensions}, {count_text(num_parameters, 'parameter')}",
        f"settings: {' '.join(to_argv(spec)[1:]) or 'the defaults'}",
        f"loss: {spec.distortion.explain(kl_weight, is_binary(images))}",
    ]
    objective_note = spec.objective.explain(images.shape, spec.latent_dim)
    if objective_note:
        lines.append(objective_note)
    lines += _warnings(spec, dataset)
    return lines + dataset_remarks(dataset)


def _warnings(spec: Spec, dataset: Dataset) -> Iterator[str]:
    """What a user would regret not to know."""
    from vaelab.datasets.images import is_binary

    images = dataset.splits["train"]
    likelihood = spec.distortion.as_likelihood(spec.objective.effective_kl_weight(images.shape, spec.latent_dim))
    if likelihood is not None and likelihood.support != "binary" and is_binary(images):
        yield "note: the pixels are black or white, of which this is no likelihood; --loss ce is"
    steps = spec.num_steps(len(images))
    if steps < MIN_USEFUL_STEPS and spec.minutes is None:
        yield f"note: {count_text(steps, 'step')} in all, which is little: without --epochs there are 3,000 (--steps)"


def dataset_remarks(dataset: Dataset) -> list[str]:
    """What is printed about a data set wherever it is used: its notes, and the files that were left out."""
    lines = [f"note: {note}" for note in dataset.notes]
    if dataset.skipped:
        lines.append(f"skipped {count_text(len(dataset.skipped), 'file')}:")
        lines += [f"  {line}" for line in skipped_lines(dataset.skipped)]
        if len(lines) - 1 < len(dataset.skipped):
            lines.append(f"  `vaelab data {printable(dataset.source)} --json` names them all")
    return lines


def skipped_lines(skipped: Sequence[tuple[str, str]]) -> list[str]:
    """The files that were left out, a line for each kind and reason, with the first names and what can be done.

    Example:
        >>> skipped_lines([("a.png", "too small: 1x1"), ("b.png", "too small: 1x2"), ("c.dng", "camera raw")])
        ... # doctest: +NORMALIZE_WHITESPACE
        ['a.png, b.png: too small; the side is below 8 pixels: delete it, or use a larger version',
         'c.dng: camera raw; convert these files to TIFF, PNG or JPEG']
    """
    lines = []
    for group in group_skipped([SkippedFile(file, reason) for file, reason in skipped]):
        names = ", ".join(shown(file) for file in group.examples)
        if group.count > len(group.examples):
            kind = "" if group.kind == "row" else f"{group.kind} "
            names = f"{count_text(group.count, f'{kind}file')} such as {names}"
        remedy = f"; {group.remedy}" if group.remedy else ""
        lines.append(f"{names}: {group.reason}{remedy}")
    return lines
