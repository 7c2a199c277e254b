"""Training curves of a run, and of the settings of an experiment: for figures and reports alike.

Of the terms in a history they show

- the distortion that was trained, where the history has it under no name of its own: negative ELBO - KL;
- no curve twice: where the loss equals another term (the negative ELBO, at KL weight 1), that term stands for both.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from vaelab.core.errors import UserError
from vaelab.evaluation.catalogue import DISTORTION, metric_info
from vaelab.models.likelihoods import CrossEntropy, Likelihood
from vaelab.runs.spec import Spec
from vaelab.studies.quantities import Curve, RunRecord
from vaelab.studies.results import SettingResult

__all__ = [
    "ExperimentCurves",
    "RunCurves",
    "SeedMeanCurve",
    "experiment_curves",
    "mean_over_seeds",
    "run_curves",
    "term_heading",
]

SHOWN_TERMS = ("loss", "negative_elbo", DISTORTION.name, "cross_entropy", "squared_error", "kl")

COMPLETE_TERMS = ("negative_elbo", "loss", DISTORTION.name)  # compared only where all settings have them

SAME = 1e-5  # relative difference up to which two values are the same


@dataclass(frozen=True)
class SeedMeanCurve:
    """A curve of one setting.

    Attributes:
        epochs: The epochs that all seeds have measured, with shape (T,).
        mean: The mean over seeds, with shape (T,).
        deviation: The standard deviation over seeds, with shape (T,); None for a single seed.
        num_seeds: How many seeds there are.
    """

    epochs: np.ndarray
    mean: np.ndarray
    deviation: np.ndarray | None
    num_seeds: int


@dataclass(frozen=True)
class ExperimentCurves:
    """The curves of an experiment under one condition.

    Attributes:
        split: What they are measured on, "validation" or "train".
        terms: By term, such as `kl`, and by the name of the setting.
        max_seeds: The largest number of seeds of a setting.
        loss_term: The term that is the loss; None where losses are not compared.
    """

    split: str
    terms: Mapping[str, Mapping[str, SeedMeanCurve]]
    max_seeds: int
    loss_term: str | None = None


@dataclass(frozen=True)
class RunCurves:
    """The curves of one run.

    Attributes:
        terms: By term, such as `kl`, and by split, "train" or "validation".
        loss_term: The term that is the loss.
    """

    terms: Mapping[str, Mapping[str, SeedMeanCurve]]
    loss_term: str | None = None


def run_curves(record: RunRecord, spec: Spec) -> RunCurves:
    """The training curves of one run, those of its own penalties included.

    Args:
        record: What the run left behind.
        spec: Its settings.

    Returns:
        The curves.
    """
    names = list(SHOWN_TERMS)
    for row in record.history:
        names += [name for name in row["train"] if name not in names and not name.endswith("_of_mean")]
    terms: dict[str, dict[str, SeedMeanCurve]] = {}
    for name in names:
        if name == DISTORTION.name and not has_unnamed_distortion(spec):
            continue
        curves = {}
        for split in ("train", "validation"):
            curve = _mean_curve([record], name, split)
            if curve is not None:
                curves[split] = curve
        if curves:
            terms[name] = curves
    return RunCurves(*_without_repetition(terms))


def term_heading(term: str, loss_term: str | None) -> tuple[str, str]:
    """The name and the unit of a term, and whether it is the loss.

    Args:
        term: The name of the term in histories.
        loss_term: The term that is the loss.

    Returns:
        The name, and what stands under it.

    Example:
        >>> term_heading("negative_elbo", "negative_elbo")
        ('Negative ELBO', 'nats per image: the loss')
    """
    info = metric_info(term)
    if term == loss_term and term != "loss":
        return info.label, f"{info.unit}: the loss"
    return info.label, info.unit


def has_unnamed_distortion(spec: Spec) -> bool:
    """Whether a run trained a distortion for which histories have no name of its own."""
    return isinstance(spec.distortion, Likelihood) and not isinstance(spec.distortion, CrossEntropy)


def experiment_curves(settings: Sequence[SettingResult]) -> ExperimentCurves | None:
    """The training curves of the settings of an experiment.

    The loss is left out where settings train different losses, for these cannot be compared. So are the loss and the
    negative ELBO where some settings do not have them.

    Args:
        settings: The results of the settings under one condition.

    Returns:
        The curves; None where no run is finished.
    """
    finished = [setting for setting in settings if setting.records]
    terms = {}
    for term in SHOWN_TERMS:
        curves = _term_curves(finished, term)
        is_complete = len(curves) == len(finished) or term not in COMPLETE_TERMS
        if curves and is_complete and _is_comparable(finished, term):
            terms[term] = curves
    if not terms:
        return None
    terms, loss_term = _without_repetition(terms)
    records = [record for setting in finished for record in setting.records.values()]
    has_validation = any(record.curve_split == "validation" for record in records)
    split = "validation" if has_validation else "train"
    max_seeds = max(len(setting.records) for setting in finished)
    return ExperimentCurves(split, terms, max_seeds, loss_term)


def _term_curves(settings: Sequence[SettingResult], term: str) -> dict[str, SeedMeanCurve]:
    """The curves of a term, by setting; settings without it are left out."""
    curves = {}
    for setting in settings:
        curve = _mean_curve(list(setting.records.values()), term)
        if curve is not None:
            curves[setting.name] = curve
    return curves


def _is_comparable(settings: Sequence[SettingResult], term: str) -> bool:
    """Whether the values of a term mean the same for all settings."""
    if term == "loss":
        return have_same_loss(settings)
    if term == DISTORTION.name:
        specs = [run.spec for setting in settings for run in setting.runs.values()]
        return len({spec.distortion for spec in specs}) == 1 and has_unnamed_distortion(specs[0])
    return True


def _mean_curve(records: Sequence[RunRecord], term: str, split: str | None = None) -> SeedMeanCurve | None:
    """The mean of a term over runs; None where a run does not have it."""
    try:
        if term != DISTORTION.name:
            return mean_over_seeds([record.curve(term, split) for record in records])
        return mean_over_seeds([_distortion_curve(record, split) for record in records])
    except UserError:  # a loss without a bound, for example
        return None


def _distortion_curve(record: RunRecord, split: str | None) -> Curve:
    """Negative ELBO - KL, which is the distortion of a likelihood."""
    kl = dict(record.curve("kl", split))
    return [(epoch, bound - kl[epoch]) for epoch, bound in record.curve("negative_elbo", split) if epoch in kl]


Terms = dict[str, dict[str, SeedMeanCurve]]


def _without_repetition(terms: Terms) -> tuple[Terms, str | None]:
    """The terms without the loss where another term equals it, and the term that is the loss.

    The cross entropy is left out, too, beside the distortion that was trained: it is that of another likelihood.
    """
    kept = dict(terms)
    if DISTORTION.name in kept:
        kept.pop("cross_entropy", None)
    if "loss" not in kept:
        return kept, None
    for name, curves in kept.items():
        if name != "loss" and _are_equal(kept["loss"], curves):
            del kept["loss"]
            return kept, name
    return kept, "loss"


def _are_equal(first: Mapping[str, SeedMeanCurve], second: Mapping[str, SeedMeanCurve]) -> bool:
    """Whether two terms have the same curves."""
    if set(first) != set(second):
        return False
    for name, curve in first.items():
        other = second[name]
        if not np.array_equal(curve.epochs, other.epochs) or not np.allclose(curve.mean, other.mean, rtol=SAME, atol=0):
            return False
    return True


def have_same_loss(settings: Sequence[SettingResult]) -> bool:
    """Whether all settings train the same loss, so that its values can be compared."""
    specs = [run.spec for setting in settings for run in setting.runs.values()]
    return len({(spec.distortion, spec.objective) for spec in specs}) == 1


def mean_over_seeds(curves: Sequence[Curve]) -> SeedMeanCurve | None:
    """The mean of curves over seeds, at the epochs at which all of them are finite.

    Args:
        curves: A curve for each seed.

    Returns:
        Their mean and standard deviation; None where they have no epoch in common.

    Example:
        >>> curve = mean_over_seeds([[(1, 4.0), (2, 2.0)], [(1, 2.0), (2, 2.0)]])
        >>> curve.mean
        array([3., 2.])
    """
    values_by_epoch = []
    for curve in curves:
        values_by_epoch.append({epoch: value for epoch, value in curve if np.isfinite(value)})
    epochs = sorted(set.intersection(*map(set, values_by_epoch)))
    if not epochs:
        return None
    values = np.array([[by_epoch[epoch] for epoch in epochs] for by_epoch in values_by_epoch])
    deviation = values.std(0, ddof=1) if len(values) > 1 else None
    return SeedMeanCurve(np.array(epochs), values.mean(0), deviation, len(values))
