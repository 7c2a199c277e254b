"""Verdicts: each is given exactly from its bound on, errs no more often than it may, and says what it rests on."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from scipy import stats

from vaelab.evaluation.statistics import crossed_mean
from vaelab.studies.expectations import (
    Between,
    Contrast,
    Decreasing,
    Expectation,
    Highest,
    Increasing,
    Lowest,
    NearLowest,
    Sign,
    Similar,
)
from vaelab.studies.sequential import LookPlan, nominal_level
from vaelab.studies.verdicts import (
    SIGNIFICANCE_LEVEL,
    VERDICTS,
    ContrastResult,
    Judgement,
    Look,
    Verdict,
    judge,
    smallest_p,
    standard_deviation,
)

NAMES = ["a", "b", "c"]
NOISE = np.random.default_rng(0).normal(size=(5, 3)) * 0.01
PLAN = LookPlan.sequential(3, 12)
BEYOND = 1e-6  # what is just beyond a bound


def spread(mean: float, error: float = 1.0, num_seeds: int = 5) -> np.ndarray:
    """Values with a mean and a standard error of the mean."""
    steps = np.arange(num_seeds) - (num_seeds - 1) / 2
    return mean + steps / steps.std(ddof=1) * error * math.sqrt(num_seeds)


def contrast(mean: float, error: float = 1.0, margin: float = 0.0, num_seeds: int = 5) -> Contrast:
    """A contrast that should be negative."""
    return Contrast(f"{mean:g}", spread(mean, error, num_seeds), -1, margin)


def mirrored(contrasts: Sequence[Contrast]) -> list[Contrast]:
    """The same contrasts with all signs turned: nothing may depend on them."""
    return [c._replace(values=-c.values, expected_sign=-c.expected_sign) for c in contrasts]


def t_bound(level: float, num_seeds: int = 5) -> float:
    return float(stats.t.isf(level, num_seeds - 1))


def verdict_of(*contrasts: Contrast, plan: LookPlan | None = None, level: float = SIGNIFICANCE_LEVEL) -> Verdict:
    """The verdict, which must be the same with all signs turned."""
    verdict = judge(contrasts, plan, level).verdict
    assert judge(mirrored(contrasts), plan, level).verdict == verdict
    return verdict


def close(ends: tuple[float, float] | None) -> object:
    return pytest.approx(ends, rel=1e-6)


# Verdicts on expectations


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
def test_expectations(expectation: Expectation, met: tuple[float, ...], contradicted: tuple[float, ...]) -> None:
    assert judge(expectation.contrasts(values(*met), NAMES)).verdict == "supported"
    assert judge(expectation.contrasts(values(*contradicted), NAMES)).verdict == "refuted"
    for means in (met, contradicted):
        assert judge(expectation.contrasts(values(*means)[:1], NAMES)).verdict == "undecided", "one seed"
    blurred = np.add(values(*met), 5000 * NOISE[::-1])
    assert judge(expectation.contrasts(blurred, NAMES)).verdict == "undecided"


def test_every_expectation_is_tried() -> None:
    assert {type(e) for e, _, _ in CASES} == set(Expectation.__args__)


def test_the_names_of_verdicts() -> None:
    assert VERDICTS == ("supported", "refuted", "equal", "void", "undecided")
    assert SIGNIFICANCE_LEVEL == 0.05


# The bounds of each verdict


@pytest.mark.parametrize("count", [1, 4])
def test_supported_from_the_t_quantile_on_without_correction(count: int) -> None:
    bound = -t_bound(0.025)
    others = [contrast(2 * bound)] * (count - 1)
    assert verdict_of(contrast(bound * (1 + BEYOND)), *others) == "supported"
    assert verdict_of(contrast(bound * (1 - BEYOND)), *others) == "undecided"
    assert verdict_of(*others, contrast(bound * (1 - BEYOND))) == "undecided"


@pytest.mark.parametrize("count", [1, 4])
def test_refuted_beyond_the_margin_with_correction(count: int) -> None:
    margin = 0.5
    bound = margin + t_bound(0.025 / count)
    others = [contrast(-10, margin=margin)] * (count - 1)
    assert verdict_of(contrast(bound + BEYOND, margin=margin), *others) == "refuted"
    assert verdict_of(*others, contrast(bound + BEYOND, margin=margin)) == "refuted"
    assert verdict_of(contrast(bound - BEYOND, margin=margin), *others) == "undecided"


@pytest.mark.parametrize("count", [1, 4])
def test_equal_if_nothing_is_visibly_against_the_claim(count: int) -> None:
    """No difference is above the margin, each tested at 5 %."""
    margin = 4.0
    bound = margin - t_bound(0.05)
    others = [contrast(-1.5, 0.01, margin)] * (count - 1) + [contrast(-10, 0.01, margin)] * (count - 1)
    assert verdict_of(contrast(bound - BEYOND, margin=margin), *others) == "equal"
    assert verdict_of(contrast(bound + BEYOND, margin=margin), *others) == "undecided"


@pytest.mark.parametrize("count", [1, 4])
def test_equal_if_some_difference_cannot_be_seen(count: int) -> None:
    """It is above minus the margin, with a correction for the choice of it. The others may be as expected."""
    margin = 5.0
    bound = -margin + t_bound(0.05 / count)
    others = [contrast(-100, 0.01, margin)] * (count - 1)
    assert verdict_of(*others, contrast(bound + BEYOND, margin=margin)) == "equal"
    assert verdict_of(*others, contrast(bound - BEYOND, margin=margin)) == "undecided"


def test_supported_takes_means_that_can_be_seen() -> None:
    step = 2.0**-10  # exact in binary, so that the mean is exactly the margin
    at_margin = Contrast("d", np.array([-1 - step, -1, -1 + step]), -1, 1.0)
    assert verdict_of(at_margin) == "undecided"
    assert verdict_of(at_margin._replace(margin=1 - step / 64)) == "supported"
    assert verdict_of(at_margin._replace(margin=1 - step / 64), at_margin) == "undecided"


def test_without_a_margin_nothing_is_equal() -> None:
    assert verdict_of(contrast(0.0, 1e-9)) == "undecided"


def test_every_contrast_has_its_own_margin() -> None:
    assert verdict_of(contrast(-2, 0.1, margin=1), contrast(-2, 0.1, margin=3)) == "equal"
    assert verdict_of(contrast(2, 0.1, margin=3), contrast(2, 0.1, margin=1)) == "refuted"


def test_another_level() -> None:
    for level in (0.01, 0.2):
        bound = t_bound(level / 2)
        assert verdict_of(contrast(-bound - BEYOND), level=level) == "supported"
        assert verdict_of(contrast(-bound + BEYOND), level=level) == "undecided"
        assert verdict_of(contrast(bound + BEYOND), level=level) == "refuted"
        equal = 5 - t_bound(level)
        assert verdict_of(contrast(equal - BEYOND, margin=5), level=level) == "equal"
        assert verdict_of(contrast(equal + BEYOND, margin=5), level=level) == "undecided"


def test_two_seeds_can_decide() -> None:
    assert verdict_of(contrast(-t_bound(0.025, 2) - BEYOND, num_seeds=2)) == "supported"
    assert verdict_of(contrast(-t_bound(0.025, 2) + BEYOND, num_seeds=2)) == "undecided"


# Looks


def test_a_look_takes_more_than_a_single_test() -> None:
    for num_seeds in (3, 12):
        bound = t_bound(nominal_level(0.025, num_seeds, PLAN), num_seeds)
        plan = PLAN if num_seeds == 3 else LookPlan((3, 12))
        if num_seeds == 12:
            bound = t_bound(nominal_level(0.025, 12, plan), 12)
        for sign, verdict in ((-1, "supported"), (1, "refuted")):
            order = np.argsort(np.abs(spread(0, 1, num_seeds)))[::-1]  # the first seeds alone decide nothing
            for mean, expected in ((bound * (1 + BEYOND), verdict), (bound * (1 - BEYOND), "undecided")):
                tested = Contrast("d", spread(sign * mean, 1, num_seeds)[order], -1)
                judgement = judge([tested], plan)
                assert (judgement.verdict, judgement.num_seeds) == (expected, num_seeds)


def test_the_first_look_that_decides_is_final() -> None:
    decided = spread(-20, 1, 4)
    for later in ([], [1e6], [1e6, -5, 3], [0] * 20):
        judgement = judge([Contrast("d", np.append(decided, later), -1)], LookPlan.sequential(4, 12))
        assert judgement.verdict == "supported"
        assert judgement == judge([Contrast("d", decided, -1)], LookPlan.sequential(4, 12))
        assert judgement.num_seeds == 4
        assert judgement.next_look is None
        assert not judgement.is_open


def test_an_undecided_claim_waits_for_its_next_look() -> None:
    rng = np.random.default_rng(3)
    noise = rng.standard_normal(15)
    for num_seeds in range(3, 12):
        judgement = judge([Contrast("d", noise[:num_seeds], -1)], PLAN)
        assert (judgement.verdict, judgement.num_seeds) == ("undecided", num_seeds)
        assert judgement.next_look == num_seeds + 1
        assert judgement.is_open
        assert [look.num_seeds for look in judgement.looks] == list(range(3, num_seeds + 1))
    for num_seeds in (12, 15):
        judgement = judge([Contrast("d", noise[:num_seeds], -1)], PLAN)
        assert judgement.next_look is None
        assert not judgement.is_open
        assert judgement.num_seeds == 12


def test_each_look_says_what_it_came_to() -> None:
    tested = Contrast("d", np.array([-0.5, -3.5, -1, -2.5, -1.5, -3]), -1)
    judgement = judge([tested], LookPlan((3, 6)))
    assert [look.verdict for look in judgement.looks] == ["undecided", "supported"]
    assert judgement.p == judgement.looks[-1].p <= 0.05 < judgement.looks[0].p
    first = judge([tested.first(3)], LookPlan((3, 6)))
    assert first.looks == judgement.looks[:1]
    assert isinstance(first.looks[0], Look)


def test_margins_and_resolutions_of_later_seeds_do_not_matter() -> None:
    tested = Contrast("d", np.array([-5.0, -6, -7, 0.5]), -1, np.array([1.0, 1, 1, 1e6]), np.array([1.0, 1, 1, 0]))
    judgement = judge([tested], LookPlan((3, 4)))
    assert judgement.verdict == "supported"
    assert judgement.contrasts[0].margin == 1


# Nothing to test


def test_one_seed() -> None:
    judgement = judge([Contrast("a", np.array([1.0]), -1, 0.25), Contrast("b", np.array([2.0]), 1)])
    assert (judgement.verdict, judgement.num_seeds, judgement.p) == ("undecided", 1, 1.0)
    assert judgement.note == "one seed decides nothing"
    assert judgement.contrasts == (
        ContrastResult("a", -1, 1.0, None, None, None, 0.25, None, 1),
        ContrastResult("b", 1, 2.0, None, None, None, 0.0, None, 1),
    )
    assert (judgement.looks, judgement.next_look, judgement.is_open) == ((), 2, True)
    assert judgement.seeds_needed_text == ""
    assert judge([Contrast("b", np.array([2.0]), 1), Contrast("a", np.array([1.0]), -1)]).contrasts[0].what == "a"
    near, far = Contrast("near", np.array([-1.0]), -1, 0.9), Contrast("far", np.array([-1.0]), -1)
    assert judge([far, near]).contrasts[0].what == "near"


def test_before_the_first_look() -> None:
    judgement = judge([contrast(-50, num_seeds=2)], PLAN)
    assert (judgement.verdict, judgement.num_seeds, judgement.next_look) == ("undecided", 2, 3)
    assert judgement.note == "the first look is at 3 seeds"
    assert judgement.contrasts[0].num_seeds == 2
    assert smallest_p([contrast(-50, num_seeds=2)], PLAN) == 1


def test_sick_runs_make_a_claim_void() -> None:
    for num_seeds in (2, 5):
        judgement = judge([contrast(-50, num_seeds=num_seeds)], LookPlan.fixed(5), void_reason="it collapsed")
        assert (judgement.verdict, judgement.note) == ("void", "it collapsed")
        assert judgement.contrasts[0].mean == pytest.approx(-50)
        assert not judgement.is_open
        assert judgement.seeds_needed is None
        assert judgement.seeds_needed_text == ""
    assert judgement.contrasts[0].interval is not None


def test_equal_values_of_all_seeds_decide_nothing() -> None:
    same = Contrast("same", np.full(4, -3.0), -1, 0.5)
    judgement = judge([same])
    assert (judgement.verdict, judgement.p) == ("undecided", 1.0)
    assert judgement.note == "same is the same for all 4 seeds, so its error is unknown"
    assert judgement.contrasts[0] == ContrastResult("same", -1, -3.0, None, None, None, 0.5, None, 4)
    assert judgement.seeds_needed is None
    assert judgement.seeds_needed_text == ""
    assert verdict_of(same._replace(values=np.zeros(4))) == "undecided"
    assert verdict_of(same, contrast(-50, num_seeds=4)) == "undecided"
    assert verdict_of(same, contrast(50, num_seeds=4)) == "refuted", "another contrast may still contradict the claim"
    rounding = np.array([0.1 + 0.2, 0.3, 0.3, 0.1 + 0.2])
    assert verdict_of(same._replace(values=rounding)) == "undecided"


def test_equal_counts_have_the_error_of_rounding() -> None:
    def count(value: float, num_seeds: int) -> Contrast:
        return Contrast("units", np.full(num_seeds, value), -1, 0.0, 1.0)

    error = 1 / math.sqrt(6)
    bound = t_bound(0.025, 2) * error / math.sqrt(2)  # 3.67
    assert 3 < bound < 4
    assert verdict_of(count(-3, 2)) == "undecided"
    assert verdict_of(count(-4, 2)) == "supported"
    [result] = judge([count(-4, 2)]).contrasts
    assert result.interval == close((-4 - bound, -4 + bound))
    assert result.effect_size == pytest.approx(-4 / error)
    wide = Contrast("units", np.array([-10.0, 10, 0]), -1, 0.0, 1.0)
    assert judge([wide]).contrasts[0].effect_size == 0, "a larger deviation is kept"


def test_deviations_that_are_rounding() -> None:
    assert standard_deviation(np.array([1.0, 3.0])) == pytest.approx(math.sqrt(2))
    assert standard_deviation(np.array([1e9, 1e9 + 1e-6])) == 0
    assert standard_deviation(np.array([1e-9, 2e-9])) > 0


# What is said


@pytest.mark.parametrize("sign", [-1, 1])
def test_one_contrast_has_the_paired_t_interval(sign: Sign) -> None:
    y = np.random.default_rng(3).normal([0.3, 0], size=(6, 2))
    expectation = Lowest("b") if sign < 0 else Highest("b")
    [result] = judge(expectation.contrasts(y, ["a", "b"])).contrasts
    expected = stats.ttest_rel(y[:, 1], y[:, 0])
    assert result.what == "b − a"
    assert result.wanted == sign
    assert result.mean == pytest.approx((y[:, 1] - y[:, 0]).mean())
    assert result.p == pytest.approx(expected.pvalue)
    assert result.interval == close(tuple(expected.confidence_interval(0.95)))
    assert result.bounds == result.interval
    assert judge(expectation.contrasts(y, ["a", "b"])).note == ""
    assert result.effect_size == pytest.approx(result.mean / (y[:, 1] - y[:, 0]).std(ddof=1))
    assert result.num_seeds == 6


def ends(judgement: Judgement, which: str) -> tuple[float, float] | None:
    [result] = [result for result in judgement.contrasts if result.what == which]
    return result.bounds


def test_bounds_are_those_that_the_verdict_is_read_from() -> None:
    alone, joint = t_bound(0.025), t_bound(0.025 / 2)
    supported = judge([contrast(-20), contrast(-30)])
    assert ends(supported, "-20") == close((-20 - alone, -20 + alone))
    refuted = judge([contrast(20), contrast(-30)])
    assert ends(refuted, "20") == close((20 - joint, 20 + joint))
    equal = [contrast(1, margin=20), contrast(-30, margin=20)]
    below, above = t_bound(0.05 / 2), t_bound(0.05)
    assert ends(judge(equal), "1") == close((1 - below, 1 + above))
    turned = judge(mirrored(equal))
    assert ends(turned, "1") == close((-1 - above, -1 + below))
    undecided = judge([contrast(1), contrast(-30)])
    assert ends(undecided, "1") == close((1 - alone, 1 + alone))
    for judgement in (supported, refuted, undecided):
        for result in judgement.contrasts:
            assert result.interval == close((result.mean - joint, result.mean + joint))


def test_intervals_hold_at_every_look() -> None:
    tested = [contrast(0, 1, 0, 4), contrast(-1, 1, 0, 4)]
    for result in judge(tested, PLAN).contrasts:
        joint = t_bound(nominal_level(0.025 / 2, 4, PLAN), 4)
        alone = t_bound(nominal_level(0.025, 4, PLAN), 4)
        assert result.interval == close((result.mean - joint, result.mean + joint))
        assert result.bounds == close((result.mean - alone, result.mean + alone))


def test_the_deciding_contrast_comes_first() -> None:
    def order(*contrasts: Contrast) -> list[str]:
        forwards = [result.what for result in judge(contrasts).contrasts]
        assert forwards == [result.what for result in judge(contrasts[::-1]).contrasts]
        return forwards

    assert order(contrast(-20), contrast(-10), contrast(-30)) == ["-10", "-20", "-30"], "supported: the weakest"
    assert order(contrast(-20), contrast(30), contrast(20)) == ["30", "20", "-20"], "refuted: the strongest against"
    assert order(contrast(30, margin=25), contrast(20)) == ["20", "30"], "beyond its margin"
    assert order(contrast(-30, margin=9), contrast(1, margin=9), contrast(0, margin=9)) == ["1", "0", "-30"], "equal"
    assert order(contrast(-30, margin=2), contrast(0, margin=50)) == ["0", "-30"]
    assert order(contrast(-20), contrast(1), contrast(0)) == ["1", "0", "-20"], "undecided: what stands in the way"


def test_p_values() -> None:
    def tail(t: float) -> float:
        return float(stats.t.sf(t, 4))

    assert judge([contrast(-3)]).p == pytest.approx(2 * tail(3))
    assert judge([contrast(3)]).p == pytest.approx(2 * tail(3))
    assert judge([contrast(-3), contrast(-4), contrast(-5)]).p == pytest.approx(2 * tail(3)), "the weakest"
    assert judge([contrast(6), contrast(5), contrast(-5)]).p == pytest.approx(3 * 2 * tail(6)), "the strongest, times 3"
    assert judge([contrast(6, margin=1), contrast(-5)]).p == pytest.approx(2 * 2 * tail(5))
    assert judge([contrast(1, margin=5)]).p == pytest.approx(tail(4))
    assert judge([contrast(-2, margin=5), contrast(-50, margin=5)]).p == pytest.approx(2 * tail(3))
    assert judge([contrast(0.1)] * 5).p == 1, "never above 1"
    [result] = judge([contrast(2, margin=1)]).contrasts
    assert result.p == pytest.approx(2 * tail(2)), "of a contrast: against 0, at this look alone"
    assert judge([contrast(-2, margin=1)]).contrasts[0].p == pytest.approx(2 * tail(2))


def test_the_smallest_p_of_all_looks() -> None:
    tested = [Contrast("d", np.array([-1.0, -3, -2, -2.5, -1.5, 9]), -1), contrast(-9, num_seeds=6)]
    looks = judge(tested, LookPlan.sequential(3, 6), level=1e-9).looks
    assert [look.num_seeds for look in looks] == [3, 4, 5, 6]
    assert smallest_p(tested, LookPlan.sequential(3, 6)) == looks[2].p == min(look.p for look in looks)
    assert smallest_p([contrast(-3)]) == judge([contrast(-3)]).p


def labels(*contrasts: Contrast, plan: LookPlan | None = None, level: float = 0.05) -> tuple[str, str]:
    judgement = judge(contrasts, plan, level)
    return judgement.interval_label, judgement.bounds_label


def test_labels_say_what_intervals_cover() -> None:
    assert labels(contrast(-20)) == ("95 %, over seeds", "95 %, over seeds")
    both = (contrast(-20), contrast(-30))
    assert labels(*both) == ("95 % jointly for 2 differences, over seeds", "95 % for each difference alone, over seeds")
    assert labels(contrast(20), contrast(30)) == ("95 % jointly for 2 differences, over seeds",) * 2
    assert labels(contrast(1, margin=20)) == ("95 %, over seeds", "95 % for each end, over seeds")
    assert labels(contrast(0)) == ("95 %, over seeds", "95 %, over seeds")
    assert labels(contrast(-20), plan=PLAN) == ("95 % and at every look, over seeds",) * 2
    assert labels(contrast(-50), level=0.01)[0] == "99 %, over seeds"
    images = np.random.default_rng(0).random((5, 30))
    over_images = Contrast("d", images.mean(1), 1, images=images)
    assert labels(over_images)[0] == "95 %, over seeds and test images"
    assert labels(over_images, contrast(1))[0] == "95 % jointly for 2 differences, over seeds"


def test_test_images_are_a_second_source_of_error() -> None:
    images = np.random.default_rng(0).normal(0.2, 1, 40) + np.random.default_rng(1).normal(0, 0.5, (5, 40))
    with_images = Contrast("d", images.mean(1), 1, images=images)
    error = crossed_mean(images).error
    [result] = judge([with_images]).contrasts
    half = error.half_width(0.025)
    assert half > 2 * crossed_mean(images).error._replace(image_variance=0.0).half_width(0.025)
    assert result.interval == close((images.mean() - half, images.mean() + half))
    assert result.p == pytest.approx(2 * error.tail_probability(images.mean()))
    assert judge([with_images._replace(images=None)]).verdict == "supported"
    assert judge([with_images]).verdict == "undecided"
    assert judge([with_images]).seeds_needed is None, "more seeds do not help against few images"
    prefix = judge([with_images], LookPlan((3, 5)))
    assert prefix.looks[0].p == judge([with_images.first(3)], LookPlan((3, 5))).looks[0].p


# How many seeds would decide


def fixed_power(num_seeds: int, distance: float, level: float) -> float:
    """The power of a one-sided t test at a distance in deviations."""
    critical = stats.t.isf(level, num_seeds - 1)
    return float(stats.nct.sf(critical, num_seeds - 1, distance * math.sqrt(num_seeds)))


def deviated(mean: float, margin: float = 0.0, deviation: float = 1.0) -> Contrast:
    return contrast(mean, deviation / math.sqrt(5), margin)


def seeds_needed(*contrasts: Contrast, plan: LookPlan | None = None) -> int | None:
    judgement = judge(contrasts, plan)
    assert judgement.verdict == "undecided"
    assert judge(mirrored(contrasts), plan).seeds_needed == judgement.seeds_needed
    return judgement.seeds_needed


def first_with(power: float, of: list[tuple[float, float]]) -> int:
    """The first number of seeds with a power for all of some distances at their levels."""
    for num_seeds in range(2, 1001):
        if min(fixed_power(num_seeds, distance, level) for distance, level in of) >= power:
            return num_seeds
    return 1001


def test_seeds_that_would_decide() -> None:
    assert seeds_needed(deviated(-0.5)) == first_with(0.8, [(0.5, 0.025)]) == 34, "supported"
    assert seeds_needed(deviated(0.5)) == 34, "refuted"
    assert seeds_needed(deviated(-0.5), deviated(-0.3)) == first_with(0.8, [(0.5, 0.025), (0.3, 0.025)])
    assert seeds_needed(deviated(0.5), deviated(-0.3)) == first_with(0.8, [(0.5, 0.025 / 2)])
    assert seeds_needed(deviated(0.5, margin=0.2)) == first_with(0.8, [(0.3, 0.025)])
    equal = seeds_needed(deviated(0, margin=0.5))
    assert equal is not None
    assert fixed_power(equal, 0.5, 0.05) * 2 - 1 >= 0.8 > fixed_power(equal - 1, 0.5, 0.05) * 2 - 1
    shifted = seeds_needed(deviated(0.3, margin=0.8), deviated(-5, margin=0.8))
    assert shifted is not None
    for num_seeds, enough in ((shifted, True), (shifted - 1, False)):
        power = fixed_power(num_seeds, 0.5, 0.05) + fixed_power(num_seeds, 1.1, 0.05 / 2) - 1
        assert (power >= 0.8) == enough


def test_a_mean_near_the_margin_is_not_seen_at_once() -> None:
    """It takes as many seeds until the mean lies beyond the margin with a probability of 80 %."""
    needed = seeds_needed(deviated(-0.5, margin=0.45))
    assert needed is not None
    assert stats.norm.cdf(0.05 * math.sqrt(needed)) >= 0.8 > stats.norm.cdf(0.05 * math.sqrt(needed - 1))


def test_looks_need_more_seeds_than_a_single_test() -> None:
    tested = contrast(-1, 1 / math.sqrt(3), num_seeds=3)
    plan = LookPlan.sequential(3, 18)
    needed = seeds_needed(tested, plan=plan)
    assert needed is not None
    for num_seeds, enough in ((needed, True), (needed - 1, False)):
        assert (fixed_power(num_seeds, 1, nominal_level(0.025, num_seeds, plan)) >= 0.8) == enough
    assert needed > first_with(0.8, [(1, 0.025)])
    assert seeds_needed(tested, plan=LookPlan((3, 4))) == first_with(0.8, [(1, 0.025)]), "by another study"


def test_seeds_needed_in_words() -> None:
    assert judge([deviated(-0.5)]).seeds_needed_text == "about 34 seeds"
    assert seeds_needed(deviated(-0.01)) is None
    assert judge([deviated(-0.01)]).seeds_needed_text == "more than 1000 seeds"
    assert judge([contrast(-50)]).seeds_needed_text == ""
    edge = seeds_needed(deviated(-0.0887))
    assert edge is not None
    assert 990 < edge <= 1000
