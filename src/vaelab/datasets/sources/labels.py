"""Labels: columns of any type as indices into one tuple of categories."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from vaelab.core.console import count_text, printable, shown
from vaelab.core.errors import UserError
from vaelab.datasets.naming import agree, list_text

__all__ = [
    "LABEL_COLUMNS",
    "EncodedLabels",
    "LabelColumn",
    "LabelReading",
    "encode_labels",
    "label_notes",
    "merge_columns",
    "read_label_column",
]

LABEL_COLUMNS = ("label", "labels", "class", "category", "target", "targets", "classes", "categories")


class LabelColumn(NamedTuple):
    """The labels of some pictures: values, or indices into the names of classes where there are names.

    None, "", NaN and -1 stand for no label. `place` is what the column is called in messages.
    """

    values: Sequence[Any]
    names: tuple[str, ...] | None = None
    place: str = "the column of labels"


class LabelReading(NamedTuple):
    """What a column gave: the labels of some pictures, or the reason why it gives none.

    Both are empty where there is no column.
    """

    column: LabelColumn | None = None
    reason: str = ""


class EncodedLabels(NamedTuple):
    """Labels by split, int64 (n,), -1 for none, None where a split has none; and the names of the categories."""

    labels: dict[str, np.ndarray | None]
    categories: tuple[str, ...]


def read_label_column(
    values: Sequence[Any], names: tuple[str, ...] | None = None, place: str = "the column of labels"
) -> LabelReading:
    """Read a column as labels.

    Args:
        values: A value for each picture; a list of one value stands for it.
        names: The names of classes into which integers are indices.
        place: What the column is called in messages.

    Returns:
        The labels; or the reason where it holds lists of several values, numbers that are not whole, or nothing.

    Raises:
        UserError: An integer has no name.

    Example:
        >>> read_label_column([["cat"], ["dog", "cow"]]).reason
        'holds several values for a picture'
        >>> read_label_column([1.0, None, 2.0]).column.values
        [1, None, 2]
    """
    if any(isinstance(value, list | tuple) and len(value) > 1 for value in values):
        return LabelReading(reason="holds several values for a picture")
    singles = [_plain_value(_only_member(value)) for value in values]
    for value in singles:
        if isinstance(value, float):
            return LabelReading(reason=f"holds numbers that are not whole, such as {value:g}")
        if not isinstance(value, str | int | None):
            return LabelReading(reason=f"holds values that are no labels, such as {shown(value)}")
    if all(value is None for value in singles):
        return LabelReading(reason="is empty")
    column = LabelColumn(singles, names, place)
    if names is not None:
        _check_indices(LabelColumn(_index_words(singles, names), names, place), names)
    return LabelReading(column)


def _only_member(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return value[0] if value else None
    return value


def label_notes(name: str, labels: Mapping[str, LabelColumn | None], reasons: Mapping[str, str]) -> list[str]:
    """Sentences for a column of labels that is not used, in some splits or in all.

    Args:
        name: The name of the column.
        labels: The labels that were read, by split.
        reasons: Why a split, or a part of it, gave none; empty where there is nothing to say.

    Example:
        >>> label_notes("label", {"train": LabelColumn(["a"]), "test": None}, {"train": "", "test": "is empty"})
        ['the column label of the test split is empty']
    """
    column = f"the column {shown(name)}"
    given = {split: reason for split, reason in reasons.items() if reason}
    if len(given) == len(labels) and len(set(given.values())) == 1 and not any(labels.values()):
        return [f"{column} {next(iter(given.values()))}: not used"]
    notes = []
    for split, reason in given.items():
        part = "a part of the" if labels[split] is not None else "the"
        notes.append(f"{column} of {part} {split} split {reason}")
    return notes


def merge_columns(columns: Sequence[LabelColumn]) -> LabelColumn:
    """The columns of the shards of a split as one; their types and the order of their names may differ."""
    all_names = {column.names for column in columns}
    if len(all_names) == 1:
        values = [value for column in columns for value in column.values]
        return LabelColumn(values, next(iter(all_names)), columns[0].place)
    merged = _merge_names(columns)
    values = []
    for column in columns:
        values.extend(_named_values(column, merged))
    return LabelColumn(values, merged, columns[0].place)


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
        for split, column in columns.items():
            if column is not None:
                _check_indices(column._replace(values=values[split] or []), names)
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


def _check_indices(column: LabelColumn, names: tuple[str, ...]) -> None:
    """Refuse an integer without a name."""
    for value in column.values:
        if value is not None and not (isinstance(value, int) and 0 <= value < len(names)):
            raise UserError(
                f"{column.place} holds the label {shown(value)}, but there {agree(len(names), 'is', 'are')} "
                f"{count_text(len(names), 'name')} of classes: {list_text(names)}\n"
                "name all classes in the metadata, or take the names out of it: the values are then the categories"
            )
