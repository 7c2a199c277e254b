"""Tables of a report: metrics of the settings, and how well representations separate the categories."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from vaelab.evaluation.catalogue import (
    REPRESENTATION_LABELS,
    SEPARABILITY_METRICS,
    MetricInfo,
    metric_info,
    table_metrics,
)
from vaelab.reporting.formatting import Spread, choose_decimals, format_spread
from vaelab.runs.run import Run
from vaelab.studies.results import SettingResult

__all__ = [
    "Column",
    "MetricsTable",
    "SeparabilityTable",
    "TableRow",
    "correlation_rows",
    "metrics_table",
    "probability_columns",
    "separability_table",
]


CORRELATIONS = {"correlation": "the encoder means", "correlation_classifier": "the features of the classifier"}


class Column(NamedTuple):
    """The head of a column: its name and its unit."""

    name: str
    unit: str


class TableRow(NamedTuple):
    """A row: its name, how many seeds it is from, and a cell for each column; None for a number that there is not."""

    name: str
    num_seeds: int
    cells: list[Spread | None]


@dataclass(frozen=True)
class MetricsTable:
    """The metrics of the settings of an experiment.

    Attributes:
        header: What the rows are.
        columns: The heads of the columns.
        rows: A row for each setting.
        notes: What must be said of the numbers.
        max_seeds: The largest number of seeds of a setting.
    """

    header: str
    columns: list[Column]
    rows: list[TableRow]
    notes: list[str]
    max_seeds: int


@dataclass(frozen=True)
class SeparabilityTable:
    """How well representations separate the categories.

    Attributes:
        columns: The heads of the columns.
        rows: A row for each representation.
    """

    columns: list[Column]
    rows: list[TableRow]


def metrics_table(settings: Sequence[SettingResult]) -> MetricsTable:
    """The mean and standard deviation over seeds of the main metrics of the test split.

    Args:
        settings: The results of the settings of one experiment under one condition.

    Returns:
        The table. The digits of a column follow from its deviations; columns without a number are left out.
    """
    columns: list[Column] = []
    cells_by_column: list[list[Spread | None]] = []
    for info in table_metrics():
        values = [setting.values(info.name) for setting in settings]
        present = [array for array in values if len(array)]
        if present:
            decimals = choose_decimals(present)
            columns.append(Column(info.label, info.unit))
            cells_by_column.append([format_spread(array, decimals) for array in values])
    rows = []
    for index, setting in enumerate(settings):
        cells = [column[index] for column in cells_by_column]
        rows.append(TableRow(setting.name or "base", len(setting.records), cells))
    factors = settings[0].experiment.factors
    return MetricsTable(
        header="Setting" if factors in ([], ["variant"]) else ", ".join(factors),
        columns=columns,
        rows=rows,
        notes=_metric_notes(settings),
        max_seeds=max(len(setting.records) for setting in settings),
    )


def _metric_notes(settings: Sequence[SettingResult]) -> list[str]:
    """What must be said of the metrics in the table, each note once."""
    notes = []
    for setting in settings:
        for run in list(setting.runs.values())[:1]:
            notes += _notes_of_run(run)
    return list(dict.fromkeys(notes))


def _notes_of_run(run: Run) -> list[str]:
    shown_names = [info.name for info in table_metrics()]
    notes = []
    for name, metric in run.metrics.get("test", {}).get("metrics", {}).items():
        if "note" in metric and name in shown_names:
            notes.append(f"{metric_info(name).label}: {metric['note']}.")
    return notes


def separability_table(tables: Sequence[Mapping[str, float]]) -> SeparabilityTable:
    """How well representations separate the categories.

    Args:
        tables: The numbers of the analysis `features`, one table a seed.

    Returns:
        The table; rows and columns without a number are left out.
    """
    columns = [info for info in SEPARABILITY_METRICS if _has_any(tables, REPRESENTATION_LABELS, [info])]
    rows = []
    for representation, label in REPRESENTATION_LABELS.items():
        if _has_any(tables, [representation], columns):
            cells = []
            for info in columns:
                cells.append(_spread_over_seeds(tables, f"{representation}_{info.name}", decimals_of(info)))
            rows.append(TableRow(label, len(tables), cells))
    return SeparabilityTable([Column(info.label, info.unit) for info in columns], rows)


def decimals_of(info: MetricInfo) -> int:
    """The digits after the point in the format of a metric.

    Example:
        >>> decimals_of(MetricInfo("ari", "ARI", format=".3f"))
        3
    """
    return int(info.format.removeprefix(".").rstrip("efg"))


def correlation_rows(tables: Sequence[Mapping[str, float]]) -> list[tuple[str, Spread]]:
    """The canonical correlations of raw pixels with other representations, as (representation, correlation)."""
    rows = []
    for name, label in CORRELATIONS.items():
        spread = _spread_over_seeds(tables, name, 3)
        if spread:
            rows.append((label, spread))
    return rows


def probability_columns(tables: Sequence[Mapping[str, float]]) -> list[tuple[str, Spread]]:
    """The mean probability along interpolations, as (alpha, probability), at six values of alpha."""
    columns = []
    for percent in range(0, 101, 20):
        spread = _spread_over_seeds(tables, f"probability_{percent}", 2)
        if spread:
            columns.append((f"{percent / 100:g}", spread))
    return columns


def _has_any(
    tables: Sequence[Mapping[str, float]], representations: Iterable[str], metrics: Iterable[MetricInfo]
) -> bool:
    """Whether there is a number of some representation and metric."""
    names = {f"{representation}_{info.name}" for representation in representations for info in metrics}
    return any(name in table for table in tables for name in names)


def _spread_over_seeds(tables: Sequence[Mapping[str, float]], name: str, decimals: int) -> Spread | None:
    """The mean and standard deviation of a number over the seeds that have it."""
    return format_spread(np.array([table[name] for table in tables if name in table]), decimals)
