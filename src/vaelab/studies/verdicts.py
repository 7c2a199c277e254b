r"""Verdicts: what paired differences over seeds say about a claim.

A claim has K contrasts. Turned so that negative is as expected, contrast k has the true value d_k and the margin m_k,
the largest difference that nobody could see. Exactly one of three things is true:

    supported    every d_k < -m_k         the claim holds, visibly
    refuted      some d_k > m_k           something contradicts it, visibly
    equal        neither                  nothing contradicts it visibly, but not all of it can be seen

A verdict is given where t tests reject the other two. "Every d_k < -m_k" is established by an intersection-union test:
each contrast is tested alone, without correction. "Some d_k > m_k" is established by the smallest of K p-values, times
K (Bonferroni, the first step of Holm). Since only one of the three is true, each may be rejected with probability 5 %:
the error of a verdict is 5 % at most, whatever is true. All p-values hold for all looks together (`sequential`).

    undecided    none of the three could be established yet
    void         the runs are sick, which is found elsewhere

Source: Three-sided Hypothesis Testing: Simultaneous Testing of Superiority, Equivalence and Inferiority, Goeman, Solari
and Stijnen 2010; Bioequivalence Trials, Intersection-Union Tests and Equivalence Confidence Sets, Berger and Hsu 1996.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from vaelab.evaluation.statistics import crossed_mean
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
        """How many seeds would decide an undecided claim, in words; empty for others."""
        if self.verdict != "undecided" or not self.contrasts:
            return ""
        if self.seeds_needed is None:
            return f"more than {MOST_SEEDS_ESTIMATED} seeds"
        return f"about {self.seeds_needed} seeds"


class Estimate(NamedTuple):
    """A contrast at a look, turned so that negative is as expected.

    Attributes:
        mean: The mean over seeds, turned.
        deviation: The standard deviation over seeds, or that of rounding to whole numbers if it is larger.
        image_variance: The variance of the mean that comes from the test images.
        degrees_of_freedom: Those of the standard error.
        margin: The margin.
        num_seeds: The number of seeds.
    """

    mean: float
    deviation: float
    image_variance: float
    degrees_of_freedom: float
    margin: float
    num_seeds: int

    @property
    def error(self) -> float:
        """The standard error of the mean; 0 where all seeds agree, so that nothing can be said about it."""
        if self.deviation == 0:
            return 0.0
        return math.sqrt(self.deviation**2 / self.num_seeds + self.image_variance)

    def p_above(self, bound: float) -> float:
        """The one-sided p-value for "the true value is above a bound"."""
        from scipy import stats

        if self.error == 0:
            return 1.0
        return float(stats.t.sf((self.mean - bound) / self.error, self.degrees_of_freedom))

    def p_below(self, bound: float) -> float:
        """The one-sided p-value for "the true value is below a bound"."""
        return self._replace(mean=-self.mean).p_above(-bound)

    def half_width(self, level: float) -> float:
        """The distance from the mean to a one-sided confidence bound at a level."""
        from scipy import stats

        return float(stats.t.isf(level, self.degrees_of_freedom)) * self.error


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
        contrasts: All contrasts of the claim, each with S values.
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
    num_seeds = len(contrasts[0].values) if contrasts else 0
    plan = plan or LookPlan.fixed(max(num_seeds, 2))
    looks: list[Look] = []
    estimates: list[Estimate] = []
    for look in plan.reached(num_seeds):
        estimates = [_estimate(contrast, look) for contrast in contrasts]
        p_values = _p_values(estimates, plan)
        looks.append(Look(look, p_values.verdict(level), p_values.smallest))
        if looks[-1].verdict != "undecided":
            break
    if not looks:
        return _untested(contrasts, plan, num_seeds, void_reason)
    return _judgement(contrasts, estimates, looks, Rule(len(contrasts), plan, level), void_reason)


def _untested(contrasts: Sequence[Contrast], plan: LookPlan, num_seeds: int, void_reason: str) -> Judgement:
    """What is said before the first look."""
    results = []
    for contrast in contrasts:
        mean = float(contrast.values.mean())
        results.append(
            ContrastResult(
                contrast.what, contrast.expected_sign, mean, None, None, None, contrast.margin, None, num_seeds
            )
        )
    results.sort(key=lambda result: result.wanted * result.mean - result.margin)
    note = void_reason or "a single seed decides nothing"
    if num_seeds > 1:
        note = void_reason or f"the first look is at {plan.looks[0]} seeds"
    verdict: Verdict = "void" if void_reason else "undecided"
    return Judgement(verdict, num_seeds, 1.0, tuple(results), (), plan.next_look(num_seeds), None, note)


def _estimate(contrast: Contrast, num_seeds: int) -> Estimate:
    """The mean of the first seeds with its error."""
    values = contrast.values[:num_seeds]
    deviation = max(standard_deviation(values), contrast.resolution / math.sqrt(6))  # of two rounded numbers
    image_variance, degrees_of_freedom = 0.0, float(num_seeds - 1)
    if contrast.images is not None:
        crossed = crossed_mean(contrast.images[:num_seeds])
        image_variance, degrees_of_freedom = crossed.image_variance, crossed.degrees_of_freedom
    mean = -contrast.expected_sign * float(values.mean())
    return Estimate(mean, deviation, image_variance, degrees_of_freedom, contrast.margin, num_seeds)


def standard_deviation(values: np.ndarray) -> float:
    """The standard deviation; 0 where the values differ by rounding alone."""
    deviation = float(values.std(ddof=1))
    return deviation if deviation > ROUNDING * float(np.abs(values).max()) else 0.0


def _p_values(estimates: Sequence[Estimate], plan: LookPlan) -> PValues:
    """The p-values of the verdicts."""

    def adjusted(p: float) -> float:
        return adjusted_p(p, estimates[0].num_seeds, plan)

    count = len(estimates)
    supported = max(adjusted(e.p_below(-e.margin)) for e in estimates)
    refuted = min(adjusted(e.p_above(e.margin)) for e in estimates)
    none_refutes = max(adjusted(e.p_below(e.margin)) for e in estimates)
    some_unseen = min(adjusted(e.p_above(-e.margin)) for e in estimates)
    equal = max(none_refutes, count * some_unseen)
    return PValues(*(min(1.0, p) for p in (2 * supported, 2 * count * refuted, equal)))


def _judgement(
    contrasts: Sequence[Contrast],
    estimates: Sequence[Estimate],
    looks: Sequence[Look],
    rule: Rule,
    void_reason: str,
) -> Judgement:
    """The verdict of the last look with all that it rests on."""
    verdict: Verdict = "void" if void_reason else looks[-1].verdict
    num_seeds = looks[-1].num_seeds
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
        seeds_needed=seeds_to_decide(estimates, rule.level) if is_undecided else None,
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
        return -estimate.p_below(-estimate.margin)

    return sorted(range(len(estimates)), key=rank)


def _contrast_result(contrast: Contrast, estimate: Estimate, verdict: Verdict, rule: Rule) -> ContrastResult:
    """What was measured of a contrast."""
    mean = -contrast.expected_sign * estimate.mean
    interval = bounds = p = None
    if estimate.error:
        joint = estimate.half_width(rule.nominal_level(1 / 2 / rule.num_contrasts, estimate.num_seeds))
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
        num_seeds=estimate.num_seeds,
    )


def _bound_distances(estimate: Estimate, verdict: Verdict, rule: Rule) -> tuple[float, float]:
    """How far the bounds of a turned contrast, from which a verdict is read, are below and above its mean."""
    count = rule.num_contrasts
    shares = {"refuted": (1 / 2 / count, 1 / 2 / count), "equal": (1 / count, 1.0)}
    below, above = shares.get(verdict, (1 / 2, 1 / 2))
    below, above = (rule.nominal_level(share, estimate.num_seeds) for share in (below, above))
    return estimate.half_width(below), estimate.half_width(above)


def _zero_width_note(contrasts: Sequence[Contrast], estimates: Sequence[Estimate]) -> str:
    """What is said of contrasts without any deviation."""
    labels = [contrast.what for contrast, estimate in zip(contrasts, estimates, strict=True) if not estimate.error]
    if not labels:
        return ""
    return f"{labels[0]} is the same for all {estimates[0].num_seeds} seeds, which says nothing about how it varies"


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


def seeds_to_decide(estimates: Sequence[Estimate], level: float = SIGNIFICANCE_LEVEL) -> int | None:
    """The number of seeds at which a claim is decided with a probability of 80 %, if what was observed is true.

    Args:
        estimates: The contrasts of the claim, turned so that negative is as expected.
        level: The probability of a false verdict.

    Returns:
        The smallest number of seeds of a study that is judged once; None if it is more than 1000.

    Source: the noncentral t distribution; Power of the Two One-Sided Tests Procedure in Bioequivalence, Phillips 1990.
    """
    fewest, most = 2, MOST_SEEDS_ESTIMATED
    if any(e.deviation == 0 for e in estimates) or _power(estimates, most, level) < POWER:
        return None
    while fewest < most:
        middle = (fewest + most) // 2
        if _power(estimates, middle, level) < POWER:
            fewest = middle + 1
        else:
            most = middle
    return most


def _power(estimates: Sequence[Estimate], num_seeds: int, level: float) -> float:
    """The probability of the most probable verdict at a number of seeds, if what was observed is true."""
    count = len(estimates)
    supported = min(_power_above(-e.mean - e.margin, e, num_seeds, level / 2) for e in estimates)
    refuted = max(_power_above(e.mean - e.margin, e, num_seeds, level / 2 / count) for e in estimates)
    none_refutes = min(_power_above(e.margin - e.mean, e, num_seeds, level) for e in estimates)
    some_unseen = max(_power_above(e.mean + e.margin, e, num_seeds, level / count) for e in estimates)
    return max(supported, refuted, none_refutes + some_unseen - 1)


def _power_above(distance: float, estimate: Estimate, num_seeds: int, level: float) -> float:
    """The power of a one-sided t test, where the true value is a distance beyond the bound."""
    from scipy import stats

    error = math.sqrt(estimate.deviation**2 / num_seeds + estimate.image_variance)
    critical = stats.t.isf(level, num_seeds - 1)
    return float(stats.nct.sf(critical, num_seeds - 1, distance / error))
