"""Which values become black and white, for all pictures of a data set together, and what is to be said of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vaelab.core.console import count_text, shown
from vaelab.core.errors import UserError
from vaelab.datasets.depth import Levels, ValueRanges, ValueSpan, choose_ranges, merge_spans
from vaelab.datasets.naming import agree

__all__ = ["FoundRanges", "find_ranges"]

BYTE = (0.0, 255.0)

FEW_LEVELS = 16  # of 256: a picture that has fewer is hardly seen

NamedSpan = tuple[str, ValueSpan]


class FoundRanges(NamedTuple):
    """The ranges of values of a data set.

    Args:
        ranges: The values that become black and white.
        used: Those of the kinds of numbers, "integer" or "floating", of which there are pictures.
        notes: Sentences for the user.
    """

    ranges: ValueRanges
    used: dict[str, tuple[float, float]]
    notes: list[str]


def find_ranges(
    spans: Sequence[NamedSpan],
    value_range: tuple[float, float] | None,
    array_name: str | None,
    run_ranges: Mapping[str, tuple[float, float]],
) -> FoundRanges:
    """Choose the ranges of values.

    Args:
        spans: The names of pictures with more than eight bits a channel, or of arrays, with their lowest and highest
            value.
        value_range: The range where it is given.
        array_name: What the arrays are called in messages; None for picture files.
        run_ranges: The ranges of the pictures of a run, by the kind of their values, where no range is given.

    Raises:
        UserError: An array holds values whose white is not known.

    Example:
        >>> find_ranges([("x.png", ValueSpan("integer", 3, 4000))], None, None, {}).used
        {'integer': (0.0, 4095.0)}
    """
    levels = merge_spans([span for _, span in spans])
    if array_name is not None:
        ranges = _array_ranges(levels, [span for _, span in spans], value_range, array_name)
        used = {kind: getattr(ranges, kind) for kind in Levels._fields if getattr(levels, kind) is not None}
        if ranges.byte is not None:
            used = {"integer": ranges.byte, **used}
        return FoundRanges(ranges, used, _clipping_notes("arrays", levels, ranges) if value_range else [])
    ranges = choose_ranges(levels, value_range)
    if value_range is None:
        ranges = ranges._replace(**run_ranges)
    used = {kind: getattr(ranges, kind) for kind in Levels._fields if getattr(levels, kind) is not None}
    notes = _clipping_notes("pictures of more than 8 bits", levels, ranges)
    if value_range is None:
        for kind, its_range in used.items():
            notes.extend(_flattening_notes([item for item in spans if item[1].kind == kind], its_range))
    return FoundRanges(ranges, used, notes)


def _array_ranges(
    levels: Levels, spans: Sequence[ValueSpan], value_range: tuple[float, float] | None, name: str
) -> ValueRanges:
    """The ranges of arrays: integers are bytes, and floats lie in [0, 1] or are bytes, or the range must be given."""
    if value_range is not None:
        return ValueRanges(value_range, value_range, value_range)
    floating = (0.0, 1.0)
    if levels.floating is not None and not _lies_in(levels.floating, floating):
        if not _lies_in(levels.floating, BYTE) or not all(span.whole for span in spans):
            raise _array_error("floats", levels.floating, name)
        floating = BYTE
    if levels.integer is not None and not _lies_in(levels.integer, BYTE):
        raise _array_error("integers", levels.integer, name)
    return ValueRanges(BYTE, floating)


def _lies_in(span: tuple[float, float], bounds: tuple[float, float]) -> bool:
    return bounds[0] <= span[0] and span[1] <= bounds[1]


def _array_error(noun: str, span: tuple[float, float], name: str) -> UserError:
    low, high = (f"{value:.6g}" for value in span)
    return UserError(
        f"{name} holds {noun} from {low} to {high}; images must be whole numbers from 0 to 255, or floats in [0, 1]\n"
        f"give the values that become black and white, such as value_range={low},{high}, or scale the array",
        settings=["value_range"],
    )


def _clipping_notes(pictures: str, levels: Levels, ranges: ValueRanges) -> list[str]:
    """The range of values that was used."""
    notes = []
    for kind, noun in (("integer", "integers"), ("floating", "floats")):
        found, used = getattr(levels, kind), getattr(ranges, kind)
        if found is None:
            continue
        clipped = "" if _lies_in(found, used) else "; what lies beyond is black or white"
        notes.append(
            f"{pictures} hold {noun} from {found[0]:g} to {found[1]:g}: "
            f"{used[0]:g} is taken as black, {used[1]:g} as white{clipped}"
        )
    return notes


def _flattening_notes(spans: Sequence[NamedSpan], used: tuple[float, float]) -> list[str]:
    """A note where a few pictures with far higher or lower values leave the others hardly any levels."""
    least = (used[1] - used[0]) * FEW_LEVELS / 256
    flattened = [name for name, span in spans if 0 < span.high - span.low < least]
    if not flattened or len(flattened) == len(spans) or 2 * len(flattened) < len(spans):
        return []
    widest, span = max(spans, key=lambda item: max(abs(item[1].low), abs(item[1].high)))
    count, verb = count_text(len(spans), "picture"), agree(len(flattened), "has", "have")
    return [
        f"{len(flattened):,} of {count} {verb} fewer than {FEW_LEVELS} of 256 levels in that range, since "
        f"{shown(widest)} has values from {span.low:g} to {span.high:g}: leave it out, or give --value-range"
    ]
