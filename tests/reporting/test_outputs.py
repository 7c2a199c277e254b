"""What a study leaves on disk: the same bytes each time, and nothing outside its folder is touched."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import vaelab
from vaelab.core.errors import UserError
from vaelab.core.files import write_json
from vaelab.reporting.document import to_script_json

STUDY = """
data = "digits"
seeds = 1
about = "A \\u001B[31mred\\u001B[0m study"

[base]
network = "mlp:hidden=8"
epochs = 1

[[experiments]]
id = "size"
question = "Does a bell \\u0007 ring?"
vary = { latent_dim = [2, 3] }
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small study without a title."""
    out = tmp_path_factory.mktemp("outputs")
    (out / "tiny.toml").write_text(STUDY, encoding="utf-8")
    return vaelab.study(out / "tiny.toml", workers=1, out=out).folder


def write_again(folder: Path) -> str:
    """The report, made anew."""
    record = folder / "figures" / ".made.json"
    write_json(record, json.loads(record.read_text()) | {"from": "something else"})
    return vaelab.report(folder, workers=1).read_text(encoding="utf-8")


def test_the_verb_report_gives_the_same_bytes(folder: Path) -> None:
    before = (folder / "report.html").read_text(encoding="utf-8")
    assert "<title>tiny</title>" in before, "a study without a title is called by its name"
    assert write_again(folder) == before


def test_two_clean_studies_have_the_same_report(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "tiny.toml").write_text(STUDY, encoding="utf-8")
    other = vaelab.study(tmp_path / "tiny.toml", workers=1, out=tmp_path).folder
    for name in ("report.html", "table.csv", "claims.json", "study.toml"):
        assert (other / name).read_bytes() == (folder / name).read_bytes(), name
    assert (other / "timings.csv").read_bytes() != (folder / "timings.csv").read_bytes()


def test_control_characters_are_shown_as_escapes(folder: Path) -> None:
    text = (folder / "report.html").read_text(encoding="utf-8")
    own = text[: text.index("plotly")] + text[text.index("<main") : text.index("</main>")]
    assert "\x1b" not in own
    assert "\x07" not in own
    assert r"A \x1b[31mred\x1b[0m study" in own


def test_files_named_by_a_stored_record_stay(folder: Path, tmp_path: Path) -> None:
    victims = [tmp_path / "absolute-curves.png", folder / "study-curves.png", folder.parent / "size-curves.png"]
    for file in victims:
        file.write_text("mine")
    own = folder / "figures" / "notes.png"
    own.write_text("mine")
    outdated = folder / "figures" / "old-curves.png"
    outdated.write_text("drawn before")
    names = [str(victims[0]), "../study-curves.png", "../../size-curves.png", "notes.png", "old-curves.png"]
    write_json(folder / "figures" / ".made.json", {"from": "something else", "files": names})
    vaelab.report(folder, workers=1)
    assert [file.read_text() for file in [*victims, own]] == ["mine"] * 4
    assert not outdated.exists(), "a figure of ours that is no longer asked for goes"


@pytest.mark.parametrize("content", ["{", "[]", '{"files": 7}'])
def test_a_damaged_record_is_made_again(content: str, folder: Path) -> None:
    before = (folder / "report.html").read_bytes()
    (folder / "figures" / ".made.json").write_text(content)
    assert vaelab.report(folder, workers=1).read_bytes() == before
    assert json.loads((folder / "figures" / ".made.json").read_text())["files"]


def test_a_changed_report_or_figure_is_made_again(folder: Path) -> None:
    vaelab.report(folder, workers=1)
    record = json.loads((folder / "figures" / ".made.json").read_text())
    for file in (folder / "report.html", folder / "figures" / record["files"][0]):
        before = file.read_bytes()
        file.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
        vaelab.report(folder, workers=1)
        assert file.read_bytes() == before


@pytest.mark.parametrize("content", ["{", "[]", '{"command": ["vaelab", 7]}', '{"command": {"a": null}}'])
def test_a_damaged_origin_of_a_study_is_no_obstacle(content: str, folder: Path) -> None:
    (folder / "origin.json").write_text(content)
    assert "<h2>Origin</h2>" in write_again(folder)


def test_numbers_that_are_not_finite_are_never_stored(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"claims\.1\.effect is nan, which cannot be stored"):
        write_json(tmp_path / "claims.json", {"claims": [{"effect": 1.0}, {"effect": float("nan")}]})
    assert not (tmp_path / "claims.json").exists()
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_script_json({"mean": float("inf")})


def test_a_changed_study_file_is_named_by_the_report(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = folder / "study.toml", folder.parent.parent
    vaelab.study(out / "tiny.toml", workers=1, out=out)
    vaelab.report(folder, workers=1)
    assert "was changed" not in capsys.readouterr().err
    file.write_text(file.read_text().replace("seeds = 1", "seeds =  1", 1) + "\n")
    for _ in range(2):
        vaelab.report(folder, workers=1)
        assert f"{file} was changed after the study was carried out" in capsys.readouterr().err
