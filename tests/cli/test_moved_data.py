"""Runs whose images were moved or deleted: what is gone is named, what is stored is used, and --data finds them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from command_lines import say
from sample_images import folder_of_pictures

import vaelab
from vaelab.runs.run import Run, load


@pytest.fixture(scope="module")
def moved(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Path]:
    """A run, the place where its pictures were, and the one where they are now."""
    folder = tmp_path_factory.mktemp("moved")
    before, now = folder_of_pictures(folder / "before"), folder / "now"
    settings = {"network": "mlp:hidden=16", "latent_dim": 2, "epochs": 1, "threads": 1}
    run = vaelab.train(str(before), figures=False, out=folder / "runs", **settings)
    shutil.move(before, now)
    return run.path, before, now


def copy_of(run: Path, tmp_path: Path) -> Run:
    return load(Path(shutil.copytree(run, tmp_path / run.name)))


def test_evaluate_uses_what_is_stored(
    moved: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(moved[0], tmp_path)
    status, out, err = say(capsys, "evaluate", run.path, "--json")
    assert status == 0
    assert json.loads(out) == run.metrics["test"]
    assert f"are no longer at {moved[1]}" in err
    for words in (["--n", 3], ["--split", "train"], ["--full"]):
        status, out, err = say(capsys, "evaluate", run.path, *words)
        assert (status, out) == (2, "")
        assert f"are no longer at {moved[1]}; say with --data where they are now" in err


def test_evaluate_finds_the_same_numbers_where_the_images_are_now(
    moved: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(moved[0], tmp_path)
    status, out, err = say(capsys, "evaluate", run.path, "--data", moved[2], "--evidence", 0, "--json")
    assert status == 0, err
    assert json.loads(out) == run.metrics["test"]


def test_doctor_says_what_it_can_without_images_and_all_with_them(
    moved: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(moved[0], tmp_path)
    status, out, err = say(capsys, "doctor", run.path)
    assert status == 0, err
    assert str(moved[1]) in err
    assert "posterior collapse" in out
    status, out, err = say(capsys, "doctor", run.path, "--data", moved[2])
    assert status == 0, err
    assert "no longer" not in err


def test_interpolate_needs_images_for_categories_alone(
    moved: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(moved[0], tmp_path)
    words = ["interpolate", run.path, "--from", "blue", "--to", "red", "--pairs", 1, "--out", tmp_path / "i.png"]
    status, _, err = say(capsys, *words)
    assert status == 2
    assert str(moved[1]) in err
    assert say(capsys, *words, "--data", moved[2])[0] == 0
    ends = [moved[2] / "blue/000.png", moved[2] / "red/000.png"]
    assert say(capsys, "interpolate", run.path, "--from", ends[0], "--to", ends[1], "--out", tmp_path / "f.png")[0] == 0


def test_report_names_the_place_and_remembers_the_new_one(
    moved: tuple[Path, Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = copy_of(moved[0], tmp_path)
    status, _, err = say(capsys, "report", run.path)
    assert status == 2
    assert f"are no longer at {moved[1]}" in err
    other = folder_of_pictures(tmp_path / "other", count=3)
    status, _, err = say(capsys, "report", run.path, "--data", other)
    assert status == 2
    assert "are not those that run" in err
    status, out, err = say(capsys, "report", run.path, "--data", moved[2], "--workers", 1)
    assert status == 0, err
    assert Path(out.split()[-1]).is_file()
    assert load(run.path).origin["data"]["location"] == str(moved[2])
    assert say(capsys, "evaluate", run.path, "--n", 3, "--evidence", 0)[0] == 0
