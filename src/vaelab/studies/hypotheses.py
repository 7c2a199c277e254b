"""The names of `expectations` and `verdicts` under which other modules still import them."""

from __future__ import annotations

from collections.abc import Sequence

from vaelab.studies.expectations import Between, Contrast, Expectation
from vaelab.studies.verdicts import SIGNIFICANCE_LEVEL, VERDICTS, ContrastResult, Verdict, judge

__all__ = [
    "SIGNIFICANCE_LEVEL",
    "VERDICTS",
    "Between",
    "Contrast",
    "ContrastResult",
    "Expectation",
    "Verdict",
    "decide_verdict",
]


def decide_verdict(contrasts: Sequence[Contrast]) -> tuple[Verdict, list[ContrastResult]]:
    """The verdict on the contrasts of a claim, judged once."""
    judgement = judge(contrasts)
    return judgement.verdict, list(judgement.contrasts)
