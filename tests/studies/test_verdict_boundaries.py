"""Published figures as claims: their error, note and interval in numbers."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, replace

import numpy as np
import pytest
from scipy import stats

from vaelab.studies.definition import Claim
from vaelab.studies.expectations import Between
from vaelab.studies.judging import ClaimResult, ClaimRuns, SeedRuns, judge_claims, prepare_claim
from vaelab.studies.quantities import Quantity, RunRecord
from vaelab.studies.verdicts import ContrastResult, Judgement, Look

IMAGES = np.array([12.0, 13.0, 14.0, 13.0, 13.0])  # their mean is 13, its standard error sqrt(0.1)


def anchor(measure: str, *records: RunRecord) -> ClaimResult:
    """A figure of 10 with a tolerance of 1, against one run for each seed."""
    claim = Claim("c", "A sentence.", "", (Quantity(measure),), (Between(9, 11),), anchor=True)
    of_claim = ClaimRuns(["a"], [SeedRuns(seed, [record], []) for seed, record in enumerate(records, 1)])
    [result], errors = judge_claims([prepare_claim(claim, "", of_claim)], None)
    assert errors.num_claims == 0, "it is not tested with the others"
    return result


def with_images(shift: float = 0.0) -> RunRecord:
    arrays = {"mse": IMAGES + shift, "rows": np.arange(5)}
    return RunRecord({"test": {"mse": 13.0 + shift}}, [], {}, lambda analysis: arrays)


def test_the_error_of_one_seed_is_that_over_its_images() -> None:
    result, error = anchor("mse", with_images()), math.sqrt(0.1)
    assert result.note == f"2 beyond the tolerance, {2 / error:.2g} standard errors over test images"
    assert result.verdict_word == "missed"
    assert result.judgement.interval_label == "95 %, over test images"
    nearer = result.contrasts[-1] if result.contrasts[0].what.endswith("9") else result.contrasts[0]
    assert nearer.mean == pytest.approx(2)
    reach = stats.norm.isf(0.025) * error
    assert nearer.interval == pytest.approx((2 - reach, 2 + reach), rel=1e-4)


def test_the_errors_over_seeds_and_images_add_in_squares() -> None:
    result = anchor("mse", with_images(-1.0), with_images(1.0))
    error = math.sqrt(2 / 2 + 0.1)
    assert result.note == f"2 beyond the tolerance, {2 / error:.2g} standard errors over seeds and test images"
    assert result.verdict_word == "undecided"
    assert result.num_seeds == 2


def test_without_an_error_a_figure_beyond_its_tolerance_is_not_missed() -> None:
    result = anchor("mse", RunRecord({"test": {"mse": 13.0}}, [], {}))
    assert (result.verdict_word, result.note) == ("undecided", "2 beyond the tolerance")
    assert all(contrast.interval is None for contrast in result.contrasts)
    assert result.judgement.interval_label == ""
    assert anchor("mse", RunRecord({"test": {"mse": 11.0}}, [], {})).verdict_word == "met"


def test_the_error_that_an_analysis_stores_is_used() -> None:
    numbers = {"correlation": 13.0, "error_over_images": 0.25}
    result = anchor("features.correlation", RunRecord({}, [], {"features": numbers}))
    assert result.note == "2 beyond the tolerance, 8 standard errors over test images"
    assert result.verdict_word == "missed"


def test_claims_and_results_are_values() -> None:
    result = anchor("mse", with_images())
    for value in (prepare_claim(result.claim, "", ClaimRuns(["a"], [])), result):
        with pytest.raises(FrozenInstanceError):
            value.condition = "another"  # type: ignore[misc]


def test_each_look_says_how_many_runs_were_added_for_it() -> None:
    looks = tuple(Look(num_seeds, "undecided", 0.5) for num_seeds in (3, 4, 6))
    contrasts = (ContrastResult("a", 1, 0.5, None, None, None),)
    judgement = Judgement("undecided", 6, 0.5, contrasts, looks)
    claim = anchor("mse", with_images()).claim
    table = ClaimResult(claim, "", judgement, differences=((0.5,) * 6,), num_settings=2).to_dict()
    assert [(look["num_seeds"], look["runs"]) for look in table["looks"]] == [(3, 6), (4, 2), (6, 4)]


def test_the_entry_of_a_claim_keeps_its_keys() -> None:
    """claims.json is read by others."""
    table = anchor("mse", with_images()).to_dict()
    assert table["sentence"] == "A sentence."
    assert (table["id"], table["source"], table["reading"]) == ("c", "", "")
    assert table["expected"] == "mse: between 9 and 11"
    assert (table["verdict"], table["said"]) == ("refuted", "missed")
    assert (table["n"], table["seeds"], table["means"]) == (1, [1], {"a": 13.0})
    once = anchor("mse", with_images())
    assert replace(once, claim=replace(once.claim, once=True)).to_dict()["once"] is True
    assert set(table) == {
        *("id", "sentence", "source", "reading", "expected", "margin", "margin_reason", "verdict", "said", "note"),
        *("effect", "interval", "interval_covers", "interval_label", "bounds_label", "n", "seeds", "effect_size"),
        *("decided_by", "means", "contrasts", "looks"),
    }
