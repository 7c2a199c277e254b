"""Claims: the verdict follows from paired differences alone, and is never bolder than they are."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from vaelab.core.errors import UserError
from vaelab.studies.hypotheses import (
    Between,
    Contrast,
    Decreasing,
    Expectation,
    Highest,
    Increasing,
    Lowest,
    NearLowest,
    Similar,
    decide_verdict,
)
from vaelab.studies.quantities import Quantity, RunRecord

NAMES = ["a", "b", "c"]
NOISE = np.random.default_rng(0).normal(size=(5, 3)) * 0.01


def values(*means: float) -> np.ndarray:
    return np.array(means) + NOISE


CASES: list[tuple[Expectation, tuple[float, ...], tuple[float, ...]]] = [  # met by, contradicted by
    (Lowest("a"), (1, 2, 3), (3, 2, 4)),
    (Lowest("a", percent=50), (1, 2.5, 3), (1, 1.2, 3)),
    (Highest("c"), (1, 2, 3), (1, 4, 3)),
    (Highest("c", percent=20), (1, 2, 3), (1, 2.8, 3)),
    (NearLowest("b", percent=5), (1, 1.01, 3), (1, 1.2, 3)),
    (Decreasing(), (3, 2, 1), (3, 1, 2)),
    (Increasing(), (1, 2, 3), (1, 3, 2)),
    (Similar(percent=10), (5, 5.1, 5.2), (5, 6, 5)),
    (Between(low=0.5), (1, 2, 3), (1, 2, 0.1)),
    (Between(low=0.5, high=4), (1, 2, 3), (1, 2, 5)),
]


@pytest.mark.parametrize(("expectation", "met", "contradicted"), CASES)
def test_verdicts(expectation: Expectation, met: tuple[float, ...], contradicted: tuple[float, ...]) -> None:
    assert decide_verdict(expectation.contrasts(values(*met), NAMES))[0] == "supported"
    verdict, findings = decide_verdict(expectation.contrasts(values(*contradicted), NAMES))
    assert verdict == "refuted"
    assert findings[0].contradicted, "the decisive contrast comes first"
    for means in (met, contradicted):
        assert decide_verdict(expectation.contrasts(values(*means)[:1], NAMES))[0] == "undecided", (
            "one seed decides nothing"
        )
    assert expectation.description
    blurred = np.add(values(*met), 5000 * NOISE[::-1])
    assert decide_verdict(expectation.contrasts(blurred, NAMES))[0] == "undecided"


def test_every_expectation_is_tried() -> None:
    assert {type(e) for e, _, _ in CASES} == set(Expectation.__args__)


def test_one_contrast_has_the_paired_t_interval() -> None:
    y = np.random.default_rng(3).normal([0.3, 0], size=(6, 2))
    _, [finding] = decide_verdict(Lowest("b").contrasts(y, ["a", "b"]))
    expected = stats.ttest_rel(y[:, 1], y[:, 0])
    assert finding.p == pytest.approx(expected.pvalue)
    assert finding.interval == pytest.approx(tuple(expected.confidence_interval(0.95)))
    assert finding.effect_size == pytest.approx(finding.mean / (y[:, 1] - y[:, 0]).std(ddof=1))


def test_holm_rejects_what_the_textbook_procedure_rejects() -> None:
    """And an interval leaves out 0 exactly where it does."""
    rng = np.random.default_rng(4)
    for _ in range(50):
        contrasts = [Contrast(str(i), rng.normal(rng.choice([0, 1.5]), 1, 6), -1) for i in range(5)]
        _, findings = decide_verdict(contrasts)
        p = np.array([stats.ttest_1samp(c.values, 0).pvalue for c in contrasts])
        adjusted = np.maximum.accumulate(np.sort(p) * np.arange(5, 0, -1))
        rejected = {str(i) for i, a in zip(np.argsort(p), adjusted, strict=True) if a < 0.05}
        assert {f.what for f in findings if f.interval and not f.interval[0] <= 0 <= f.interval[1]} == rejected


def test_a_true_null_is_decided_in_one_study_of_twenty() -> None:
    rng = np.random.default_rng(5)
    decided = [
        decide_verdict(Decreasing().contrasts(rng.normal(size=(5, 4)), list("abcd")))[0] != "undecided"
        for _ in range(1000)
    ]
    assert np.mean(decided) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)


RECORD = RunRecord(
    {"test": {"mse": 0.5, "kl": 8.0}, "validation": {"mse": 0.25}},
    [{"epoch": e, "train": {"loss": 100.0 / e, "kl": 1.0}, "validation": {"loss": 120.0 / e}} for e in (1, 2, 4)],
    {"features": {"correlation": 0.9}},
)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("mse", 0.5),
        ("validation.mse", 0.25),
        ("mse / 2 - -kl * 3", 24.25),
        ("features.correlation", 0.9),
        ("first(loss)", 120),
        ("last(train.loss)", 25),
        ("at(loss, 3)", 45),
        ("fall(loss)", 90),
        ("area(loss)", (90 + 2 * 45) / 3),
        ("epochs_to(loss, 90)", 1.5),
        ("epochs_to(loss, 1)", 4),
        ("epochs_to(loss)", 4),
    ],
)
def test_measures(text: str, value: float) -> None:
    assert Quantity(text).value(RECORD) == pytest.approx(value)


def test_the_common_level_is_what_the_slowest_reaches() -> None:
    slow = RunRecord({}, [row | {"validation": {"loss": row["validation"]["loss"] + 30}} for row in RECORD.history], {})
    assert Quantity("epochs_to(loss)").value(RECORD, [RECORD, slow]) == pytest.approx(2)
    assert Quantity("epochs_to(loss)").value(slow, [RECORD, slow]) == pytest.approx(4)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mze", 'did you mean "mse"'),
        ("fal(loss)", 'did you mean "fall"'),
        ("at(mse, 3)", 'unknown name in the measure "at\\(mse, 3\\)" "mse"'),
        ("mse if kl else 0", "not made of"),
        ("__import__('os')", "unknown function"),
        ("mse **", "no expression"),
    ],
)
def test_measures_that_mean_nothing_are_refused(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        Quantity(text)


def test_what_a_run_does_not_have_is_said() -> None:
    cases = [
        ("ssim", "unknown number of test"),
        ("at(loss, 9)", "epoch 9 is not on it"),
        ("features.corelation", 'did you mean "correlation"'),
        ("mse / (kl - kl)", "divides by zero"),
    ]
    for text, said in cases:
        with pytest.raises(UserError, match=said):
            Quantity(text).value(RECORD)
