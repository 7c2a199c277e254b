r"""Payloads: what report.js draws, as plain data.

    curves           the mean and standard deviation over seeds of every term, for each setting
    features         the same images as points in several spaces, with a thumbnail of each
    interpolations   strips of pictures from one image to another, for a slider

Only the data are made here; templates/report.js draws them in the colours of the page. Pictures and point clouds go
into `ReportAssets`, where each is kept once however many figures show it.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vaelab.analysis.baseline import display_split
from vaelab.analysis.registry import read_analysis_arrays
from vaelab.core.console import printable
from vaelab.core.errors import UserError
from vaelab.evaluation.catalogue import REPRESENTATION_LABELS
from vaelab.figures.colors import assign_colors, category_palette, cluster_palette
from vaelab.figures.tiles import as_rgb
from vaelab.reporting.images import PointCloud, ReportAssets, encode_image, image_sheet, shrink_image
from vaelab.runs.run import Run
from vaelab.studies.curves import SeedMeanCurve, experiment_curves, term_heading
from vaelab.studies.results import SettingResult

__all__ = [
    "CurvesPayload",
    "FeaturesPayload",
    "InterpolationsPayload",
    "curves_payload",
    "features_payload",
    "interpolations_payload",
]

POINT_CLOUD_SIZE = 2000  # points of a cloud

THUMBNAIL_SIDE = 32  # pixels of a thumbnail

TILE_SIDE = 96  # pixels of a picture of an interpolation

CLOUD_SPACES = ("raw", "codes", "classifier")  # the spaces that are shown as points

COORDINATE_RANGE = 1000  # coordinates of clouds are whole numbers from minus this to this

DEFAULT_COLOR = "#000000"

UNLABELLED_COLOR = "#8c8c8c"


# Curves


@dataclass(frozen=True)
class CurveLine:
    """The curve of one setting; a number that is not finite is None."""

    epochs: list[float | None]
    mean: list[float | None]
    deviation: list[float | None]
    num_seeds: int


@dataclass(frozen=True)
class CurveTerm:
    """A term with its name and unit, and a line for each setting; None for settings without it."""

    name: str
    unit: str
    lines: list[CurveLine | None]


@dataclass(frozen=True)
class CurvesPayload:
    """The curves of an experiment under a condition.

    Attributes:
        seeds: The largest number of seeds of a setting.
        split: What they are measured on.
        names: The settings.
        colours: Their colours.
        terms: The terms, by metric.
    """

    seeds: int
    split: str
    names: list[str]
    colours: list[str]
    terms: dict[str, CurveTerm]


def curves_payload(settings: Sequence[SettingResult]) -> CurvesPayload | None:
    """The curves of the settings of an experiment under a condition; None where there are none."""
    curves = experiment_curves(settings)
    if curves is None:
        return None
    finished = [setting for setting in settings if setting.records]
    colors = assign_colors([setting.name for setting in settings])  # of all settings, so that colours stay
    terms = {}
    for term, curve_by_setting in curves.terms.items():
        lines = [_curve_line(curve_by_setting.get(setting.name)) for setting in finished]
        terms[term] = CurveTerm(*term_heading(term, curves.loss_term), lines)
    return CurvesPayload(
        seeds=curves.max_seeds,
        split="validation" if curves.split == "validation" else "training",
        names=[printable(setting.name) or "base" for setting in finished],
        colours=[colors.get(setting.name, DEFAULT_COLOR) for setting in finished],
        terms=terms,
    )


def _curve_line(curve: SeedMeanCurve | None) -> CurveLine | None:
    if curve is None:
        return None
    if curve.deviation is None:
        deviation: list[float | None] = [None] * len(curve.epochs)
    else:
        deviation = [_round_finite(value) for value in curve.deviation.tolist()]
    return CurveLine(
        epochs=[_round_finite(epoch) for epoch in curve.epochs.tolist()],
        mean=[_round_finite(value) for value in curve.mean.tolist()],
        deviation=deviation,
        num_seeds=curve.num_seeds,
    )


def _round_finite(value: float) -> float | None:
    """Five digits; None where a number is not finite, for JSON has no NaN."""
    return float(f"{value:.5g}") if math.isfinite(value) else None


# Features


@dataclass(frozen=True)
class CloudSpace:
    """A space that points lie in: its name, and the name of its cloud among the assets."""

    name: str
    cloud: str


@dataclass(frozen=True)
class Thumbnails:
    """A sheet of small pictures: its name among the assets, its columns and its rows."""

    name: str
    columns: int
    rows: int


@dataclass(frozen=True)
class FeaturesPayload:
    """Images as points.

    Attributes:
        total: How many images were analysed.
        points: How many of them are shown.
        seed: The seed of the run.
        labels: The category of each point.
        names: The names of the categories; empty where there are none.
        colours: Their colours.
        spaces: The spaces, by key.
        thumbs: The images themselves; None where they are gone.
    """

    total: int
    points: int
    seed: int
    labels: list[int]
    names: list[str]
    colours: list[str]
    spaces: dict[str, CloudSpace]
    thumbs: Thumbnails | None


def features_payload(setting: SettingResult, assets: ReportAssets) -> FeaturesPayload | None:
    """The images of the first analysed run of a setting as points.

    Args:
        setting: The result of the setting.
        assets: Receives the point clouds and thumbnails.

    Returns:
        The payload, with at most 2,000 points; None where no run was analysed.
    """
    analysed = _first_analysed_run(setting, "features")
    if analysed is None:
        return None
    arrays = analysed.arrays
    spaces = [space for space in CLOUD_SPACES if f"{space}_pca" in arrays and f"{space}_tsne" in arrays]
    if not spaces:
        return None
    total = len(arrays[f"{spaces[0]}_pca"])
    shown = np.linspace(0, total - 1, min(total, POINT_CLOUD_SIZE)).astype(np.int64)
    labels, names, colors = _point_labels(arrays, shown, analysed.categories)
    thumbnails = _thumbnails(analysed.run, arrays["rows"][shown], assets) if "rows" in arrays else None
    clouds = {space: assets.add_point_cloud(_point_cloud(arrays, space, shown)) for space in spaces}
    return FeaturesPayload(
        total=total,
        points=len(shown),
        seed=analysed.seed,
        labels=labels,
        names=names,
        colours=colors,
        spaces={space: CloudSpace(REPRESENTATION_LABELS[space], cloud) for space, cloud in clouds.items()},
        thumbs=thumbnails,
    )


@dataclass(frozen=True)
class AnalysedRun:
    """A run that went through an analysis: its seed, the arrays, and the names of its categories."""

    run: Run
    seed: int
    arrays: Mapping[str, np.ndarray]

    @property
    def categories(self) -> list[str]:
        """The names of the categories of its data."""
        return [printable(str(name)) for name in self.run.origin["data"].get("categories", ())]


def _first_analysed_run(setting: SettingResult, analysis: str) -> AnalysedRun | None:
    """The first run of a setting that went through an analysis."""
    for seed, run in setting.runs.items():
        arrays = read_analysis_arrays(run, analysis)
        if arrays:
            return AnalysedRun(run, seed, arrays)
    return None


def _point_labels(
    arrays: Mapping[str, np.ndarray], shown: np.ndarray, categories: list[str]
) -> tuple[list[int], list[str], list[str]]:
    """The category of each shown point, the names of the categories, and their colours."""
    labels = arrays["labels"][shown].astype(int) if "labels" in arrays else np.full(len(shown), -1)
    names, colors = categories, category_palette(len(categories))
    if (labels < 0).any():
        labels = np.where(labels < 0, len(names), labels)
        names, colors = [*names, "unlabelled"], [*colors, UNLABELLED_COLOR]
    return labels.tolist(), names if names != ["unlabelled"] else [], colors


def _point_cloud(arrays: Mapping[str, np.ndarray], space: str, shown: np.ndarray) -> PointCloud:
    """The points of a space in both of its views."""
    clusters = arrays.get(f"{space}_clusters", np.zeros(0, np.int64))
    num_clusters = int(clusters.max()) + 1 if len(clusters) else 0
    return PointCloud(
        variance=[round(100 * float(share), 1) for share in arrays.get(f"{space}_variance", ())],
        pca=_scaled_coordinates(arrays[f"{space}_pca"], shown),
        tsne=_scaled_coordinates(arrays[f"{space}_tsne"], shown),
        clusters=clusters[shown].tolist() if num_clusters else [],
        letters=[_cluster_letter(index) for index in range(num_clusters)],
        colours=cluster_palette(num_clusters),
    )


def _cluster_letter(index: int) -> str:
    return chr(ord("A") + index) if index < 26 else str(index + 1)


def _scaled_coordinates(points: np.ndarray, shown: np.ndarray) -> list[list[int]]:
    """Columns of whole numbers, all to one scale: the axes have no numbers, and digits cost room."""
    centred = np.nan_to_num(points.astype(np.float64))
    centred -= (centred.max(0) + centred.min(0)) / 2
    scale = COORDINATE_RANGE / max(float(np.abs(centred).max()), 1e-12)
    return np.rint(centred[shown] * scale).astype(int).T.tolist()


def _thumbnails(run: Run, rows: np.ndarray, assets: ReportAssets) -> Thumbnails | None:
    """One sheet of the images at `rows`, shared by all figures of the same images; None where they are gone."""
    rows = np.ascontiguousarray(rows, np.int64)
    content = run.origin["data"]["fingerprint"].encode() + rows.tobytes()
    name = f"thumbs-{hashlib.blake2b(content, digest_size=6).hexdigest()}"
    if name not in assets.images:
        try:
            images = display_split(run.dataset).uint8(rows)
        except (UserError, IndexError):
            return None
        sheet, _, _ = image_sheet(images, THUMBNAIL_SIDE)
        assets.add_image(name, encode_image(sheet))
    columns = math.ceil(math.sqrt(len(rows)))
    return Thumbnails(name, columns, math.ceil(len(rows) / columns))


# Interpolations


@dataclass(frozen=True)
class InterpolationStrip:
    """One interpolation: the name of its strip among the assets, and the classifier's probability at each alpha."""

    strip: str
    chances: list[float]


@dataclass(frozen=True)
class InterpolationsPayload:
    """Interpolations between pairs of images.

    Attributes:
        seed: The seed of the run.
        ends: The categories of alpha = 0 and alpha = 1; empty where pairs differ in them.
        shape: The height and width of an image.
        alphas: The values of alpha.
        pairs: A strip for each pair.
    """

    seed: int
    ends: list[str]
    shape: tuple[int, int]
    alphas: list[float]
    pairs: list[InterpolationStrip]


def interpolations_payload(setting: SettingResult, name: str, assets: ReportAssets) -> InterpolationsPayload | None:
    """The interpolations of the first analysed run of a setting.

    A strip shows the original of alpha = 0, the decoded images, and the original of alpha = 1.

    Args:
        setting: The result of the setting.
        name: The beginning of the names of the strips.
        assets: Receives the strips.

    Returns:
        The payload; None where no run was analysed.
    """
    analysed = _first_analysed_run(setting, "interpolations")
    if analysed is None or not {"images", "originals", "alphas"} <= set(analysed.arrays):
        return None
    arrays = analysed.arrays
    originals = arrays["originals"]
    strips = np.concatenate([originals[:, :1], arrays["images"], originals[:, 1:]], 1)
    probabilities = arrays.get("probability", np.zeros((len(strips), 0))).astype(float)
    pairs = []
    for index, strip in enumerate(as_rgb(strips)):
        tiles = [shrink_image(tile, TILE_SIDE) for tile in strip]
        assets.add_image(f"{name}-{index}", encode_image(np.concatenate(tiles, 1)))
        chances = [round(probability, 3) for probability in probabilities[index].tolist()]
        pairs.append(InterpolationStrip(f"{name}-{index}", chances))
    height, width = strips.shape[-2:]
    return InterpolationsPayload(
        seed=analysed.seed,
        ends=_end_names(arrays, analysed.categories),
        shape=(height, width),
        alphas=[round(alpha, 4) for alpha in arrays["alphas"].astype(float).tolist()],
        pairs=pairs,
    )


def _end_names(arrays: Mapping[str, np.ndarray], categories: Sequence[str]) -> list[str]:
    """The categories of the two ends; empty where the pairs are of several categories."""
    ends = arrays["ends"].tolist() if "ends" in arrays else [-1, -1]
    return [categories[end] if 0 <= end < len(categories) else "" for end in ends]
