"""Claims are judged by sound runs, with their margins, by seeds and test images; anchors are met or missed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from vaelab.studies.definition import Claim
from vaelab.studies.expectations import Between, Expectation, Lowest, Margin, NearLowest, Similar
from vaelab.studies.health import SickRun
from vaelab.studies.judging import ClaimResult, ClaimRuns, SeedRuns, is_directional, judge_claims, prepare_claim
from vaelab.studies.quantities import Quantity, RunRecord
from vaelab.studies.sequential import LookPlan

NOISE = np.random.default_rng(0).standard_normal((12, 2, 50))

SICK = SickRun("b", 2, "posterior collapse", "KL 0.01 nats", "at least 0.5 nats")


def claim(expectation: Expectation, **fields: object) -> Claim:
    return Claim("c", "A sentence.", "", (Quantity("mse"),), (expectation,), **fields)  # type: ignore[arg-type]


def record(values: np.ndarray) -> RunRecord:
    """A run with these errors of its test images."""
    arrays = {"mse": values, "rows": np.arange(len(values))}
    return RunRecord({"test": {"mse": float(values.mean())}}, [], {}, lambda analysis: arrays)


def runs(images: np.ndarray, sick: Sequence[SickRun] = (), **fields: object) -> ClaimRuns:
    """Runs of two settings, a and b, from the errors of their images (S, 2, I)."""
    of_seeds = []
    for seed, of_seed in enumerate(images, 1):
        of_this_seed = [run for run in sick if run.seed == seed]
        of_seeds.append(SeedRuns(seed, [record(values) for values in of_seed], of_this_seed))
    return ClaimRuns(["a", "b"], of_seeds, **fields)  # type: ignore[arg-type]


def judged(
    expectation: Expectation, of_claim: ClaimRuns, plan: LookPlan | None = None, **fields: object
) -> ClaimResult:
    [result], _ = judge_claims([prepare_claim(claim(expectation, **fields), "", of_claim)], plan)
    return result


def shifted(difference: float, seeds: int = 4) -> np.ndarray:
    """Errors of images, lower by a difference in setting a."""
    return 10 + 0.1 * NOISE[:seeds] - difference * np.array([1, 0])[:, None]


def test_a_claim_from_its_runs_to_its_entry_in_the_file() -> None:
    result = judged(Lowest("a"), runs(shifted(1)), margin=Margin(1, is_percent=True), margin_reason="it is small")
    table = result.to_dict()
    assert (result.verdict, table["n"], table["seeds"]) == ("supported", 4, [1, 2, 3, 4])
    assert (table["margin"], table["margin_reason"], table["interval_covers"]) == (
        "1 %",
        "it is small",
        "seeds and test images",
    )
    [contrast] = table["contrasts"]
    assert contrast["what"] == "a − b"
    assert contrast["margin"] == pytest.approx(0.1, rel=0.01)
    assert np.mean(contrast["values"]) == pytest.approx(table["effect"])
    assert table["looks"] == [{"num_seeds": 4, "verdict": "supported", "p": result.judgement.p, "runs": 8}]
    assert "note" not in table


def test_a_difference_within_the_margin_is_equal_and_without_a_margin_that_is_said() -> None:
    of_claim = runs(shifted(0.0))
    assert judged(Lowest("a"), of_claim, margin=Margin(1), margin_reason="small").verdict == "equal"
    without = judged(Lowest("a"), of_claim)
    assert without.verdict != "equal"
    assert "no margin was set" in without.note
    assert "margin" not in judged(NearLowest("a", percent=20), of_claim).note


def test_the_images_widen_what_the_seeds_leave_narrow() -> None:
    """Seeds that agree say little where the difference is that of a few test images."""
    of_images = np.zeros((4, 2, 50))
    of_images[:, 0, :3] = -1 + 0.001 * NOISE[:4, 0, :3]
    result = judged(Lowest("a"), runs(of_images))
    without = judged(
        Lowest("a"), ClaimRuns(["a", "b"], [without_images(of_seed) for of_seed in runs(of_images).of_seeds])
    )
    assert (without.verdict, without.covers) == ("supported", "seeds")
    assert (result.verdict, result.covers) == ("undecided", "seeds and test images")
    assert result.seeds_needed_text


def without_images(of_seed: SeedRuns) -> SeedRuns:
    return of_seed._replace(records=[RunRecord(run.metrics, [], {}) for run in of_seed.records])


def test_where_each_seed_has_its_own_split_the_seeds_hold_the_images() -> None:
    result = judged(Lowest("a"), runs(shifted(1), repeats_splits=True))
    assert result.verdict == "supported"
    assert result.covers == "seeds, each with its own split into training and test images"


@pytest.mark.parametrize("expectation", [Lowest("a"), Between(low=0.0)])
def test_a_sick_run_makes_a_claim_void(expectation: Expectation) -> None:
    result = judged(expectation, runs(shifted(1), [SICK]))
    assert result.verdict == "void"
    assert not result.judgement.is_open
    assert result.note == ("posterior collapse in 1 of 8 runs: b, seed 2, KL 0.01 nats (sound: at least 0.5 nats)")
    assert result.to_dict()["sick"] == [SICK._asdict()]
    assert result.to_dict()["effect"] is not None, "what was measured still stands there"


def test_a_run_that_diverged_makes_a_claim_void_without_numbers() -> None:
    diverged = SickRun("b", 1, "divergence", "training stopped in epoch 1", "numbers")
    result = judged(Lowest("a"), ClaimRuns(["a", "b"], [], [diverged]))
    assert (result.verdict, result.num_seeds) == ("void", 0)
    assert "divergence in 1 of 1 run" in result.note


def test_a_claim_without_numbers_is_undecided_and_says_why() -> None:
    assert judged(Lowest("a"), ClaimRuns(["a", "b"], [])).note == "no seed has all the runs that it compares"
    lacking = ClaimRuns(["a", "b"], [SeedRuns(1, [RunRecord({}, [], {})] * 2, [])])
    result = judged(Lowest("a"), lacking)
    assert (result.verdict, result.num_seeds, result.to_dict()["interval"]) == ("undecided", 0, None)
    assert "mse" in result.note


# Published figures


def one_setting(values: np.ndarray) -> ClaimRuns:
    return ClaimRuns(["a"], [SeedRuns(seed, [record(of_seed)], []) for seed, of_seed in enumerate(values, 1)])


@pytest.mark.parametrize(
    ("value", "word", "verdict"),
    [(10, "met", "supported"), (13, "missed", "refuted"), (11.01, "undecided", "undecided")],
)
@pytest.mark.parametrize("seeds", [1, 3])
def test_a_published_figure_is_met_or_missed_by_a_single_seed_too(
    value: float, word: str, verdict: str, seeds: int
) -> None:
    result = judged(
        Between(9, 11), one_setting(value + 0.3 * NOISE[:seeds, 0] - 0.3 * NOISE[:seeds, 0].mean()), anchor=True
    )
    assert (result.verdict_word, result.verdict) == (word, verdict)
    assert result.to_dict()["said"] == word
    assert ("beyond the tolerance" in result.note) == (word != "met")
    assert not result.judgement.is_open, "no seeds are added for it"


def test_the_evidence_of_earlier_versions_has_its_error_over_images() -> None:
    """They kept no values of single images."""
    numbers = {"negative_log_evidence": 94.6, "error_over_images": 0.26}
    of_claim = ClaimRuns(["a"], [SeedRuns(1, [RunRecord({}, [], {"full_evidence": numbers})], [])])
    quantities = (Quantity("full_evidence.negative_log_evidence"),)
    anchor = replace(claim(Between(83.8, 89.8), anchor=True), quantities=quantities)
    [result], _ = judge_claims([prepare_claim(anchor, "", of_claim)], None)
    assert result.verdict_word == "missed"
    assert result.note == "4.8 beyond the tolerance, 18 standard errors over test images"


def test_published_figures_do_not_count_among_the_verdicts_that_may_be_false() -> None:
    anchor = prepare_claim(claim(Between(9, 11), anchor=True), "", one_setting(10 + NOISE[:2, 0]))
    other = prepare_claim(claim(Lowest("a")), "", runs(shifted(1)))
    _, errors = judge_claims([anchor, other, anchor], None)
    assert errors.num_claims == 1


def test_what_needs_a_margin() -> None:
    directional = [Lowest("a"), Between(low=0.9), Between(high=2.0)]
    assert all(map(is_directional, directional))
    assert not any(map(is_directional, [NearLowest("a"), Similar(), Between(1.0, 2.0)]))
