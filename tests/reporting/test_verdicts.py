"""Claims in the report: the words and the places on the axis are those of the verdict."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from vaelab.reporting.verdicts import claim_context
from vaelab.studies.definition import Claim
from vaelab.studies.expectations import Contrast, Margin
from vaelab.studies.health import SickRun
from vaelab.studies.judging import ClaimResult
from vaelab.studies.sequential import LookPlan
from vaelab.studies.verdicts import judge

VALUES = np.array([-1.0, -1.25, -0.75, -1.0])

CLAIM = Claim("a", "A is lower than B.", "a report", (), (), margin=Margin(0.5), margin_reason="nobody sees it")


def result_of(values: np.ndarray, plan: LookPlan | None = None, reason: str = "") -> ClaimResult:
    """The claim with these differences."""
    judgement = judge([Contrast("a − b", values, -1, margin=0.5)], plan, void_reason=reason)
    used = tuple(values[: judgement.num_seeds].tolist())
    return ClaimResult(CLAIM, "", judgement, tuple(range(len(used))), {"a": 1.0, "b": 2.0}, (used,))


def test_everything_lies_on_the_axis_in_the_order_of_its_values() -> None:
    shown = claim_context(result_of(VALUES)).deciding
    assert shown is not None
    assert shown.bounds_span is not None
    assert shown.margin_span is not None
    assert np.argsort(shown.seeds).tolist()[::3] == [1, 2], "the smallest difference is at the left"
    assert shown.seeds[0] == shown.dot
    assert shown.margin_span.left + shown.margin_span.width / 2 == pytest.approx(shown.zero, abs=0.02)
    assert shown.bounds_span.left < min(shown.seeds)
    assert max(shown.seeds) < shown.bounds_span.left + shown.bounds_span.width < shown.zero
    assert shown.expected_side.left == 0
    assert (shown.effect, shown.expected, shown.margin) == ("−1.00", "< 0", "±0.500")


def test_a_claim_says_its_verdict_margin_and_what_its_bounds_cover() -> None:
    context = claim_context(result_of(VALUES))
    assert (context.verdict, context.word, context.num_seeds) == ("supported", "supported", 4)
    assert context.margin == "0.5: nobody sees it"
    assert "over seeds" in context.covers
    assert not context.looks
    assert not context.seeds_needed
    with_splits = claim_context(replace(result_of(VALUES), covers="seeds, each with its own split"))
    assert "They cover seeds, each with its own split." in with_splits.covers


def test_an_open_claim_says_how_many_seeds_it_needs_and_lists_its_looks() -> None:
    context = claim_context(result_of(VALUES * np.array([1, -1, 1, 1]), LookPlan.sequential(3, 6)))
    assert context.verdict == "undecided"
    assert [seeds for seeds, _, _ in context.looks] == [3, 4]
    assert "seeds" in context.seeds_needed


def test_a_void_claim_shows_its_sick_runs_and_no_numbers() -> None:
    sick = SickRun("8", 1, "posterior collapse", "KL 0.01 nats", "at least 0.5 nats")
    context = claim_context(replace(result_of(VALUES, reason="posterior collapse"), sick=(sick,)))
    assert context.verdict == "void"
    assert context.deciding is None
    assert not context.contrasts
    assert context.sick == [("8, seed 1", "posterior collapse", "KL 0.01 nats", "at least 0.5 nats")]


def test_a_published_figure_is_met() -> None:
    anchored = replace(result_of(VALUES), claim=replace(CLAIM, anchor=True))
    assert claim_context(anchored).word == "met"
