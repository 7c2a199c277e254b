"""The figures of a study: each shows one experiment under one condition.

A figure of a study is a function from an `ExperimentContext` to a matplotlib figure, or to None where there is nothing
to show yet. The decorator gives it the name by which an experiment asks for it. A new figure is one such function here.
Settings without a finished run are left out, and the caption says so. Files are called EXPERIMENT-FIGURE[-CONDITION].
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import torch

from vaelab.analysis.baseline import display_split
from vaelab.analysis.projections import Projection
from vaelab.analysis.registry import read_analysis_arrays
from vaelab.analysis.samples import has_prior_term, sample_prior
from vaelab.core.errors import UserError, unknown_name_error
from vaelab.evaluation.catalogue import REPRESENTATION_LABELS, SEPARABILITY_METRICS, figure_metrics
from vaelab.figures.colors import assign_colors
from vaelab.figures.curves import MeanCurve, PathPanel, plot_curves, plot_path_probabilities
from vaelab.figures.diagram import plot_model
from vaelab.figures.differences import DIFFERENCE_NOTE, Difference, add_differences, plot_differences
from vaelab.figures.dimensions import (
    DimensionLine,
    dimension_rows,
    latent_dim,
    pca_error,
    pca_errors,
    pca_reconstructions,
    plot_dimensions,
)
from vaelab.figures.intervals import IntervalRow, add_table, plot_intervals
from vaelab.figures.layout import add_caption, save_figure
from vaelab.figures.run_figures import SPLIT_WORDS, count_text, split_word, with_unlabelled
from vaelab.figures.scatter import scatter_panels
from vaelab.figures.text import distinct_labels
from vaelab.figures.tiles import TileTable, as_rgb, path_caption, path_headers, plot_tile_tables
from vaelab.models.summary import layers
from vaelab.runs.run import Run
from vaelab.studies.curves import experiment_curves, term_heading
from vaelab.studies.definition import Experiment, Study
from vaelab.studies.results import ClaimResult, SettingResult, StudyResults

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = [
    "STUDY_FIGURES",
    "ExperimentContext",
    "StudyFigure",
    "check_figures",
    "draw_study_figures",
    "figure_file_name",
    "slugify",
    "study_figure",
]

PAIRED_NOTE = (
    "Settings are compared seed by seed, so a difference can be certain though the intervals of single means overlap."
)

MAX_TILES = 10  # images in a row, and settings that have one

SHOWN_ALPHAS = 6  # images of a path in the figure of interpolations


class AnalysedRun(NamedTuple):
    """A run that went through an analysis, with the setting that it is of and the arrays of the analysis."""

    setting: SettingResult
    seed: int
    arrays: Mapping[str, np.ndarray]

    @property
    def run(self) -> Run:
        """The run."""
        return self.setting.runs[self.seed]


@dataclass(frozen=True)
class ExperimentContext:
    """An experiment under a condition, as figures show it.

    Attributes:
        results: The study so far.
        experiment: The experiment.
        condition: The condition; empty where the study has none.
    """

    results: StudyResults
    experiment: Experiment
    condition: str

    def title(self, subject: str = "") -> str:
        """The experiment, the condition, the data and what the figure shows of them."""
        experiment = self.experiment
        name = experiment.title
        if experiment.id not in (experiment.title, "run"):
            name = f"{experiment.id} {experiment.title}"
        data = Path(self.results.study.data).name
        parts = [name, self.condition]
        if data not in name:
            parts.append(data)
        title = ", ".join(part for part in parts if part)
        return f"{title}: {subject}" if subject else title

    @cached_property
    def settings(self) -> list[SettingResult]:
        """The settings that have finished runs."""
        return [setting for setting in self.results.of_experiment(self.experiment, self.condition) if setting.runs]

    @cached_property
    def colors(self) -> dict[str, str]:
        """The colour of each setting, whichever of them are finished."""
        return assign_colors([setting.name for setting in self.experiment.settings])

    @property
    def differences(self) -> list[Difference]:
        """What decides each claim."""
        results = []
        for result in self.results.claim_results:
            if result.condition == self.condition and result.claim in self.experiment.claims:
                results.append(deciding_difference(result))
        return results

    @property
    def varies_dimension(self) -> bool:
        """Whether the number of latent dimensions is varied, so that principal components are shown for comparison."""
        return "latent_dim" in self.experiment.factors

    def settings_text(self, count: int) -> str:
        """A sentence that says what the settings are and how many of them are shown."""
        parts = [factor for factor in self.experiment.factors if factor != "variant"]
        if count < len(self.experiment.settings):
            parts.append(f"{count} of {len(self.experiment.settings)}")
        return f" Settings: {', '.join(parts)}." if parts else ""

    def setting_text(self, setting: SettingResult) -> str:
        """Which of several settings is shown, as a part of a sentence."""
        return f"; setting {setting.name}" if len(self.experiment.settings) > 1 else ""

    def first_analysed(self, analysis: str) -> AnalysedRun | None:
        """The first run, by setting and seed, that went through an analysis."""
        for setting in self.settings:
            for seed, run in sorted(setting.runs.items()):
                arrays = read_analysis_arrays(run, analysis)
                if arrays:
                    return AnalysedRun(setting, seed, arrays)
        return None


StudyFigure = Callable[[ExperimentContext], "Figure | None"]

STUDY_FIGURES: dict[str, StudyFigure] = {}


def study_figure(name: str) -> Callable[[StudyFigure], StudyFigure]:
    """A decorator that makes a function a figure that experiments can ask for.

    Args:
        name: The name in the `figures` of an experiment, and in the names of files.

    Returns:
        The decorator.
    """

    def register(function: StudyFigure) -> StudyFigure:
        STUDY_FIGURES[name] = function
        return function

    return register


# Files


def slugify(text: str) -> str:
    """A text as a part of a file's name: what is neither letter, digit, dot nor underscore becomes a dash.

    Example:
        >>> slugify("KL weight = 1")
        'KL-weight-1'
    """
    return re.sub(r"[^\w.]+", "-", text).strip("-.")


def figure_file_name(experiment: Experiment, figure: str, condition: str) -> str:
    """The name of the file of a figure, without suffix.

    Args:
        experiment: The experiment that it shows.
        figure: Its name.
        condition: The condition.

    Returns:
        The name.
    """
    parts = (slugify(experiment.id), figure, slugify(condition))
    return "-".join(part for part in parts if part)


def check_figures(study: Study) -> None:
    """Refuse figures that do not exist, and experiments and conditions whose figures would have the same files.

    Args:
        study: The study.

    Raises:
        UserError: It asks for such.
    """
    used_names: dict[str, str] = {}
    for experiment in study.experiments:
        for figure in experiment.figures:
            if figure not in STUDY_FIGURES:
                raise unknown_name_error(f"figure in experiment {experiment.id}", figure, STUDY_FIGURES)
        for condition in experiment.conditions:
            file_name = figure_file_name(experiment, "", condition).casefold()
            label = f"{experiment.id}, {condition}"
            if file_name in used_names:
                both = f'"{used_names[file_name]}" and "{label}"'
                raise UserError(f"{both} would share the figures {file_name}: rename one of them")
            used_names[file_name] = label


def draw_study_figures(
    results: StudyResults, experiment: Experiment, condition: str, folder: Path, pdf: bool = True
) -> list[Path]:
    """Draw the figures of an experiment under a condition into a folder.

    Args:
        results: The study so far.
        experiment: The experiment.
        condition: The condition.
        folder: Where.
        pdf: Whether to write each as a PDF too.

    Returns:
        The files written.
    """
    context = ExperimentContext(results, experiment, condition)
    files: list[Path] = []
    for name in dict.fromkeys(experiment.figures):
        figure = STUDY_FIGURES[name](context)
        if figure is not None:
            files += save_figure(figure, folder / f"{figure_file_name(experiment, name, condition)}.png", pdf)
    return files


# Numbers


@study_figure("curves")
def _curves(context: ExperimentContext) -> Figure | None:
    curves = experiment_curves(context.settings)
    if curves is None:
        return None
    panels = {}
    for term, by_setting in curves.terms.items():
        lines = {name: MeanCurve(curve.epochs, curve.mean, curve.deviation) for name, curve in by_setting.items()}
        panels[term_heading(term, curves.loss_term)] = lines
    caption = f"On {SPLIT_WORDS.get(curves.split, curves.split)} images, one sample of each posterior; "
    caption += seeds_text(context.settings)
    if curves.max_seeds > 1:
        caption += "; lines are means, bands one standard deviation over seeds"
    caption += f".{context.settings_text(len(context.settings))}"
    return plot_curves(panels, context.colors, context.title(), caption=caption)


@study_figure("bars")
def _bars(context: ExperimentContext) -> Figure | None:
    panels = {}
    for info in figure_metrics():
        rows = {}
        for setting in context.settings:
            values = setting.values(info.name)
            if len(values):
                rows[setting.name] = interval_row(values)
                if context.varies_dimension and info.name == "mse":
                    rows[setting.name] = rows[setting.name]._replace(reference=pca_error(setting))
        if rows:
            panels[info.label_with_direction, info.unit] = rows
    if not panels:
        return None
    caption = f"On test images, decoded from posterior means; {seeds_text(context.settings)}"
    if max(len(setting.runs) for setting in context.settings) > 1:
        caption += " (rings), their means and 95 % t intervals"
    caption += "; ↓ lower is better."
    if any(row.reference is not None for rows in panels.values() for row in rows.values()):
        caption += " Cross: principal components, as many as latent dimensions."
    caption += context.settings_text(len(context.settings))
    figure = plot_intervals(panels, context.colors, context.title(), caption=caption)
    if not context.differences:
        return figure
    add_differences(figure, context.differences, "What decides the claims: differences between settings, seed by seed")
    return add_caption(figure, f"{DIFFERENCE_NOTE} {PAIRED_NOTE}")


@study_figure("differences")
def _differences(context: ExperimentContext) -> Figure | None:
    if not context.settings or not context.differences:
        return None
    return plot_differences(context.differences, context.title("what decides the claims"), caption=DIFFERENCE_NOTE)


def deciding_difference(result: ClaimResult) -> Difference:
    """The difference that decides a claim, as figures show it.

    Args:
        result: The claim with its verdict.

    Returns:
        The difference; of a void claim its note alone, for its numbers mean nothing.
    """
    note = result.note
    if result.seeds_needed_text:
        note = f"{result.seeds_needed_text} would decide it" + (f"; {note}" if note else "")
    shown = Difference(result.claim.sentence, result.verdict, result.verdict_word, note=note)
    if result.deciding is None or result.verdict == "void":
        return shown
    return shown._replace(
        what=result.deciding.what,
        wanted=result.deciding.wanted,
        mean=result.deciding.mean,
        values=result.differences[0],
        bounds=result.deciding.bounds,
        interval=result.deciding.interval,
        margin=result.deciding.margin,
    )


# Principal components


@study_figure("dimensions")
def _dimensions(context: ExperimentContext) -> Figure | None:
    settings = [setting for setting in context.settings if len(setting.values("mse"))]
    errors = pca_errors(settings[0]) if settings and context.varies_dimension else None
    if errors is None:
        return None
    by_name: dict[str, dict[int, np.ndarray]] = {}
    for setting in settings:
        others = [value for factor, value in setting.setting.values.items() if factor != "latent_dim"]
        by_name.setdefault(", ".join(others) or "network", {})[latent_dim(setting)] = setting.values("mse")
    lines = {}
    for name, values in by_name.items():
        dimensions = sorted(values)
        lines[name] = DimensionLine(dimensions, [values[dimension] for dimension in dimensions])
    caption = (
        f"On test images; {seeds_text(context.settings)} (rings), lines through their means. PCA: the best linear "
    )
    caption += (
        f"reconstruction from as many numbers, fitted to the training images.{context.settings_text(len(settings))}"
    )
    title = context.title("networks and principal components")
    figure = plot_dimensions(lines, errors, assign_colors(list(lines)), title)
    dimensions = sorted({dimension for line in lines.values() for dimension in line.dimensions})
    add_table(figure, [f"{dimension:,}" for dimension in dimensions], dimension_rows(lines, errors, dimensions))
    return add_caption(figure, caption)


def interval_row(values: np.ndarray) -> IntervalRow:
    """The mean of a number over seeds, with its 95 % t interval.

    Args:
        values: The number for each seed, with shape (S,).

    Returns:
        The row; without an interval for a single seed.
    """
    from scipy import stats

    count = len(values)
    half_width = None
    if count > 1:
        half_width = float(stats.t.ppf(0.975, count - 1) * values.std(ddof=1) / np.sqrt(count))
    return IntervalRow(values, float(values.mean()), half_width)


def seeds_text(settings: Sequence[SettingResult]) -> str:
    """How many finished runs a setting has, such as "3 seeds" or "1 to 3 seeds"."""
    counts = sorted({len(setting.runs) for setting in settings})
    if len(counts) > 1:
        return f"{counts[0]} to {counts[-1]} seeds"
    return f"{counts[0]} seed{'s' * (counts[0] > 1)}"


# Images


@study_figure("reconstructions")
@torch.no_grad()
def _reconstructions(context: ExperimentContext) -> Figure | None:
    settings = spread_settings(context.settings)
    if not settings:
        return None
    seed, runs = runs_of_common_seed(settings)
    rows = []
    for name, run in runs:
        images = display_split(run.dataset).evenly_spaced(MAX_TILES)
        pixels = images.uint8()
        decoded = run.model.reconstruct(torch.from_numpy(pixels).float() / 255)
        rows.append((name or "reconstruction", as_rgb(pixels), as_rgb(decoded.numpy())))
        if context.varies_dimension:
            rows.append((f"PCA, {run.spec.latent_dim:,}", as_rgb(pixels), pca_reconstructions(run, pixels)))
    tables = []
    for _, group in groupby(rows, key=lambda row: row[1].shape):  # settings may differ in the size of images
        names, originals, reconstructions = zip(*group, strict=True)
        tiles = np.stack([originals[0], *reconstructions])
        breaks = range(1, len(tiles), 2) if context.varies_dimension else (1,)
        tables.append(TileTable(tiles, ("original", *names), row_breaks=breaks))
    split = split_word(display_split(runs[0][1].dataset))
    caption = f"The same {split} images in every row, decoded from the posterior means; seed {seed}."
    if context.varies_dimension:
        caption += " PCA: from as many principal components of the training images as there are latent dimensions."
    caption += context.settings_text(len(runs))
    return plot_tile_tables(tables, context.title("reconstructions"), caption=caption)


@study_figure("samples")
def _samples(context: ExperimentContext) -> Figure | None:
    settings = [setting for setting in context.settings if _has_prior_samples(setting)]
    if not settings:
        return None
    seed, runs = runs_of_common_seed(spread_settings(settings))
    rows = [(name, as_rgb(sample_prior(run.model, 64).numpy()[:MAX_TILES])) for name, run in runs]
    tables = []
    for _, group in groupby(rows, key=lambda row: row[1].shape):
        names, tiles = zip(*group, strict=True)
        tables.append(TileTable(np.stack(tiles), names))
    caption = "Means of the likelihood for codes drawn from the prior, the same codes for settings of equal latent "
    caption += f"dimension; seed {seed}.{context.settings_text(len(rows))}"
    return plot_tile_tables(tables, context.title("samples of the prior"), caption=caption)


def _has_prior_samples(setting: SettingResult) -> bool:
    """Whether samples of the prior mean anything for a setting."""
    return any(has_prior_term(run.spec, run.model.shape) for run in setting.runs.values())


def spread_settings(settings: Sequence[SettingResult]) -> list[SettingResult]:
    """At most ten settings, evenly over all, with the first and the last."""
    count = min(MAX_TILES, len(settings))
    return [settings[i] for i in np.linspace(0, len(settings) - 1, count).astype(int)]


def runs_of_common_seed(settings: Sequence[SettingResult]) -> tuple[int, list[tuple[str, Run]]]:
    """The first seed that all settings have, or else most of them, and its runs with the names of their settings."""
    seeds = sorted({seed for setting in settings for seed in setting.runs})
    counts = [sum(seed in setting.runs for setting in settings) for seed in seeds]
    seed = seeds[int(np.argmax(counts))]
    return seed, [(setting.name, setting.runs[seed]) for setting in settings if seed in setting.runs]


# Interpolations


@study_figure("interpolations")
def _interpolations(context: ExperimentContext) -> Figure | None:
    analysed = context.first_analysed("interpolations")
    if analysed is None:
        return None
    arrays = analysed.arrays
    shown = np.linspace(0, len(arrays["alphas"]) - 1, SHOWN_ALPHAS).round().astype(int)
    names = end_names(analysed.run, arrays)
    headers = path_headers(arrays["alphas"][shown], names)
    probability = arrays.get("probability")
    tables = []
    for pair, images in enumerate(arrays["images"][:, shown]):
        tiles = as_rgb(np.concatenate([arrays["originals"][pair], images]))[None]
        notes: Sequence[str] = ()
        if probability is not None:
            notes = ("", "", *(f"{p:.2f}" for p in probability[pair, shown]))
        tables.append(TileTable(tiles, (), () if pair else headers, notes, column_breaks=(2,)))
    subject = "interpolations"
    caption = f"Pairs of {split_word(display_split(analysed.run.dataset))} images. {path_caption(names)}"
    if probability is not None:
        category = category_text(names)
        subject += f", probability of {category}"
        caption += f" Under each image: the probability of {category} that a classifier gives it."
    caption += f" Seed {analysed.seed}{context.setting_text(analysed.setting)}."
    return plot_tile_tables(tables, context.title(subject), caption=caption)


@study_figure("path")
def _path(context: ExperimentContext) -> Figure | None:
    panels = {}
    category = ""
    num_pairs = 0
    for setting in spread_settings(context.settings):
        run = setting.runs[min(setting.runs)]
        arrays = read_analysis_arrays(run, "interpolations")
        if "probability" not in arrays:
            continue
        pairs = arrays["probability"]
        category = category_text(end_names(run, arrays))
        num_pairs = len(pairs)
        deviation = pairs.std(0, ddof=1) if num_pairs > 1 else None
        mean = MeanCurve(arrays["alphas"], pairs.mean(0), deviation)
        panels[setting.name] = PathPanel(mean, pairs, mean_probability_curve(setting))
    if not panels:
        return None
    caption = f"Thin lines: {num_pairs} pairs of the first seed; line and band: their mean and one standard deviation."
    if any(panel.many for panel in panels.values()):
        caption += " Dots: the mean over many pairs and all seeds."
    caption += context.settings_text(len(panels))
    title = context.title(f"probability of {category} along interpolations")
    return plot_path_probabilities(panels, context.colors, title, unit="given by a classifier", caption=caption)


def end_names(run: Run, arrays: Mapping[str, np.ndarray]) -> tuple[str, str]:
    """The categories at alpha = 0 and at alpha = 1; empty where the pairs are of any category."""
    ends = arrays["ends"].tolist()
    if min(ends) < 0:
        return "", ""
    labels = distinct_labels(display_split(run.dataset).categories)
    return labels[ends[0]], labels[ends[1]]


def category_text(names: tuple[str, str]) -> str:
    """What the probability along a path is of."""
    return names[1] or "the category of z₁"


def mean_probability_curve(setting: SettingResult) -> MeanCurve | None:
    """The mean probabilities over many pairs, at the values of alpha for which the analysis gives them.

    Args:
        setting: The result of a setting.

    Returns:
        The curve over alpha; None where no run has these numbers.
    """
    tables = [table for table in setting.analysis_numbers("interpolations") if table]
    alphas = {}
    for key in tables[0] if tables else ():
        number = re.fullmatch(r"probability_(\d+)", key)
        if number:
            alphas[key] = int(number[1]) / 100
    keys = sorted(alphas, key=alphas.__getitem__)
    rows = []
    for table in tables:
        if keys and all(key in table for key in keys):
            rows.append([table[key] for key in keys])
    if not rows:
        return None
    return MeanCurve(np.array([alphas[key] for key in keys]), np.mean(rows, axis=0))


# Features


@study_figure("features")
def _features(context: ExperimentContext) -> Figure | None:
    analysed = context.first_analysed("features")
    if analysed is None or "codes_tsne" not in analysed.arrays:
        return None
    figure, caption = plot_spaces(context, analysed, ("raw", "codes"))
    tables = analysed.setting.analysis_numbers("features")
    rows = separability_rows(tables)
    if rows:
        add_table(figure, [info.label for info in SEPARABILITY_METRICS], rows)
        if len(tables) > 1:
            caption += f" Table: means ± standard deviations over {len(tables)} seeds."
        caption += " ARI, NMI: clusters against categories; 1-NN, linear probe: accuracy; ratios: distance between "
        caption += "categories to distance within."
    return add_caption(figure, caption + correlation_text(tables))


@study_figure("classifier_features")
def _classifier_features(context: ExperimentContext) -> Figure | None:
    analysed = context.first_analysed("features")
    if analysed is None or "classifier_tsne" not in analysed.arrays:
        return None
    figure, caption = plot_spaces(context, analysed, ("classifier",))
    return add_caption(figure, caption + correlation_text(analysed.setting.analysis_numbers("features")))


def plot_spaces(context: ExperimentContext, analysed: AnalysedRun, spaces: Sequence[str]) -> tuple[Figure, str]:
    """Three views of each space, and the sentence that says of which images.

    Args:
        context: The experiment.
        analysed: The run whose features are shown.
        spaces: The names of the spaces, such as "codes".

    Returns:
        The figure and the beginning of its caption.
    """
    arrays = analysed.arrays
    images = display_split(analysed.run.dataset)
    labels, categories = with_unlabelled(arrays["labels"], images.categories)
    rows = []
    for space in spaces:
        projection = Projection(*(arrays[f"{space}_{field}"] for field in Projection._fields))
        rows.append((REPRESENTATION_LABELS[space], projection))
    figure = scatter_panels(rows, labels, categories, context.title())
    setting = context.setting_text(analysed.setting)
    return figure, f"{count_text(images, len(arrays['labels']))}{setting}; seed {analysed.seed}."


def separability_rows(tables: Sequence[Mapping[str, float]]) -> list[tuple[str, list[str]]]:
    """The rows of the table of how well each representation separates the categories.

    Args:
        tables: The numbers of the analysis, for each seed.

    Returns:
        The name of each representation and its cells.
    """
    rows = []
    for representation, label in REPRESENTATION_LABELS.items():
        cells = [format_over_seeds(tables, f"{representation}_{info.name}") for info in SEPARABILITY_METRICS]
        if any(cells):
            rows.append((label, [cell or "–" for cell in cells]))
    return rows


def format_over_seeds(tables: Sequence[Mapping[str, float]], name: str) -> str:
    """A number's mean and standard deviation over seeds; nothing where no seed has it.

    Example:
        >>> format_over_seeds([{"ari": 0.25}, {"ari": 0.35}], "ari")
        '0.30 ± 0.07'
    """
    values = np.array([table[name] for table in tables if name in table])
    if not len(values):
        return ""
    deviation = f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else ""
    return f"{values.mean():.2f}{deviation}"


def correlation_text(tables: Sequence[Mapping[str, float]]) -> str:
    """A sentence on the canonical correlations of raw pixels with the codes and with a classifier's features."""
    compared = {"the codes": "correlation", "the classifier's features": "correlation_classifier"}
    parts = []
    for what, name in compared.items():
        value = format_over_seeds(tables, name)
        if value:
            parts.append(f"{value} with {what}")
    if not parts:
        return ""
    return f" Mean canonical correlation of three components of raw pixels: {', '.join(parts)}."


# Models


@study_figure("model")
def _model(context: ExperimentContext) -> Figure | None:
    if not context.settings:
        return None
    setting = context.settings[0]
    run = setting.runs[min(setting.runs)]
    caption = f"Setting {setting.name}." if len(context.experiment.settings) > 1 else ""
    distortion = run.spec.distortion.title
    return plot_model(layers(run.model), run.model.latent_dim, distortion, context.title(), caption=caption)
