"""The record of drawn figures: a name in a stored file never leads to a file that is not a figure of the study."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from vaelab.core.errors import UserError
from vaelab.reporting.figure_record import (
    FigureRecord,
    check_figures_folder,
    is_figure_name,
    read_record,
    remove_outdated_figures,
    write_record,
)


@pytest.fixture
def figures(tmp_path: Path) -> Path:
    folder = tmp_path / "study" / "figures"
    folder.mkdir(parents=True)
    return folder


def write_names(figures: Path, names: object) -> None:
    (figures / ".made.json").write_text(json.dumps({"from": "hash", "files": names}))


@pytest.mark.parametrize(
    "name", ["run-curves.png", "B1-bars.pdf", "B1-curves-KL-weight-1.png", "é-classifier_features-a.b.png"]
)
def test_names_of_figures_are_kept(name: str, figures: Path) -> None:
    assert is_figure_name(name)
    write_record(figures, FigureRecord("hash", [name]))
    assert read_record(figures) == FigureRecord("hash", [name])


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "notes.txt",
        "notes.png",
        "B1-curves.svg",
        "B1-curves.png/",
        "../B1-curves.png",
        "../../B1-curves.png",
        "sub/B1-curves.png",
        "/etc/B1-curves.png",
        "..\\B1-curves.png",
        "C:\\B1-curves.png",
        "~/B1-curves.png",
        "B1-curves.png\x00",
        "B1-curves.png\n",
        ".made.json",
        7,
        None,
        ["B1-curves.png"],
        {"name": "B1-curves.png"},
    ],
)
def test_other_names_are_not_read(name: object, figures: Path) -> None:
    assert not is_figure_name(name)
    write_names(figures, [name])
    assert read_record(figures).files == []


def test_nothing_outside_the_folder_is_removed(figures: Path, tmp_path: Path) -> None:
    outside = tmp_path / "B1-curves.png"
    beside = figures.parent / "B1-curves.png"
    for file in (outside, beside):
        file.write_text("mine")
    names = [str(outside), "../B1-curves.png", "../../B1-curves.png", f"{figures}/../../B1-curves.png"]
    write_names(figures, names)
    remove_outdated_figures(figures, names)
    remove_outdated_figures(figures, read_record(figures).files)
    assert outside.read_text() == beside.read_text() == "mine"


def test_only_regular_files_are_removed(figures: Path, tmp_path: Path) -> None:
    target = tmp_path / "target.png"
    target.write_text("mine")
    (figures / "B1-curves.png").symlink_to(target)
    (figures / "B1-bars.png").mkdir()
    os.mkfifo(figures / "B1-samples.png")
    (figures / "B1-model.png").write_text("drawn")
    names = ["B1-curves.png", "B1-bars.png", "B1-samples.png", "B1-model.png"]
    remove_outdated_figures(figures, names)
    assert {file.name for file in figures.iterdir()} == set(names) - {"B1-model.png"}
    assert target.read_text() == "mine"


def test_a_folder_of_figures_that_is_a_link_is_refused(figures: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (victim / "B1-curves.png").write_text("mine")
    figures.rmdir()
    figures.symlink_to(victim)
    with pytest.raises(UserError, match="is a link"):
        check_figures_folder(figures)
    with pytest.raises(UserError, match="is a link"):
        remove_outdated_figures(figures, ["B1-curves.png"])
    assert (victim / "B1-curves.png").exists()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"from": 1, "files": []}',
        '{"from": "x"}',
        '{"from": "x", "files": {"a": 1}}',
        pytest.param("[" * 9999, id="nested"),
    ],
)
def test_a_damaged_record_is_an_empty_one(text: str, figures: Path) -> None:
    (figures / ".made.json").write_text(text)
    assert read_record(figures) == FigureRecord()


def test_a_record_that_is_no_file_is_an_empty_one(figures: Path) -> None:
    os.mkfifo(figures / ".made.json")
    assert read_record(figures) == FigureRecord()
