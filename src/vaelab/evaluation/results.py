"""Results of an evaluation: metrics with their errors, and the JSON that files and the command line have of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from vaelab.core.errors import UserError

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
        stderr = self.stderr if self.stderr is not None and math.isfinite(self.stderr) else None
        optional = {"n": self.n, "samples": self.samples, "sampling_error": self.sampling_error, "note": self.note}
        known = {name: value for name, value in optional.items() if value is not None}
        return {"value": self.value, "stderr": stderr} | known


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

    Raises:
        UserError: A metric is not finite, which means that the model is broken.
    """

    run: str
    data: str
    split: str
    n: int
    metrics: Mapping[str, Metric]
    kl_per_dimension: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        values = {name: metric.value for name, metric in self.metrics.items()}
        values["KL per dimension"] = sum(self.kl_per_dimension)
        for name, value in values.items():
            if not math.isfinite(value):
                raise UserError(
                    f"{name} of the {self.split} images is {value:g}: the training of run {self.run} has diverged;\n"
                    "train again with a lower lr or with clip 100; `vaelab doctor` says more",
                    settings=["lr", "clip"],
                )

    def with_metrics(self, metrics: Mapping[str, Metric]) -> Evaluation:
        """The same evaluation with further metrics. Those that are not defined, as for too few images, are left out."""
        defined = {name: metric for name, metric in metrics.items() if math.isfinite(metric.value)}
        return replace(self, metrics={**self.metrics, **defined})

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
