"""Where a training starts."""

from __future__ import annotations

from pathlib import Path

import pytest

import vaelab
from vaelab.analysis.baseline import open_baseline
from vaelab.analysis.registry import read_analyses, run_analysis


@pytest.mark.parametrize("output_bias", ["init", "mean"])
def test_the_initial_terms_are_those_after_steps_that_change_nothing(output_bias: str, tmp_path: Path) -> None:
    network = f"mlp:hidden=16,output_bias={output_bias}"
    settings = {"network": network, "loss": "ce", "lr": 1e-30, "epochs": 1, "precision": "float32"}
    run = vaelab.train("digits", **settings, figures=False, out=tmp_path / "runs")
    run_analysis(run, "initial", open_baseline(run.dataset, run.spec.seed, tmp_path / "references"))
    initial = read_analyses(run)["initial"]
    after = run.history[0]["validation"]
    assert initial == pytest.approx({name: after[name] for name in initial}, rel=1e-5)
    assert set(initial) >= {"loss", "kl", "cross_entropy"}
