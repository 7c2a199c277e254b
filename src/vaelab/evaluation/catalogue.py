r"""The catalogue of metrics: name, label, unit, direction and number format of each, stated once.

Everything that shows or stores metrics reads it: metrics.json, `evaluate`, the table of a study, claims, figures and
reports. A metric that has a function of its own is described where the function is, by a decorator:

    @reconstruction_metric(MetricInfo("mae", "MAE", unit="per pixel value", direction="lower"))
    def mean_absolute_error(reconstruction: Tensor, x: Tensor) -> Tensor:
        return (reconstruction - x).abs().flatten(1).mean(1)

`ratio_metric` does the same for a ratio of two sums over images, `posterior_metric` for a number of all posteriors.

Such a function may stand in any module of this package, in a new one too: the modules of the package are the list.
Metrics that one function computes together are described here.

This module imports nothing heavy. The functions that need the whole catalogue import the rest of the package.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Literal, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

    from vaelab.evaluation.ratios import RatioTerms
    from vaelab.models.densities import Normal

__all__ = [
    "CURVE_NAMES",
    "DISTORTION",
    "LISTED_METRICS",
    "NUMBER_FORMAT",
    "REPRESENTATION_LABELS",
    "SEPARABILITY_METRICS",
    "MetricInfo",
    "column_names",
    "figure_metrics",
    "metric_info",
    "metric_names",
    "posterior_metric",
    "posterior_metrics",
    "ratio_metric",
    "ratio_metrics",
    "reconstruction_metric",
    "reconstruction_metrics",
    "table_metrics",
]

NUMBER_FORMAT = ".5g"  # of a single value

NATS = "nats per image"

SUM = "sum over pixel values"

Direction = Literal["lower", "higher"]

ARROWS: dict[Direction | None, str] = {"lower": " ↓", "higher": " ↑", None: ""}


@dataclass(frozen=True)
class MetricInfo:
    """What a metric is called and how it is shown.

    Attributes:
        name: The name in files, tables and claims.
        label: The name in figures and reports.
        unit: The unit, or what a value means; empty where there is nothing to say.
        direction: Whether "lower" or "higher" is better; None where neither is.
        format: How a single value is printed, as a format specification.
        in_table: Whether the tables of reports show it.
        in_figure: Whether the figures that compare settings show it.
        undefined_for: Images for which it is not defined, as words after "images", such as "without detail". Its
            function gives NaN for them. They are left out of the mean and counted in a note.
        max_side: The shorter side, in pixels, to which larger images are reduced before it is measured, so that values
            of different sizes can be compared; None where images are measured as they are.
        replaced_by: The metric to use in its place. It is still measured, for studies that were written with it.
        replaced_because: Why.
        is_later: Whether runs of earlier versions do not have it. A table of such runs has no column for it.
    """

    name: str
    label: str
    unit: str = ""
    direction: Direction | None = None
    format: str = NUMBER_FORMAT
    in_table: bool = True
    in_figure: bool = True
    undefined_for: str = ""
    max_side: int | None = None
    replaced_by: str = ""
    replaced_because: str = ""
    is_later: bool = False

    @property
    def label_with_direction(self) -> str:
        """The label with an arrow that points to where better values are.

        Example:
            >>> MetricInfo("mse", "MSE", direction="lower").label_with_direction
            'MSE ↓'
        """
        return self.label + ARROWS[self.direction]

    def format_value(self, value: float) -> str:
        """A value as it is printed.

        Example:
            >>> MetricInfo("mse", "MSE").format_value(0.0123456)
            '0.012346'
        """
        return format(value, self.format)


# The terms of the bound, of one posterior sample. `evaluation.metrics.elbo_terms` computes them. They are the curves of
# a training, too, and their order is that of tables.
CURVES = (
    MetricInfo("loss", "Loss", "as trained, per image", "lower", in_table=False, in_figure=False),
    MetricInfo("cross_entropy", "Cross entropy", NATS, "lower", in_table=False, in_figure=False),
    MetricInfo("squared_error", "Squared error", SUM, "lower", in_table=False, in_figure=False),
    MetricInfo("kl", "KL", NATS),
    MetricInfo("negative_elbo", "Negative ELBO", NATS, "lower", in_figure=False),
)

# Computed from two curves, negative ELBO - KL, where a run trained a likelihood; not a term of histories.
DISTORTION = MetricInfo("distortion", "Distortion", "−log p(x|z), nats per image", "lower")

# The same with the posterior mean in place of a sample.
MEAN_DECODED_METRICS = (
    MetricInfo("cross_entropy_of_mean", "Cross entropy", NATS, "lower"),
    MetricInfo("squared_error_of_mean", "Squared error", SUM, "lower"),
    MetricInfo("negative_elbo_of_mean", "Negative ELBO of the mean", NATS, "lower", in_table=False, in_figure=False),
)

# What the codes of all images are together. `evaluation.aggregate_posterior` computes them.
RATE_PARTS = (
    MetricInfo("mutual_information", "Mutual information, at least", NATS, in_table=False, in_figure=False),
    MetricInfo(
        "mutual_information_upper", "Mutual information, at most", NATS, in_table=False, in_figure=False, is_later=True
    ),
    MetricInfo("marginal_kl_lower", "Marginal KL, at least", NATS, in_table=False, in_figure=False, is_later=True),
    MetricInfo("marginal_kl", "Marginal KL, at most", NATS, in_table=False, in_figure=False),
    MetricInfo(
        "total_correlation",
        "Total correlation of the mixture",
        NATS,
        in_table=False,
        in_figure=False,
        replaced_by="total_correlation_of_codes",
        replaced_because="it rises with the rate",
    ),
    MetricInfo("total_correlation_of_codes", "Total correlation", NATS, in_table=False, in_figure=False, is_later=True),
)

BITS_PER_DIM = MetricInfo(
    "bits_per_dim", "Bits per dimension", "bits per pixel value", "lower", in_table=False, in_figure=False
)

# How well a representation separates the categories. A number of the representation r is called r_NAME, such as
# codes_ari. `analysis.separability` computes them.
SEPARABILITY_METRICS = (
    MetricInfo("ari", "ARI", "k-means", "higher", ".3f"),
    MetricInfo("nmi", "NMI", "k-means", "higher", ".3f"),
    MetricInfo("ami", "AMI", "k-means, chance is 0", "higher", ".3f"),
    MetricInfo("neighbour", "1-NN", "accuracy", "higher", ".3f"),
    MetricInfo("probe", "Linear probe", "accuracy", "higher", ".3f"),
    MetricInfo("ratio", "Distance ratio", "between / within", "higher", ".2f"),
    MetricInfo("tsne_ratio", "t-SNE ratio", "between / within", "higher", ".2f"),
)

REPRESENTATION_LABELS = {
    "raw": "raw pixels",
    "pca": "PCA of equal dimension",
    "codes": "encoder means",
    "classifier": "classifier features",
}

CURVE_NAMES = tuple(info.name for info in CURVES)

LISTED_METRICS = ("negative_elbo", "mse", "kl", "active_units")  # what a list of runs shows of each


# Metrics with a function of their own.

ReconstructionFunction = Callable[["Tensor", "Tensor"], "Tensor"]

RatioFunction = Callable[["Tensor", "Tensor"], "RatioTerms"]

PosteriorFunction = Callable[["Normal"], float]

Decorated = TypeVar("Decorated", bound=Callable[..., object])

_reconstruction_metrics: dict[str, tuple[MetricInfo, ReconstructionFunction]] = {}

_ratio_metrics: dict[str, tuple[MetricInfo, RatioFunction]] = {}

_posterior_metrics: dict[str, tuple[MetricInfo, PosteriorFunction]] = {}


def reconstruction_metric(info: MetricInfo) -> Callable[[Decorated], Decorated]:
    """A decorator for metrics of the reconstruction from the posterior mean.

    The function takes reconstructions and images in [0, 1], each (B, C, H, W), and returns a value for each image,
    (B,). What is stored and shown is the mean over images with its standard error.
    """

    def register(function: Decorated) -> Decorated:
        _reconstruction_metrics[info.name] = (info, function)  # type: ignore[assignment]
        return function

    return register


def ratio_metric(info: MetricInfo) -> Callable[[Decorated], Decorated]:
    """A decorator for metrics that are a ratio of two sums over images.

    The function takes reconstructions and images in [0, 1], each (B, C, H, W), and returns `RatioTerms`: the terms of
    numerator and denominator of each image. What is stored is the ratio of their sums with its standard error.
    """

    def register(function: Decorated) -> Decorated:
        _ratio_metrics[info.name] = (info, function)  # type: ignore[assignment]
        return function

    return register


def posterior_metric(info: MetricInfo) -> Callable[[Decorated], Decorated]:
    """A decorator for metrics of the posteriors of all images.

    The function takes the posteriors, a `Normal` with parameters (N, D), and returns one number.
    """

    def register(function: Decorated) -> Decorated:
        _posterior_metrics[info.name] = (info, function)  # type: ignore[assignment]
        return function

    return register


def reconstruction_metrics() -> dict[str, tuple[MetricInfo, ReconstructionFunction]]:
    """The metrics of reconstructions by name, each with its function."""
    _import_metrics()
    return _reconstruction_metrics


def ratio_metrics() -> dict[str, tuple[MetricInfo, RatioFunction]]:
    """The metrics that are ratios of sums by name, each with its function."""
    _import_metrics()
    return _ratio_metrics


def posterior_metrics() -> dict[str, tuple[MetricInfo, PosteriorFunction]]:
    """The metrics of posteriors by name, each with its function."""
    _import_metrics()
    return _posterior_metrics


@cache
def _import_metrics() -> None:
    """Import the modules of this package, whose decorators fill the catalogue."""
    import pkgutil
    from importlib import import_module

    package = import_module(__name__.rpartition(".")[0])
    for module in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        import_module(module.name)


# Views of the catalogue.


def _described(functions: Mapping[str, tuple[MetricInfo, object]]) -> list[MetricInfo]:
    return [info for info, _ in functions.values()]


def _stored_metrics() -> list[MetricInfo]:
    """All metrics that training stores, in the order of a table's columns."""
    of_reconstructions = [*_described(reconstruction_metrics()), *_described(ratio_metrics())]
    of_posteriors = _described(posterior_metrics())
    return [*CURVES, *MEAN_DECODED_METRICS, *RATE_PARTS, BITS_PER_DIM, *of_reconstructions, *of_posteriors]


def _shown_metrics() -> list[MetricInfo]:
    """The same in the order of reports: of reconstructions first, then of the bound and of the codes."""
    of_reconstructions = [*_described(reconstruction_metrics()), *_described(ratio_metrics())]
    of_posteriors = _described(posterior_metrics())
    return [*MEAN_DECODED_METRICS, *of_reconstructions, *CURVES, BITS_PER_DIM, *RATE_PARTS, *of_posteriors]


def metric_names() -> tuple[str, ...]:
    """The names of the metrics that training stores for each split, in the order of a table's columns.

    Example:
        >>> metric_names()[:4]
        ('loss', 'cross_entropy', 'squared_error', 'kl')
    """
    return tuple(info.name for info in _stored_metrics())


def column_names(measured: Collection[str]) -> tuple[str, ...]:
    """The names of the metrics that the table of a study has columns for.

    Args:
        measured: The metrics that some run has. The others have empty columns, unless they came later.

    Example:
        >>> "sharpness_ratio" in column_names(["mse", "sharpness"])
        False
    """
    return tuple(info.name for info in _stored_metrics() if info.name in measured or not info.is_later)


def metric_info(name: str) -> MetricInfo:
    """What is known of a metric. For an unknown one, such as a term of a new loss, the label follows from the name.

    Example:
        >>> metric_info("kl").unit
        'nats per image'
        >>> metric_info("attribute_error").label
        'Attribute error'
    """
    for info in (*CURVES, DISTORTION):  # these need no import
        if info.name == name:
            return info
    for info in _stored_metrics():
        if info.name == name:
            return info
    return MetricInfo(name, name.replace("_", " ").capitalize())


def table_metrics() -> list[MetricInfo]:
    """The metrics that the tables of reports show, in order."""
    return [info for info in _shown_metrics() if info.in_table]


def figure_metrics() -> list[MetricInfo]:
    """The metrics that figures show when they compare settings, in order."""
    return [info for info in _shown_metrics() if info.in_figure]
