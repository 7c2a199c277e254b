r"""Verdicts: what paired differences over seeds say about a claim.

A claim has K contrasts. Turned so that negative is as expected, contrast k has the true value d_k, its mean over seeds,
and the margin m_k, the largest difference that nobody could see. The verdict is

    supported    every d_k < 0, by t tests, and every mean lies beyond the margin
    refuted      some d_k > m_k: something contradicts the claim, visibly
    equal        every d_k < m_k, and some d_k > -m_k: nothing contradicts it visibly, but not all of it can be seen
    undecided    none of these could be established yet
    void         the runs are sick, which is found elsewhere

What holds for every contrast is established by an intersection-union test: each is tested alone, without correction.
What holds for some contrast is established by the smallest of K p-values, times K (Bonferroni, the first step of Holm).
Supported and refuted are tested at 2.5 %, the two parts of equal at 5 % each. Whatever is true, a false verdict has a
probability of 5 % at most:

    some d_k > m_k          supported and equal are false: both need d_k < m_k, at 5 %
    all d_k < -m_k          refuted and equal are false: both need some d_k > -m_k, at 5 %
    some d_k >= 0, none > m_k    supported and refuted are false: 2.5 % each

All p-values hold for all looks together (`sequential`).

Source: Three-sided Hypothesis Testing: Simultaneous Testing of Superiority, Equivalence and Inferiority, Goeman, Solari
and Stijnen 2010; Bioequivalence Trials, Intersection-Union Tests and Equivalence Confidence Sets, Berger and Hsu 1996.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from vaelab.evaluation.statistics import MeanError, crossed_mean
from vaelab.studies.expectations import Contrast, Sign
from vaelab.studies.sequential import LookPlan, adjusted_p, nominal_level

__all__ = [
    "SIGNIFICANCE_LEVEL",
    "VERDICTS",
    "ContrastResult",
    "Judgement",
    "Look",
    "Verdict",
    "judge",
    "smallest_p",
]

SIGNIFICANCE_LEVEL = 0.05  # the probability of a false verdict that a claim admits

Verdict = Literal["supported", "refuted", "equal", "void", "undecided"]

VERDICTS: tuple[Verdict, ...] = ("supported", "refuted", "equal", "void", "undecided")

ROUNDING = 1e-12  # a standard deviation below this share of the largest value is rounding

MOST_SEEDS_ESTIMATED = 1000  # estimates of the seeds that a verdict needs go no further

POWER = 0.8  # the probability of a verdict with the estimated number of seeds


class ContrastResult(NamedTuple):
    """What was measured of a contrast. The field names are the keys of claims.json.

    Attributes:
        what: What is compared, such as "ce+se − ce".
        wanted: The expected sign, -1 or 1.
        mean: The mean over seeds.
        interval: The interval of 95 % that holds for all contrasts of the claim and all looks together; None where
            nothing can be said, as with a single seed.
        p: The two-sided p-value of the t test against 0 at this look alone, not adjusted; None as above.
        effect_size: mean / standard deviation over seeds; None with a single seed or without any deviation.
        margin: The largest difference that nobody could see.
        bounds: The interval that the verdict is read from; see `Judgement.bounds_label`. None as above.
        num_seeds: The number of seeds.
    """

    what: str
    wanted: Sign
    mean: float
    interval: tuple[float, float] | None
    p: float | None
    effect_size: float | None
    margin: float = 0.0
    bounds: tuple[float, float] | None = None
    num_seeds: int = 1


class Rule(NamedTuple):
    """How the contrasts of a claim are judged.

    Attributes:
        num_contrasts: How many there are.
        plan: After how many seeds they are judged.
        level: The probability of a false verdict.
    """

    num_contrasts: int
    plan: LookPlan
    level: float

    def nominal_level(self, share: float, num_seeds: int) -> float:
        """The level of a one-sided test at a look, for a share of the level of the claim."""
        return nominal_level(self.level * share, num_seeds, self.plan)


class Look(NamedTuple):
    """What a claim came to at a look.

    Attributes:
        num_seeds: The number of seeds.
        verdict: The verdict with these seeds.
        p: The level at which the claim would be decided, adjusted for all looks.
    """

    num_seeds: int
    verdict: Verdict
    p: float


class Judgement(NamedTuple):
    """The verdict on a claim.

    Attributes:
        verdict: The verdict.
        num_seeds: The number of seeds that it rests on: those of the first look that decided, or of the last one.
        p: The smallest level at which the claim would be decided like this; 1 where nothing could be tested.
        contrasts: What was measured of each contrast at that look; the first one decides.
        looks: What the claim came to at each look up to that one.
        next_look: For an undecided claim: the number of seeds at which it will be judged again; None after the last.
        seeds_needed: For an undecided claim: the number of seeds that would decide it with a probability of 80 % if
            the true values were those observed; None if that is more than 1000.
        note: Why it is void, or why nothing could be tested.
        interval_label: What `ContrastResult.interval` covers.
        bounds_label: What `ContrastResult.bounds` are.
    """

    verdict: Verdict
    num_seeds: int
    p: float
    contrasts: tuple[ContrastResult, ...] = ()
    looks: tuple[Look, ...] = ()
    next_look: int | None = None
    seeds_needed: int | None = None
    note: str = ""
    interval_label: str = ""
    bounds_label: str = ""

    @property
    def is_open(self) -> bool:
        """Whether more seeds may still decide it."""
        return self.verdict == "undecided" and self.next_look is not None

    @property
    def seeds_needed_text(self) -> str:
        """How many seeds would decide an undecided claim, in words; empty where nothing can be estimated."""
        if self.verdict != "undecided" or any(result.interval is None for result in self.contrasts):
            return ""
        if self.seeds_needed is None:
            return f"more than {MOST_SEEDS_ESTIMATED} seeds"
        return f"about {self.seeds_needed} seeds"


class Estimate(NamedTuple):
    """A contrast at a look, turned so that negative is as expected.

    Attributes:
        mean: The mean over seeds, turned.
        deviation: The standard deviation over seeds, or that of rounding to whole numbers if it is larger.
        error: How uncertain the mean is.
        margin: The margin.
    """

    mean: float
    deviation: float
    error: MeanError
    margin: float

    @property
    def is_testable(self) -> bool:
        """Whether the seeds differ. If they do not, nothing is known about how much others would."""
        return self.deviation > 0

    def p_above(self, bound: float) -> float:
        """The one-sided p-value for "the true value is above a bound"."""
        return self.error.tail_probability(self.mean - bound) if self.is_testable else 1.0

    def p_below(self, bound: float) -> float:
        """The one-sided p-value for "the true value is below a bound"."""
        return self.error.tail_probability(bound - self.mean) if self.is_testable else 1.0


class PValues(NamedTuple):
    """The p-values of the verdicts at a look, adjusted for all looks, each at the level of the whole claim."""

    supported: float
    refuted: float
    equal: float

    @property
    def smallest(self) -> float:
        """The smallest level at which there is a verdict."""
        return min(self)

    def verdict(self, level: float) -> Verdict:
        """The verdict at a level."""
        if self.smallest > level:
            return "undecided"
        verdicts: tuple[Verdict, ...] = ("supported", "refuted", "equal")
        return verdicts[self.index(self.smallest)]


def judge(
    contrasts: Sequence[Contrast],
    plan: LookPlan | None = None,
    level: float = SIGNIFICANCE_LEVEL,
    void_reason: str = "",
) -> Judgement:
    """The verdict on the contrasts of a claim. It depends on the values in the order of their seeds and on the plan.

    The first look that decides is final: values of later seeds do not change the verdict.

    Args:
        contrasts: All contrasts of the claim, at least one, each with S values.
        plan: After how many seeds the claim is judged; once, with all seeds, if None.
        level: The probability of a false verdict.
        void_reason: Why the runs are sick; empty if they are not.

    Returns:
        The verdict with all that it rests on.

    Example:
        >>> d = np.array([-1.0, -1.1, -0.9])
        >>> judgement = judge([Contrast("a − b", d, -1)])
        >>> judgement.verdict, round(judgement.contrasts[0].mean, 3)
        ('supported', -1.0)
    """
    num_seeds = len(contrasts[0].values)
    plan = plan or LookPlan.fixed(max(num_seeds, 2))
    looks: list[Look] = []
    for look in plan.reached(num_seeds):
        p_values = _p_values(contrasts, look, plan)
        looks.append(Look(look, p_values.verdict(level), p_values.smallest))
        if looks[-1].verdict != "undecided":
            break
    if not looks:
        return _untested(contrasts, plan, num_seeds, void_reason)
    return _judgement(contrasts, looks, Rule(len(contrasts), plan, level), void_reason)


def smallest_p(contrasts: Sequence[Contrast], plan: LookPlan | None = None) -> float:
    """The smallest level at which a claim is decided at one of the looks; 1 before the first look.

    Args:
        contrasts: All contrasts of the claim, at least one, each with S values.
        plan: After how many seeds the claim is judged; once, with all seeds, if None.
    """
    num_seeds = len(contrasts[0].values)
    plan = plan or LookPlan.fixed(max(num_seeds, 2))
    return min((_p_values(contrasts, look, plan).smallest for look in plan.reached(num_seeds)), default=1.0)


def _untested(contrasts: Sequence[Contrast], plan: LookPlan, num_seeds: int, void_reason: str) -> Judgement:
    """What is said before the first look."""
    note = "one seed decides nothing" if num_seeds < 2 else f"the first look is at {plan.looks[0]} seeds"
    results = []
    for contrast in (contrast.first(num_seeds) for contrast in contrasts):
        mean, margin = float(contrast.values.mean()), float(contrast.margin)
        result = ContrastResult(contrast.what, contrast.expected_sign, mean, None, None, None, margin)
        results.append(result._replace(num_seeds=num_seeds))
    return Judgement(
        verdict="void" if void_reason else "undecided",
        num_seeds=num_seeds,
        p=1.0,
        contrasts=tuple(sorted(results, key=lambda result: result.wanted * result.mean - result.margin)),
        next_look=plan.next_look(num_seeds),
        note=void_reason or note,
    )


def _estimate(contrast: Contrast, num_seeds: int) -> Estimate:
    """The mean of the first seeds with its error."""
    contrast = contrast.first(num_seeds)
    rounding = float(contrast.resolution) / math.sqrt(6)  # the deviation of the difference of two rounded numbers
    deviation = max(standard_deviation(contrast.values), rounding)
    error = MeanError(deviation**2 / num_seeds, 0.0, num_seeds, 0)
    if contrast.images is not None:
        crossed = crossed_mean(contrast.images).error
        error = crossed._replace(seed_variance=error.seed_variance)
    mean = -contrast.expected_sign * float(contrast.values.mean())
    return Estimate(mean, deviation, error, float(contrast.margin))


def standard_deviation(values: np.ndarray) -> float:
    """The standard deviation; 0 where the values differ by rounding alone."""
    deviation = float(values.std(ddof=1))
    return deviation if deviation > ROUNDING * float(np.abs(values).max()) else 0.0


def _p_values(contrasts: Sequence[Contrast], num_seeds: int, plan: LookPlan) -> PValues:
    """The p-values of the verdicts at a look."""

    def adjusted(p: float) -> float:
        return adjusted_p(p, num_seeds, plan)

    estimates = [_estimate(contrast, num_seeds) for contrast in contrasts]

    count = len(estimates)
    supported = max(adjusted(e.p_below(0)) for e in estimates)
    if not all(e.mean < -e.margin for e in estimates):
        supported = 1.0
    refuted = min(adjusted(e.p_above(e.margin)) for e in estimates)
    none_refutes = max(adjusted(e.p_below(e.margin)) for e in estimates)
    some_unseen = min(adjusted(e.p_above(-e.margin)) for e in estimates)
    equal = max(none_refutes, count * some_unseen)
    return PValues(*(min(1.0, p) for p in (2 * supported, 2 * count * refuted, equal)))


def _judgement(contrasts: Sequence[Contrast], looks: Sequence[Look], rule: Rule, void_reason: str) -> Judgement:
    """The verdict of the last look with all that it rests on."""
    verdict: Verdict = "void" if void_reason else looks[-1].verdict
    num_seeds = looks[-1].num_seeds
    estimates = [_estimate(contrast, num_seeds) for contrast in contrasts]
    results = []
    for k in _most_decisive_first(estimates, verdict):
        results.append(_contrast_result(contrasts[k], estimates[k], verdict, rule))
    is_undecided = verdict == "undecided"
    scope = _scope_text(contrasts, rule)
    return Judgement(
        verdict=verdict,
        num_seeds=num_seeds,
        p=looks[-1].p,
        contrasts=tuple(results),
        looks=tuple(looks),
        next_look=rule.plan.next_look(num_seeds) if is_undecided else None,
        seeds_needed=seeds_to_decide(estimates, rule) if is_undecided else None,
        note=void_reason or _zero_width_note(contrasts, estimates),
        interval_label=_interval_label(rule) + scope,
        bounds_label=_bounds_label(rule, verdict) + scope,
    )


def _most_decisive_first(estimates: Sequence[Estimate], verdict: Verdict) -> list[int]:
    """The positions of the contrasts, the one that decides first, or that stands in the way of a verdict."""

    def rank(k: int) -> float:
        estimate = estimates[k]
        if verdict == "refuted":
            return estimate.p_above(estimate.margin)
        if verdict == "equal":
            return estimate.p_above(-estimate.margin)
        return -estimate.p_below(0)

    return sorted(range(len(estimates)), key=rank)


def _contrast_result(contrast: Contrast, estimate: Estimate, verdict: Verdict, rule: Rule) -> ContrastResult:
    """What was measured of a contrast."""
    mean = -contrast.expected_sign * estimate.mean
    interval = bounds = p = None
    if estimate.is_testable:
        joint = estimate.error.half_width(rule.nominal_level(1 / 2 / rule.num_contrasts, estimate.error.num_seeds))
        interval = (mean - joint, mean + joint)
        below, above = _bound_distances(estimate, verdict, rule)
        bounds = (mean - below, mean + above) if contrast.expected_sign < 0 else (mean - above, mean + below)
        p = 2 * min(estimate.p_above(0), estimate.p_below(0))
    return ContrastResult(
        what=contrast.what,
        wanted=contrast.expected_sign,
        mean=mean,
        interval=interval,
        p=p,
        effect_size=mean / estimate.deviation if estimate.deviation else None,
        margin=estimate.margin,
        bounds=bounds,
        num_seeds=estimate.error.num_seeds,
    )


def _bound_distances(estimate: Estimate, verdict: Verdict, rule: Rule) -> tuple[float, float]:
    """How far the bounds of a turned contrast, from which a verdict is read, are below and above its mean."""
    count = rule.num_contrasts
    shares = {"refuted": (1 / 2 / count, 1 / 2 / count), "equal": (1 / count, 1.0)}
    below, above = shares.get(verdict, (1 / 2, 1 / 2))
    below, above = (rule.nominal_level(share, estimate.error.num_seeds) for share in (below, above))
    return estimate.error.half_width(below), estimate.error.half_width(above)


def _zero_width_note(contrasts: Sequence[Contrast], estimates: Sequence[Estimate]) -> str:
    """What is said of contrasts without any deviation."""
    for contrast, estimate in zip(contrasts, estimates, strict=True):
        if not estimate.is_testable:
            return f"{contrast.what} is the same for all {estimate.error.num_seeds} seeds, so its error is unknown"
    return ""


def _interval_label(rule: Rule) -> str:
    """What the joint intervals cover, in words."""
    jointly = f" jointly for {rule.num_contrasts} differences" if rule.num_contrasts > 1 else ""
    return f"{100 * (1 - rule.level):g} %{jointly}"


def _bounds_label(rule: Rule, verdict: Verdict) -> str:
    """What the bounds are that a verdict is read from, in words."""
    if verdict == "refuted":
        return _interval_label(rule)
    if verdict == "equal":
        return f"{100 * (1 - rule.level):g} % for each end"
    alone = " for each difference alone" if rule.num_contrasts > 1 else ""
    return f"{100 * (1 - rule.level):g} %{alone}"


def _scope_text(contrasts: Sequence[Contrast], rule: Rule) -> str:
    """What an interval holds for, in words."""
    looks = " and at every look" if len(rule.plan.looks) > 1 else ""
    has_images = all(contrast.images is not None for contrast in contrasts)
    return f"{looks}, over seeds{' and test images' if has_images else ''}"


# How many seeds a verdict needs


def seeds_to_decide(estimates: Sequence[Estimate], rule: Rule) -> int | None:
    """The number of seeds at which a claim is decided with a probability of 80 %, if what was observed is true.

    Args:
        estimates: The contrasts of the claim, turned so that negative is as expected.
        rule: How they are judged. Beyond its last look the claim is judged once, by another study.

    Returns:
        The smallest number of seeds above those that there are; None if it is more than 1000.

    Source: the noncentral t distribution; Power of the Two One-Sided Tests Procedure in Bioequivalence, Phillips 1990.
    """
    fewest, most = estimates[0].error.num_seeds + 1, MOST_SEEDS_ESTIMATED
    if not all(e.is_testable for e in estimates) or _power(estimates, most, rule) < POWER:
        return None
    while fewest < most:
        middle = (fewest + most) // 2
        if _power(estimates, middle, rule) < POWER:
            fewest = middle + 1
        else:
            most = middle
    return most


def _power(estimates: Sequence[Estimate], num_seeds: int, rule: Rule) -> float:
    """The probability of the most probable verdict at a number of seeds, if what was observed is true."""

    def power_above(distance: float, estimate: Estimate, share: float) -> float:
        level = rule.nominal_level(share, num_seeds) if num_seeds in rule.plan.looks else rule.level * share
        return _power_above(distance, estimate, num_seeds, level)

    count = rule.num_contrasts
    seen = min(_power_above(-e.mean - e.margin, e, num_seeds, 1 / 2) for e in estimates)
    supported = min(power_above(-e.mean, e, 1 / 2) for e in estimates)
    refuted = max(power_above(e.mean - e.margin, e, 1 / 2 / count) for e in estimates)
    none_refutes = min(power_above(e.margin - e.mean, e, 1) for e in estimates)
    some_unseen = max(power_above(e.mean + e.margin, e, 1 / count) for e in estimates)
    return max(min(supported, seen), refuted, none_refutes + some_unseen - 1)


def _power_above(distance: float, estimate: Estimate, num_seeds: int, level: float) -> float:
    """The power of a one-sided t test, where the true value is a distance beyond the bound."""
    from scipy import special

    seed_variance = estimate.deviation**2 / num_seeds
    error = estimate.error._replace(seed_variance=seed_variance, num_seeds=num_seeds)
    critical = error.half_width(level) / error.standard_error
    return 1 - float(special.nctdtr(num_seeds - 1, distance / error.standard_error, critical))
