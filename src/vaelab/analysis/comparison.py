r"""What a study needs of a run besides its numbers to judge claims: whether it is sound, and the values of its images.

health         the statistics that the doctor's checks look at
image_values   the metrics of each test image, so that runs are compared image by image
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from vaelab.analysis.baseline import MAX_FEATURE_POINTS, Baseline, display_split
from vaelab.analysis.results import AnalysisResult
from vaelab.evaluation.diagnostics import LatentStats, compute_latent_stats
from vaelab.evaluation.image_values import image_values
from vaelab.runs.run import DivergedError, Run

__all__ = ["HEALTH_NUMBERS", "analyse_health", "analyse_image_values", "stored_latent_stats"]

HEALTH_NUMBERS = (
    *("finite", "kl", "active_units", "smallest_logvar", "largest_logvar"),
    *("aggregate_gap", "aggregate_gap_error", "residual", "binary"),
)


def analyse_health(run: Run, baseline: Baseline) -> AnalysisResult:
    """The statistics that the doctor's checks look at; of weights that are no numbers only that."""
    try:
        model = run.model
    except DivergedError:
        return AnalysisResult({"finite": 0.0})
    stats = compute_latent_stats(model, display_split(baseline.dataset))
    numbers = {
        "finite": 1.0,
        "kl": stats.kl,
        "active_units": stats.active_units,
        "smallest_logvar": stats.logvar_range[0],
        "largest_logvar": stats.logvar_range[1],
        "aggregate_gap": stats.aggregate_gap[0],
        "aggregate_gap_error": stats.aggregate_gap[1],
        "residual": stats.residual_rms,
        "binary": float(stats.is_binary),
    }
    return AnalysisResult(numbers)


def stored_latent_stats(numbers: Mapping[str, float]) -> LatentStats | None:
    """The statistics from the numbers that `analyse_health` left; None where the weights are no numbers.

    Args:
        numbers: The numbers by name; those that were not finite are missing.
    """
    if not numbers.get("finite"):
        return None
    return LatentStats(
        kl=numbers.get("kl", math.nan),
        active_units=int(numbers["active_units"]),
        logvar_range=(numbers.get("smallest_logvar", math.nan), numbers.get("largest_logvar", math.nan)),
        aggregate_gap=(numbers.get("aggregate_gap", math.nan), numbers.get("aggregate_gap_error", math.nan)),
        residual_rms=numbers.get("residual", math.nan),
        is_binary=bool(numbers["binary"]),
    )


def analyse_image_values(run: Run, baseline: Baseline) -> AnalysisResult:
    """The metrics of each test image, and the rows of the images in the data set."""
    images = display_split(baseline.dataset).evenly_spaced(MAX_FEATURE_POINTS)
    return AnalysisResult(arrays={**image_values(run.model, run.spec.objective, images), "rows": images.rows})
