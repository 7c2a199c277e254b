"""Verdicts: the claims of a study as the report shows them, with their contrasts drawn to scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vaelab.reporting.formatting import MISSING, format_number, order_of_magnitude
from vaelab.studies.results import ClaimResult
from vaelab.studies.verdicts import ContrastResult

__all__ = ["ClaimContext", "ContrastContext", "claim_context"]

AXIS_MARGIN = 0.08  # of an axis beyond what it shows, on either side

SMALLEST_P = 0.001  # p-values below are not distinguished


@dataclass(frozen=True)
class ContrastContext:
    """A contrast in words, and its parts on an axis, in percent of its width.

    Attributes:
        what: What is compared.
        effect: The mean difference.
        expected: "< 0" or "> 0".
        interval: The interval; empty for a single seed.
        p_value: The p-value.
        zero: Where zero is.
        dot: Where the mean is.
        left: Where the interval begins.
        width: How wide the interval is.
        expected_side: Where the side begins that is expected, and how wide it is.
    """

    what: str
    effect: str
    expected: str
    interval: str
    p_value: str
    zero: float
    dot: float
    left: float
    width: float
    expected_side: tuple[float, float]


@dataclass(frozen=True)
class ClaimContext:
    """A claim under a condition, as the report shows it.

    Attributes:
        id: The id of the claim.
        sentence: What it says.
        source: Where it comes from.
        expected: What it expects.
        verdict: The verdict.
        num_seeds: How many seeds it was judged by.
        note: Why it could not be judged.
        means: The mean of everything that it compares, as (name, text).
        contrasts: All contrasts on one axis; the first one decides.
        deciding: The deciding contrast on an axis of its own.
    """

    id: str
    sentence: str
    source: str
    expected: str
    verdict: str
    num_seeds: int
    note: str
    means: list[tuple[str, str]]
    contrasts: list[ContrastContext]
    deciding: ContrastContext | None


def claim_context(result: ClaimResult) -> ClaimContext:
    """A claim under a condition, as the report shows it."""
    means = []
    for name, mean in result.means.items():
        means.append((name or "base", format_number(mean, max(0, 3 - order_of_magnitude(mean)))))
    deciding = _contrast_contexts(result.contrasts[:1])
    return ClaimContext(
        id=result.claim.id,
        sentence=result.claim.sentence,
        source=result.claim.source,
        expected=result.claim.expectation_text,
        verdict=result.verdict,
        num_seeds=result.num_seeds,
        note=result.note,
        means=means,
        contrasts=_contrast_contexts(result.contrasts),
        deciding=deciding[0] if deciding else None,
    )


def _contrast_contexts(contrasts: Sequence[ContrastResult]) -> list[ContrastContext]:
    """Contrasts in words, and drawn to one scale that includes zero."""
    shown_values = [0.0]
    for contrast in contrasts:
        shown_values += [contrast.mean, *(contrast.interval or ())]
    low, high = min(shown_values), max(shown_values)
    margin = AXIS_MARGIN * (high - low) or 1.0
    return [_contrast_context(contrast, low - margin, high - low + 2 * margin) for contrast in contrasts]


def _contrast_context(contrast: ContrastResult, low: float, span: float) -> ContrastContext:
    """A contrast on an axis that begins at `low` and is `span` long."""
    start, end = contrast.interval or (contrast.mean, contrast.mean)
    decimals = _decimals(contrast.mean, end - start)
    interval = ""
    if contrast.interval:
        interval = f"[{format_number(start, decimals)}, {format_number(end, decimals)}]"
    zero = _percent(-low / span)
    expects_negative = contrast.wanted < 0
    return ContrastContext(
        what=contrast.what,
        effect=format_number(contrast.mean, decimals),
        expected="< 0" if expects_negative else "> 0",
        interval=interval,
        p_value=_p_text(contrast.p),
        zero=zero,
        dot=_percent((contrast.mean - low) / span),
        left=_percent((start - low) / span),
        width=_percent((end - start) / span),
        expected_side=(0, zero) if expects_negative else (zero, round(100 - zero, 2)),
    )


def _decimals(mean: float, width: float) -> int:
    """Two digits of half an interval; of a single seed, three digits of the mean."""
    wanted = 1 - order_of_magnitude(width / 2) if width > 0 else 2 - order_of_magnitude(mean)
    return min(max(wanted, 0), 8)


def _p_text(p: float | None) -> str:
    if p is None:
        return MISSING
    return f"< {SMALLEST_P:g}" if p < SMALLEST_P else f"{p:.2g}"


def _percent(fraction: float) -> float:
    return round(100 * fraction, 2)
