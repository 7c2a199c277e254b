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

from vaelab.analysis.baseline import shown
from vaelab.analysis.projections import Panels
from vaelab.analysis.registry import arrays
from vaelab.analysis.samples import has_prior, prior_samples
from vaelab.core.codec import word
from vaelab.core.errors import UserError, unknown
from vaelab.evaluation import catalogue
from vaelab.figures import curves as curve_figures
from vaelab.figures import diagram, intervals, layout, scatter, tiles
from vaelab.figures.curves import Curve
from vaelab.figures.intervals import Dot
from vaelab.figures.tiles import Block, as_rgb
from vaelab.models.summary import layers
from vaelab.runs.run import Run
from vaelab.studies.definition import Experiment, Study
from vaelab.studies.results import Outcome, Results

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["EXHIBITS", "check", "draw", "name", "slug"]

SHOWN = 10  # images in a row, and settings that have one

NATS, SUMMED = catalogue.NATS, catalogue.SUMMED

TERMS = ("cross_entropy", "squared_error", "kl", "negative_elbo", "loss")

METRICS = {
    "cross_entropy_of_mean": ("Cross entropy ↓", NATS),
    "squared_error_of_mean": ("Squared error ↓", SUMMED),
    "mse": ("MSE ↓", "per pixel value"),
    "ssim": ("SSIM ↑", "1: the same"),
    "sharpness": ("Sharpness", "1: as sharp as the images"),
    "kl": ("KL", NATS),
}

SPACES = {
    "raw": "raw pixels",
    "pca": "PCA of as many dimensions",
    "codes": "encoder means",
    "classifier": "classifier features",
}

SEPARATION = {
    "ari": "ARI",
    "nmi": "NMI",
    "neighbour": "1-NN",
    "probe": "linear probe",
    "ratio": "distance ratio",
    "tsne_ratio": "t-SNE ratio",
}

Exhibit = Callable[[Results, Experiment, str], "Figure | None"]


# What the figures share.


def title(results: Results, experiment: Experiment, reading: str, what: str = "") -> str:
    named = experiment.title if experiment.title == experiment.id else f"{experiment.id} {experiment.title}"
    return ", ".join(filter(None, (named, reading, Path(results.study.data).name))) + (f": {what}" if what else "")


def finished(results: Results, experiment: Experiment, reading: str) -> list[Outcome]:
    return [o for o in results.of(experiment, reading) if o.runs]


def few(outcomes: Sequence[Outcome]) -> list[Outcome]:
    """At most ten of the settings, the first and the last among them."""
    return [outcomes[i] for i in np.linspace(0, len(outcomes) - 1, min(SHOWN, len(outcomes))).astype(int)]


def look(experiment: Experiment) -> dict[str, str]:
    """The colour of each setting, whatever of them is finished."""
    return layout.colours([s.name for s in experiment.settings])


def seeds(outcomes: Sequence[Outcome]) -> str:
    """How many finished runs there are of a setting."""
    counts = sorted({len(o.runs) for o in outcomes})
    return f"{counts[0]} seed{'s' * (counts[0] > 1)}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} seeds"


def settings(experiment: Experiment, count: int) -> str:
    """A sentence of what the settings are and how many of them are shown."""
    factors = ", ".join(factor for factor in experiment.factors if factor != "variant")
    some = f"{count} of {len(experiment.settings)}" if count < len(experiment.settings) else ""
    return f" Settings: {', '.join(filter(None, (factors, some)))}." if factors or some else ""


def one_seed(outcomes: Sequence[Outcome]) -> tuple[int, list[tuple[str, Run]]]:
    """The first seed that all settings have, or else that most of them have, and its runs with their settings."""
    known = sorted({seed for o in outcomes for seed in o.runs})
    best = max(known, key=lambda seed: (sum(seed in o.runs for o in outcomes), -seed))
    return best, [(o.name, o.runs[best]) for o in outcomes if best in o.runs]


# Numbers.


def curves(results: Results, experiment: Experiment, reading: str) -> Figure | None:
    outcomes = finished(results, experiment, reading)
    panels = {}
    for term in TERMS:
        lines = {o.name: mean_curve(o, term) for o in outcomes}
        found = {n: line for n, line in lines.items() if line is not None}
        whole = term not in ("negative_elbo", "loss") or len(found) == len(outcomes)
        if found and whole and (term != "loss" or one_loss(outcomes)):
            panels[catalogue.TERMS[term]] = found
    if not panels:
        return None
    rows = [row for o in outcomes for record in o.records.values() for row in record.history]
    split = "validation" if any(row["validation"] for row in rows) else "training"
    band = "; lines are means, bands one standard deviation over seeds" if most(outcomes) > 1 else ""
    caption = f"On {split} images; {seeds(outcomes)}{band}." + settings(experiment, len(outcomes))
    return curve_figures.compare_curves(panels, look(experiment), title(results, experiment, reading), caption)


def most(outcomes: Sequence[Outcome]) -> int:
    return max(len(o.runs) for o in outcomes)


def mean_curve(outcome: Outcome, term: str) -> Curve | None:
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
    return Curve(np.array(epochs), y.mean(0), y.std(0, ddof=1) if len(y) > 1 else None)


def one_loss(outcomes: Sequence[Outcome]) -> bool:
    """Whether all settings train the same loss: those of different kinds are not compared."""
    specs = [run.spec for o in outcomes for run in o.runs.values()]
    return len({(spec.loss, spec.objective) for spec in specs}) == 1


def bars(results: Results, experiment: Experiment, reading: str) -> Figure | None:
    outcomes = finished(results, experiment, reading)
    panels = {}
    for metric, words in METRICS.items():
        rows = {o.name: dot(o.values(metric)) for o in outcomes if len(o.values(metric))}
        if rows:
            panels[words] = rows
    if not panels:
        return None
    drawn = " (small dots), their means and 95 % t intervals" if most(outcomes) > 1 else ""
    caption = f"On test images; {seeds(outcomes)}{drawn}; ↓ lower is better." + settings(experiment, len(outcomes))
    return intervals.dots(panels, look(experiment), title(results, experiment, reading), caption)


def dot(values: np.ndarray) -> Dot:
    from scipy import stats

    n = len(values)
    half = float(stats.t.ppf(0.975, n - 1) * values.std(ddof=1) / np.sqrt(n)) if n > 1 else None
    return Dot(values, float(values.mean()), half)


# Images.


@torch.no_grad()
def reconstructions(results: Results, experiment: Experiment, reading: str) -> Figure | None:
    outcomes = few(finished(results, experiment, reading))
    if not outcomes:
        return None
    seed, runs = one_seed(outcomes)
    rows = []
    for setting, run in runs:
        pixels = shown(run.dataset).spread(SHOWN).uint8()
        decoded = run.model.reconstruct(torch.from_numpy(pixels).float() / 255)
        rows.append((setting or "reconstruction", as_rgb(pixels), as_rgb(decoded.numpy())))
    blocks = []
    for _, group in groupby(rows, key=lambda row: row[1].shape):  # settings may differ in the size of images
        names, originals, decoded = zip(*group, strict=True)
        blocks.append(Block(np.stack([originals[0], *decoded]), ("original", *names), row_breaks=(1,)))
    caption = f"The same test images in every row; decoded from the posterior mean; seed {seed}."
    caption += settings(experiment, len(rows))
    return tiles.tiles(blocks, title(results, experiment, reading, "reconstructions"), caption)


def samples(results: Results, experiment: Experiment, reading: str) -> Figure | None:
    outcomes = [o for o in finished(results, experiment, reading) if any(has_samples(run) for run in o.runs.values())]
    if not outcomes:
        return None
    seed, runs = one_seed(few(outcomes))
    rows = [(setting, as_rgb(prior_samples(run.model, 64).numpy()[:SHOWN])) for setting, run in runs]
    blocks = []
    for _, group in groupby(rows, key=lambda row: row[1].shape):
        names, drawn = zip(*group, strict=True)
        blocks.append(Block(np.stack(drawn), names))
    caption = f"Codes drawn from the prior, the same for settings of equal latent dimension; seed {seed}."
    caption += settings(experiment, len(rows))
    return tiles.tiles(blocks, title(results, experiment, reading, "samples of the prior"), caption)


def has_samples(run: Run) -> bool:
    return has_prior(run.spec, run.model.shape)


# Interpolations.


def examined_first(
    results: Results, experiment: Experiment, reading: str, what: str
) -> tuple[Outcome, int, dict[str, np.ndarray]] | None:
    """The first setting and seed that has been through an examination, and the arrays that it left."""
    for outcome in finished(results, experiment, reading):
        for seed, run in sorted(outcome.runs.items()):
            if found := arrays(run, what):
                return outcome, seed, found
    return None


def goal(run: Run, found: Mapping[str, np.ndarray]) -> tuple[list[str], str]:
    """The heads of the two originals, and which category a probability along the path is of."""
    categories, ends = shown(run.dataset).categories, found["ends"].tolist()
    if min(ends) < 0:
        return ["start", "end"], "the end's category"
    names = layout.distinct(categories)
    return [names[end] for end in ends], names[ends[1]]


def interpolations(results: Results, experiment: Experiment, reading: str) -> Figure | None:
    first = examined_first(results, experiment, reading, "interpolations")
    if first is None:
        return None
    outcome, seed, found = first
    six = np.linspace(0, len(found["alphas"]) - 1, 6).round().astype(int)
    heads, category = goal(outcome.runs[seed], found)
    heads += tiles.heads(found["alphas"][six], "α")
    probability = found.get("probability")
    blocks = []
    for pair, path in enumerate(found["images"][:, six]):
        row = as_rgb(np.concatenate([found["originals"][pair], path]))[None]
        notes = () if probability is None else ("", "", *(f"{p:.2f}" for p in probability[pair, six]))
        blocks.append(Block(row, heads=() if pair else heads, notes=notes, column_breaks=(2,)))
    under = "" if probability is None else f" Under each image: a classifier's probability of {category}."
    which = f"; setting {outcome.name}" if len(experiment.settings) > 1 else ""
    caption = f"Codes on the straight line between posterior means{which}; seed {seed}.{under}"
    what = "interpolations" if probability is None else f"interpolations, probability of {category}"
    return tiles.tiles(blocks, title(results, experiment, reading, what), caption)


def path(results: Results, experiment: Experiment, reading: str) -> Figure | None:
    panels, category, count = {}, "", 0
    for outcome in few(finished(results, experiment, reading)):
        run = outcome.runs[min(outcome.runs)]
        found = arrays(run, "interpolations")
        if "probability" in found:
            pairs, category = found["probability"], goal(run, found)[1]
            mean = Curve(found["alphas"], pairs.mean(0), pairs.std(0, ddof=1) if len(pairs) > 1 else None)
            panels[outcome.name], count = (mean, pairs, over_many(outcome)), len(pairs)
    if not panels:
        return None
    caption = f"Thin lines: {count} pairs of the first seed; line and band: their mean and one standard deviation."
    caption += " Dots: the mean over many pairs and all seeds." if any(many for _, _, many in panels.values()) else ""
    caption += settings(experiment, len(panels))
    what = f"probability of {category} along interpolations"
    return curve_figures.paths(
        panels, look(experiment), title(results, experiment, reading, what), "as a classifier sees it", caption
    )


def over_many(outcome: Outcome) -> Curve | None:
    """The mean probabilities over many pairs, at the values of alpha for which the examination gave them."""
    found = [table for r in outcome.records.values() if (table := r.examined.get("interpolations"))]
    numbers = [re.fullmatch(r"probability_(\d+)", key) for key in (found[0] if found else ())]
    keys = sorted((int(number[1]), number[0]) for number in numbers if number)
    if not keys:
        return None
    values = np.array([[table[key] for _, key in keys] for table in found if all(key in table for _, key in keys)])
    return Curve(np.array([percent for percent, _ in keys]) / 100, values.mean(0), None)


# Features.


def features(results: Results, experiment: Experiment, reading: str) -> Figure | None:
    return feature_clouds(results, experiment, reading, ("raw", "codes"))


def classifier_features(results: Results, experiment: Experiment, reading: str) -> Figure | None:
    return feature_clouds(results, experiment, reading, ("classifier",))


def feature_clouds(results: Results, experiment: Experiment, reading: str, spaces: Sequence[str]) -> Figure | None:
    """Three views of each space, and, under those of the codes, the numbers of all spaces."""
    first = examined_first(results, experiment, reading, "features")
    if first is None or f"{spaces[-1]}_tsne" not in first[2]:
        return None
    outcome, seed, found = first
    labels, names = found["labels"], shown(outcome.runs[seed].dataset).categories
    if (labels < 0).any():
        labels, names = np.where(labels < 0, len(names), labels), (*names, "unlabelled")
    rows = [(SPACES[space], Panels(*(found[f"{space}_{part}"] for part in Panels._fields))) for space in spaces]
    figure = scatter.clouds(
        rows, labels if (found["labels"] >= 0).any() else None, names, title(results, experiment, reading)
    )
    which = f"; setting {outcome.name}" if len(experiment.settings) > 1 else ""
    caption = f"{len(labels):,} test images{which}; seed {seed}."
    tables = [r.examined["features"] for r in outcome.records.values() if r.examined.get("features")]
    if "codes" in spaces and (numbers := separation(tables)):
        intervals.table(figure, list(SEPARATION.values()), numbers)
        caption += f" Table: means ± standard deviations over {len(tables)} seeds." if len(tables) > 1 else ""
        caption += " ARI, NMI: clusters against categories; 1-NN, linear probe: accuracy; ratios: distance between "
        caption += "categories to distance within."
    return layout.captioned(figure, caption + correlations(tables))


def separation(tables: Sequence[Mapping[str, float]]) -> list[tuple[str, list[str]]]:
    """The rows of the table of how far each space tells the categories apart."""
    found = {words: [over_seeds(tables, f"{space}_{n}") for n in SEPARATION] for space, words in SPACES.items()}
    return [(words, [cell or "–" for cell in cells]) for words, cells in found.items() if any(cells)]


def over_seeds(tables: Sequence[Mapping[str, float]], number: str) -> str:
    """A number's mean and standard deviation over seeds; nothing where no seed has it."""
    values = np.array([table[number] for table in tables if number in table])
    if not len(values):
        return ""
    return f"{values.mean():.2f}" + (f" ± {values.std(ddof=1):.2f}" if len(values) > 1 else "")


def correlations(tables: Sequence[Mapping[str, float]]) -> str:
    """A sentence of the canonical correlations of raw pixels with the codes and with a classifier's features."""
    others = {"the codes": "correlation", "the classifier's features": "correlation_classifier"}
    said = [f"{value} with {what}" for what, number in others.items() if (value := over_seeds(tables, number))]
    return f" Mean canonical correlation of three components of raw pixels: {', '.join(said)}." if said else ""


def model(results: Results, experiment: Experiment, reading: str) -> Figure | None:
    outcomes = finished(results, experiment, reading)
    if not outcomes:
        return None
    run = outcomes[0].runs[min(outcomes[0].runs)]
    drawn = diagram.model(
        layers(run.model), run.model.latent_dim, word(run.spec.loss), title(results, experiment, reading)
    )
    return layout.captioned(drawn, f"Setting {outcomes[0].name}.") if len(experiment.settings) > 1 else drawn


EXHIBITS: dict[str, Exhibit] = {
    f.__name__: f
    for f in (curves, bars, reconstructions, samples, interpolations, path, features, classifier_features, model)
}


# Files.


def slug(text: str) -> str:
    """The text as a part of a file's name: what is neither letter, digit, dot nor underscore becomes a dash."""
    return re.sub(r"[^\w.]+", "-", text).strip("-.")


def name(experiment: Experiment, figure: str, reading: str) -> str:
    """The name of a figure's file, without its suffix."""
    return "-".join(filter(None, (slug(experiment.id), figure, slug(reading))))


def check(study: Study) -> None:
    """Refuse names of figures that there are not, and readings and experiments whose files would be the same."""
    seen: dict[str, str] = {}
    for experiment in study.experiments:
        for figure in experiment.figures:
            if figure not in EXHIBITS:
                raise unknown(f"figure in experiment {experiment.id}", figure, EXHIBITS)
        for reading in experiment.readings:
            file, meant = name(experiment, "", reading).casefold(), f"{experiment.id}, {reading}"
            if file in seen:
                raise UserError(f'"{seen[file]}" and "{meant}" would share the figures {file}: rename one of them')
            seen[file] = meant


def draw(results: Results, experiment: Experiment, reading: str, folder: Path, pdf: bool = True) -> list[Path]:
    """Draw the figures of an experiment under a reading into a folder; gives the files."""
    files: list[Path] = []
    for figure in dict.fromkeys(experiment.figures):
        drawn = EXHIBITS[figure](results, experiment, reading)
        if drawn is not None:
            files += layout.save(drawn, folder / f"{name(experiment, figure, reading)}.png", pdf)
    return files
