"""Analyses: the same science as `evaluate`, numbers that are JSON, and damaged results made again."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch

import vaelab
from vaelab.analysis import registry
from vaelab.analysis.baseline import Baseline, open_baseline
from vaelab.analysis.registry import ANALYSES, has_analysis, read_analyses, read_analysis_arrays, run_analysis
from vaelab.analysis.results import AnalysisResult
from vaelab.analysis.samples import load_inception
from vaelab.analysis.separability import LabelledPoints, cluster_agreement, separability
from vaelab.core.errors import UserError
from vaelab.runs.run import Run


def test_the_names_on_disk_are_a_contract() -> None:
    of_models = ["features", "initial", "interpolations", "samples", "evidence", "full_evidence", "leaks"]
    assert list(ANALYSES) == [*of_models, "baselines", "health", "image_values"]


def test_separability_counts_labelled_points_alone() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    points = rng.standard_normal((60, 2)) + 20 * np.eye(3, 2)[labels]
    known = separability(LabelledPoints(points, labels), labels, LabelledPoints(points, labels))
    assert known["ari"] == known["neighbour"] == 1
    assert known["ratio"] > 3
    more = LabelledPoints(np.concatenate([points, points]), np.concatenate([labels, np.full(60, -1)]))
    clusters = np.concatenate([labels, labels])
    assert separability(more, clusters, more) == known
    assert separability(LabelledPoints(points, np.zeros(60, int)), labels) == {}
    assert "probe" not in separability(LabelledPoints(points, labels), labels)


def test_more_clusters_raise_the_normalised_information_but_not_the_adjusted_one() -> None:
    """Clusters that know nothing of the labels: three of them, and sixty."""
    rng = np.random.default_rng(1)
    labels = np.arange(240) % 4
    few, many = (cluster_agreement(rng.integers(count, size=240), labels) for count in (3, 60))
    assert many["nmi"] > few["nmi"] + 0.15
    for agreement in (few, many):
        assert abs(agreement["ami"]) < 0.03
        assert abs(agreement["ari"]) < 0.03
    assert cluster_agreement(3 - labels, labels) == pytest.approx({"ari": 1, "nmi": 1, "ami": 1})


def test_samples_are_compared_at_equal_numbers_and_at_the_size_of_other_images(run: Run, baseline: Baseline) -> None:
    numbers = ANALYSES["samples"](run, baseline).numbers
    assert numbers["distance_corrected"] < numbers["distance"]
    assert numbers["sharpness_ratio"] == pytest.approx(numbers["sharpness"] ** 2, rel=0.2), "of small images"


def test_leaks_are_those_of_the_originals_too(trained: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that gives every image back leaks what the originals leak; one that gives grey leaks nothing."""
    baseline = open_baseline(trained.dataset, 0, tmp_path)
    monkeypatch.setattr(type(trained.model), "reconstruct", lambda model, x: x)
    same = ANALYSES["leaks"](trained, baseline).numbers
    monkeypatch.setattr(type(trained.model), "reconstruct", lambda model, x: torch.full_like(x, 0.5))
    grey = ANALYSES["leaks"](trained, baseline).numbers
    for part in ("background", "hair", "skin"):
        assert same[part] == same[f"{part}_original"] == grey[f"{part}_original"]
        assert grey[part] <= same["chance"]
    assert same["skin"] > same["chance"] + 0.1
    test_labels = trained.images("test").label()
    assert same["chance"] == np.bincount(test_labels).max() / len(test_labels)


def test_evaluate_and_the_analysis_agree(run: Run, baseline: Baseline) -> None:
    """On the same images both find the same neighbours and the same linear probe, in codes and in pixels."""
    numbers = ANALYSES["features"](run, baseline).numbers
    metrics = vaelab.evaluate(run, full=True, evidence=0)["metrics"]
    for name in ("codes_neighbour", "codes_probe", "raw_neighbour", "raw_probe", "pca_neighbour", "pca_probe"):
        assert numbers[name] == metrics[name]["value"], name


def test_a_number_that_is_not_defined_is_null(run: Run, baseline: Baseline, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ANALYSES, "samples", lambda run, baseline: AnalysisResult({"a": float("nan"), "b": 1.0}))
    run_analysis(run, "samples", baseline)
    text = (registry.analyses_dir(run) / "samples.json").read_text()
    assert json.loads(text, parse_constant=pytest.fail) == {"a": None, "b": 1.0}
    assert read_analyses(run)["samples"] == {"a": None, "b": 1.0}


def test_damaged_results_are_made_again(run: Run, baseline: Baseline, capsys: pytest.CaptureFixture[str]) -> None:
    run_analysis(run, "samples", baseline)
    folder = registry.analyses_dir(run)
    numbers, images = read_analyses(run)["samples"], read_analysis_arrays(run, "samples")["images"]
    for name, content in (("samples.json", b"{"), ("samples.json", b"[1]"), ("samples.safetensors", b"nonsense")):
        whole = (folder / name).read_bytes()
        (folder / name).write_bytes(content)
        assert not has_analysis(run, "samples")
        (folder / name).write_bytes(whole)
    (folder / "samples.json").write_bytes(b"{")
    run_analysis(run, "samples", baseline)
    assert has_analysis(run, "samples")
    assert read_analyses(run)["samples"] == numbers
    assert np.array_equal(read_analysis_arrays(run, "samples")["images"], images)


@pytest.mark.parametrize("content", [b"", b"nonsense", None], ids=["empty", "nonsense", "another"])
def test_a_damaged_classifier_is_made_again(
    content: bytes | None, baseline: Baseline, trained: Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert baseline.classifier is not None
    weights = baseline.classifier.state_dict()
    file = baseline.folder / "classifier.safetensors"
    file.write_bytes((trained.path / "weights.safetensors").read_bytes() if content is None else content)
    again = Baseline(baseline.dataset, baseline.seed, baseline.folder).classifier
    assert again is not None
    assert all((tensor == weights[name]).all() for name, tensor in again.state_dict().items())
    assert "is damaged and is made again" in capsys.readouterr().err


class NoInception(torch.nn.Module):
    """A network that takes other arguments than the Inception network of FID."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


class NoFeatures(torch.nn.Module):
    """A network that gives images in place of features."""

    def forward(self, x: torch.Tensor, return_features: bool) -> torch.Tensor:
        return x if return_features else x + 1


@pytest.mark.filterwarnings("ignore:.*torch.jit.*:DeprecationWarning")
@pytest.mark.parametrize(
    ("network", "reason"), [(NoInception(), "takes other images"), (NoFeatures(), "gives no features")]
)
def test_another_network_than_inception_is_refused_before_the_work(
    network: torch.nn.Module, reason: str, tmp_path: Path
) -> None:
    file = tmp_path / "inception.pt"
    torch.jit.script(network).save(str(file))
    with pytest.raises(UserError, match=reason):
        load_inception(file, (1, 8, 8))


def test_a_pipe_is_no_inception_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "inception.pt")
    with pytest.raises(UserError, match="not a regular file"):
        load_inception(tmp_path / "inception.pt", (1, 8, 8))
