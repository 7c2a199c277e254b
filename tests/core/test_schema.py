"""A stored value has the shape that its type hints say, or the first wrong field is named."""

from __future__ import annotations

from typing import Annotated, Any, Literal, NotRequired, TypedDict

import pytest

from vaelab.core.schema import OPEN, SchemaError, validate


class Point(TypedDict):
    x: float
    name: NotRequired[str | None]


GOOD = [
    (1, int),
    (1, float),
    (1.5, float),
    (None, int | None),
    (True, bool),
    ("a", Literal["a", "b"]),
    ([1, 2], list[int]),
    ({"a": [1.0]}, dict[str, list[float]]),
    ({"x": 1}, Point),
    ({"x": 1, "name": None}, Point),
    ({"x": 1, "more": []}, Annotated[Point, OPEN]),
    ({"anything": [None]}, Any),
]
BAD = [
    (1.5, int, "its content must be a whole number, got 1.5"),
    (True, int, "got true"),
    (False, float, "must be a number, got false"),
    (2**63, int, "whole number"),
    (float("inf"), float, "must be a number"),
    ("7", int | None, 'must be a whole number or null, got "7"'),
    ("c", Literal["a", "b"], "must be a or b"),
    ({}, list[int], "must be a list, got an object"),
    ([1, "two"], list[int], '1 must be a whole number, got "two"'),
    ({"a": {"b": None}}, dict[str, dict[str, float]], "a.b must be a number, got null"),
    ({}, Point, "it lacks x"),
    ({"x": 1, "more": 2}, Point, "it has an unknown field more"),
    ([], Annotated[Point, OPEN], "must be an object, got a list"),
]


@pytest.mark.parametrize(("value", "hint"), GOOD, ids=str)
def test_a_value_of_the_right_shape_passes(value: Any, hint: Any) -> None:
    validate(value, hint)


@pytest.mark.parametrize(("value", "hint", "message"), BAD, ids=str)
def test_the_first_wrong_field_is_named(value: Any, hint: Any, message: str) -> None:
    with pytest.raises(SchemaError) as caught:
        validate(value, hint)
    assert message in str(caught.value)
