"""The report of a study whose images have moved."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import vaelab
from vaelab.core.errors import UserError
from vaelab.runs.run import find_runs

STUDY = """
title = "Moved"
data = "{data}"
seeds = 1
base = {{ network = "mlp:hidden=8", epochs = 1, validation = 0.2 }}

[[experiments]]
id = "size"
title = "Size"
vary = {{ latent_dim = [2, 3] }}
figures = ["samples"]
"""


def draw_pictures(folder: Path, seed: int) -> None:
    """Twelve pictures in two categories, two of them for the test."""
    rng = np.random.default_rng(seed)
    for split, count in (("train", 5), ("test", 1)):
        for category in ("dark", "light"):
            (folder / split / category).mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 100, (8, 8), dtype=np.uint8) + (100 if category == "light" else 0)
                Image.fromarray(pixels).save(folder / split / category / f"{number}.png")


def test_the_report_of_a_study_finds_images_that_have_moved(tmp_path: Path) -> None:
    old, new, other = (tmp_path / name for name in ("old", "new", "other"))
    draw_pictures(old, seed=0)
    draw_pictures(other, seed=1)
    (tmp_path / "moved.toml").write_text(STUDY.format(data=old))
    study = vaelab.study(tmp_path / "moved.toml", workers=1, out=tmp_path)
    before = {name: (study.folder / name).read_bytes() for name in ("table.csv", "claims.json")}
    old.rename(new)
    (study.folder / "report.html").unlink()
    with pytest.raises(UserError, match=f"(?s){old}.*--data"):
        vaelab.report(study.folder, workers=1)
    with pytest.raises(UserError, match=f"the images of {other} are not those that the study"):
        vaelab.report(study.folder, data=str(other), workers=1)
    assert vaelab.report(study.folder, data=str(new), workers=1).is_file()
    assert {name: (study.folder / name).read_bytes() for name in before} == before
    assert {run.origin["data"]["location"] for run in find_runs(tmp_path / "runs")} == {str(new)}
    assert vaelab.evaluate(find_runs(tmp_path / "runs")[0])["split"] == "test"  # once said, each run knows it
