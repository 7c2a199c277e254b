"""The schema of a study file: the entries that each of its tables may have, and what an entry must be.

A `Validator` names what is allowed in words and tests a value. `validate_table` refuses the first entry that is
unknown, wrong or missing, with what was perhaps meant.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from vaelab.core.errors import UserError, unknown_name_error

__all__ = [
    "CLAIM_SCHEMA",
    "EXPERIMENT_SCHEMA",
    "MAX_SEEDS",
    "NAME",
    "OVERRIDE_SCHEMA",
    "STUDY_SCHEMA",
    "Validator",
    "validate_table",
    "with_standard_keys",
]

MAX_SEEDS = 1000  # seeds of a study: each is a whole set of runs

SEED_LIMIT = 2**31  # numbers from here on are no seeds for all of the libraries that take one

SYNONYMS = {"conditions": "readings", "hypotheses": "claims", "quantity": "measure", "quantities": "measure"}


class Validator(NamedTuple):
    """What an entry may be, in words, and the test of a value."""

    description: str
    is_valid: Callable[[Any], bool]


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"\w[\w .+-]{0,80}", value) is not None


def _is_yes_or_no(value: Any) -> bool:
    return isinstance(value, bool)


def _is_margin(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return type(value) is int and value >= 1


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _is_list_of_different(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and len({*map(str, value)}) == len(value)


def _is_text_or_texts(value: Any) -> bool:
    return _is_text(value) or (_is_list_of_different(value) and all(map(_is_text, value)))


def _is_figures(value: Any) -> bool:
    return value == [] or _is_text_or_texts(value)


def _is_seed(value: Any) -> bool:
    return type(value) is int and 0 <= value < SEED_LIMIT


def _is_seeds(value: Any) -> bool:
    if isinstance(value, list):
        return _is_list_of_different(value) and len(value) <= MAX_SEEDS and all(map(_is_seed, value))
    return _is_count(value) and value <= MAX_SEEDS


def _is_table_of(is_valid: Callable[[Any], bool], *, may_be_empty: bool = False) -> Callable[[Any], bool]:
    def test(value: Any) -> bool:
        return _is_table(value) and (may_be_empty or bool(value)) and all(map(is_valid, value.values()))

    return test


def _is_list_of_tables(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_table, value))


TEXT = Validator("text", _is_text)

NAME = Validator("a name of letters, digits, spaces and . + - _", _is_name)

TEXTS = Validator("a text or a list of different ones", _is_text_or_texts)

FIGURES = Validator("a list of figures", _is_figures)

COUNT = Validator("a whole number of at least 1", _is_count)

SEEDS = Validator(
    f"how many, from 1 to {MAX_SEEDS}, or a list of that many different whole numbers from 0 to {SEED_LIMIT - 1}",
    _is_seeds,
)

YES_OR_NO = Validator("true or false", _is_yes_or_no)

MOST_SEEDS = Validator(f"how many, from 1 to {MAX_SEEDS}", lambda value: _is_count(value) and value <= MAX_SEEDS)

MARGIN = Validator('a number of at least 0, such as 0.5, or a share such as "1 %"', _is_margin)

TABLE = Validator("a table, such as { latent_dim = 16 }", _is_table)

NAMED_TABLES = Validator("a table of named tables", _is_table_of(_is_table))

LISTS = Validator(
    "a table of lists of different values, such as { latent_dim = [8, 16] }", _is_table_of(_is_list_of_different)
)

TABLES = Validator("a list of tables", _is_list_of_tables)

ROWS = Validator("a table of texts", _is_table_of(_is_text, may_be_empty=True))

ANYTHING = Validator("anything", lambda value: value != [])

STUDY_SCHEMA = {
    "name": NAME,
    "title": TEXT,
    "about": TEXT,
    "data": TEXT,
    "seeds": SEEDS,
    "decide": YES_OR_NO,
    "most_seeds": MOST_SEEDS,
    "repeat_splits": YES_OR_NO,
    "epochs": COUNT,
    "base": TABLE,
    "readings": NAMED_TABLES,
    "rows": ROWS,
    "experiments": TABLES,
    "overridden": TABLE,
}

OVERRIDE_SCHEMA = {name: STUDY_SCHEMA[name] for name in ("data", "seeds", "epochs", "decide", "most_seeds")}

EXPERIMENT_SCHEMA = {
    "id": NAME,
    "title": TEXT,
    "question": TEXT,
    "rows": TEXTS,
    "base": TABLE,
    "vary": LISTS,
    "variants": NAMED_TABLES,
    "readings": TEXTS,
    "figures": FIGURES,
    "claims": TABLES,
}

CLAIM_SCHEMA = {
    "id": NAME,
    "sentence": TEXT,
    "source": TEXT,
    "measure": TEXTS,
    "expect": ANYTHING,
    "where": TABLE,
    "readings": TEXTS,
    "once": YES_OR_NO,
    "anchor": YES_OR_NO,
    "margin": MARGIN,
    "margin_reason": TEXT,
}


def with_standard_keys(table: Mapping[str, Any], place: str) -> dict[str, Any]:
    """A table of a study file with its synonyms replaced.

    Args:
        table: A table as it was read, such as `{"conditions": ...}`.
        place: What the table is, for messages.

    Returns:
        The same table with the keys that the schema knows.

    Raises:
        UserError: A key stands there under both of its names.

    Example:
        >>> with_standard_keys({"quantity": "mse", "expect": "decreasing"}, "claim a")
        {'measure': 'mse', 'expect': 'decreasing'}
    """
    renamed: dict[str, Any] = {}
    for key, value in table.items():
        name = SYNONYMS.get(key, key)
        if name in renamed:
            raise UserError(f"{place} has {name} twice: {key} means the same")
        renamed[name] = value
    return renamed


def validate_table(table: Mapping[str, Any], place: str, schema: Mapping[str, Validator], *required: str) -> None:
    """Refuse a table with unknown, wrong or missing entries.

    Args:
        table: The table, with standard keys.
        place: What the table is, for messages.
        schema: The validator of each entry that it may have.
        required: The entries that it must have.

    Raises:
        UserError: The first entry that is wrong, with what is allowed.

    Example:
        >>> validate_table({"epochs": 0}, "the study", STUDY_SCHEMA)
        Traceback (most recent call last):
        vaelab.core.errors.UserError: epochs in the study must be a whole number of at least 1, got 0
    """
    for name, value in table.items():
        if name not in schema:
            raise unknown_name_error(f"entry in {place}", name, schema)
        if not schema[name].is_valid(value):
            shown = _shorten(json.dumps(value, default=str))
            raise UserError(f"{name} in {place} must be {schema[name].description}, got {shown}")
    for name in required:
        if name not in table:
            raise UserError(f"{place} lacks {name}")


def _shorten(text: str, limit: int = 200) -> str:
    """A text of at most `limit` characters, so that a message stays readable."""
    return text if len(text) <= limit else f"{text[:limit]}…"
