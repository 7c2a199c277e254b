"""The catalogue: every metric that is stored is described once, and what is added is found."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from vaelab.evaluation import catalogue
from vaelab.evaluation.catalogue import MetricInfo, metric_info, metric_names, reconstruction_metric
from vaelab.evaluation.metrics import reconstruction_values
from vaelab.runs.run import Run
from vaelab.studies.quantities import Quantity


def test_every_stored_metric_is_described(trained: Run) -> None:
    names = metric_names()
    assert len(set(names)) == len(names)
    for record in trained.metrics.values():
        assert set(record["metrics"]) <= set(names)
    for name in names:
        assert metric_info(name).label
        assert metric_info(name).format_value(1)


EARLIER_COLUMNS = (
    *("loss", "cross_entropy", "squared_error", "kl", "negative_elbo"),
    *("cross_entropy_of_mean", "squared_error_of_mean", "negative_elbo_of_mean"),
    *("mutual_information", "marginal_kl", "total_correlation", "bits_per_dim"),
    *("mse", "psnr", "ssim", "sharpness", "active_units"),
)


def test_the_columns_of_a_table_keep_their_order() -> None:
    """Tables of studies made before have these columns, in this order, also where no run has a value."""
    assert catalogue.column_names([]) == EARLIER_COLUMNS
    assert [name for name in metric_names() if name in EARLIER_COLUMNS] == list(EARLIER_COLUMNS)
    assert catalogue.column_names(metric_names()) == metric_names()
    later = set(catalogue.column_names(["sharpness_ratio"])) - set(EARLIER_COLUMNS)
    assert later == {"sharpness_ratio"}


def test_a_metric_that_was_replaced_says_by_what(trained: Run) -> None:
    stored = trained.metrics["test"]["metrics"]
    replaced = [name for name in metric_names() if metric_info(name).replaced_by]
    assert replaced == ["total_correlation", "sharpness"]
    for name in replaced:
        info = metric_info(name)
        better = metric_info(info.replaced_by)
        assert info.replaced_by in metric_names()
        assert not better.replaced_by
        assert not info.in_table
        assert not info.in_figure
        assert info.label != better.label
        assert info.replaced_by in stored
        assert stored[name]["note"] == f"{info.replaced_because}: better {info.replaced_by}"


def test_directions_point_to_better_values() -> None:
    higher = [name for name in metric_names() if metric_info(name).direction == "higher"]
    assert higher == ["psnr", "ssim"]
    lower = {name for name in metric_names() if metric_info(name).direction == "lower"}
    assert {"loss", "negative_elbo", "bits_per_dim", "mse", "squared_error_of_mean"} <= lower
    assert not lower & {"kl", "mutual_information", "sharpness_ratio", "active_units", "total_correlation_of_codes"}
    assert metric_info("active_units").format_value(3) == "3"
    assert metric_info("psnr").unit == "dB"
    assert metric_info("psnr").label_with_direction == "PSNR \N{UPWARDS ARROW}"


def test_a_metric_that_is_added_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalogue, "_reconstruction_metrics", dict(catalogue.reconstruction_metrics()))

    @reconstruction_metric(MetricInfo("mae", "MAE", direction="lower", undefined_for="of one colour"))
    def mean_absolute_error(reconstruction: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
        error = (reconstruction - x).abs().flatten(1).mean(1)
        return error.where(x.flatten(1).std(1) > 0, torch.nan)

    x = torch.stack([torch.eye(12).view(1, 12, 12), torch.ones(1, 12, 12)])
    assert mean_absolute_error(x, x)[0] == 0
    assert reconstruction_values(x, x)["mae"].tolist() == [0.0]
    assert "mae" in metric_names()
    assert Quantity("2 * mae").numbers == [("test", "mae")]
    for shown in (catalogue.table_metrics(), catalogue.figure_metrics()):
        assert metric_info("mae").label_with_direction in [info.label_with_direction for info in shown]


def test_it_imports_nothing_heavy() -> None:
    check = (
        "import sys; from vaelab.evaluation import catalogue; catalogue.metric_info('kl');"
        "print(*sorted({'torch', 'numpy'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert result.stdout.split() == []
