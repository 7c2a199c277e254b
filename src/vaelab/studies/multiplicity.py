r"""False verdicts in a study: the level at which its claims are judged, so that few of the verdicts are false.

Every claim has a p-value, the smallest level at which its data decide it. Of n claims with sorted p-values
p_1 <= ... <= p_n, those up to the largest r with p_r <= 0.05 r / n are decided. The expected share of false ones among
them is then 5 % at most, if the claims are independent or positively dependent.

Source: Controlling the False Discovery Rate, Benjamini and Hochberg 1995; The Control of the False Discovery Rate in
Multiple Testing under Dependency, Benjamini and Yekutieli 2001.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vaelab.core.console import count_text
from vaelab.studies.expectations import Contrast
from vaelab.studies.sequential import LookPlan
from vaelab.studies.verdicts import SIGNIFICANCE_LEVEL, Judgement, judge, smallest_p

__all__ = ["StudyErrors", "control_false_verdicts", "judge_study"]


class StudyErrors(NamedTuple):
    """How the verdicts of a study are kept from being false.

    Attributes:
        num_claims: How many claims were tested.
        num_decided: How many of them are decided.
        level: The level at which each claim is judged: the probability that a true null is decided.
        share: The largest expected share of false verdicts among the decided ones.
    """

    num_claims: int
    num_decided: int
    level: float
    share: float

    @property
    def expected_false(self) -> float:
        """How many of the verdicts are false at most, on average over studies, even if all of them were chance."""
        return self.num_claims * self.level

    @property
    def text(self) -> str:
        """What a report says about it."""
        if not self.num_claims:
            return "No claim could be tested."
        return (
            f"{self.num_decided} of {count_text(self.num_claims, 'claim')} decided, each at a level of "
            f"{100 * self.level:.2g} %; at most {100 * self.share:g} % of these verdicts are expected to be false "
            "(Benjamini-Hochberg)."
        )


def control_false_verdicts(p_values: Sequence[float], share: float = SIGNIFICANCE_LEVEL) -> StudyErrors:
    """The level at which the claims of a study are judged.

    Args:
        p_values: The p-value of each claim that was tested.
        share: The largest expected share of false verdicts among those that are given.

    Returns:
        The level. Claims with p-values up to it are decided.

    Example:
        >>> control_false_verdicts([0.001, 0.02, 0.9, 0.03]).num_decided
        3
    """
    count = len(p_values)
    num_decided = 0
    for rank, p in enumerate(sorted(p_values), 1):
        if p <= share * rank / count:
            num_decided = rank
    level = share * max(num_decided, 1) / max(count, 1)
    return StudyErrors(count, num_decided, level, share)


def judge_study(
    claims: Sequence[Sequence[Contrast]],
    plan: LookPlan | None = None,
    void_reasons: Sequence[str] = (),
    share: float = SIGNIFICANCE_LEVEL,
) -> tuple[list[Judgement], StudyErrors]:
    """Judge the claims of a study together.

    Args:
        claims: The contrasts of each claim.
        plan: After how many seeds claims are judged; once, with all seeds, if None.
        void_reasons: For each claim why its runs are sick; empty where they are not, or for all.
        share: The largest expected share of false verdicts among those that are given.

    Returns:
        The judgement of each claim, and how false verdicts are controlled. Void claims do not count.
    """
    reasons = void_reasons or [""] * len(claims)
    p_values = []
    for contrasts, reason in zip(claims, reasons, strict=True):
        if not reason:
            p_values.append(smallest_p(contrasts, plan))
    errors = control_false_verdicts(p_values, share)
    judgements = []
    for contrasts, reason in zip(claims, reasons, strict=True):
        judgements.append(judge(contrasts, plan, errors.level, reason))
    return judgements, errors
