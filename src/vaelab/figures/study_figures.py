r"""The figures of a study: each takes what it shows from its results and hands it to a drawing.

An exhibit is a function (results, experiment, reading) -> Figure and stands in `EXHIBITS` under the name by which an
experiment asks for it; None means that there is nothing to show yet. What has no finished run is left out, and the
caption says so. Files are named <experiment>-<figure>[-<reading>].png.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from vaelab.analysis.baseline import display_split
from vaelab.analysis.projections import Projection
from vaelab.analysis.registry import read_analysis_arrays
from vaelab.analysis.samples import has_prior_term, sample_prior
from vaelab.core.codec import to_word
from vaelab.core.errors import UserError, unknown_name_error
from vaelab.evaluation.catalogue import REPRESENTATION_LABELS, SEPARABILITY_METRICS, figure_metrics, metric_info
from vaelab.figures import curves as curve_figures
from vaelab.figures import diagram, intervals, layout, scatter, tiles
from vaelab.figures.curves import MeanCurve
from vaelab.figures.intervals import IntervalRow
from vaelab.figures.tiles import TileTable, as_rgb
from vaelab.models.summary import layers
from vaelab.runs.run import Run
from vaelab.studies.definition import Experiment, Study
from vaelab.studies.results import SettingResult, StudyResults

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["STUDY_FIGURES", "check_figures", "draw_study_figures", "figure_file_name", "slugify"]

MAX_TILES = 10  # images in a row, and settings that have one

COMPARED_TERMS = ("cross_entropy", "squared_error", "kl", "negative_elbo", "loss")

StudyFigure = Callable[[StudyResults, Experiment, str], "Figure | None"]


# What the figures share.


def figure_title(results: StudyResults, experiment: Experiment, condition: str, subject: str = "") -> str:
    named = experiment.title if experiment.title == experiment.id else f"{experiment.id} {experiment.title}"
    return ", ".join(filter(None, (named, condition, Path(results.study.data).name))) + (
        f": {subject}" if subject else ""
    )


def finished_settings(results: StudyResults, experiment: Experiment, condition: str) -> list[SettingResult]:
    return [o for o in results.of_experiment(experiment, condition) if o.runs]


def select_settings(outcomes: Sequence[SettingResult]) -> list[SettingResult]:
    """At most ten of the settings, the first and the last among them."""
    return [outcomes[i] for i in np.linspace(0, len(outcomes) - 1, min(MAX_TILES, len(outcomes))).astype(int)]


def setting_colors(experiment: Experiment) -> dict[str, str]:
    """The colour of each setting, whatever of them is finished."""
    return layout.assign_colors([s.name for s in experiment.settings])


def seeds_text(outcomes: Sequence[SettingResult]) -> str:
    """How many finished runs there are of a setting."""
    counts = sorted({len(o.runs) for o in outcomes})
    return f"{counts[0]} seed{'s' * (counts[0] > 1)}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def settings_text(experiment: Experiment, count: int) -> str:
    """A sentence of what the settings are and how many of them are shown."""
    factors = ", ".join(factor for factor in experiment.factors if factor != "variant")
    some = f"{count} of {len(experiment.settings)}" if count < len(experiment.settings) else ""
    return f" Settings: {', '.join(filter(None, (factors, some)))}." if factors or some else ""


def runs_of_common_seed(outcomes: Sequence[SettingResult]) -> tuple[int, list[tuple[str, Run]]]:
    """The first seed that all settings have, or else that most of them have, and its runs with their settings."""
    known = sorted({seed for o in outcomes for seed in o.runs})
    best = max(known, key=lambda seed: (sum(seed in o.runs for o in outcomes), -seed))
    return best, [(o.name, o.runs[best]) for o in outcomes if best in o.runs]


# Numbers.


def study_curves(results: StudyResults, experiment: Experiment, condition: str) -> Figure | None:
    outcomes = finished_settings(results, experiment, condition)
    panels = {}
    for term in COMPARED_TERMS:
        lines = {o.name: mean_curve(o, term) for o in outcomes}
        found = {n: line for n, line in lines.items() if line is not None}
        whole = term not in ("negative_elbo", "loss") or len(found) == len(outcomes)
        if found and whole and (term != "loss" or have_same_loss(outcomes)):
            info = metric_info(term)
            panels[info.label, info.unit] = found
    if not panels:
        return None
    rows = [row for o in outcomes for record in o.records.values() for row in record.history]
    split = "validation" if any(row["validation"] for row in rows) else "training"
    band = "; lines are means, bands one standard deviation over seeds" if max_seeds(outcomes) > 1 else ""
    caption = f"On {split} images; {seeds_text(outcomes)}{band}." + settings_text(experiment, len(outcomes))
    return curve_figures.compare_curves(
        panels, setting_colors(experiment), figure_title(results, experiment, condition), caption
    )


def max_seeds(outcomes: Sequence[SettingResult]) -> int:
    return max(len(o.runs) for o in outcomes)


def mean_curve(outcome: SettingResult, term: str) -> MeanCurve | None:
    """A term over the epochs that all seeds of a setting have measured."""
    found = []
    for record in outcome.records.values():
        try:
            found.append({x: y for x, y in record.curve(term) if np.isfinite(y)})
        except UserError:
            return None
    epochs = sorted(set.intersection(*map(set, found)))
    if not epochs:
        return None
    y = np.array([[curve[x] for x in epochs] for curve in found])
    return MeanCurve(np.array(epochs), y.mean(0), y.std(0, ddof=1) if len(y) > 1 else None)


def have_same_loss(outcomes: Sequence[SettingResult]) -> bool:
    """Whether all settings train the same loss: those of different kinds are not compared."""
    specs = [run.spec for o in outcomes for run in o.runs.values()]
    return len({(spec.loss, spec.objective) for spec in specs}) == 1


def study_bars(results: StudyResults, experiment: Experiment, condition: str) -> Figure | None:
    outcomes = finished_settings(results, experiment, condition)
    panels = {}
    for info in figure_metrics():
        rows = {o.name: interval_row(o.values(info.name)) for o in outcomes if len(o.values(info.name))}
        if rows:
            panels[info.label_with_direction, info.unit] = rows
    if not panels:
        return None
    drawn = " (small dots), their means and 95 % t intervals" if max_seeds(outcomes) > 1 else ""
    caption = f"On test images; {seeds_text(outcomes)}{drawn}; ↓ lower is better." + settings_text(
        experiment, len(outcomes)
    )
    return intervals.plot_intervals(
        panels, setting_colors(experiment), figure_title(results, experiment, condition), caption
    )


def interval_row(values: np.ndarray) -> IntervalRow:
    from scipy import stats

    n = len(values)
    half = float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)) if n > 1 else None
    return IntervalRow(values, float(values.mean()), half)


# Images.


@torch.no_grad()
def study_reconstructions(results: StudyResults, experiment: Experiment, condition: str) -> Figure | None:
    outcomes = select_settings(finished_settings(results, experiment, condition))
    if not outcomes:
        return None
    seed, runs = runs_of_common_seed(outcomes)
    rows = []
    for setting, run in runs:
        pixels = display_split(run.dataset).evenly_spaced(MAX_TILES).uint8()
        decoded = run.model.reconstruct(torch.from_numpy(pixels).float() / 255)
        rows.append((setting or "reconstruction", as_rgb(pixels), as_rgb(decoded.numpy())))
    blocks = []
    for _, group in groupby(rows, key=lambda row: row[1].shape):  # settings may differ in the size of images
        names, originals, decoded = zip(*group, strict=True)
        blocks.append(TileTable(np.stack([originals[0], *decoded]), ("original", *names), row_breaks=(1,)))
    caption = f"The same test images in every row; decoded from the posterior mean; seed {seed}."
    caption += settings_text(experiment, len(rows))
    return tiles.plot_tile_tables(blocks, figure_title(results, experiment, condition, "reconstructions"), caption)


def study_samples(results: StudyResults, experiment: Experiment, condition: str) -> Figure | None:
    outcomes = [
        o
        for o in finished_settings(results, experiment, condition)
        if any(has_prior_samples(run) for run in o.runs.values())
    ]
    if not outcomes:
        return None
    seed, runs = runs_of_common_seed(select_settings(outcomes))
    rows = [(setting, as_rgb(sample_prior(run.model, 64).numpy()[:MAX_TILES])) for setting, run in runs]
    blocks = []
    for _, group in groupby(rows, key=lambda row: row[1].shape):
        names, drawn = zip(*group, strict=True)
        blocks.append(TileTable(np.stack(drawn), names))
    caption = f"Codes drawn from the prior, the same for settings of equal latent dimension; seed {seed}."
    caption += settings_text(experiment, len(rows))
    return tiles.plot_tile_tables(blocks, figure_title(results, experiment, condition, "samples of the prior"), caption)


def has_prior_samples(run: Run) -> bool:
    return has_prior_term(run.spec, run.model.shape)


# Interpolations.


def first_analysed_run(
    results: StudyResults, experiment: Experiment, condition: str, analysis: str
) -> tuple[SettingResult, int, dict[str, np.ndarray]] | None:
    """The first setting and seed that has been through an examination, and the arrays that it left."""
    for outcome in finished_settings(results, experiment, condition):
        for seed, run in sorted(outcome.runs.items()):
            if found := read_analysis_arrays(run, analysis):
                return outcome, seed, found
    return None


def endpoint_labels(run: Run, arrays: Mapping[str, np.ndarray]) -> tuple[list[str], str]:
    """The heads of the two originals, and which category a probability along the path is of."""
    categories, ends = display_split(run.dataset).categories, arrays["ends"].tolist()
    if min(ends) < 0:
        return ["start", "end"], "the end's category"
    names = layout.distinct_labels(categories)
    return [names[end] for end in ends], names[ends[1]]


def study_interpolations(results: StudyResults, experiment: Experiment, condition: str) -> Figure | None:
    first = first_analysed_run(results, experiment, condition, "interpolations")
    if first is None:
        return None
    outcome, seed, found = first
    six = np.linspace(0, len(found["alphas"]) - 1, 6).round().astype(int)
    heads, category = endpoint_labels(outcome.runs[seed], found)
    heads += tiles.column_headers(found["alphas"][six], "α")
    probability = found.get("probability")
    blocks = []
    for pair, path in enumerate(found["images"][:, six]):
        row = as_rgb(np.concatenate([found["originals"][pair], path]))[None]
        notes = () if probability is None else ("", "", *(f"{p:.2f}" for p in probability[pair, six]))
        blocks.append(TileTable(row, column_headers=() if pair else heads, column_notes=notes, column_breaks=(2,)))
    under = "" if probability is None else f" Under each image: a classifier's probability of {category}."
    which = f"; setting {outcome.name}" if len(experiment.settings) > 1 else ""
    caption = f"Codes on the straight line between posterior means{which}; seed {seed}.{under}"
    what = "interpolations" if probability is None else f"interpolations, probability of {category}"
    return tiles.plot_tile_tables(blocks, figure_title(results, experiment, condition, what), caption)


def study_path(results: StudyResults, experiment: Experiment, condition: str) -> Figure | None:
    panels, category, count = {}, "", 0
    for outcome in select_settings(finished_settings(results, experiment, condition)):
        run = outcome.runs[min(outcome.runs)]
        found = read_analysis_arrays(run, "interpolations")
        if "probability" in found:
            pairs, category = found["probability"], endpoint_labels(run, found)[1]
            mean = MeanCurve(found["alphas"], pairs.mean(0), pairs.std(0, ddof=1) if len(pairs) > 1 else None)
            panels[outcome.name], count = (mean, pairs, mean_probability_curve(outcome)), len(pairs)
    if not panels:
        return None
    caption = f"Thin lines: {count} pairs of the first seed; line and band: their mean and one standard deviation."
    caption += " Dots: the mean over many pairs and all seeds." if any(many for _, _, many in panels.values()) else ""
    caption += settings_text(experiment, len(panels))
    what = f"probability of {category} along interpolations"
    return curve_figures.plot_path_probabilities(
        panels,
        setting_colors(experiment),
        figure_title(results, experiment, condition, what),
        "as a classifier sees it",
        caption,
    )


def mean_probability_curve(outcome: SettingResult) -> MeanCurve | None:
    """The mean probabilities over many pairs, at the values of alpha for which the examination gave them."""
    found = [table for r in outcome.records.values() if (table := r.analyses.get("interpolations"))]
    numbers = [re.fullmatch(r"probability_(\d+)", key) for key in (found[0] if found else ())]
    keys = sorted((int(number[1]), number[0]) for number in numbers if number)
    if not keys:
        return None
    values = np.array([[table[key] for _, key in keys] for table in found if all(key in table for _, key in keys)])
    return MeanCurve(np.array([percent for percent, _ in keys]) / 100, values.mean(0), None)


# Features.


def study_features(results: StudyResults, experiment: Experiment, condition: str) -> Figure | None:
    return plot_feature_spaces(results, experiment, condition, ("raw", "codes"))


def study_classifier_features(results: StudyResults, experiment: Experiment, condition: str) -> Figure | None:
    return plot_feature_spaces(results, experiment, condition, ("classifier",))


def plot_feature_spaces(
    results: StudyResults, experiment: Experiment, condition: str, spaces: Sequence[str]
) -> Figure | None:
    """Three views of each space, and, under those of the codes, the numbers of all spaces."""
    first = first_analysed_run(results, experiment, condition, "features")
    if first is None or f"{spaces[-1]}_tsne" not in first[2]:
        return None
    outcome, seed, found = first
    labels, names = found["labels"], display_split(outcome.runs[seed].dataset).categories
    if (labels < 0).any():
        labels, names = np.where(labels < 0, len(names), labels), (*names, "unlabelled")
    rows = [
        (REPRESENTATION_LABELS[space], Projection(*(found[f"{space}_{part}"] for part in Projection._fields)))
        for space in spaces
    ]
    figure = scatter.scatter_panels(
        rows, labels if (found["labels"] >= 0).any() else None, names, figure_title(results, experiment, condition)
    )
    which = f"; setting {outcome.name}" if len(experiment.settings) > 1 else ""
    caption = f"{len(labels):,} test images{which}; seed {seed}."
    tables = [r.analyses["features"] for r in outcome.records.values() if r.analyses.get("features")]
    if "codes" in spaces and (numbers := separability_rows(tables)):
        intervals.add_table(figure, [info.label for info in SEPARABILITY_METRICS], numbers)
        caption += f" Table: means ± standard deviations over {len(tables)} seeds." if len(tables) > 1 else ""
        caption += " ARI, NMI: clusters against categories; 1-NN, linear probe: accuracy; ratios: distance between "
        caption += "categories to distance within."
    return layout.add_caption(figure, caption + correlation_text(tables))


def separability_rows(tables: Sequence[Mapping[str, float]]) -> list[tuple[str, list[str]]]:
    """The rows of the table of how far each space tells the categories apart."""
    names = [info.name for info in SEPARABILITY_METRICS]
    found = {
        words: [format_over_seeds(tables, f"{space}_{n}") for n in names]
        for space, words in REPRESENTATION_LABELS.items()
    }
    return [(words, [cell or "–" for cell in cells]) for words, cells in found.items() if any(cells)]


def format_over_seeds(tables: Sequence[Mapping[str, float]], number: str) -> str:
    """A number's mean and standard deviation over seeds; nothing where no seed has it."""
    values = np.array([table[number] for table in tables if number in table])
    if not len(values):
        return ""
    return f"{values.mean():.2f}" + (f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else "")


def correlation_text(tables: Sequence[Mapping[str, float]]) -> str:
    """A sentence of the canonical correlations of raw pixels with the codes and with a classifier's features."""
    others = {"the codes": "correlation", "the classifier's features": "correlation_classifier"}
    said = [f"{value} with {what}" for what, number in others.items() if (value := format_over_seeds(tables, number))]
    return f" Mean canonical correlation of three components of raw pixels: {', '.join(said)}." if said else ""


def study_model(results: StudyResults, experiment: Experiment, condition: str) -> Figure | None:
    outcomes = finished_settings(results, experiment, condition)
    if not outcomes:
        return None
    run = outcomes[0].runs[min(outcomes[0].runs)]
    drawn = diagram.plot_model(
        layers(run.model), run.model.latent_dim, to_word(run.spec.loss), figure_title(results, experiment, condition)
    )
    return layout.add_caption(drawn, f"Setting {outcomes[0].name}.") if len(experiment.settings) > 1 else drawn


STUDY_FIGURES: dict[str, StudyFigure] = {
    "curves": study_curves,
    "bars": study_bars,
    "reconstructions": study_reconstructions,
    "samples": study_samples,
    "interpolations": study_interpolations,
    "path": study_path,
    "features": study_features,
    "classifier_features": study_classifier_features,
    "model": study_model,
}


# Files.


def slugify(text: str) -> str:
    """The text as a part of a file's name: what is neither letter, digit, dot nor underscore becomes a dash."""
    return re.sub(r"[^\w.]+", "-", text).strip("-.")


def figure_file_name(experiment: Experiment, figure: str, condition: str) -> str:
    """The name of a figure's file, without its suffix."""
    return "-".join(filter(None, (slugify(experiment.id), figure, slugify(condition))))


def check_figures(study: Study) -> None:
    """Refuse names of figures that there are not, and readings and experiments whose files would be the same."""
    seen: dict[str, str] = {}
    for experiment in study.experiments:
        for figure in experiment.figures:
            if figure not in STUDY_FIGURES:
                raise unknown_name_error(f"figure in experiment {experiment.id}", figure, STUDY_FIGURES)
        for reading in experiment.conditions:
            file, meant = figure_file_name(experiment, "", reading).casefold(), f"{experiment.id}, {reading}"
            if file in seen:
                raise UserError(f'"{seen[file]}" and "{meant}" would share the figures {file}: rename one of them')
            seen[file] = meant


def draw_study_figures(
    results: StudyResults, experiment: Experiment, condition: str, folder: Path, pdf: bool = True
) -> list[Path]:
    """Draw the figures of an experiment under a reading into a folder; gives the files."""
    files: list[Path] = []
    for figure in dict.fromkeys(experiment.figures):
        drawn = STUDY_FIGURES[figure](results, experiment, condition)
        if drawn is not None:
            files += layout.save_figure(drawn, folder / f"{figure_file_name(experiment, figure, condition)}.png", pdf)
    return files
