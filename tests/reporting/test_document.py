"""The document: whole, one file, and in a browser everything that it promises, in both widths and both lights."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from plotly.offline import get_plotlyjs
from sample_runs import examined

from vaelab.figures import study_figures
from vaelab.reporting import document
from vaelab.reporting.images import shrink_to_budget
from vaelab.runs.run import Run
from vaelab.runs.spec import run_key
from vaelab.studies import parsing
from vaelab.studies.results import SettingResult, StudyResults, read_record

STUDY = """
title = "Digits, <b>bold</b>"
about = "What <script>alert(1)</script> says is text."
data = "digits"
seeds = 2
[rows]
B4 = "Clouds & paths"
[base]
latent_dim = 4
[readings]
"KL weight 1" = { kl_weight = 1 }
"KL weight 0" = { kl_weight = 0 }
[[experiments]]
id = "B4"
rows = ["B4"]
title = "Codes"
vary = { loss = ["ce", "ce+se"] }
figures = ["features", "interpolations", "reconstructions", "curves", "model"]
[[experiments.claims]]
id = "lowest"
sentence = "The sum is best."
measure = "mse"
expect = "lowest:setting=ce+se"
[[experiments.claims]]
id = "above"
sentence = "The codes are like the pixels."
measure = "features.correlation"
expect = "between:low=0.5"
readings = ["KL weight 1"]
"""


@pytest.fixture(scope="module")
def results(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> StudyResults:
    """Two settings of two seeds under two readings, all of which are one examined run."""
    run, study = examined(trained, tmp_path_factory.mktemp("examined")), parsing.parse_study(STUDY, "small")
    runs = {1: run, 2: run}
    outcomes = [SettingResult(e, r, s, runs, dict.fromkeys(runs, read_record(run)))
                for e in study.experiments for r in e.conditions for s in e.settings]  # fmt: skip
    return StudyResults(study, tuple(outcomes), {})


@pytest.fixture(scope="module")
def report(results: StudyResults, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    experiment = replace(results.study.experiments[0], figures=("reconstructions",))
    study_figures.draw_study_figures(results, experiment, "KL weight 1", folder / "figures", pdf=False)
    return document.write_report(results, folder)


def test_one_file_that_asks_for_nothing_and_is_the_same_each_time(results: StudyResults, report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert report.stat().st_size < 15e6
    own = text.replace(get_plotlyjs(), "")
    assert len(text) - len(own) > 10**6, "Plotly is there, once"
    assert "http://" not in own
    assert "https://" not in own
    assert "default-src 'none'" in text
    assert text.count("data:image/png") == 1 + 1 + 2 * 2 * 7, "the drawn figure, the thumbnails, and a strip a pair"
    document.write_report(results, report.parent)
    assert report.read_text(encoding="utf-8") == text


def test_what_files_say_is_text(report: Path) -> None:
    text = report.read_text(encoding="utf-8")
    assert "Digits, &lt;b&gt;bold&lt;/b&gt;" in text
    assert "<b>bold" not in text
    assert "<script>alert" not in text


def test_a_part_says_so_and_what_failed(results: StudyResults, tmp_path: Path) -> None:
    run = results.setting_results[0].runs[1]
    lost = results.study.spec(
        results.setting_results[-1].experiment, "KL weight 0", results.setting_results[-1].setting, 2
    )
    failed = {
        run_key(lost, run.origin["data"]["fingerprint"], run.origin["plan"]["precision"]): "the loss is <no> number"
    }
    outcomes = [replace(o, runs={1: run}, records={1: o.records[1]}) for o in results.setting_results[:-1]]
    outcomes.append(replace(results.setting_results[-1], runs={}, records={}))
    text = document.write_report(StudyResults(results.study, tuple(outcomes), failed), tmp_path).read_text(
        encoding="utf-8"
    )
    assert re.search(r"Partial: \d of \d runs are finished\.", text)
    assert "B4, KL weight 0, ce+se, seed 2</b>: the loss is &lt;no&gt; number" in text
    assert "no seed has all the runs that it compares" in text


def test_nothing_finished_is_a_document_too(results: StudyResults, tmp_path: Path) -> None:
    outcomes = tuple(replace(o, runs={}, records={}) for o in results.setting_results)
    assert "No run is finished yet." in document.write_report(
        replace(results, setting_results=outcomes), tmp_path
    ).read_text("utf-8")


def test_pictures_become_smaller_until_there_is_room() -> None:
    noise, files = np.random.default_rng(0), {}
    for name, side in (("small", 8), ("large", 256)):
        written = BytesIO()
        Image.fromarray(noise.integers(0, 255, (side, side, 3), np.uint8)).save(written, "PNG")
        files[name] = written.getvalue()
    uris = shrink_to_budget(files, 100_000)
    assert uris["small"].startswith("data:image/png")
    assert uris["large"].startswith("data:image/webp")
    assert sum(map(len, uris.values())) <= 100_000
    assert shrink_to_budget(files, 10**6)["large"].startswith("data:image/png")


# In a browser.


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    names = ("chromium", "chromium-browser", "google-chrome")
    found = next(filter(None, map(shutil.which, names)), None)
    if found is None:
        assert os.environ.get("CI_BROWSER") != "1", f"none of {', '.join(names)} is installed"
        pytest.skip("no browser")
    from playwright.sync_api import sync_playwright

    drawing = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader", "--enable-unsafe-swiftshader"]
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=drawing)
        yield started
        started.close()


# Of every text that is seen: its contrast to the first background behind it that is no glass.
CONTRASTS = """() => {
  const parts = (c) => c.match(/[\\d.]+/g).map(Number);
  const light = (c) => parts(c).slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4))
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (e) => {
    const c = getComputedStyle(e).backgroundColor;
    return (parts(c)[3] ?? 1) === 1 ? c : behind(e.parentElement);
  };
  const own = (e) => [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
  return [...document.querySelectorAll("body *")].filter((e) => e.checkVisibility() && own(e)).map((e) => {
    const style = getComputedStyle(e), drawn = e instanceof SVGElement;
    const [low, high] = [light(drawn ? style.fill : style.color), light(behind(e))].sort((a, b) => a - b);
    return [(high + 0.05) / (low + 0.05), e.textContent.trim().slice(0, 40)];
  });
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_in_a_browser(browser: Any, report: Path, width: int, scheme: str) -> None:
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    wrong: list[str] = []
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("request", lambda r: None if r.url.startswith(("file:", "data:", "blob:")) else wrong.append(r.url))
    page.goto(report.as_uri())
    page.locator('[data-draw="features"]').first.scroll_into_view_if_needed()
    page.locator(".solid .gl-container canvas").first.wait_for()
    page.locator('[data-draw="curves"] .plot svg .scatterlayer path').first.wait_for(state="attached")
    assert page.evaluate("document.documentElement.scrollWidth") <= width

    slider, moving = page.locator("input[type=range]").first, page.locator(".moving .picture").first
    before = moving.screenshot()
    slider.focus()
    page.keyboard.press("End")
    assert page.locator("output").first.inner_text() == "1"
    assert page.locator(".moving .said").first.inner_text() == "1.00"
    assert moving.screenshot() != before

    page.get_by_role("button", name="encoder means").first.click()
    page.get_by_role("button", name="Squared error").first.click()
    assert page.locator('[data-draw="curves"]').first.get_by_text("sum over pixel values").count()
    poor = [text for contrast, text in page.evaluate(CONTRASTS) if contrast < 4.5]
    assert not poor
    colour = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (sum(map(int, re.findall(r"\d+", colour))) < 150) == (scheme == "dark")
    page.get_by_role("button", name="Switch between light and dark").click()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != colour
    assert not wrong
    page.close()
