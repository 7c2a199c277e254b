r"""The document of a study: report.html, one file that holds everything it shows and asks nothing of any network.

    Results, pictures of `exhibits`, arrays of `examinations`  ->  plain values  ->  templates/report.html  ->  bytes

Verdicts come first, then each experiment with its settings, curves, numbers, figures and claims, then where it all
comes from. The same results give the same bytes: nothing is dated or drawn by lot.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from vaelab.core.codec import to_word
from vaelab.core.files import write_text
from vaelab.figures import study_figures
from vaelab.reporting import payload
from vaelab.reporting.payload import ReportAssets
from vaelab.runs import spec as specs
from vaelab.runs.run import Run
from vaelab.studies.definition import Experiment, Setting, Trial
from vaelab.studies.hypotheses import SIGNIFICANCE_LEVEL
from vaelab.studies.results import SettingResult, StudyResults

__all__ = ["write_report"]

MAX_REPORT_BYTES = 14_500_000  # bytes of the document

PIXEL_RATIO = 2  # pixels of a drawn figure to one of the page

METRIC_COLUMNS = {  # metric of the test split -> head, unit
    "cross_entropy_of_mean": ("Cross entropy", "nats"),
    "squared_error_of_mean": ("Squared error", "sum"),
    "mse": ("MSE", "per value"),
    "psnr": ("PSNR", "dB"),
    "ssim": ("SSIM", ""),
    "sharpness": ("Sharpness", "1: as sharp"),
    "kl": ("KL", "nats"),
    "negative_elbo": ("Negative ELBO", "nats"),
    "active_units": ("Active units", ""),
}

REPRESENTATIONS = {
    "raw": "raw pixels",
    "pca": "PCA of equal dimension",
    "codes": "encoder means",
    "classifier": "classifier",
}

SEPARABILITY_COLUMNS = {  # number of the features -> head, unit, decimals
    "ari": ("ARI", "k-means", 3),
    "nmi": ("NMI", "k-means", 3),
    "neighbour": ("Nearest neighbour", "accuracy", 3),
    "probe": ("Linear probe", "accuracy", 3),
    "ratio": ("Distance ratio", "between / within", 2),
    "tsne_ratio": ("t-SNE ratio", "between / within", 2),
}

FIGURE_TITLES = {
    "bars": "Test metrics",
    "samples": "Samples of the prior",
    "path": "Probability on the way of interpolations",
    "classifier_features": "Features of the classifier",
    "model": "The network",
}

CORRELATIONS = {"correlation": "the encoder means", "correlation_classifier": "the features of the classifier"}

VERDICTS = ("supported", "refuted", "undecided")

MISSING = "–"


def write_report(results: StudyResults, folder: Path, provenance: Mapping[str, Any] | None = None) -> Path:
    """Write folder/report.html of a study, with the pictures in folder/figures; `origin` is as in a run's origin.json.

    What `origin` lacks is taken from the runs.
    """
    shared = ReportAssets({}, {})
    progress = _run_progress(results)
    verdicts = {(c["id"], c["reading"]): _verdict_context(c) for c in results.claims}
    experiments = [
        _experiment_context(results, k, verdicts, Path(folder), shared) for k in range(len(results.study.experiments))
    ]
    page = {
        "study": results.study,
        "experiments": experiments,
        "progress": progress,
        "counts": [(v, Counter(c["verdict"] for c in results.claims)[v]) for v in VERDICTS],
        "clouds": shared.point_clouds,
        "judged": bool(results.claims),
        "level": f"{100 * (1 - SIGNIFICANCE_LEVEL):g}",
        "origin": _provenance_rows(results, provenance or {}),
        "facts": _summary_facts(results, progress["total"]),
    }
    bare = _render(page, dict.fromkeys(shared.images, ""))
    text = _render(page, payload.shrink_to_budget(shared.images, MAX_REPORT_BYTES - len(bare.encode())))
    path = Path(folder) / "report.html"
    write_text(path, text)
    return path


def _render(page: Mapping[str, Any], uris: Mapping[str, str]) -> str:
    from plotly.offline import get_plotlyjs

    environment = Environment(
        loader=PackageLoader("vaelab.reporting"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    environment.filters["json"] = lambda value: Markup(json.dumps(value, allow_nan=False).replace("<", "\\u003c"))
    assets = files("vaelab.reporting") / "templates"
    style, script = (Markup((assets / f"report.{kind}").read_text(encoding="utf-8")) for kind in ("css", "js"))
    template = environment.get_template("report.html")
    return template.render(page, uris=uris, style=style, script=script, plotly=Markup(get_plotlyjs()), NONE=MISSING)


# What there is so far


def _finished_runs(results: StudyResults) -> list[Run]:
    """Every finished run once, in the order of the outcomes."""
    return list(dict.fromkeys(run for o in results.setting_results for run in o.runs.values()))


def _run_progress(results: StudyResults) -> dict[str, Any]:
    """How many runs are finished, each counted once, and what went wrong with others."""
    names = _run_labels(results) if results.failed else {}
    failed = [(names.get(key, f"run {key}"), error) for key, error in results.failed.items()]
    total = len({spec for o in results.setting_results for spec in _setting_specs(results, o)})
    return {"finished": len(_finished_runs(results)), "total": total, "failed": failed}


def _setting_specs(results: StudyResults, o: SettingResult) -> list[specs.Spec]:
    """The specs of a setting, one for each seed: those of its runs, else as the study asks for them."""
    return [
        o.runs[seed].spec if seed in o.runs else results.study.spec(o.experiment, o.condition, o.setting, seed)
        for seed in results.study.seeds
    ]


def _run_labels(results: StudyResults) -> dict[str, str]:
    """What is said of a run by its key, as far as a finished run tells the data and the precision that enter it."""
    for run in _finished_runs(results)[:1]:
        origin = run.origin
        where = origin["data"]["fingerprint"], origin["plan"]["precision"]
        return {specs.run_key(t.spec, *where): _trial_label(t) for t in reversed(results.study.trials)}
    return {}


def _trial_label(trial: Trial) -> str:
    return ", ".join(filter(None, (trial.experiment, trial.condition, trial.setting.name, f"seed {trial.spec.seed}")))


def _summary_facts(results: StudyResults, total: int) -> list[str]:
    study, runs = results.study, _finished_runs(results)
    facts = [study.data]
    if runs:
        data = runs[0].origin["data"]
        facts += [" × ".join(map(str, data["shape"])), _image_counts(data)]
    return [*facts, f"{total:,} run{'s' * (total > 1)}", _seeds_text(study.seeds)]


def _image_counts(data: Mapping[str, Any]) -> str:
    return ", ".join(f"{count:,} {split}" for split, count in data["images"].items()) + " images"


def _seeds_text(seeds: Sequence[int]) -> str:
    return f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"


# An experiment


def _experiment_context(
    results: StudyResults,
    k: int,
    verdicts: Mapping[tuple[str, str], dict[str, Any]],
    folder: Path,
    assets: ReportAssets,
) -> dict[str, Any]:
    e = results.study.experiments[k]
    claims = [{"claim": c, "verdicts": [verdicts.get((c.id, r)) for r in results.study.conditions]} for c in e.claims]
    return {
        "id": e.id,
        "anchor": f"experiment-{k + 1}",
        "title": e.title,
        "question": e.question,
        "claims": claims,
        "rows": [(row, results.study.rows.get(row, "")) for row in e.rows],
        "settings": _settings_context(results, e),
        "readings": [
            {
                "name": reading,
                "claims": [verdicts[c.id, reading] for c in e.claims if reading in c.conditions],
                "table": _metrics_table(results.of_experiment(e, reading)),
                "figures": _figure_contexts(results.of_experiment(e, reading), f"{k}-{i}", folder, assets),
            }
            for i, reading in enumerate(e.conditions)
        ],
    }


def _figure_contexts(
    outcomes: Sequence[SettingResult], slot: str, folder: Path, assets: ReportAssets
) -> list[dict[str, Any]]:
    """What the figures of an experiment under a reading show, the curves first; those without anything are left out."""
    names = sorted(dict.fromkeys(outcomes[0].experiment.figures), key=lambda name: name != "curves")
    found = [{"kind": name, "of": _figure_context(name, outcomes, slot, folder, assets)} for name in names]
    return [figure for figure in found if figure["of"]]


def _figure_context(name: str, outcomes: Sequence[SettingResult], slot: str, folder: Path, assets: ReportAssets) -> Any:
    """One figure: interactive with a panel for each setting, or a picture that was drawn before."""
    if name == "curves":
        return payload.curves_payload(outcomes)
    if name == "features":
        panels = [_feature_panel(o, assets) for o in outcomes]
    elif name == "interpolations":
        panels = [_interpolation_panel(o, f"path-{slot}-{i}", assets) for i, o in enumerate(outcomes)]
    else:
        return _static_figure(outcomes[0].experiment, name, outcomes[0].condition, folder, assets)
    return [(o.name, panel) for o, panel in zip(outcomes, panels, strict=True) if panel]


def _static_figure(
    e: Experiment, figure: str, condition: str, folder: Path, assets: ReportAssets
) -> dict[str, Any] | None:
    """A picture that was drawn before; None where it was not."""
    name = study_figures.figure_file_name(e, figure, condition)
    file = folder / "figures" / f"{name}.png"
    if not file.is_file():
        return None
    assets.images[f"figure/{name}"] = file.read_bytes()
    with Image.open(file) as picture:
        width, height = picture.size
    title = FIGURE_TITLES.get(figure, figure.replace("_", " ").replace("-", " ").capitalize())
    alt = f"{title} of experiment {e.id}, {e.title}" + (f", {condition}" if condition else "")
    return {
        "name": f"figure/{name}",
        "title": title,
        "alt": alt,
        "width": width // PIXEL_RATIO,
        "height": height // PIXEL_RATIO,
    }


def _feature_panel(outcome: SettingResult, assets: ReportAssets) -> dict[str, Any] | None:
    cloud = payload.features_payload(outcome, assets)
    numbers = [r.analyses["features"] for r in outcome.records.values() if "features" in r.analyses]
    if cloud is None and not numbers:
        return None
    columns = [
        c for c in SEPARABILITY_COLUMNS if any(f"{space}_{c}" in n for n in numbers for space in REPRESENTATIONS)
    ]
    rows = [space for space in REPRESENTATIONS if any(f"{space}_{c}" in n for n in numbers for c in columns)]
    cells = [
        [
            _mean_and_deviation([n[f"{s}_{c}"] for n in numbers if f"{s}_{c}" in n], SEPARABILITY_COLUMNS[c][2])
            for c in columns
        ]
        for s in rows
    ]
    correlated = [
        (what, both)
        for name, what in CORRELATIONS.items()
        if (both := _mean_and_deviation([n[name] for n in numbers if name in n], 3))
    ]
    return {
        "cloud": cloud,
        "n": len(numbers),
        "heads": [SEPARABILITY_COLUMNS[c][:2] for c in columns],
        "correlated": correlated,
        "rows": [(REPRESENTATIONS[s], line) for s, line in zip(rows, cells, strict=True)],
    }


def _interpolation_panel(outcome: SettingResult, slot: str, assets: ReportAssets) -> dict[str, Any] | None:
    made = payload.interpolations_payload(outcome, slot, assets)
    if made is None:
        return None
    numbers = [r.analyses["interpolations"] for r in outcome.records.values() if "interpolations" in r.analyses]
    means = [
        (f"{part / 100:g}", both)
        for part in range(0, 101, 20)
        if (both := _mean_and_deviation([n[name] for n in numbers if (name := f"probability_{part}") in n], 2))
    ]
    return made | {"means": means, "n": len(numbers)}


# Settings: what was varied, and what was not


def _settings_context(results: StudyResults, experiment: Experiment) -> dict[str, Any]:
    study = results.study
    asked = [
        spec
        for r in experiment.conditions
        for o in results.of_experiment(experiment, r)
        for spec in _setting_specs(results, o)
    ]
    if experiment.factors == ["variant"]:
        varied = [(s.name, _setting_changes(s)) for s in experiment.settings]
    else:
        varied = [(f, ", ".join(dict.fromkeys(s.values[f] for s in experiment.settings))) for f in experiment.factors]
    readings = [(r, _changes_text(study.conditions[r]) or "as it is") for r in experiment.conditions if r]
    return {
        "varied": varied,
        "readings": readings,
        "fixed": _fixed_fields(asked),
        "seeds": ", ".join(map(str, study.seeds)),
    }


def _setting_changes(setting: Setting) -> str:
    return _changes_text(setting.changes) or "the base"


def _changes_text(changes: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} = {_value_text(value)}" for name, value in changes.items())


def _fixed_fields(specs_asked_for: Sequence[specs.Spec]) -> list[tuple[str, str]]:
    """The fields that all specs share, as words; of members that differ, the inner fields that they share."""
    fixed = []
    for name in specs.spec_to_dict(specs_asked_for[0]):
        members = list(dict.fromkeys(getattr(spec, name) for spec in specs_asked_for))
        if len(members) == 1 and name != "data":
            fixed.append((name, _value_text(members[0])))
        elif len({type(member) for member in members}) == 1 and hasattr(members[0], "__dataclass_fields__"):
            shared = [f for f in members[0].__dataclass_fields__ if len({getattr(m, f) for m in members}) == 1]
            fixed += [(f"{name}.{f}", _value_text(getattr(members[0], f))) for f in shared]
    return fixed


def _value_text(value: Any) -> str:
    if hasattr(value, "__dataclass_fields__"):
        return to_word(value)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return (
        ",".join(map(_value_text, value))
        if isinstance(value, list | tuple)
        else "none"
        if value is None
        else str(value)
    )


# Numbers


def _metrics_table(outcomes: Sequence[SettingResult]) -> dict[str, Any]:
    """Mean and deviation over seeds of the main metrics, the digits of a column after its deviations."""
    columns = {name: [o.values(name) for o in outcomes] for name in METRIC_COLUMNS}
    columns = {name: values for name, values in columns.items() if any(len(v) for v in values)}
    digits = {name: _decimals([v for v in values if len(v)]) for name, values in columns.items()}
    rows = [
        (o.name or "base", len(o.records), [_mean_and_deviation(columns[name][i], digits[name]) for name in columns])
        for i, o in enumerate(outcomes)
    ]
    notes = dict.fromkeys(
        note for o in outcomes for run in list(o.runs.values())[:1] for note in _metric_footnotes(run)
    )
    factors = outcomes[0].experiment.factors
    head = "Setting" if factors in ([], ["variant"]) else ", ".join(factors)
    return {
        "head": head,
        "heads": [METRIC_COLUMNS[name] for name in columns],
        "rows": rows,
        "notes": list(notes),
        "most": max(len(o.records) for o in outcomes),
    }


def _metric_footnotes(run: Run) -> list[str]:
    metrics = run.metrics.get("test", {}).get("metrics", {})
    return [
        f"{METRIC_COLUMNS[name][0]}: {m['note']}."
        for name, m in metrics.items()
        if "note" in m and name in METRIC_COLUMNS
    ]


def _decimals(samples: Sequence[np.ndarray]) -> int:
    """Digits after the point: two of the largest deviation, one of the smallest, but no more than five in all."""
    deviations = [s for v in samples if len(v) > 1 and (s := float(np.std(v, ddof=1))) > 0]
    largest = max((abs(float(v.mean())) for v in samples), default=0.0) or 1.0
    if not math.isfinite(largest) or all(float(x).is_integer() for v in samples for x in v):
        return 1 if deviations else 0
    wanted = (
        max(1 - _magnitude(max(deviations)), -_magnitude(min(deviations))) if deviations else 3 - _magnitude(largest)
    )
    return min(max(wanted, 0), max(4 - _magnitude(largest), 0), 6)


def _magnitude(value: float) -> int:
    """The power of ten of the first digit of a number; of 0 and of what is not finite, 0."""
    return math.floor(math.log10(abs(value))) if value and math.isfinite(value) else 0


def _mean_and_deviation(values: Sequence[float] | np.ndarray, decimals: int) -> tuple[str, str] | None:
    """Mean and standard deviation as text, the latter empty for a single value; None for no value."""
    values = np.asarray(values, np.float64)
    if not len(values):
        return None
    deviation = _format_number(float(values.std(ddof=1)), decimals) if len(values) > 1 else ""
    return _format_number(float(values.mean()), decimals), deviation


def _format_number(value: float, decimals: int) -> str:
    if not math.isfinite(value):
        return "not finite"
    return f"{round(value, decimals) + 0.0:,.{decimals}f}".replace("-", "−")  # + 0.0: no minus before a zero


def _verdict_context(claim: Mapping[str, Any]) -> dict[str, Any]:
    """A claim under a reading as the document says it; of one contrast alone, that which decides is drawn larger."""
    contrasts = claim.get("contrasts", ())
    means = [
        (name or "base", _format_number(m, max(0, 3 - _magnitude(m)))) for name, m in claim.get("means", {}).items()
    ]
    return {
        **claim,
        "contrasts": _contrast_contexts(contrasts),
        "deciding": _contrast_contexts(contrasts[:1]),
        "means": means,
        "note": claim.get("note", ""),
    }


def _contrast_contexts(contrasts: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Contrasts in words, and drawn to one scale."""
    ends = [0.0, *(v for c in contrasts for v in (c["mean"], *(c["interval"] or ())))]
    pad = 0.08 * (max(ends) - min(ends)) or 1.0
    return [_contrast_context(c, min(ends) - pad, max(ends) - min(ends) + 2 * pad) for c in contrasts]


def _contrast_context(contrast: Mapping[str, Any], low: float, span: float) -> dict[str, Any]:
    """A contrast in words, and where its parts stand on an axis from `low` on, in percent of its `span`."""
    mean, interval, p = contrast["mean"], contrast["interval"], contrast["p"]
    start, end = interval or (mean, mean)
    decimals = min(max(1 - _magnitude((end - start) / 2) if end > start else 2 - _magnitude(mean), 0), 8)
    zero, below = _to_percent(-low / span), contrast["wanted"] < 0
    return {
        "what": contrast["what"],
        "effect": _format_number(mean, decimals),
        "wanted": "< 0" if below else "> 0",
        "interval": f"[{_format_number(start, decimals)}, {_format_number(end, decimals)}]" if interval else "",
        "p": MISSING if p is None else "< 0.001" if p < 0.001 else f"{p:.2g}",
        "zero": zero,
        "dot": _to_percent((mean - low) / span),
        "left": _to_percent((start - low) / span),
        "width": _to_percent((end - start) / span),
        "side": (0, zero) if below else (zero, round(100 - zero, 2)),
    }


def _to_percent(fraction: float) -> float:
    return round(100 * fraction, 2)


# Origin


def _provenance_rows(results: StudyResults, provenance: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where the numbers come from, as (name, text), with what differs between runs side by side."""
    origins = [run.origin for run in _finished_runs(results)]

    def both(name: str) -> str:
        values = [provenance[name]] if provenance.get(name) else [o[name] for o in origins if o.get(name)]
        return "; ".join(dict.fromkeys(map(_provenance_text, values)))

    seconds = sum(o.get("seconds") or 0 for o in origins)
    data = [o["data"] for o in origins]
    rows = {
        "Command": both("command"),
        "Versions": both("versions"),
        "Machine": both("machine"),
        "Plan": both("plan"),
        "Training": f"{_duration_text(seconds)} in all, {len(origins):,} run{'s' * (len(origins) > 1)}"
        if origins
        else "",
        "Data": "; ".join(dict.fromkeys(str(d["source"]) for d in data)) or results.study.data,
        "Fingerprint of the data": "; ".join(dict.fromkeys(d["fingerprint"] for d in data)),
        "Images": "; ".join(dict.fromkeys(map(_image_counts, data))),
        "Seeds": ", ".join(map(str, results.study.seeds)),
    }
    return [(name, text) for name, text in rows.items() if text]


def _provenance_text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name.replace('_', ' ')} {_value_text(v)}" for name, v in value.items() if v is not None)
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)


def _duration_text(seconds: float) -> str:
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    return f"{minutes // 60:,} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
