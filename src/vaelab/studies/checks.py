"""Checks before a study is run: what would fail, or could never be judged, after hours of training.

A study file that was carried out before may fail these checks and is still read: they belong to a new run alone.
"""

from __future__ import annotations

import itertools
import shutil
from collections.abc import Mapping
from pathlib import Path

from vaelab.analysis.comparison import HEALTH_NUMBERS
from vaelab.analysis.initial import INITIAL_NUMBERS
from vaelab.core.console import count_text
from vaelab.core.devices import choose_device
from vaelab.core.errors import UserError, unknown_name_error
from vaelab.core.folders import existing_parent
from vaelab.datasets.images import Dataset, is_binary
from vaelab.evaluation.catalogue import REPRESENTATION_LABELS, SEPARABILITY_METRICS
from vaelab.runs.spec import Spec
from vaelab.studies.definition import Claim, Experiment, Study
from vaelab.studies.plan import DataKey, PlannedRun, data_key
from vaelab.studies.quantities import CURVE_SPLITS, METRIC_SPLITS, Quantity
from vaelab.training.fit import plan_jobs
from vaelab.training.resources import check_resources

__all__ = ["check_measures", "check_planned_runs"]

FEATURE_NUMBERS = [
    f"{representation}_{info.name}"
    for representation, info in itertools.product(REPRESENTATION_LABELS, SEPARABILITY_METRICS)
]

EVIDENCE_NUMBERS = (
    *("negative_log_evidence", "negative_log_evidence_corrected"),
    *("effective_samples", "error_of_sampling", "error_over_images"),
)

ANALYSIS_NUMBERS: Mapping[str, tuple[str, ...]] = {
    "features": (*FEATURE_NUMBERS, "classifier_accuracy", "correlation", "correlation_classifier"),
    "interpolations": (*(f"probability_{percent}" for percent in range(0, 101, 5)), "rising"),
    "samples": ("diversity", "sharpness", "sharpness_ratio", "distance", "distance_corrected"),
    "evidence": EVIDENCE_NUMBERS,
    "full_evidence": EVIDENCE_NUMBERS,
    "leaks": (
        *("background", "hair", "skin"),
        *("background_original", "hair_original", "skin_original"),
        "chance",
    ),
    "baselines": ("pca_mse", "mean_mse", "equal_dimension"),
    "health": HEALTH_NUMBERS,
    "image_values": (),
    "initial": INITIAL_NUMBERS,
}  # the numbers that each analysis may give

BYTES_PER_PARAMETER = 4


# The file


def check_measures(study: Study) -> None:
    """Refuse claims about numbers that no run will have.

    Args:
        study: The study.

    Raises:
        UserError: An analysis does not give a number, or a curve does not have a point.
    """
    for experiment in study.experiments:
        for claim in experiment.claims:
            for quantity in claim.quantities:
                _check_numbers(claim, quantity)
                _check_curve_points(study, experiment, claim, quantity)


def _check_numbers(claim: Claim, quantity: Quantity) -> None:
    """Refuse numbers that an analysis does not give."""
    for source, name in quantity.numbers:
        if source in METRIC_SPLITS or source not in ANALYSIS_NUMBERS:
            continue
        if name not in ANALYSIS_NUMBERS[source]:
            raise unknown_name_error(f"number of {source} in claim {claim.id}", name, ANALYSIS_NUMBERS[source])


def _check_curve_points(
    study: Study, experiment: Experiment, claim: Claim, quantity: Quantity, dataset: Dataset | None = None
) -> None:
    """Refuse points of a curve that some run does not reach."""
    if not quantity.curve_points:
        return
    settings = claim.settings(experiment)
    for condition, setting in itertools.product(claim.conditions, settings):
        last_epoch = _last_epoch(study.spec(experiment, condition, setting, study.seeds[0]), dataset)
        for epoch in quantity.curve_points:
            if last_epoch is not None and not 1 <= epoch <= last_epoch:
                raise UserError(
                    f'claim {claim.id}: the measure "{quantity.text}" reads epoch {epoch:g} of a curve that goes '
                    f"from epoch 1 to {last_epoch};\nname an epoch of it, or train longer"
                )


def _last_epoch(spec: Spec, dataset: Dataset | None) -> int | None:
    """The last epoch of a training; None where it is not known without the data, or follows from the time."""
    if spec.minutes is not None or (spec.steps is not None and dataset is None):
        return None
    return spec.epochs if dataset is None else spec.num_epochs(len(dataset.splits["train"]))


# The runs and their data


def check_planned_runs(
    study: Study, planned_runs: Mapping[Spec, PlannedRun], out: Path, device: str | None = None
) -> None:
    """Refuse runs that training would refuse, and claims about splits that the data do not have.

    Args:
        study: The study.
        planned_runs: Its runs, from `plan_runs`.
        out: The folder that receives them.
        device: The device to train on; the fastest there is if None.

    Raises:
        UserError: A run cannot be trained, a claim cannot be judged, or the disk is too small.
    """
    missing: dict[DataKey, list[PlannedRun]] = {}
    for planned in planned_runs.values():
        if not planned.run.finished:
            missing.setdefault(data_key(planned.spec), []).append(planned)
    for group in missing.values():
        plan_jobs([planned.spec for planned in group], group[0].dataset, out / "runs", device=device, threads=1)
    for experiment in study.experiments:
        for claim in experiment.claims:
            _check_splits(study, experiment, claim, planned_runs)
    _check_room(list(itertools.chain(*missing.values())), out, device)


def _check_splits(study: Study, experiment: Experiment, claim: Claim, planned_runs: Mapping[Spec, PlannedRun]) -> None:
    """Refuse a claim about a split that the data do not have, or about a metric that is not measured on it."""
    condition, setting = claim.conditions[0], claim.settings(experiment)[0]
    dataset = planned_runs[study.spec(experiment, condition, setting, study.seeds[0])].dataset
    for quantity in claim.quantities:
        _check_curve_points(study, experiment, claim, quantity, dataset)
        for source, name in quantity.numbers:
            if source in METRIC_SPLITS:
                _check_metric(claim, name, source, dataset)
        for split in quantity.curve_splits:
            if split in CURVE_SPLITS and split not in dataset.splits:
                raise UserError(
                    f"claim {claim.id}: {dataset.source} has no {split} split, so {quantity.text} has no curve"
                )


def _check_metric(claim: Claim, name: str, split: str, dataset: Dataset) -> None:
    """Refuse a metric that is not measured on a split of the data."""
    measured = [other for other in dataset.splits if other != "train"]
    if split not in measured:
        raise UserError(
            f"claim {claim.id}: {name} is measured on the {split} split, which {dataset.source} does not have "
            f"(metrics are measured on: {', '.join(measured) or 'none'})"
        )
    if name == "bits_per_dim" and is_binary(dataset.splits[split]):
        raise UserError(
            f"claim {claim.id}: the {split} images of {dataset.source} are black and white, without levels of grey, "
            "so bits_per_dim is not defined for them"
        )


def _check_room(missing: list[PlannedRun], out: Path, device: str | None) -> None:
    """Refuse runs that have no room in memory or on the disk."""
    if not missing:
        return
    largest = max(missing, key=lambda planned: planned.num_parameters)
    check_resources(largest.spec, largest.dataset.splits["train"].shape, out / "runs", choose_device(device))
    needed = sum(planned.num_parameters for planned in missing) * BYTES_PER_PARAMETER
    folder = existing_parent(out)
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise UserError(
            f"the weights of {count_text(len(missing), 'run')} need {needed / 1e9:,.2g} GB, "
            f"{folder} has {free / 1e9:,.2g} GB free;\ngive another place with --out, or study smaller networks"
        )
