"""Figures of a study: each is whole and says what it shows, labels keep apart, pixels stay whole."""

from dataclasses import replace

import numpy as np
import pytest
from figure_reading import boxes, cut_off, drawn, overlaps, patches, read, words
from sample_runs import examined

from vaelab.core.errors import UserError
from vaelab.figures import colors, curves, intervals, study_figures, tiles
from vaelab.figures.curves import MeanCurve
from vaelab.figures.intervals import IntervalRow
from vaelab.figures.study_figures import ExperimentContext
from vaelab.figures.tiles import TileTable, as_rgb
from vaelab.studies import parsing
from vaelab.studies.results import SettingResult, StudyResults, read_record

STUDY = """
data = "digits"
seeds = 2
[base]
latent_dim = 4
[readings]
"KL weight 1" = { kl_weight = 1 }
[[experiments]]
id = "B1"
title = "Loss functions"
vary = { loss = ["ce", "ce+se"], latent_dim = [4] }
figures = ["curves", "bars", "reconstructions", "path"]
[[experiments.claims]]
id = "B1.mse"
sentence = "The MSE is small."
measure = "mse"
expect = "between:high=0.01"
"""


@pytest.fixture(scope="module")
def results(trained, tmp_path_factory):
    """Two settings of two seeds, all of which are one examined run."""
    run, study = examined(trained, tmp_path_factory.mktemp("examined")), parsing.parse_study(STUDY, "small")
    experiment, runs = study.experiments[0], {1: run, 2: run}
    records = dict.fromkeys(runs, read_record(run))
    settings = experiment.settings
    return StudyResults(study, tuple(SettingResult(experiment, "KL weight 1", s, runs, records) for s in settings), {})


def clashes(figure):
    """Pairs of texts on each other; labels of the other side of an axis are there but never seen."""
    return overlaps([text for text in drawn(figure) if text.get_visible()])


def shown(results, name):
    context = ExperimentContext(results, results.study.experiments[0], "KL weight 1")
    figure = study_figures.STUDY_FIGURES[name](context)
    assert figure is not None
    return figure


@pytest.mark.parametrize("name", study_figures.STUDY_FIGURES)
def test_every_figure_is_titled_whole_and_keeps_its_texts_apart(results, name):
    figure = shown(results, name)
    assert any(text.startswith("B1 Loss functions, KL weight 1, digits") for text in words(figure))
    assert not cut_off(figure)
    assert not clashes(figure)


def test_what_figures_say(results):
    assert {"Negative ELBO", "nats per image: the loss", "Distortion"} <= set(words(shown(results, "curves")))
    assert "Loss" not in words(shown(results, "curves"))  # it is the negative ELBO, which is shown
    assert any("2 seeds" in text and "95 % t intervals" in text for text in words(shown(results, "bars")))
    assert "0.25 ± 0.00" in words(shown(results, "features"))
    assert any("0.88 ± 0.00 with the codes" in text.replace("\n", " ") for text in words(shown(results, "features")))
    heads = {"1\noriginal", "0\noriginal", "z₂: 1\nα = 0", "z₁: 0\nα = 1"}  # alpha = 0 is the second category
    assert heads | {"0.16", "0.36"} <= set(words(shown(results, "interpolations")))
    assert any("probability of 0" in text for text in words(shown(results, "path")))


def test_principal_components_and_what_decides_stand_beside_the_numbers(results):
    bars = words(shown(results, "bars"))
    assert {"?", "undecided", "The MSE is small."} <= set(bars)
    assert any("Cross: principal components" in text.replace("\n", " ") for text in bars)
    assert {"ce, 4", "ce+se, 4", "PCA, 4"} <= set(words(shown(results, "reconstructions")))
    assert {"MSE of PCA", "MSE, ce", "ce: as good as PCA of"} <= set(words(shown(results, "dimensions")))


def test_nothing_finished_or_examined_is_nothing_to_show(results, trained):
    experiment = results.study.experiments[0]
    bare = [replace(o, runs={}, records={}) for o in results.setting_results]
    nothing = ExperimentContext(replace(results, setting_results=tuple(bare)), experiment, "KL weight 1")
    for figure in study_figures.STUDY_FIGURES.values():
        assert figure(nothing) is None
    plain = [replace(o, runs={2: trained}, records={2: read_record(trained)}) for o in results.setting_results[:1]]
    partly = replace(results, setting_results=(*plain, *bare[1:]))
    for name in ("features", "classifier_features", "interpolations", "path"):
        assert study_figures.STUDY_FIGURES[name](ExperimentContext(partly, experiment, "KL weight 1")) is None
    assert any("1 seed; Settings" in text or "1 of 2" in text for text in words(shown(partly, "curves")))


def test_files_are_named_and_the_same_each_time(results, tmp_path):
    experiment = results.study.experiments[0]
    files = study_figures.draw_study_figures(results, experiment, "KL weight 1", tmp_path / "one")
    assert [file.name for file in files[:3]] == [
        "B1-curves-KL-weight-1.png",
        "B1-curves-KL-weight-1.pdf",
        "B1-bars-KL-weight-1.png",
    ]
    again = study_figures.draw_study_figures(results, experiment, "KL weight 1", tmp_path / "two")
    assert [file.read_bytes() for file in files] == [file.read_bytes() for file in again]
    assert len(list((tmp_path / "one").iterdir())) == len(files) == 8


def test_a_figure_that_is_not_there_and_files_of_one_name_are_refused():
    with pytest.raises(UserError, match='unknown figure in experiment B1 "curve"; did you mean "curves"'):
        study_figures.check_figures(parsing.parse_study(STUDY.replace('"curves"', '"curve"'), "small"))
    twice = STUDY.replace("[[exp", '"KL-weight 1" = { kl_weight = 2 }\n[[exp', 1)
    with pytest.raises(UserError, match="would share the figures b1-kl-weight-1"):
        study_figures.check_figures(parsing.parse_study(twice, "small"))


@pytest.mark.parametrize("count", [1, 2, 7, 15])
def test_names_at_the_ends_of_curves_never_overlap(count):
    x = np.arange(1.0, 9)
    lines = {f"setting {i}": MeanCurve(x, 3 / x + 1e-4 * i, np.full(8, 0.01)) for i in range(count)}
    panels = {(name, "nats per image"): lines for name in ("Cross entropy", "Squared error", "KL")}
    figure = curves.plot_curves(panels, colors.assign_colors(list(lines)), "a title", caption="a caption")
    assert not clashes(figure)
    assert not cut_off(figure)
    assert words(figure).count("setting 0") == 3


def test_one_outlier_does_not_set_the_axis_and_ends_always_show():
    x = np.arange(1.0, 21)
    lines = {
        "a": MeanCurve(x, 100 + 10 / x, None),
        "b": MeanCurve(x, np.r_[1e6, 100 + 10 / x[1:]], None),
        "far": MeanCurve(x, np.full(20, 300.0), None),
    }
    figure = curves.plot_curves({("KL", "nats"): lines}, colors.assign_colors(list(lines)))
    low, high = figure.axes[0].get_ylim()
    assert low < 100.5
    assert 300 < high < 1000
    assert any("beyond the axis: KL" in text for text in words(figure))


def test_a_wide_interval_is_cut_and_that_is_said():
    dots = {
        "a": IntervalRow(np.array([1.0, 1.1]), 1.05, 0.1),
        "b": IntervalRow(np.array([1.0, 1.3]), 1.15, 50.0),
        "c": IntervalRow(np.array([1.0]), 1.0, None),
    }
    figure = intervals.plot_intervals({("MSE", "per pixel value"): dots}, colors.assign_colors(list(dots)))
    assert np.diff(figure.axes[0].get_xlim()) < 2
    assert any("goes on beyond it" in text for text in words(figure))
    assert {"1.05", "1.15", "1.00"} <= set(words(figure))


def test_images_of_several_sizes_stay_whole_pixels(tmp_path):
    small = patches(4)
    large = (255 - patches(2)).repeat(2, -1).repeat(2, -2)
    blocks = [
        TileTable(as_rgb(small.reshape(2, 2, 3, 8, 8)), ("original", "a"), row_breaks=(1,)),
        TileTable(as_rgb(large)[None], ("b",), ("0", "1"), ("0.25", "0.75")),
    ]
    figure = tiles.plot_tile_tables(blocks, "a title", caption="a caption")
    picture = read(figure, tmp_path)
    assert not clashes(figure)
    for images, side in ((small, 8), (large[..., ::2, ::2], 16)):
        found = boxes(picture, images)
        assert (found[:, 2] == found[:, 3]).all()
        assert (found[:, 2] % side == 0).all()


def test_numbers_get_a_ramp_and_names_get_contrast():
    assert len(set(colors.assign_colors(["ce", "se", "ce+se"]).values())) == 3
    ramp = colors.assign_colors(["512", "32", "64"])
    bright = {name: sum(int(colour[i : i + 2], 16) for i in (1, 3, 5)) for name, colour in ramp.items()}
    assert bright["32"] < bright["64"] < bright["512"]
