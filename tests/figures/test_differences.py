"""Strips of paired differences: every verdict has a word, a symbol and a colour, and marks lie at their values."""

from __future__ import annotations

import numpy as np
import pytest
from figure_reading import cut_off, drawn, overlaps, words

from vaelab.figures import colors
from vaelab.figures.differences import VERDICT_SYMBOLS, Difference, difference_limits, plot_differences
from vaelab.studies.verdicts import VERDICTS

DIFFERENCE = Difference(
    sentence="The sum is better than either alone, in whatever way and at whatever price that one may think of.",
    verdict="supported",
    word="supported",
    what="ce+se − ce",
    wanted=-1,
    mean=-2.0,
    values=(-2.5, -2.0, -1.5),
    bounds=(-2.75, -1.25),
    interval=(-3.0, -1.0),
    margin=0.5,
)


def test_every_verdict_has_its_symbol_and_a_colour_that_can_be_read() -> None:
    assert set(VERDICT_SYMBOLS) == set(colors.VERDICT_COLORS) == set(VERDICTS)
    assert len(set(VERDICT_SYMBOLS.values())) == len(set(colors.VERDICT_COLORS.values())) == len(VERDICTS)
    assert all(colors.contrast_ratio(color) >= 4.5 for color in colors.VERDICT_COLORS.values())


@pytest.mark.parametrize("verdict", VERDICTS)
def test_a_figure_says_the_verdict_and_what_decides_it(verdict: str) -> None:
    shown = [DIFFERENCE._replace(verdict=verdict, word="a word", note="a note"), DIFFERENCE]
    figure = plot_differences(shown, "a title", caption="a caption " * 30)
    texts = words(figure)
    assert {VERDICT_SYMBOLS[verdict], "a word", "a note"} <= set(texts)
    assert texts.count("ce+se − ce: −2.00 [−2.75, −1.25], expected < 0, n = 3") == 2
    assert not cut_off(figure)
    assert not overlaps([text for text in drawn(figure) if text.get_visible()])


def test_seeds_mean_bounds_and_margin_lie_at_their_values() -> None:
    figure = plot_differences([DIFFERENCE])
    [strip] = [axes for axes in figure.axes if axes.axison]
    places = [np.ravel(line.get_xdata()).tolist() for line in strip.lines]
    for expected in ([-2.5, -2.0, -1.5], [-2.0], [-2.75, -1.25], [-3.0, -1.0], [0, 0]):
        assert expected in places
    [zone] = strip.patches
    box = zone.get_window_extent()
    ends = strip.transData.inverted().transform([box.min, box.max])[:, 0]
    assert ends == pytest.approx((-0.5, 0.5), abs=0.01)


def test_axes_show_zero_all_seeds_and_the_margin_but_no_enormous_interval() -> None:
    low, high = difference_limits([DIFFERENCE._replace(interval=(-500.0, 500.0))])
    assert low < -2.5
    assert high > 0.5
    assert high - low < 30
    low, high = difference_limits([DIFFERENCE._replace(values=(5.0, 6.0), mean=5.5, bounds=None, interval=None)])
    assert low < -0.5
    assert high > 6
    assert np.diff(difference_limits([Difference("", "undecided", "undecided", values=(0.0,))]))[0] > 0


def test_without_values_the_note_stands_alone() -> None:
    void = Difference("A claim.", "void", "void", note="posterior collapse in 2 of 6 runs")
    figure = plot_differences([void])
    assert "posterior collapse in 2 of 6 runs" in words(figure)
    assert not any(axes.axison for axes in figure.axes)
