"""What a difference is called follows from the signs of what is subtracted."""

from __future__ import annotations

import pytest

from vaelab.studies.expectations import difference_label


def test_without_a_share_it_is_a_plain_difference() -> None:
    assert difference_label("a", "b") == "a − b"
    assert difference_label("a", "b", 0, [-1.0]) == "a − b"


@pytest.mark.parametrize(
    ("percent", "values", "label"),
    [
        (50, [1.0, 2.0], "a − 1.5 × b"),
        (50, [0.0, 2.0], "a − 1.5 × b"),
        (-50, [1.0], "a − 0.5 × b"),
        (50, [-1.0, -2.0], "a − 0.5 × b"),
        (50, [-1.0, 0.0], "a − 0.5 × b"),
        (-50, [-1.0], "a − 1.5 × b"),
        (50, [-1.0, 0.5], "a − b − 0.5 × |b|"),
        (0.5, [-1.0, 1.0], "a − b − 0.005 × |b|"),
        (-0.5, [-1.0, 1.0], "a − b + 0.005 × |b|"),
        (-50, [-0.5, 2.0], "a − b + 0.5 × |b|"),
    ],
)
def test_a_share_is_written_by_the_sign_of_what_is_subtracted(percent: float, values: list[float], label: str) -> None:
    assert difference_label("a", "b", percent, values) == label
