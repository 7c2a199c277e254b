"""Expectations: which differences they are about, with what sign, margin and label."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vaelab.core.codec import parse_value
from vaelab.core.errors import UserError
from vaelab.studies.expectations import (
    NO_MARGIN,
    Between,
    Contrast,
    Decreasing,
    Expectation,
    Highest,
    Increasing,
    Lowest,
    Margin,
    NearLowest,
    Similar,
    parse_margin,
)

NAMES = ["a", "b", "c"]
Y = np.array([[1.5, 2.0, 4.0], [1.0, 3.0, 8.0]])  # two seeds, three settings

Expected = list[tuple[str, list[float], int]]  # label, values, sign

CASES: list[tuple[Expectation, str, Expected]] = [
    (Lowest("b"), "lowest at b", [("b − a", [0.5, 2], -1), ("b − c", [-2, -5], -1)]),
    (
        Lowest("b", percent=50),
        "lowest at b, by 50 % at least",
        [("b − 0.5 × a", [1.25, 2.5], -1), ("b − 0.5 × c", [0, -1], -1)],
    ),
    (Highest("b"), "highest at b", [("b − a", [0.5, 2], 1), ("b − c", [-2, -5], 1)]),
    (
        Highest("b", percent=50),
        "highest at b, by 50 % at least",
        [("b − 1.5 × a", [-0.25, 1.5], 1), ("b − 1.5 × c", [-4, -9], 1)],
    ),
    (
        NearLowest("b"),
        "at b within 5 % of the lowest",
        [("b − 1.05 × a", [0.425, 1.95], -1), ("b − 1.05 × c", [-2.2, -5.4], -1)],
    ),
    (Decreasing(), "decreasing, step by step", [("b − a", [0.5, 2], -1), ("c − b", [2, 5], -1)]),
    (Increasing(), "increasing, step by step", [("b − a", [0.5, 2], 1), ("c − b", [2, 5], 1)]),
    (
        Similar(),
        "within 5 % of each other",
        [
            ("b − 1.05 × a", [0.425, 1.95], -1),
            ("b − 0.95 × a", [0.575, 2.05], 1),
            ("c − 1.05 × a", [2.425, 6.95], -1),
            ("c − 0.95 × a", [2.575, 7.05], 1),
            ("c − 1.05 × b", [1.9, 4.85], -1),
            ("c − 0.95 × b", [2.1, 5.15], 1),
        ],
    ),
    (
        Between(low=1),
        "above 1",
        [("value at a − 1", [0.5, 0], 1), ("value at b − 1", [1, 2], 1), ("value at c − 1", [3, 7], 1)],
    ),
    (
        Between(high=2),
        "below 2",
        [("value at a − 2", [-0.5, -1], -1), ("value at b − 2", [0, 1], -1), ("value at c − 2", [2, 6], -1)],
    ),
]


@pytest.mark.parametrize(
    ("expectation", "description", "expected"), CASES, ids=lambda value: getattr(value, "name", "")
)
def test_contrasts(expectation: Expectation, description: str, expected: Expected) -> None:
    contrasts = expectation.contrasts(Y, NAMES)
    assert [contrast.what for contrast in contrasts] == [label for label, _, _ in expected]
    assert [contrast.expected_sign for contrast in contrasts] == [sign for _, _, sign in expected]
    for contrast, (_, values, _) in zip(contrasts, expected, strict=True):
        assert contrast.values == pytest.approx(np.array(values))
        assert contrast.margin == pytest.approx(np.zeros(2)), "without a margin every difference can be seen"
        assert contrast.resolution == pytest.approx([0, 1]), "all values of the second seed are whole numbers"
    assert expectation.description == description


def test_every_expectation_is_tried() -> None:
    assert {type(expectation) for expectation, _, _ in CASES} == set(Expectation.__args__)
    assert len({expectation for expectation, _, _ in CASES}) == len(CASES), "they are values: frozen, equal or not"


def test_both_bounds() -> None:
    expectation = Between(low=-0.5, high=2)
    assert expectation.description == "between -0.5 and 2"
    high, low = expectation.contrasts(np.array([[1.0]]), [""])
    assert (high.what, float(high.values[0]), high.expected_sign) == ("value − 2", -1, -1)
    assert (low.what, float(low.values[0]), low.expected_sign) == ("value − -0.5", 1.5, 1)


@pytest.mark.parametrize(("low", "high"), [(1, 1), (2, 1)])
def test_bounds_in_the_wrong_order_are_refused(low: float, high: float) -> None:
    with pytest.raises(UserError, match=f"low must be below high, got {low} and {high}"):
        Between(low=low, high=high)


def test_an_unknown_setting_is_named() -> None:
    with pytest.raises(UserError, match='unknown setting "d"'):
        Lowest("d").contrasts(Y, NAMES)


@pytest.mark.parametrize(
    ("other", "percent", "label", "difference"),
    [
        (2.0, 5, "x − 1.05 × y", 10 - 2.1),
        (-2.0, 5, "x − 0.95 × y", 10 + 1.9),
        (2.0, -5, "x − 0.95 × y", 10 - 1.9),
        (-2.0, -5, "x − 1.05 × y", 10 + 2.1),
        (0.0, 5, "x − 1.05 × y", 10),
        (-2.0, 0, "x − y", 12),
    ],
)
def test_the_label_has_the_factor_of_the_difference(
    other: float, percent: float, label: str, difference: float
) -> None:
    """A tolerance is a share of the other's absolute value, so the factor depends on its sign."""
    y = np.array([[10.0, other], [10.0, other]])
    expectation = Highest("x", percent=percent) if percent >= 0 else Lowest("x", percent=-percent)
    [contrast] = expectation.contrasts(y, ["x", "y"])
    assert contrast.what == label
    assert contrast.values == pytest.approx([difference, difference])


@pytest.mark.parametrize(
    ("expectation", "label", "differences"),
    [
        (Highest("x", percent=50), "x − y − 0.5 × |y|", [10 - 3, 10 + 1]),
        (Lowest("x", percent=50), "x − y + 0.5 × |y|", [10 - 1, 10 + 3]),
        (Highest("x", percent=0.5), "x − y − 0.005 × |y|", [10 - 2.01, 10 + 1.99]),
    ],
)
def test_labels_where_the_sign_of_the_other_varies(
    expectation: Highest | Lowest, label: str, differences: list[float]
) -> None:
    [contrast] = expectation.contrasts(np.array([[10.0, 2.0], [10.0, -2.0]]), ["x", "y"])
    assert contrast.what == label
    assert contrast.values == pytest.approx(differences)


# Margins


@pytest.mark.parametrize(
    ("text", "margin", "written"),
    [
        ("0.5", Margin(0.5), "0.5"),
        (2, Margin(2.0), "2"),
        (0, Margin(0.0), "0"),
        ("1 %", Margin(1.0, is_percent=True), "1 %"),
        (" 2.5% ", Margin(2.5, is_percent=True), "2.5 %"),
    ],
)
def test_margins_are_read(text: str | float, margin: Margin, written: str) -> None:
    assert parse_margin(text) == margin
    assert margin.text == written


@pytest.mark.parametrize("text", ["-1", "inf", "nan", "much", "", "%", True])
def test_what_is_no_margin_is_refused(text: str | float) -> None:
    with pytest.raises(UserError, match=f'a margin is a number of at least 0, .* got "{text}"'):
        parse_margin(text)


def test_a_margin_is_absolute_or_a_share_of_what_is_compared_with() -> None:
    y = np.array([[1.0, -20.0], [1.0, 40.0]])
    for margin, expected in [(Margin(0.3), [0.3, 0.3]), (Margin(10, is_percent=True), [2, 4])]:
        [difference] = Lowest("a").contrasts(y, ["a", "b"], margin)
        assert difference.margin == pytest.approx(np.array(expected))
        high, low = Between(-20, 40).contrasts(y[:, :1], ["a"], margin)
        assert low.margin == pytest.approx(np.full(2, expected[0]))
        assert high.margin == pytest.approx(np.full(2, expected[1]))
    assert Margin(0) == NO_MARGIN


def test_every_expectation_passes_the_margin_on() -> None:
    for expectation, _, _ in CASES:
        for contrast in expectation.contrasts(Y, NAMES, Margin(0.25)):
            assert contrast.margin == pytest.approx(np.full(2, 0.25))


# Counts, images and looks


def test_whole_numbers_have_a_resolution() -> None:
    y = np.array([[3.0, 4.0], [5.0, -2.0], [3.5, 4.0], [3.0, 4.5]])
    for contrast in [*Decreasing().contrasts(y, ["a", "b"]), *Between(low=1).contrasts(y, ["a", "b"])]:
        assert contrast.resolution == pytest.approx(np.array([1, 1, 0, 0]))


@pytest.mark.parametrize("expectation", [*(expectation for expectation, _, _ in CASES), Similar(20), Between(-1, 2)])
@pytest.mark.parametrize("sign", [1, -1])
def test_differences_of_images_average_to_those_of_seeds(expectation: Expectation, sign: int) -> None:
    images = sign * (2 + np.random.default_rng(0).random((4, 3, 7)))
    for contrast in expectation.contrasts(images.mean(2), NAMES, images=images):
        assert contrast.images is not None
        assert contrast.images.shape == (4, 7)
        assert contrast.images.mean(1) == pytest.approx(contrast.values)


def test_the_first_seeds_of_a_contrast() -> None:
    images = np.arange(12.0).reshape(3, 4)
    contrast = Contrast("a", images.mean(1), 1, np.array([1.0, 2, 6]), np.array([1.0, 1, 0]), images)
    first = contrast.first(2)
    assert first.values == pytest.approx([1.5, 5.5])
    assert first.margin == 1.5
    assert first.resolution == 1
    assert first.images is not None
    assert first.images.shape == (2, 4)
    assert contrast.first(3).margin == 3
    assert contrast.first(3).resolution == 0
    assert Contrast("a", images.mean(1), 1).first(2).images is None
    assert Contrast("a", images.mean(1), 1, 0.5).first(2).margin == 0.5
    assert Contrast("a", images.mean(1), 1).margin == Contrast("a", images.mean(1), 1).resolution == 0


def test_study_files_write_expectations_as_words() -> None:
    assert parse_value("expect", Expectation, "lowest:setting=16,percent=5") == Lowest("16", 5)
    assert parse_value("expect", Expectation, "highest:setting=16") == Highest("16", 0)
    assert parse_value("expect", Expectation, "near-lowest:setting=16") == NearLowest("16", 5)
    assert parse_value("expect", Expectation, "similar") == Similar(5)
    assert parse_value("expect", Expectation, "between:low=1") == Between(1, math.inf)
    assert parse_value("expect", Expectation, "decreasing") == Decreasing()
    assert parse_value("expect", Expectation, "increasing") == Increasing()
