"""The verdicts of a study: the expected share of false ones is kept small, and no claim is judged by itself."""

from __future__ import annotations

import numpy as np
import pytest

from vaelab.studies.expectations import Contrast
from vaelab.studies.multiplicity import StudyErrors, control_false_verdicts, judge_study
from vaelab.studies.sequential import LookPlan
from vaelab.studies.verdicts import judge, smallest_p


def test_the_largest_rank_below_its_line_counts() -> None:
    """Of five p-values the r-th smallest is compared with 0.05 r / 5; earlier ones may lie above their lines."""
    errors = control_false_verdicts([0.9, 0.021, 0.022, 0.029, 0.045])
    assert (errors.num_claims, errors.num_decided) == (5, 3)
    assert errors.level == pytest.approx(0.03)
    assert control_false_verdicts([0.9, 0.021, 0.022, 0.031, 0.045]).num_decided == 0
    assert control_false_verdicts([0.01, 0.02, 0.03, 0.04, 0.05]).num_decided == 5
    assert control_false_verdicts([0.02, 0.5], share=0.05).level == pytest.approx(0.025)
    assert control_false_verdicts([0.02, 0.5], share=0.03).num_decided == 0


def test_without_a_decided_claim_the_first_would_have_to_be_clear() -> None:
    errors = control_false_verdicts([0.5] * 10)
    assert errors == StudyErrors(10, 0, 0.005, 0.05)
    assert errors.expected_false == pytest.approx(0.05)
    assert control_false_verdicts([]) == StudyErrors(0, 0, 0.05, 0.05)


def test_a_p_value_on_its_line_is_decided() -> None:
    assert control_false_verdicts([0.025, 1.0]).num_decided == 1
    assert control_false_verdicts([0.05, 0.05]).num_decided == 2


def test_what_a_report_says() -> None:
    assert control_false_verdicts([]).text == "No claim could be tested."
    assert control_false_verdicts([0.001, 0.5, 0.5, 0.5]).text == (
        "1 of 4 claims decided, each at a level of 1.2 %; at most 5 % of these verdicts are expected to be false "
        "(Benjamini-Hochberg)."
    )
    assert (
        "0 of 1 claim decided, each at a level of 10 %; at most 10 %" in control_false_verdicts([0.5], share=0.1).text
    )


def claim(mean: float, num_seeds: int = 6) -> list[Contrast]:
    steps = np.array([-1.0, 1, 0.5, -0.5, 1.5, -1.5])[:num_seeds]
    return [Contrast("d", mean + steps, -1)]


def test_claims_are_judged_at_the_level_of_the_study() -> None:
    weak, strong, null = claim(-1.6), claim(-9), claim(0.1)
    assert 0.0125 < smallest_p(weak) < 0.05 * 2 / 3
    alone, errors = judge_study([weak, null, null, null])
    assert [judgement.verdict for judgement in alone] == ["undecided"] * 4
    assert errors.num_decided == 0
    judgements, errors = judge_study([weak, strong, null])
    assert [judgement.verdict for judgement in judgements] == ["supported", "supported", "undecided"]
    assert errors.level == pytest.approx(0.05 * 2 / 3)
    assert judgements[0] == judge(weak, level=errors.level)
    assert judge_study([weak, strong, null], share=0.001)[1].share == 0.001


def test_void_claims_do_not_count() -> None:
    weak, strong, null = claim(-1.6), claim(-9), claim(0.1)
    judgements, errors = judge_study([strong, weak, null], void_reasons=["it collapsed", "", ""])
    assert errors.num_claims == 2
    assert judgements[0].verdict == "void"
    assert judgements[0].note == "it collapsed"
    assert judgements[1].verdict == "supported"
    with pytest.raises(ValueError, match="shorter"):
        judge_study([strong, weak], void_reasons=[""])


def test_an_extended_study_comes_to_the_same_verdicts() -> None:
    plan = LookPlan.sequential(3, 6)
    claims = [claim(-9), claim(-2.5), claim(0.1)]
    complete, errors = judge_study(claims, plan)
    decided_early = [[contrast.first(3) for contrast in claims[0]], *claims[1:]]
    assert judge_study(decided_early, plan) == (complete, errors)
    assert [judgement.num_seeds for judgement in complete] == [3, 5, 6]
