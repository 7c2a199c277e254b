r"""The report of a study: report.html, one file that holds everything it shows and needs no network.

    results, drawn figures, arrays of analyses -> contexts (typed values) -> templates/report.html -> bytes

Verdicts come first, then each experiment with its settings, curves, numbers, figures and claims, then where it all
comes from. The same results give the same bytes: there is no date, no wall time and nothing random.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from vaelab.core.console import printable
from vaelab.core.files import write_text
from vaelab.figures import study_figures
from vaelab.reporting.formatting import MISSING, Spread
from vaelab.reporting.images import PointCloud, ReportAssets, shrink_to_budget
from vaelab.reporting.payload import (
    CurvesPayload,
    FeaturesPayload,
    InterpolationsPayload,
    curves_payload,
    features_payload,
    interpolations_payload,
)
from vaelab.reporting.settings import SettingsContext, provenance_rows, settings_context, summary_facts
from vaelab.reporting.tables import (
    MetricsTable,
    SeparabilityTable,
    correlation_rows,
    metrics_table,
    probability_columns,
    separability_table,
)
from vaelab.reporting.verdicts import ClaimContext, StudyLookRow, claim_context, study_look_rows
from vaelab.runs.spec import run_key
from vaelab.studies.definition import Claim, Experiment, Study
from vaelab.studies.results import SettingResult, StudyResults
from vaelab.studies.verdicts import VERDICTS

__all__ = ["write_report"]

MAX_REPORT_BYTES = 14_500_000  # bytes of the report

PIXEL_RATIO = 2  # pixels of a drawn figure to one of the page

FIGURE_TITLES = {
    "bars": "Test metrics",
    "differences": "What decides the claims",
    "dimensions": "Networks and principal components",
    "samples": "Samples of the prior",
    "path": "Probability along interpolations",
    "classifier_features": "Features of the classifier",
    "model": "The network",
}


# What the template reads


@dataclass(frozen=True)
class FeaturesPanel:
    """The features of one setting: points, and how well representations separate the categories."""

    cloud: FeaturesPayload | None
    table: SeparabilityTable
    correlations: list[tuple[str, Spread]]
    num_seeds: int


@dataclass(frozen=True)
class InterpolationsPanel:
    """The interpolations of one setting: strips, and the mean probability along many of them."""

    payload: InterpolationsPayload
    probabilities: list[tuple[str, Spread]]
    num_seeds: int


@dataclass(frozen=True)
class DrawnFigure:
    """A figure that was drawn before: its name among the assets, its title, alternative text and size in pixels."""

    name: str
    title: str
    alt: str
    width: int
    height: int


Panels = list[tuple[str, Any]]  # a panel for each setting, by its name


@dataclass(frozen=True)
class FigureContext:
    """A figure of an experiment.

    Attributes:
        kind: How it is shown.
        content: A `CurvesPayload`, a panel for each setting, or a `DrawnFigure`.
    """

    kind: Literal["curves", "features", "interpolations", "drawn"]
    content: CurvesPayload | Panels | DrawnFigure


@dataclass(frozen=True)
class ConditionContext:
    """An experiment under one condition: its name, claims, table and figures."""

    name: str
    claims: list[ClaimContext]
    table: MetricsTable
    figures: list[FigureContext]


@dataclass(frozen=True)
class ClaimRow:
    """A claim in the summary, with its verdict under each condition of the study; None where it is not judged."""

    claim: Claim
    verdicts: list[ClaimContext | None]


@dataclass(frozen=True)
class ExperimentContext:
    """An experiment, as the report shows it."""

    id: str
    anchor: str
    title: str
    question: str
    claims: list[ClaimRow]
    rows: list[tuple[str, str]]
    settings: SettingsContext
    conditions: list[ConditionContext]


@dataclass(frozen=True)
class Progress:
    """How many runs are finished, of how many, and what went wrong with others, as (run, error)."""

    finished: int
    total: int
    failed: list[tuple[str, str]]


@dataclass(frozen=True)
class ReportContext:
    """Everything that the template shows, but for pictures.

    Attributes:
        study: The study.
        experiments: Its experiments.
        progress: How far it has come.
        verdict_counts: How many claims there are of each verdict, as (verdict, word, number).
        errors: How many of the verdicts may be false, in words.
        looks: What each look of the study at its claims cost and decided; empty where it looked once.
        clouds: The point clouds, by name.
        has_claims: Whether anything was judged.
        provenance: Where the numbers come from, as (name, text).
        facts: What it is about, in a few words each.
    """

    study: Study
    experiments: list[ExperimentContext]
    progress: Progress
    verdict_counts: list[tuple[str, str, int]]
    errors: str
    looks: list[StudyLookRow]
    clouds: dict[str, PointCloud]
    has_claims: bool
    provenance: list[tuple[str, str]]
    facts: list[str]


# The report


def write_report(results: StudyResults, folder: Path, provenance: Mapping[str, Any] | None = None) -> Path:
    """Write the report of a study, with the figures that were drawn before.

    Args:
        results: What the study came to.
        folder: The folder of the study, with its figures in folder/figures.
        provenance: What is known of the study itself, such as its command; the rest is taken from the runs.

    Returns:
        The path of the report, folder/report.html.
    """
    assets = ReportAssets()
    context = report_context(results, Path(folder), assets, provenance or {})
    text_without_images = _render(context, dict.fromkeys(assets.images, ""))
    budget = MAX_REPORT_BYTES - len(text_without_images.encode())
    path = Path(folder) / "report.html"
    write_text(path, _render(context, shrink_to_budget(assets.images, budget)))
    return path


def report_context(
    results: StudyResults, folder: Path, assets: ReportAssets, provenance: Mapping[str, Any]
) -> ReportContext:
    """Everything that the report shows; its pictures and point clouds are kept in `assets`."""
    claims = {(result.claim.id, result.condition): claim_context(result) for result in results.claim_results}
    indices = range(len(results.study.experiments))
    experiments = [_experiment_context(results, index, claims, folder, assets) for index in indices]
    return ReportContext(
        study=results.study,
        experiments=experiments,
        progress=_progress(results),
        verdict_counts=_verdict_counts(claims.values()),
        errors=results.errors.text if claims else "",
        looks=study_look_rows(results),
        clouds=assets.point_clouds,
        has_claims=bool(claims),
        provenance=provenance_rows(results, provenance),
        facts=summary_facts(results),
    )


def _verdict_counts(claims: Iterable[ClaimContext]) -> list[tuple[str, str, int]]:
    """How many claims there are of each verdict, as (verdict, word, number); words of which there is none are left out.

    The five verdicts are always there, but a study of published figures alone has only their words.
    """
    counts = Counter((claim.verdict, claim.word) for claim in claims)
    has_tested = any(verdict == word for verdict, word in counts) or not counts
    rows = []
    for verdict in VERDICTS:
        words = dict.fromkeys([verdict, *(word for kind, word in counts if kind == verdict)])
        for word in words:
            if counts[verdict, word] or has_tested:
                rows.append((verdict, word, counts[verdict, word]))
    return rows


def _render(context: ReportContext, image_uris: Mapping[str, str]) -> str:
    """The template with its values, and the pictures as data: URIs."""
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("vaelab.reporting"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
        finalize=_escape_controls,
    )
    environment.filters["json"] = to_script_json
    assets = files("vaelab.reporting") / "templates"
    style = Markup((assets / "report.css").read_text(encoding="utf-8"))
    script = Markup((assets / "report.js").read_text(encoding="utf-8"))
    return environment.get_template("report.html").render(
        _field_values(context),
        uris=image_uris,
        style=style,
        script=script,
        plotly=Markup(get_plotlyjs()),
        MISSING=MISSING,
    )


def _escape_controls(value: Any) -> Any:
    """Texts with control characters shown as escapes; other values, and what is HTML already, as they are."""
    is_plain_text = isinstance(value, str) and not isinstance(value, Markup)
    return printable(value, keep="\n\t") if is_plain_text else value


def to_script_json(value: Any) -> Markup:
    r"""A value as JSON that may stand inside a script element. Dataclasses become objects.

    Example:
        >>> str(to_script_json({"name": "</script>"}))
        '{"name": "\\u003c/script>"}'
    """
    text = json.dumps(value, allow_nan=False, default=_field_values)
    return Markup(text.replace("<", "\\u003c"))


def _field_values(value: Any) -> dict[str, Any]:
    """The fields of a dataclass, by name, as they are."""
    if not is_dataclass(value):
        raise TypeError(f"a {type(value).__name__} is no value of the report")
    return {field.name: getattr(value, field.name) for field in fields(value)}


def _progress(results: StudyResults) -> Progress:
    """How far the study has come."""
    labels = _run_labels(results) if results.failed else {}
    failed = [(labels.get(key, f"run {key}"), error) for key, error in results.failed.items()]
    return Progress(len(results.finished_runs), results.num_specs, failed)


def _run_labels(results: StudyResults) -> dict[str, str]:
    """What each run is for, by its key. A finished run tells the data and the precision that the keys depend on."""
    if not results.finished_runs:
        return {}
    origin = results.finished_runs[0].origin
    fingerprint, precision = origin["data"]["fingerprint"], origin["plan"]["precision"]
    labels: dict[str, str] = {}
    for trial in results.study.trials:
        labels.setdefault(run_key(trial.spec, fingerprint, precision), trial.label)
    return labels


# An experiment


def _experiment_context(
    results: StudyResults,
    index: int,
    claims: Mapping[tuple[str, str], ClaimContext],
    folder: Path,
    assets: ReportAssets,
) -> ExperimentContext:
    """The experiment number `index` under all of its conditions."""
    experiment = results.study.experiments[index]
    claim_rows = []
    for claim in experiment.claims:
        claim_rows.append(ClaimRow(claim, [claims.get((claim.id, name)) for name in results.study.conditions]))
    conditions = []
    for number, condition in enumerate(experiment.conditions):
        settings = results.of_experiment(experiment, condition)
        judged = [claims[claim.id, condition] for claim in experiment.claims if condition in claim.conditions]
        figures = _figure_contexts(settings, f"{index}-{number}", folder, assets)
        conditions.append(ConditionContext(condition, judged, metrics_table(settings), figures))
    return ExperimentContext(
        id=experiment.id,
        anchor=f"experiment-{index + 1}",
        title=experiment.title,
        question=experiment.question,
        claims=claim_rows,
        rows=[(row, results.study.rows.get(row, "")) for row in experiment.rows],
        settings=settings_context(results, experiment),
        conditions=conditions,
    )


def _figure_contexts(
    settings: Sequence[SettingResult], slot: str, folder: Path, assets: ReportAssets
) -> list[FigureContext]:
    """The figures of an experiment under a condition, curves first; those that show nothing are left out."""
    names = sorted(dict.fromkeys(settings[0].experiment.figures), key=lambda name: name != "curves")
    contexts = []
    for name in names:
        context = _figure_context(name, settings, slot, folder, assets)
        if context.content:
            contexts.append(context)
    return contexts


def _figure_context(
    name: str, settings: Sequence[SettingResult], slot: str, folder: Path, assets: ReportAssets
) -> FigureContext:
    """One figure: interactive with a panel for each setting, or a picture that was drawn before."""
    if name == "curves":
        return FigureContext("curves", curves_payload(settings) or [])
    if name == "features":
        panels = [(setting.name, _features_panel(setting, assets)) for setting in settings]
        return FigureContext("features", [panel for panel in panels if panel[1]])
    if name == "interpolations":
        panels = []
        for index, setting in enumerate(settings):
            panels.append((setting.name, _interpolations_panel(setting, f"path-{slot}-{index}", assets)))
        return FigureContext("interpolations", [panel for panel in panels if panel[1]])
    drawn = _drawn_figure(settings[0].experiment, name, settings[0].condition, folder, assets)
    return FigureContext("drawn", drawn or [])


def _features_panel(setting: SettingResult, assets: ReportAssets) -> FeaturesPanel | None:
    """The features of one setting; None where no run was analysed."""
    cloud = features_payload(setting, assets)
    tables = setting.analysis_numbers("features")
    if cloud is None and not tables:
        return None
    return FeaturesPanel(cloud, separability_table(tables), correlation_rows(tables), len(tables))


def _interpolations_panel(setting: SettingResult, name: str, assets: ReportAssets) -> InterpolationsPanel | None:
    """The interpolations of one setting; None where no run was analysed."""
    payload = interpolations_payload(setting, name, assets)
    if payload is None:
        return None
    tables = setting.analysis_numbers("interpolations")
    return InterpolationsPanel(payload, probability_columns(tables), len(tables))


def _drawn_figure(
    experiment: Experiment, figure: str, condition: str, folder: Path, assets: ReportAssets
) -> DrawnFigure | None:
    """A figure that was drawn before; None where it was not."""
    name = study_figures.figure_file_name(experiment, figure, condition)
    file = folder / "figures" / f"{name}.png"
    if not file.is_file():
        return None
    assets.add_image(f"figure/{name}", file.read_bytes())
    with Image.open(file) as image:
        width, height = image.size
    title = FIGURE_TITLES.get(figure, figure.replace("_", " ").replace("-", " ").capitalize())
    alt = f"{title} of experiment {experiment.id}, {experiment.title}" + (f", {condition}" if condition else "")
    return DrawnFigure(f"figure/{name}", title, alt, width // PIXEL_RATIO, height // PIXEL_RATIO)
