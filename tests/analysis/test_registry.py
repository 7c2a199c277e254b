"""The results of an analysis are made again where they are damaged, and refused where nothing can make them."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from vaelab.analysis import registry
from vaelab.analysis.baseline import Baseline
from vaelab.analysis.results import AnalysisResult
from vaelab.core.errors import UserError
from vaelab.runs.run import Run


@pytest.fixture
def analysed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A folder with the results of one made-up analysis."""
    result = AnalysisResult({"score": 0.5, "count": 3.0}, {"points": np.arange(6.0).reshape(2, 3)})
    monkeypatch.setitem(cast(Any, registry.ANALYSES), "made-up", lambda run, baseline: result)
    run = Run(tmp_path)
    registry.run_analysis(run, "made-up", cast(Baseline, None))
    return run


def test_an_analysis_comes_back(analysed: Run) -> None:
    assert registry.has_analysis(analysed, "made-up")
    assert registry.read_analyses(analysed) == {"made-up": {"score": 0.5, "count": 3.0}}
    assert registry.read_analysis_arrays(analysed, "made-up")["points"].tolist() == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("name", ["made-up.json", "made-up.safetensors"])
@pytest.mark.parametrize("damage", ["a digit", "cut", "missing"])
def test_a_damaged_analysis_is_made_again(analysed: Run, name: str, damage: str) -> None:
    file = registry.analyses_dir(analysed) / name
    content = file.read_bytes()
    match damage:
        case "a digit":
            file.write_bytes(content[:-9] + bytes([content[-9] ^ 1]) + content[-8:])
            os.utime(file, (0, 0))
        case "cut":
            file.write_bytes(content[: len(content) // 2])
        case "missing":
            file.unlink()
    if damage != "missing" or name.endswith("safetensors"):
        with pytest.raises(UserError, match=r"made-up\.json or \.safetensors is damaged"):
            registry.read_analyses(analysed)
    assert not registry.has_analysis(analysed, "made-up")
    registry.run_analysis(analysed, "made-up", cast(Baseline, None))
    assert registry.has_analysis(analysed, "made-up")
    assert file.read_bytes() == content


def test_arrays_that_cannot_be_opened_are_named_with_the_numbers(analysed: Run) -> None:
    file = registry.analyses_dir(analysed) / "made-up.safetensors"
    (registry.analyses_dir(analysed) / "made-up.seal").unlink()
    file.unlink()
    file.mkdir()
    with pytest.raises(UserError, match=f"cannot read {file}: Is a directory"):
        registry.read_analyses(analysed)


@pytest.mark.parametrize("last", ["made-up.safetensors", "made-up.seal", "made-up.json"])
def test_an_analysis_that_was_stopped_is_not_taken_for_a_whole_one(
    analysed: Run, monkeypatch: pytest.MonkeyPatch, last: str
) -> None:
    """Wherever it is stopped, so that no analysis stays without its seal."""
    replace = Path.replace

    def stopped_at(temporary: Path, target: Path) -> Path:
        if target.name == last:
            raise KeyboardInterrupt
        return replace(temporary, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "replace", stopped_at)
        with pytest.raises(KeyboardInterrupt):
            registry.run_analysis(analysed, "made-up", cast(Baseline, None))
    assert not registry.has_analysis(analysed, "made-up")
    registry.run_analysis(analysed, "made-up", cast(Baseline, None))
    assert registry.has_analysis(analysed, "made-up")


def test_an_analysis_of_an_earlier_version_needs_no_seal(analysed: Run) -> None:
    (registry.analyses_dir(analysed) / "made-up.seal").unlink()
    assert registry.has_analysis(analysed, "made-up")
    (registry.analyses_dir(analysed) / "made-up.json").write_text('{"score": "high"}')
    assert not registry.has_analysis(analysed, "made-up")
    with pytest.raises(UserError, match='score must be a number or null, got "high"'):
        registry.read_analyses(analysed)


def test_an_analysis_of_an_earlier_version_is_made_again_where_a_later_number_is_asked_for(
    analysed: Run, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(registry.LATER_NUMBERS, "later", "score")
    monkeypatch.setitem(registry.LATER_NUMBERS, "without its neighbour", "not defined here")
    assert registry.has_analysis(analysed, "made-up")
    assert registry.has_analysis(analysed, "made-up", ["count", "without its neighbour", "unknown"])
    assert not registry.has_analysis(analysed, "made-up", ["count", "later"])
    assert "of an earlier version without later and is made again" in capsys.readouterr().err
