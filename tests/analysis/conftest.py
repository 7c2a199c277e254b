"""A run of its own for each test of analyses, and what runs are compared with."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import vaelab
from vaelab.analysis.baseline import Baseline, open_baseline
from vaelab.runs.run import Run


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    return vaelab.load(shutil.copytree(trained.path, tmp_path / "runs" / trained.key))


@pytest.fixture
def baseline(run: Run, tmp_path: Path) -> Baseline:
    return open_baseline(run.dataset, run.spec.seed, tmp_path / "references")
