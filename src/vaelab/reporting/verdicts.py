"""Verdicts: the claims of a study as the report shows them, with their differences drawn to scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vaelab.figures.differences import AxisLimits, Difference, difference_limits
from vaelab.figures.study_figures import deciding_difference
from vaelab.reporting.formatting import MISSING, format_number, order_of_magnitude
from vaelab.studies.health import SickRun
from vaelab.studies.results import ClaimResult, StudyResults
from vaelab.studies.verdicts import ContrastResult

__all__ = ["ClaimContext", "ContrastContext", "StudyLookRow", "claim_context", "study_look_rows"]

SMALLEST_P = 0.001  # p-values below are not distinguished


@dataclass(frozen=True)
class Span:
    """A stretch of an axis, in percent of its width."""

    left: float
    width: float


@dataclass(frozen=True)
class ContrastContext:
    """A difference in words, and its parts on an axis, in percent of its width.

    Attributes:
        what: What is compared.
        effect: The mean difference.
        expected: "< 0" or "> 0".
        interval: The interval that holds for all differences of the claim together; empty for a single seed.
        bounds: What the verdict is read from; empty for a single seed.
        margin: The largest difference that does not matter; empty where there is none.
        p_value: The p-value.
        zero: Where zero is.
        dot: Where the mean is.
        seeds: Where the difference of each seed is.
        interval_span: Where the interval is; None where there is none.
        bounds_span: Where the bounds are; None where there are none.
        margin_span: Where the margin is; None where there is none.
        expected_side: The side that is expected.
    """

    what: str
    effect: str
    expected: str
    interval: str
    bounds: str
    margin: str
    p_value: str
    zero: float
    dot: float
    seeds: list[float]
    interval_span: Span | None
    bounds_span: Span | None
    margin_span: Span | None
    expected_side: Span


@dataclass(frozen=True)
class ClaimContext:
    """A claim under a condition, as the report shows it.

    Attributes:
        id: The id of the claim.
        sentence: What it says.
        source: Where it comes from.
        expected: What it expects.
        verdict: The verdict.
        word: The verdict as it is written: a published figure is "met" or "missed".
        num_seeds: How many seeds it was judged by.
        note: Why it could not be judged, or what must be said of its verdict.
        margin: The largest difference that does not matter, and why; empty where none was set.
        covers: What its intervals cover, in words.
        seeds_needed: How many seeds would decide an undecided claim; empty where nothing is known.
        sick: The runs that make it void, each as (run, what is wrong, number, bound).
        looks: What it came to at each look, as (seeds, verdict, p), where there were several.
        means: The mean of everything that it compares, as (name, text).
        contrasts: All differences on one axis; the first one decides.
        deciding: The deciding difference on an axis of its own; None for a void claim, whose numbers mean nothing.
    """

    id: str
    sentence: str
    source: str
    expected: str
    verdict: str
    word: str
    num_seeds: int
    note: str
    margin: str
    covers: str
    seeds_needed: str
    sick: list[tuple[str, str, str, str]]
    looks: list[tuple[int, str, str]]
    means: list[tuple[str, str]]
    contrasts: list[ContrastContext]
    deciding: ContrastContext | None


@dataclass(frozen=True)
class StudyLookRow:
    """A look of a study at its claims.

    Attributes:
        num_seeds: How many seeds the settings of open claims had.
        num_runs: The runs that were trained for it.
        decided: How many claims it decided, by verdict, in words.
        num_open: How many claims it left undecided.
    """

    num_seeds: int
    num_runs: int
    decided: str
    num_open: int


def study_look_rows(results: StudyResults) -> list[StudyLookRow]:
    """What each look of a study at its claims cost and decided; empty where it looked once.

    Minutes are left out, for the same results give the same report: looks.csv has them.
    """
    looks = results.looks
    if len(looks) < 2:
        return []
    tested = [claim for claim in results.claim_results if claim.looks]
    rows = []
    for look in looks:
        decided: dict[str, int] = {}
        num_open = 0
        for claim in tested:
            is_decided = claim.verdict != "undecided"
            if is_decided and claim.num_seeds == look.num_seeds:
                decided[claim.verdict_word] = decided.get(claim.verdict_word, 0) + 1
            num_open += not is_decided or claim.num_seeds > look.num_seeds
        text = ", ".join(f"{count} {word}" for word, count in decided.items()) or MISSING
        rows.append(StudyLookRow(look.num_seeds, len(look.runs), text, num_open))
    return rows


def claim_context(result: ClaimResult) -> ClaimContext:
    """A claim under a condition, as the report shows it."""
    means = []
    for name, mean in result.means.items():
        means.append((name or "base", format_number(mean, max(0, 3 - order_of_magnitude(mean)))))
    claim = result.claim
    deciding = deciding_difference(result)
    is_drawn = bool(deciding.values)
    looks = []
    if len(result.looks) > 1:
        looks = [(look.num_seeds, look.verdict, _p_text(look.p)) for look in result.looks]
    return ClaimContext(
        id=claim.id,
        sentence=claim.sentence,
        source=claim.source,
        expected=claim.expectation_text,
        verdict=result.verdict,
        word=result.verdict_word,
        num_seeds=result.num_seeds,
        note=result.note,
        margin=_margin_text(result),
        covers=_covers_text(result),
        seeds_needed=result.seeds_needed_text,
        sick=[_sick_row(run) for run in result.sick],
        looks=looks,
        means=means,
        contrasts=_contrast_contexts(result) if is_drawn else [],
        deciding=_contrast_context(result.contrasts[0], deciding, difference_limits([deciding])) if is_drawn else None,
    )


def _sick_row(run: SickRun) -> tuple[str, str, str, str]:
    """A run whose numbers mean nothing: which it is, what is wrong, the number, and what is sound."""
    name = f"{run.setting}, seed {run.seed}" if run.setting else f"seed {run.seed}"
    return name, run.ailment, run.number, run.bound


def _margin_text(result: ClaimResult) -> str:
    """The margin as the study file states it, and why."""
    claim = result.claim
    if not claim.margin_reason:
        return ""
    return f"{claim.margin.text}: {claim.margin_reason}"


def _covers_text(result: ClaimResult) -> str:
    """What the bounds and the interval of a claim cover, in words."""
    judgement = result.judgement
    parts = []
    if judgement.bounds_label:
        parts.append(f"bounds: {judgement.bounds_label}")
    if judgement.interval_label:
        parts.append(f"interval: {judgement.interval_label}")
    if not parts:
        return ""
    text = "; ".join(parts)
    return text if text.endswith(result.covers) else f"{text}. They cover {result.covers}."


def _contrast_contexts(result: ClaimResult) -> list[ContrastContext]:
    """All differences of a claim in words, and drawn to one scale that includes zero."""
    drawn = []
    for contrast, values in zip(result.contrasts, result.differences, strict=True):
        drawn.append(_difference(contrast, values))
    limits = difference_limits(drawn)
    pairs = zip(result.contrasts, drawn, strict=True)
    return [_contrast_context(contrast, difference, limits) for contrast, difference in pairs]


def _difference(contrast: ContrastResult, values: Sequence[float]) -> Difference:
    """A contrast with the difference of each seed."""
    return Difference(
        sentence="",
        verdict="undecided",
        word="",
        what=contrast.what,
        wanted=contrast.wanted,
        mean=contrast.mean,
        values=values,
        bounds=contrast.bounds,
        interval=contrast.interval,
        margin=contrast.margin,
    )


def _contrast_context(contrast: ContrastResult, difference: Difference, limits: AxisLimits) -> ContrastContext:
    """A contrast in words and on an axis."""
    low, high = contrast.bounds or contrast.interval or (contrast.mean, contrast.mean)
    decimals = _decimals(contrast.mean, high - low)
    zero = _place(0.0, limits)
    return ContrastContext(
        what=contrast.what,
        effect=format_number(contrast.mean, decimals),
        expected="< 0" if contrast.wanted < 0 else "> 0",
        interval=_range_text(contrast.interval, decimals),
        bounds=_range_text(contrast.bounds, decimals),
        margin=f"±{format_number(contrast.margin, max(0, 2 - order_of_magnitude(contrast.margin)))}"
        if contrast.margin
        else "",
        p_value=_p_text(contrast.p),
        zero=zero,
        dot=_place(contrast.mean, limits),
        seeds=[_place(value, limits) for value in difference.values],
        interval_span=_span(contrast.interval, limits),
        bounds_span=_span(contrast.bounds, limits),
        margin_span=_span((-contrast.margin, contrast.margin), limits) if contrast.margin else None,
        expected_side=Span(0, zero) if contrast.wanted < 0 else Span(zero, round(100 - zero, 2)),
    )


def _range_text(ends: tuple[float, float] | None, decimals: int) -> str:
    """An interval as text; empty where there is none."""
    if ends is None:
        return ""
    return f"[{format_number(ends[0], decimals)}, {format_number(ends[1], decimals)}]"


def _span(ends: tuple[float, float] | None, limits: AxisLimits) -> Span | None:
    """Where an interval is on an axis, as far as the axis goes."""
    if ends is None:
        return None
    left, right = _place(ends[0], limits), _place(ends[1], limits)
    return Span(left, round(right - left, 2))


def _place(value: float, limits: AxisLimits) -> float:
    """Where a value is on an axis, in percent; at an end where it lies beyond."""
    share = (value - limits.low) / (limits.high - limits.low)
    return round(100 * min(max(share, 0.0), 1.0), 2)


def _decimals(mean: float, width: float) -> int:
    """Two digits of half an interval; of a single seed, three digits of the mean."""
    wanted = 1 - order_of_magnitude(width / 2) if width > 0 else 2 - order_of_magnitude(mean)
    return min(max(wanted, 0), 8)


def _p_text(p: float | None) -> str:
    if p is None:
        return MISSING
    return f"< {SMALLEST_P:g}" if p < SMALLEST_P else f"{p:.2g}"
