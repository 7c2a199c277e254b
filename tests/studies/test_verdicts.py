"""Claims: the verdict follows from paired differences alone, and is never bolder than they are."""

from __future__ import annotations

import math

import numpy as np
import pytest

from vaelab.studies.expectations import (
    Between,
    Decreasing,
    Expectation,
    Highest,
    Increasing,
    Lowest,
    NearLowest,
    Similar,
)
from vaelab.studies.verdicts import judge

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
    assert judge(expectation.contrasts(values(*met), NAMES)).verdict == "supported"
    assert judge(expectation.contrasts(values(*contradicted), NAMES)).verdict == "refuted"
    for means in (met, contradicted):
        assert judge(expectation.contrasts(values(*means)[:1], NAMES)).verdict == "undecided", (
            "one seed decides nothing"
        )
    assert expectation.description
    blurred = np.add(values(*met), 5000 * NOISE[::-1])
    assert judge(expectation.contrasts(blurred, NAMES)).verdict == "undecided"


def test_every_expectation_is_tried() -> None:
    assert {type(e) for e, _, _ in CASES} == set(Expectation.__args__)


def test_a_true_null_is_decided_in_one_study_of_twenty() -> None:
    rng = np.random.default_rng(5)
    decided = [
        judge(Decreasing().contrasts(rng.normal(size=(5, 4)), list("abcd"))).verdict != "undecided" for _ in range(1000)
    ]
    assert np.mean(decided) < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 1000)
