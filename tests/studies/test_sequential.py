"""Looks: the levels spent at each of them add up to what is allowed, for t statistics of very few seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from vaelab.core.errors import UserError
from vaelab.studies.sequential import (
    LEVELS,
    LookPlan,
    Unrejected,
    _next_unrejected,
    adjusted_p,
    exact_nominal_levels,
    nominal_level,
    nominal_level_table,
)

PLAN = LookPlan.sequential(3, 12)


def test_plans() -> None:
    assert LookPlan.fixed(5).looks == (5,)
    assert LookPlan.fixed(1).looks == (2,), "one seed cannot be judged"
    assert LookPlan.sequential(3, 6).looks == (3, 4, 5, 6)
    assert LookPlan.sequential(1, 4).looks == (2, 3, 4)
    assert LookPlan.sequential(4, 4).looks == (4,)
    with pytest.raises(UserError, match="at least 5, where a study starts, got 4"):
        LookPlan.sequential(5, 4)


def test_looks_that_were_reached() -> None:
    plan = LookPlan.sequential(3, 5)
    assert [plan.reached(n) for n in (2, 3, 4, 9)] == [(), (3,), (3, 4), (3, 4, 5)]
    assert [plan.next_look(n) for n in (0, 2, 3, 4, 5, 9)] == [3, 3, 4, 5, None, None]


@pytest.mark.parametrize(
    ("looks", "level"), [((3, 4, 5, 6, 7, 8, 9, 10, 11, 12), 0.025), ((2, 3, 4), 0.1), ((3, 6, 12), 0.01)]
)
def test_the_error_up_to_each_look_is_what_may_be_spent(looks: tuple[int, ...], level: float) -> None:
    num = 200_000
    values = np.random.default_rng(1).standard_normal((num, looks[-1]), dtype=np.float32)
    rejected = np.zeros(num, bool)
    for look, nominal in zip(looks, exact_nominal_levels(looks, level), strict=True):
        first = values[:, :look]
        t = first.mean(1) / first.std(1, ddof=1) * math.sqrt(look)
        rejected |= t > stats.t.isf(nominal, look - 1)
        due = level * look / looks[-1]
        assert rejected.mean() == pytest.approx(due, abs=4 * math.sqrt(due / num))


def test_the_second_look_agrees_with_integration_over_the_sphere() -> None:
    """Of three normal values only the direction matters: uniform on a sphere, over which t at 2 and 3 is tabulated."""
    level = 0.2
    first, second = exact_nominal_levels((2, 3), level)
    assert first == pytest.approx(level * 2 / 3)
    phi = (np.arange(2000) + 0.5) / 2000 * 2 * math.pi
    z = ((np.arange(600) + 0.5) / 600 * 2 - 1)[:, None]  # heights of equal area
    x, y = np.sqrt(1 - z**2) * np.cos(phi), np.sqrt(1 - z**2) * np.sin(phi)
    rejected_at_2 = (x + y) / np.abs(x - y) > stats.t.isf(first, 1)
    mean = (x + y + z) / 3
    rejected_at_3 = mean / np.sqrt((1 / 3 - mean**2) / 2) > stats.t.isf(second, 2)
    assert (rejected_at_3 & ~rejected_at_2).mean() == pytest.approx(level / 3, rel=5e-3)


def test_while_nothing_is_rejected_the_probability_stays_one() -> None:
    angles = np.linspace(-math.pi / 2, math.pi / 2, 101)
    unrejected = Unrejected(angles, np.ones(101))
    for n in range(2, 7):
        unrejected = _next_unrejected(n, unrejected, math.pi / 2)
        assert unrejected.probabilities == pytest.approx(np.ones(len(unrejected.angles)), abs=1e-5)
        assert unrejected.angles[0] == pytest.approx(-math.pi / 2)
        assert unrejected.angles[-1] == pytest.approx(math.pi / 2, abs=1e-6)


def test_what_must_have_been_rejected_has_no_probability() -> None:
    """Of two values with t <= 0 and a third, u is at most 1: its angle is arcsin(1 / sqrt(3))."""
    angles = np.linspace(-math.pi / 2, math.pi / 2, 101)
    unrejected = _next_unrejected(2, Unrejected(angles, np.ones(101)), 0.0)
    assert unrejected.angles[-1] == pytest.approx(math.asin(1 / math.sqrt(3)))
    assert unrejected.at(np.array([1.0])) == pytest.approx(0)
    assert unrejected.at(np.array([-1.0])) == pytest.approx(1)
    assert unrejected.at(np.array([0.0])) == pytest.approx(1 / 2, abs=1e-6), "of three values with sum 0"


def test_one_look_spends_everything() -> None:
    assert exact_nominal_levels((7,), 0.03) == pytest.approx([0.03])
    assert nominal_level(0.03, 7, LookPlan.fixed(7)) == 0.03
    assert adjusted_p(0.7, 7, LookPlan.fixed(7)) == 0.7


@pytest.mark.parametrize("level", [0.3, 0.025, 0.001, 1e-5])
def test_levels_between_those_of_the_table(level: float) -> None:
    exact = exact_nominal_levels(PLAN.looks, level)
    assert [nominal_level(level, look, PLAN) for look in PLAN.looks] == pytest.approx(exact, rel=1e-3)


@pytest.mark.parametrize("look", [3, 7, 12])
@pytest.mark.parametrize("level", [0.4, 0.05, 0.001, 3e-9])
def test_an_adjusted_p_value_is_the_level_that_just_decides(level: float, look: int) -> None:
    nominal = nominal_level(level, look, PLAN)
    assert adjusted_p(nominal, look, PLAN) == pytest.approx(level)
    assert nominal < level


def test_adjusted_p_values_beyond_the_table() -> None:
    assert adjusted_p(0.9, 3, PLAN) == 1
    assert adjusted_p(0.5, 12, PLAN) == 1
    for level in (LEVELS[0], LEVELS[-1]):
        for look, exact in zip(PLAN.looks, exact_nominal_levels(PLAN.looks, level), strict=True):
            assert nominal_level(level, look, PLAN) == pytest.approx(exact, rel=1e-9)
    for look, nominal in zip(PLAN.looks, nominal_level_table(PLAN.looks)[:, -1], strict=True):
        assert adjusted_p(nominal, look, PLAN) == pytest.approx(0.5)
        assert adjusted_p(nominal * 1.001, look, PLAN) == 1
    assert LEVELS[[0, -1]] == pytest.approx([1e-7, 0.5])
    assert adjusted_p(0.0, 3, PLAN) == 0
    assert nominal_level(0.0, 3, PLAN) == 0
    smallest = nominal_level(1e-7, 5, PLAN)
    assert adjusted_p(smallest / 10, 5, PLAN) == pytest.approx(1e-8)
    assert nominal_level(1e-8, 5, PLAN) == pytest.approx(smallest / 10)


def test_later_looks_have_more_to_spend() -> None:
    assert nominal_level(0.05, 3, PLAN) == pytest.approx(0.05 / 4)
    assert nominal_level(0.05, 3, LookPlan.sequential(3, 6)) == pytest.approx(0.05 / 2)
    assert nominal_level(0.05, 12, PLAN) > nominal_level(0.05, 8, PLAN) > nominal_level(0.05, 5, PLAN)
