"""Laws of quantities: arithmetic as Python's, curves as drawn, image values by the chain rule, and every bound."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import FrozenInstanceError
from typing import Any

import numpy as np
import pytest

from vaelab.core.errors import UserError
from vaelab.studies.quantities import Quantity, RunRecord, epochs_to, mean_over_training, value_at

METRICS = {"mse": 0.5, "kl": 8.0, "psnr": -3.0}
ROWS = np.array([4, 7, 9, 12])
VALUES: dict[str, Any] = {
    "mse": np.array([0.2, 0.4, 0.6, 0.8]),
    "kl": np.array([5.0, 9.0, 8.0, 10.0]),
    "psnr": np.array([-3.0, np.nan, -5.0, -1.0]),
    "rows": ROWS,
}


def record_of(
    metrics: Mapping[str, float] = METRICS, arrays: Mapping[str, Any] = VALUES, analyses: Any = None
) -> RunRecord:
    """A run whose values of images are `arrays`, and those of its analysis "features" twice as large."""

    def read(analysis: str) -> Mapping[str, Any]:
        if analysis == "features":
            return {"correlation": np.array([0.0, 2.0, 4.0, 2.0]), "rows": ROWS}
        return arrays if analysis == "image_values" else {}

    history = [{"epoch": e, "train": {"loss": 2.0 * e, "kl": 1.0}, "validation": {"loss": 90.0 / e}} for e in (1, 3, 9)]
    splits = {"test": metrics, "validation": {"mse": 0.25}, "train": {"mse": 0.125}}
    return RunRecord(splits, history, analyses or {"features": {"correlation": 2.0}}, read)


@pytest.mark.parametrize(
    "text",
    [
        "mse + kl",
        "mse - kl",
        "kl - mse - 2",
        "mse * kl * 3",
        "kl / mse / 4",
        "-mse",
        "--kl",
        "-(mse + kl) * 2 - -psnr / 7",
        "2 + 3 * 4 - 5 / 8",
        "1.5e3",
        "7",
    ],
)
def test_arithmetic_is_that_of_python(text: str) -> None:
    assert Quantity(text).value(record_of()) == pytest.approx(eval(text, {}, dict(METRICS)))


def test_a_name_is_of_the_test_split_unless_it_says_another() -> None:
    values = [Quantity(text).value(record_of()) for text in ("mse", "test.mse", "validation.mse", "train.mse")]
    assert values == [0.5, 0.5, 0.25, 0.125]
    named_test = record_of(analyses={"features": {"mse": 7.0}})
    assert Quantity("features.mse").value(named_test) == 7
    assert Quantity("mse").value(named_test) == 0.5


REFUSED = [
    "+mse",
    "~mse",
    "not mse",
    "mse ** 2",
    "mse % 2",
    "mse // 2",
    "mse @ kl",
    "True",
    "'mse'",
    "mse, kl",
    "mse < kl",
    "first(loss, 1)",
    "first(loss)(kl)",
    "fall()",
    "at(loss)",
    "at(loss, 1, 2)",
    "at(loss, epoch=1)",
    "epochs_to(loss, 1, 2)",
    "epochs_to()",
    "first(test.loss)",
    "first(mse)",
    "last(train.mse)",
    "at(loss, mze)",
    "test.mze",
    "validation.mze",
    "a.b.mse",
    "drop(loss)",
    "mse + mze",
    "mze - mse",
    "-mze",
    "mse +",
    "",
    "1e101",
    "-2 * 1e101",
    str(10**101),
    "x" * 501,
]


@pytest.mark.parametrize("text", REFUSED)
def test_what_is_no_measure_is_refused(text: str) -> None:
    with pytest.raises(UserError, match="measure"):
        Quantity(text)


@pytest.mark.parametrize("text", ["1e100 - mse", "-1e100", "epochs_to(loss)", "epochs_to(train.kl, mse)", "any.thing"])
def test_what_is_a_measure_up_to_the_bounds_is_not_refused(text: str) -> None:
    assert Quantity(text).text == text


def test_the_longest_measure_has_500_characters() -> None:
    longest = "mse+" * 124 + "mse "
    assert len(longest) == 500
    assert Quantity(longest).value(record_of()) == pytest.approx(125 * 0.5)
    with pytest.raises(UserError, match="at most 500 characters, got 501"):
        Quantity(longest + " ")


def test_refusals_say_what_is_wrong() -> None:
    cases = {
        "at(loss)": 'at in the measure "at(loss)" takes curve, epoch',
        "epochs_to(loss, 1, 2)": 'epochs_to in the measure "epochs_to(loss, 1, 2)" takes curve, level',
        "first(loss, 2)": "takes curve",
        "1e101": 'the measure "1e101" has a number above 1e+100',
        "mse ** 2": 'the measure "mse ** 2" is not made of metrics, curves and numbers',
        "mse +": 'the measure "mse +" is no expression',
        "first(test.loss)": 'unknown name in the measure "first(test.loss)" "test"',
        "drop(loss)": 'unknown function in the measure "drop(loss)" "drop"',
        "test.mze": 'unknown name in the measure "test.mze" "mze"; did you mean "mse"',
    }
    for text, said in cases.items():
        with pytest.raises(UserError) as error:
            Quantity(text)
        assert said in str(error.value)


def test_a_measure_says_what_it_asks_for() -> None:
    quantity = Quantity("mse / validation.kl - codes.ari * at(loss, 2 * raw.nmi) + -first(train.kl) + 3")
    assert quantity.numbers == [("test", "mse"), ("validation", "kl"), ("codes", "ari"), ("raw", "nmi")]
    assert quantity.required_analyses == {"codes", "raw"}
    assert quantity.curve_splits == {"train"}
    assert Quantity("fall(loss) + last(validation.kl)").curve_splits == {"validation"}
    assert Quantity("train.mse + validation.mse + test.mse").required_analyses == set()


@pytest.mark.parametrize(
    ("text", "points"),
    [
        ("at(loss, 4) - at(kl, 2)", [4, 2]),
        ("at(loss, 2 * 3 + 1)", [7]),
        ("at(loss, 9 - 10 / 4)", [6.5]),
        ("at(loss, -2)", [-2]),
        ("at(loss, mse)", []),
        ("at(loss, -mse)", []),
        ("at(loss, 1 + mse)", []),
        ("at(loss, mse + 1)", []),
        ("at(loss, 1 / 0)", []),
        ("at(loss, 1 * 0)", [0]),
        ("at(loss, 1 / 2)", [0.5]),
        ("first(loss) + epochs_to(loss, 5)", []),
    ],
)
def test_points_of_curves_are_known_before_a_run(text: str, points: list[float]) -> None:
    assert sorted(Quantity(text).curve_points) == sorted(points)


CURVE = [(1.0, 9.0), (2.0, 5.0), (4.0, 6.0), (8.0, 2.0)]


def test_a_curve_is_straight_between_its_points_and_ends_with_them() -> None:
    for epoch, value in {1: 9, 1.5: 7, 2: 5, 3: 5.5, 4: 6, 7: 3, 8: 2}.items():
        assert value_at(CURVE, epoch) == pytest.approx(value)
    for outside in (0.9, 8.1):
        with pytest.raises(UserError, match=f"from epoch 1 to 8, epoch {outside} is not on it"):
            value_at(CURVE, outside)


@pytest.mark.parametrize(
    ("level", "epochs"),
    [(10, 1), (9, 1), (8, 1.25), (7, 1.5), (5, 2), (4.5, 5.5), (2, 8), (1.9, 8), (-5, 8)],
)
def test_epochs_to_a_level_are_to_where_the_curve_first_crosses_it(level: float, epochs: float) -> None:
    assert epochs_to(CURVE, level) == pytest.approx(epochs)


def test_the_first_point_counts_from_its_own_epoch() -> None:
    assert epochs_to([(3.0, 1.0), (4.0, 0.5)], 2.0) == 3
    assert epochs_to([(1.0, math.inf), (2.0, 1.0)], 2.0) == 2, "no line leads from an infinite value"


def test_the_area_is_that_of_trapezoids_over_the_length() -> None:
    assert mean_over_training(CURVE) == pytest.approx((7 + 2 * 5.5 + 4 * 4) / 7)
    assert mean_over_training([(5.0, 3.0)]) == 3


def test_curves_are_of_the_validation_images_where_there_are_some() -> None:
    with_validation = record_of()
    assert with_validation.curve_split == "validation"
    assert with_validation.curve("loss") == [(1, 90), (3, 30), (9, 10)]
    assert with_validation.curve("loss", "train") == [(1, 2), (3, 6), (9, 18)]
    without = RunRecord({}, [{"epoch": 1, "train": {"loss": 5.0}, "validation": {}}], {})
    assert without.curve_split == "train"
    assert Quantity("last(loss)").value(without) == 5
    late = RunRecord({}, [*without.history, {"epoch": 2, "train": {}, "validation": {"loss": 4.0}}], {})
    assert late.curve("loss") == [(2, 4)]
    with pytest.raises(UserError, match=r"^the history has no validation\.kl$"):
        with_validation.curve("kl")
    with pytest.raises(UserError, match=r"^the history has no train\.kl$"):
        without.curve("kl")


@pytest.mark.parametrize(
    ("metrics", "text", "said"),
    [
        ({"mse": math.inf}, "mse", "^mse is not finite"),
        ({"mse": math.nan}, "mse", "^mse is not finite"),
        ({"mse": 10**400}, "mse", "^mse is not finite"),
        ({"mse": 1e300}, "mse * mse", "^mse \\* mse is not finite"),
        ({"mse": 0.0}, "1 / mse", "^1 / mse divides by zero"),
        ({}, "mse", "^unknown number of test"),
    ],
    ids=str,
)
def test_a_value_that_is_none_is_refused(metrics: dict[str, float], text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Quantity(text).value(record_of(metrics))


def test_the_common_level_is_the_highest_of_the_lowest_values() -> None:
    def run(*values: float) -> RunRecord:
        rows = [{"epoch": e, "train": {"loss": v + 50}, "validation": {"loss": v}} for e, v in enumerate(values, 1)]
        return RunRecord({}, rows, {})

    fast, slow = run(8, 4, 2), run(10, 5, 6)
    assert Quantity("epochs_to(loss)").value(fast, [fast, slow]) == pytest.approx(1.75)
    assert Quantity("epochs_to(loss)").value(slow, [fast, slow]) == 2
    assert Quantity("epochs_to(train.loss)").value(fast, [fast, slow]) == pytest.approx(1.75)
    assert Quantity("epochs_to(loss, 6)").value(fast, [fast, slow]) == pytest.approx(1.5)
    assert Quantity("epochs_to(loss)").value(fast) == 3, "alone it is its own peer"


def test_image_values_of_a_metric_are_those_that_are_stored() -> None:
    found = record_of().image_values("mse", "test")
    assert found is not None
    np.testing.assert_allclose(found.values, VALUES["mse"])
    np.testing.assert_array_equal(found.rows, ROWS)
    partly = record_of().image_values("psnr", "test")
    assert partly is not None
    np.testing.assert_allclose(partly.values, [-3.0, -3.0, -3 - 2 * 4 / 3, -3 + 2 * 4 / 3])
    assert partly.values.mean() == pytest.approx(-3), "an image without a value has no effect on the mean"
    of_analysis = record_of().image_values("correlation", "features")
    assert of_analysis is not None
    np.testing.assert_allclose(of_analysis.values, [0, 2, 4, 2])


@pytest.mark.parametrize(
    ("metrics", "arrays"),
    [
        (METRICS, {}),
        (METRICS, {"rows": ROWS}),
        (METRICS, {"mse": VALUES["mse"]}),
        (METRICS, {"mse": VALUES["mse"], "rows": ROWS[:3]}),
        (METRICS, {"mse": VALUES["mse"][:, None], "rows": ROWS}),
        (METRICS, {"mse": np.full(4, np.nan), "rows": ROWS}),
        ({"mse": 0.5 * (1 + 1.5e-4)}, VALUES),
        ({"mse": 0.5 * (1 - 1.5e-4)}, VALUES),
        ({"mse": 1e-11}, {"mse": np.array([-1e-3, 1e-3]), "rows": ROWS[:2]}),
    ],
    ids=str,
)
def test_values_that_do_not_belong_to_the_metric_are_not_used(metrics: Any, arrays: Any) -> None:
    assert record_of(metrics, arrays).image_values("mse", "test") is None


def test_values_that_were_rounded_belong_to_the_metric() -> None:
    rounded = record_of({"mse": 0.5 * (1 + 9e-5)}).image_values("mse", "test")
    assert rounded is not None
    assert rounded.values.mean() == pytest.approx(0.5 * (1 + 9e-5), rel=1e-12)
    zero = record_of({"mse": 0.0}, {"mse": np.array([-1e-3, 1e-3]) + 1e-13, "rows": ROWS[:2]})
    assert zero.image_values("mse", "test") is not None


MSE, KL = VALUES["mse"] - 0.5, VALUES["kl"] - 8.0
CORRELATION = np.array([0.0, 2.0, 4.0, 2.0]) - 2


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("mse", 0.5 + MSE),
        ("3 - 2 * mse", 2 - 2 * MSE),
        ("mse + kl", 8.5 + MSE + KL),
        ("mse - kl", -7.5 + MSE - KL),
        ("mse * kl", 4 + 8 * MSE + 0.5 * KL),
        ("mse * mse", 0.25 + MSE),
        ("kl / mse", 16 + KL / 0.5 - 8 / 0.25 * MSE),
        ("1 / (mse - 0.4)", 10 - 100 * MSE),
        ("features.correlation * mse", 1 + 0.5 * CORRELATION + 2 * MSE),
        ("-features.correlation", -2 - CORRELATION),
    ],
)
def test_image_values_follow_the_chain_rule(text: str, values: np.ndarray) -> None:
    found = Quantity(text).image_values(record_of())
    assert found is not None
    np.testing.assert_allclose(found.values, values, rtol=1e-5, atol=1e-5)
    assert found.values.mean() == pytest.approx(Quantity(text).value(record_of()))
    np.testing.assert_array_equal(found.rows, ROWS)


def test_the_slope_at_zero_is_known() -> None:
    arrays = {"mse": np.array([-1.0, 1.0]), "rows": ROWS[:2]}
    found = Quantity("3 * mse + mse * mse").image_values(record_of({"mse": 0.0}, arrays))
    assert found is not None
    np.testing.assert_allclose(found.values, [-3, 3])


@pytest.mark.parametrize(
    "text", ["3", "first(loss)", "mse + last(kl)", "validation.mse", "train.mse - mse", "mse * ssim", "other.number"]
)
def test_what_is_no_mean_over_test_images_has_no_image_values(text: str) -> None:
    metrics = {**METRICS, "ssim": 0.9}
    analyses = {"features": {"correlation": 2.0}, "other": {"number": 2.0}}
    assert Quantity(text).image_values(record_of(metrics, analyses=analyses)) is None


@pytest.mark.parametrize(
    ("text", "may"),
    [
        ("mse", True),
        ("mse - features.correlation", True),
        ("3", False),
        ("first(loss)", False),
        ("mse - first(loss)", False),
        ("validation.mse - mse", False),
        ("mse / train.mse", False),
    ],
)
def test_a_measure_says_whether_it_may_have_image_values(text: str, may: bool) -> None:
    assert Quantity(text).may_have_image_values is may


def test_values_of_different_images_are_not_combined() -> None:
    def read(analysis: str) -> Mapping[str, np.ndarray]:
        rows = ROWS if analysis == "image_values" else ROWS + 1
        return {"mse": VALUES["mse"], "correlation": np.array([0.0, 2.0, 4.0, 2.0]), "rows": rows}

    record = RunRecord({"test": METRICS}, [], {"features": {"correlation": 2.0}}, read)
    assert Quantity("mse + features.correlation").image_values(record) is None
    assert Quantity("features.correlation + mse").image_values(record) is None
    assert Quantity("2 * features.correlation").image_values(record) is not None


def test_records_and_quantities_are_values() -> None:
    with pytest.raises(FrozenInstanceError):
        record_of().history = []  # type: ignore[misc]
    with pytest.raises(FrozenInstanceError):
        Quantity("mse").text = "kl"  # type: ignore[misc]
    assert Quantity("mse") == Quantity("mse") != Quantity("kl")


def test_a_run_without_arrays_has_no_image_values() -> None:
    assert Quantity("mse").image_values(RunRecord({"test": METRICS}, [], {})) is None
