r"""Judging: from the runs that a claim rests on to its verdict.

    runs of its settings -> values (seeds x settings), values of images -> contrasts -> verdict

A claim is void where a run that it rests on is sick. Published figures are met or missed, and are not tested with the
other claims.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from vaelab.core.console import count_text
from vaelab.core.errors import UserError
from vaelab.studies.anchors import AnchorVerdict, judge_anchor
from vaelab.studies.definition import Claim
from vaelab.studies.expectations import Between, Contrast, Expectation, NearLowest, Similar
from vaelab.studies.health import SickRun
from vaelab.studies.multiplicity import StudyErrors, judge_study
from vaelab.studies.quantities import RunRecord
from vaelab.studies.sequential import LookPlan
from vaelab.studies.verdicts import ContrastResult, Judgement, Look, Verdict

__all__ = [
    "ClaimResult",
    "ClaimRuns",
    "PreparedClaim",
    "SeedRuns",
    "is_directional",
    "judge_claims",
    "prepare_claim",
]

NORMAL_QUANTILE = 1.96  # standard errors on either side of an interval of 95 %

SEEDS, SEEDS_AND_IMAGES = "seeds", "seeds and test images"

SEEDS_AND_SPLITS = "seeds, each with its own split into training and test images"

ANCHOR_WORDS: Mapping[Verdict, str] = {"supported": "met", "refuted": "missed"}

NO_MARGIN_NOTE = "no margin was set: any difference counts, however small"


class SeedRuns(NamedTuple):
    """The runs of the settings that a claim compares, of one seed.

    Attributes:
        seed: The seed.
        records: What they left behind, in the order of the settings.
        sick: Those whose numbers mean nothing.
    """

    seed: int
    records: Sequence[RunRecord]
    sick: Sequence[SickRun]


class ClaimRuns(NamedTuple):
    """All that a claim is judged by.

    Attributes:
        names: The names of what it compares.
        of_seeds: Its runs, for the seeds that have all of them, in the order of the seeds.
        diverged: Runs that ended because their numbers were no numbers any more.
        repeats_splits: Whether each seed has its own split into training and test images.
    """

    names: Sequence[str]
    of_seeds: Sequence[SeedRuns]
    diverged: Sequence[SickRun] = ()
    repeats_splits: bool = False


@dataclass(frozen=True)
class ClaimResult:
    """A claim under a condition, with its verdict.

    Attributes:
        claim: The claim.
        condition: The condition.
        judgement: The verdict with all that it rests on.
        seeds: The seeds that it was judged by.
        means: The mean over seeds of all that it compares, by name.
        differences: The difference of each seed, for each contrast of the judgement.
        sick: The runs that make it void.
        covers: What its intervals cover.
        num_settings: How many settings it compares.
    """

    claim: Claim
    condition: str
    judgement: Judgement
    seeds: tuple[int, ...] = ()
    means: Mapping[str, float] = field(default_factory=dict)
    differences: tuple[tuple[float, ...], ...] = ()
    sick: tuple[SickRun, ...] = ()
    covers: str = SEEDS
    num_settings: int = 1

    @property
    def verdict(self) -> Verdict:
        """What the runs say about it."""
        return self.judgement.verdict

    @property
    def verdict_word(self) -> str:
        """The verdict as people read it: a published figure is met or missed."""
        return ANCHOR_WORDS.get(self.verdict, self.verdict) if self.claim.anchor else self.verdict

    @property
    def num_seeds(self) -> int:
        """How many seeds it was judged by."""
        return self.judgement.num_seeds

    @property
    def contrasts(self) -> tuple[ContrastResult, ...]:
        """What was measured of each contrast; the first one decides."""
        return self.judgement.contrasts

    @property
    def looks(self) -> tuple[Look, ...]:
        """What it came to at each look."""
        return self.judgement.looks

    @property
    def note(self) -> str:
        """Why it could not be judged, or what must be said of its verdict."""
        return self.judgement.note

    @property
    def seeds_needed_text(self) -> str:
        """For an undecided claim, how many seeds would decide it, in words."""
        return self.judgement.seeds_needed_text

    @property
    def deciding(self) -> ContrastResult | None:
        """The contrast that decides; None where nothing was judged."""
        return self.contrasts[0] if self.contrasts else None

    def to_dict(self) -> dict[str, Any]:
        """The claim as claims.json holds it."""
        table: dict[str, Any] = {
            "id": self.claim.id,
            "sentence": self.claim.sentence,
            "source": self.claim.source,
            "reading": self.condition,
            "expected": self.claim.expectation_text,
            "margin": self.claim.margin.text,
            "margin_reason": self.claim.margin_reason,
            "verdict": self.verdict,
            "said": self.verdict_word,
        }
        if self.claim.once:
            table["once"] = True
        if self.note:
            table["note"] = self.note
        if self.sick:
            table["sick"] = [run._asdict() for run in self.sick]
        if self.deciding is None:
            return table | {"effect": None, "interval": None, "n": self.num_seeds}
        table |= {
            "effect": self.deciding.mean,
            "interval": self.deciding.interval,
            "interval_covers": self.covers,
            "interval_label": self.judgement.interval_label,
            "bounds_label": self.judgement.bounds_label,
            "n": self.num_seeds,
            "seeds": list(self.seeds),
            "effect_size": self.deciding.effect_size,
            "decided_by": self.deciding.what,
            "means": dict(self.means),
            "contrasts": self._contrast_tables(),
            "looks": self._look_tables(),
        }
        if self.verdict == "undecided":
            table["seeds_needed"] = self.seeds_needed_text
        return table

    def _look_tables(self) -> list[dict[str, Any]]:
        """What it came to at each look, with the runs of its settings that were added for it."""
        tables, num_seeds = [], 0
        for look in self.looks:
            num_runs = (look.num_seeds - num_seeds) * self.num_settings
            num_seeds = look.num_seeds
            tables.append({**look._asdict(), "runs": num_runs})
        return tables

    def _contrast_tables(self) -> list[dict[str, Any]]:
        """Each contrast with its differences, one for each seed."""
        tables = []
        for contrast, values in zip(self.contrasts, self.differences, strict=True):
            tables.append({**contrast._asdict(), "values": list(values)})
        return tables


# The verdicts


@dataclass(frozen=True)
class PreparedClaim:
    """A claim with what its verdict is made from.

    Attributes:
        claim: The claim.
        condition: The condition.
        runs: The runs that it rests on.
        values: What it compares, with shape (S, K).
        images: The same for each test image, with shape (S, K, I), or None.
        contrasts: Its contrasts; none where numbers are missing.
        note: Why there are none.
    """

    claim: Claim
    condition: str
    runs: ClaimRuns
    values: np.ndarray | None = None
    images: np.ndarray | None = None
    contrasts: tuple[Contrast, ...] = ()
    note: str = ""

    @property
    def sick(self) -> list[SickRun]:
        """The runs whose numbers mean nothing."""
        return [*self.runs.diverged, *(run for of_seed in self.runs.of_seeds for run in of_seed.sick)]

    @property
    def covers(self) -> str:
        """What its intervals cover."""
        if self.runs.repeats_splits:
            return SEEDS_AND_SPLITS
        return SEEDS if self.images is None else SEEDS_AND_IMAGES

    @property
    def needs_margin(self) -> bool:
        """Whether it should say which differences do not matter."""
        return any(is_directional(expectation) for expectation in self.claim.expectations)


def is_directional(expectation: Expectation) -> bool:
    """Whether an expectation has no tolerance of its own, so that its claim needs a margin.

    Example:
        >>> from vaelab.studies.expectations import Between, Lowest
        >>> is_directional(Lowest(setting="a")), is_directional(Between(low=0.9, high=1.1))
        (True, False)
    """
    match expectation:
        case Between(low=low, high=high):
            return math.isinf(low) or math.isinf(high)
        case NearLowest() | Similar():
            return False
    return True


def prepare_claim(claim: Claim, condition: str, runs: ClaimRuns) -> PreparedClaim:
    """Compute the contrasts of a claim.

    Args:
        claim: The claim.
        condition: The condition under which it is judged.
        runs: The runs that it rests on.

    Returns:
        The claim with its contrasts, or with a note where numbers are missing.
    """
    prepared = PreparedClaim(claim, condition, runs)
    try:
        if not runs.of_seeds:
            raise UserError("no seed has all the runs that it compares")
        values = _claim_values(claim, runs.of_seeds)
        images = _claim_images(claim, runs.of_seeds)
        shared_images = None if runs.repeats_splits else images
        contrasts: list[Contrast] = []
        for expectation in claim.expectations:
            contrasts += expectation.contrasts(values, runs.names, claim.margin, shared_images)
    except UserError as error:
        return replace(prepared, note=str(error))
    return replace(prepared, values=values, images=images, contrasts=tuple(contrasts))


def judge_claims(claims: Sequence[PreparedClaim], plan: LookPlan | None) -> tuple[list[ClaimResult], StudyErrors]:
    """The verdicts on the claims of a study, which are judged together.

    Args:
        claims: The claims with their contrasts.
        plan: After how many seeds they are judged; once, with the seeds that there are, if None.

    Returns:
        The result of each claim, and how the verdicts are kept from being false.
    """
    tested = [claim for claim in claims if claim.contrasts and not claim.claim.anchor]
    reasons = [_sickness_text(claim) for claim in tested]
    judgements, errors = judge_study([claim.contrasts for claim in tested], plan, reasons)
    by_claim = {id(claim): judgement for claim, judgement in zip(tested, judgements, strict=True)}
    results = []
    for claim in claims:
        judgement = by_claim.get(id(claim)) or _judge_alone(claim)
        results.append(_claim_result(claim, judgement))
    return results, errors


def _judge_alone(claim: PreparedClaim) -> Judgement:
    """The verdict on a claim that is not tested with the others: a published figure, or one without numbers."""
    if claim.sick:
        return Judgement("void", len(claim.runs.of_seeds), 1.0, note=_sickness_text(claim))
    if claim.values is None:
        return Judgement("undecided", 0, 1.0, note=claim.note)
    return _judge_anchor(claim, claim.values)


def _claim_result(claim: PreparedClaim, judgement: Judgement) -> ClaimResult:
    """The result of a claim, with the notes that must be made."""
    used = judgement.num_seeds
    is_judged = bool(claim.contrasts) and judgement.verdict != "void"
    lacks_margin = claim.needs_margin and not claim.claim.margin_reason and is_judged
    notes = [judgement.note, NO_MARGIN_NOTE if lacks_margin else ""]
    means = {}
    if claim.values is not None:
        means = {name: float(mean) for name, mean in zip(claim.runs.names, claim.values[:used].mean(0), strict=True)}
    return ClaimResult(
        claim=claim.claim,
        condition=claim.condition,
        judgement=judgement._replace(note="; ".join(filter(None, notes))),
        seeds=tuple(of_seed.seed for of_seed in claim.runs.of_seeds[:used]),
        means=means,
        differences=_differences(judgement, claim.contrasts),
        sick=tuple(claim.sick),
        covers=claim.covers,
        num_settings=len(claim.runs.of_seeds[0].records) if claim.runs.of_seeds else 1,
    )


def _sickness_text(claim: PreparedClaim) -> str:
    """What is wrong with which runs of a claim, the first of each kind; empty where nothing is."""
    num_runs = len(claim.runs.diverged) + sum(len(of_seed.records) for of_seed in claim.runs.of_seeds)
    by_ailment: dict[str, list[SickRun]] = {}
    for run in claim.sick:
        by_ailment.setdefault(run.ailment, []).append(run)
    texts = []
    for ailment, runs in by_ailment.items():
        texts.append(f"{ailment} in {len(runs)} of {count_text(num_runs, 'run')}: {runs[0].text}")
    return "; ".join(texts)


def _differences(judgement: Judgement, contrasts: Sequence[Contrast]) -> tuple[tuple[float, ...], ...]:
    """The differences of each seed, in the order of the contrasts of a judgement."""
    by_contrast = {(contrast.what, contrast.expected_sign): contrast.values for contrast in contrasts}
    differences = []
    for result in judgement.contrasts:
        values = by_contrast[result.what, result.wanted][: judgement.num_seeds]
        differences.append(tuple(values.tolist()))
    return tuple(differences)


# Published figures


def _judge_anchor(claim: PreparedClaim, values: np.ndarray) -> Judgement:
    """Whether a published figure is met, by its tolerance and the errors over seeds and test images."""
    [bounds] = claim.claim.expectations
    assert isinstance(bounds, Between)  # a study file with another one is refused
    errors = _errors_over_images(claim)
    anchor = judge_anchor(values[:, 0].tolist(), errors, bounds.low, bounds.high)
    verdicts: dict[AnchorVerdict, Verdict] = {"met": "supported", "missed": "refuted", "undecided": "undecided"}
    results = [_anchor_contrast(contrast, anchor.error) for contrast in claim.contrasts]
    results.sort(key=lambda result: result.wanted * result.mean)
    note = f"{anchor.beyond:.3g} beyond the tolerance" if anchor.beyond else ""
    if anchor.error and anchor.beyond:
        note += f", {anchor.beyond / anchor.error:.2g} standard errors over {anchor.error_label}"
    return Judgement(
        verdict=verdicts[anchor.verdict],
        num_seeds=anchor.num_seeds,
        p=1.0,
        contrasts=tuple(results),
        note=note,
        interval_label=f"95 %, over {anchor.error_label}" if anchor.error_label else "",
    )


def _errors_over_images(claim: PreparedClaim) -> list[float]:
    """The standard error over test images of each seed, as far as the runs tell it."""
    if claim.images is not None and claim.images.shape[2] > 1:
        return [float(of_seed[0].std(ddof=1)) / math.sqrt(len(of_seed[0])) for of_seed in claim.images]
    numbers = claim.claim.quantities[0].numbers
    if len(numbers) != 1:
        return []
    [(source, _)] = numbers
    errors = []
    for of_seed in claim.runs.of_seeds:
        error = of_seed.records[0].analyses.get(source, {}).get("error_over_images")
        if error is not None:
            errors.append(error)
    return errors


def _anchor_contrast(contrast: Contrast, error: float) -> ContrastResult:
    """The distance from a bound of a tolerance."""
    mean = float(contrast.values.mean())
    interval = (mean - NORMAL_QUANTILE * error, mean + NORMAL_QUANTILE * error) if error else None
    return ContrastResult(
        what=contrast.what,
        wanted=contrast.expected_sign,
        mean=mean,
        interval=interval,
        p=None,
        effect_size=None,
        margin=float(contrast.first(len(contrast.values)).margin),
        bounds=interval,
        num_seeds=len(contrast.values),
    )


# What a claim compares


def _claim_values(claim: Claim, of_seeds: Sequence[SeedRuns]) -> np.ndarray:
    """The quantities of a claim, with shape (S, K)."""
    rows = []
    for _, records, _ in of_seeds:
        rows.append([quantity.value(record, records) for record in records for quantity in claim.quantities])
    return np.array(rows)


def _claim_images(claim: Claim, of_seeds: Sequence[SeedRuns]) -> np.ndarray | None:
    """The quantities of a claim for each test image, with shape (S, K, I); None where the runs do not keep them all."""
    rows, images = None, []
    for _, records, _ in of_seeds:
        for record in records:
            for quantity in claim.quantities:
                of_images = quantity.image_values(record)
                if of_images is None or (rows is not None and not np.array_equal(rows, of_images.rows)):
                    return None
                rows = of_images.rows
                images.append(of_images.values)
    return np.array(images).reshape(len(of_seeds), -1, len(images[0]))
