"""Anchors: within the tolerance they are met, far beyond it they are missed, by one seed or several."""

from __future__ import annotations

import pytest

from vaelab.studies.anchors import judge_anchor


@pytest.mark.parametrize(
    ("value", "verdict", "beyond"),
    [
        (10, "met", 0),
        (12, "met", 0),
        (12.5, "met", 0),
        (13, "undecided", 0.5),
        (13.49, "undecided", 0.99),
        (13.5, "undecided", 1),
        (13.51, "missed", 1.01),
        (9.5, "undecided", 0.5),
        (8.99, "missed", 1.01),
    ],
)
def test_one_seed(value: float, verdict: str, beyond: float) -> None:
    result = judge_anchor([value], [0.25], low=10, high=12.5)
    assert result.verdict == verdict
    assert result.beyond == pytest.approx(beyond)
    assert (result.value, result.num_seeds, result.error_label) == (value, 1, "test images")
    assert result.error == pytest.approx(0.25)


def test_one_bound() -> None:
    assert judge_anchor([1e9], [1.0], low=5).verdict == "met"
    assert judge_anchor([-1e9], [1.0], high=5).verdict == "met"
    assert judge_anchor([1e9], [1.0], high=5).verdict == "missed"


def test_without_an_error_nothing_is_missed() -> None:
    result = judge_anchor([20.0], high=10)
    assert (result.verdict, result.error, result.error_label) == ("undecided", 0, "")
    assert judge_anchor([9.0], high=10).verdict == "met"


def test_several_seeds_share_the_test_images() -> None:
    """The error over seeds falls with their number, that over images does not."""
    result = judge_anchor([1.0, 3.0], [0.6, 0.8], high=10)
    assert result.value == 2
    assert result.error == pytest.approx((2 / 2 + (0.36 + 0.64) / 2) ** 0.5)
    assert (result.num_seeds, result.error_label) == (2, "seeds and test images")
    alone = judge_anchor([1.0, 3.0], high=10)
    assert alone.error == pytest.approx(1)
    assert alone.error_label == "seeds"
