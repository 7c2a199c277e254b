"""Labels: columns of any type as indices into one tuple of categories."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vaelab.core.console import printable
from vaelab.core.errors import UserError

__all__ = ["LABEL_COLUMNS", "EncodedLabels", "LabelColumn", "encode_labels", "merge_columns"]

LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "targets", "classes", "categories")


class LabelColumn(NamedTuple):
    """The labels of some pictures: values, or indices into the names of classes where there are names.

    None, "", NaN and -1 stand for no label.
    """

    values: Sequence[Any]
    names: tuple[str, ...] | None = None


class EncodedLabels(NamedTuple):
    """Labels by split, int64 (n,), -1 for none, None where a split has none; and the names of the categories."""

    labels: dict[str, np.ndarray | None]
    categories: tuple[str, ...]


def merge_columns(columns: Sequence[LabelColumn]) -> LabelColumn:
    """The columns of the shards of a split as one; their types and the order of their names may differ."""
    all_names = {column.names for column in columns}
    if len(all_names) == 1:
        values = [value for column in columns for value in column.values]
        return LabelColumn(values, next(iter(all_names)))
    merged = _merge_names(columns)
    values = []
    for column in columns:
        values.extend(_named_values(column, merged))
    return LabelColumn(values, merged)


def encode_labels(columns: Mapping[str, LabelColumn | None]) -> EncodedLabels:
    """Encode the labels of all splits as indices into one tuple of categories.

    Args:
        columns: The labels by split; None where a split has none.

    Returns:
        Indices by split, and the categories: the names where there are names, else the sorted values.

    Raises:
        UserError: An index has no name.

    Example:
        >>> encode_labels({"train": LabelColumn(["dog", "cat", ""])})
        EncodedLabels(labels={'train': array([ 1,  0, -1])}, categories=('cat', 'dog'))
    """
    known = [column for column in columns.values() if column is not None]
    if not known:
        return EncodedLabels(dict.fromkeys(columns), ())
    names = _merge_names(known)
    values: dict[str, list[Any] | None] = {}
    for split, column in columns.items():
        values[split] = None if column is None else _named_values(column, names)
    if names is None:
        index, categories = _index_of_values([value for column in values.values() for value in column or ()])
    else:
        index, categories = {i: i for i in range(len(names))}, names
        _check_indices([column for column in values.values() if column is not None], len(names))
    labels: dict[str, np.ndarray | None] = {}
    for split, column in values.items():
        labels[split] = None if column is None else np.array([index.get(value, -1) for value in column], np.int64)
    return EncodedLabels(labels, tuple(printable(name) for name in categories))


def _merge_names(columns: Sequence[LabelColumn]) -> tuple[str, ...] | None:
    """The names of the first column that has any, then those that only others have; None where none has names."""
    merged: dict[str, None] = {}
    for column in columns:
        merged.update(dict.fromkeys(column.names or ()))
    if not merged:
        return None
    for column in columns:
        if column.names is None:  # words beside indices into names
            words = {value for value in column.values if isinstance(value, str) and value}
            merged.update(dict.fromkeys(sorted(word for word in words if not _is_index(word))))
    return tuple(merged)


def _is_index(word: str) -> bool:
    return word.lstrip("-").isdigit()


def _named_values(column: LabelColumn, names: tuple[str, ...] | None) -> list[Any]:
    """The values of a column; indices into `names` where there are names, and None where there is no label."""
    values = [_plain_value(value) for value in column.values]
    if names is None or column.names == names:
        return _index_words(values, names) if names is not None else values
    own_names = column.names or names
    position = {name: i for i, name in enumerate(names)}
    moved = {i: position[name] for i, name in enumerate(own_names)}
    result = []
    for value in _index_words(values, own_names):
        result.append(moved.get(value, value) if isinstance(value, int) else value)
    return result


def _index_words(values: list[Any], names: tuple[str, ...]) -> list[Any]:
    """Values with names, or with numbers as text, replaced by the indices that they stand for."""
    position = {name: i for i, name in enumerate(names)}
    result = []
    for value in values:
        if not isinstance(value, str):
            result.append(value)
        elif value in position:
            result.append(position[value])
        else:
            result.append(int(value) if _is_index(value) else value)
    return result


def _plain_value(value: Any) -> Any:
    """A label as bool, int or text; None for no label."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    if isinstance(value, float):
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    return None if type(value) is int and value == -1 else value


def _index_of_values(values: list[Any]) -> tuple[dict[Any, int], tuple[str, ...]]:
    """The index of each value among the sorted ones; values of several types are sorted as text."""
    distinct = {value for value in values if value is not None}
    if len({type(value) for value in distinct}) <= 1:
        ordered = sorted(distinct)
        return {value: i for i, value in enumerate(ordered)}, tuple(str(value) for value in ordered)
    words = sorted({str(value) for value in distinct})
    position = {word: i for i, word in enumerate(words)}
    return {value: position[str(value)] for value in distinct}, tuple(words)


def _check_indices(columns: list[list[Any]], count: int) -> None:
    for column in columns:
        for value in column:
            if value is not None and not (isinstance(value, int) and 0 <= value < count):
                raise UserError(f"label {value} has no name among the {count} categories")
