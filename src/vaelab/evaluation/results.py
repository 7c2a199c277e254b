"""Results of an evaluation: metrics with their errors, and the JSON that files and the command line have of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

__all__ = ["Evaluation", "Metric"]


@dataclass(frozen=True)
class Metric:
    """A number with its error.

    Attributes:
        value: The value; for most metrics a mean over images.
        stderr: Its standard error over images; None where it has none.
        n: The number of images, where it is not that of the evaluation.
        samples: The number of samples for each image, for estimates by sampling.
        sampling_error: The standard error that is due to sampling alone.
        note: What must be said of the number.

    Example:
        >>> Metric(0.5, stderr=0.1, n=20).to_dict()
        {'value': 0.5, 'stderr': 0.1, 'n': 20}
    """

    value: float
    stderr: float | None = None
    n: int | None = None
    samples: int | None = None
    sampling_error: float | None = None
    note: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """What JSON holds of it: the value, its error, and the rest as far as it is known."""
        optional = {"n": self.n, "samples": self.samples, "sampling_error": self.sampling_error, "note": self.note}
        known = {name: value for name, value in optional.items() if value is not None}
        return {"value": self.value, "stderr": self.stderr} | known


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a run on some images.

    Attributes:
        run: The key of the run.
        data: The source of the images.
        split: The split that they are.
        n: How many images.
        metrics: The metrics by name.
        kl_per_dimension: The mean KL of each latent dimension, in nats.
    """

    run: str
    data: str
    split: str
    n: int
    metrics: Mapping[str, Metric]
    kl_per_dimension: list[float] = field(default_factory=list)

    def with_metrics(self, metrics: Mapping[str, Metric]) -> Evaluation:
        """The same evaluation with further metrics."""
        return replace(self, metrics={**self.metrics, **metrics})

    def to_dict(self) -> dict[str, Any]:
        """What `evaluate --json` prints and metrics.json holds for a split."""
        return {
            "run": self.run,
            "data": self.data,
            "split": self.split,
            "n": self.n,
            "metrics": {name: metric.to_dict() for name, metric in self.metrics.items()},
            "kl_per_dimension": self.kl_per_dimension,
        }
