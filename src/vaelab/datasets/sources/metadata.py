"""metadata.csv and metadata.jsonl beside pictures, as Hugging Face's imagefolder has them.

Each row names a file, relative to the metadata file, in the column `file_name`. A column of labels gives the
categories; further columns are kept as attributes.
Source: huggingface.co/docs/datasets/image_load, "ImageFolder".
"""

from __future__ import annotations

import csv
import io
import json
import posixpath
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vaelab.core.console import count_text, printable, shown
from vaelab.datasets.files import error_text, read_error, read_regular
from vaelab.datasets.naming import agree, list_text
from vaelab.datasets.sources.labels import LABEL_COLUMNS

__all__ = ["METADATA_NAMES", "Metadata", "attribute_array", "read_metadata"]

METADATA_NAMES = ("metadata.csv", "metadata.jsonl")

FILE_COLUMNS = ("file_name", "filename", "file", "image", "path")


class Metadata(NamedTuple):
    """What metadata files say of pictures.

    Args:
        rows: The columns of each picture, by its name relative to the folder of the data.
        label_column: The column of labels; None where there is none.
        attributes: The names of the further columns.
        notes: Sentences for the user.
    """

    rows: dict[str, dict[str, Any]]
    label_column: str | None
    attributes: tuple[str, ...]
    notes: list[str]

    def values(self, names: Sequence[str], column: str) -> list[Any]:
        """A column for pictures with the given names; None where a picture has no row."""
        return [self.rows.get(name, {}).get(column) for name in names]


def read_metadata(root: Path, files: Sequence[str], pictures: Sequence[str]) -> Metadata | None:
    """Read the metadata files of a folder.

    Args:
        root: The folder of the data.
        files: The metadata files, relative to it.
        pictures: The names of the pictures, relative to it.

    Returns:
        What they say; None where there is none that can be used.
    """
    rows: dict[str, dict[str, Any]] = {}
    columns: dict[str, None] = {}
    notes = []
    for file in files:
        try:
            table = _read_table(root / file)
            placed = _place_rows(table, posixpath.dirname(file))
        except (ValueError, csv.Error, RecursionError) as error:
            notes.append(f"{shown(file)} is not used: {error_text(error)}")
            continue
        for name, row in placed.items():
            rows[name] = row
            columns.update(dict.fromkeys(row))
    if not rows:
        return Metadata({}, None, (), notes) if notes else None
    label = _first_named(columns, LABEL_COLUMNS)
    attributes = tuple(name for name in columns if name != label)
    return Metadata(rows, label, attributes, notes + _coverage_notes(rows, pictures))


def _read_table(path: Path) -> list[dict[str, Any]]:
    """The rows of a CSV or JSON Lines file."""
    try:
        text = read_regular(path).decode("utf-8-sig")
    except (OSError, MemoryError) as error:
        raise read_error(path, error) from error
    if path.suffix.lower() == ".csv":
        return [dict(row) for row in csv.DictReader(io.StringIO(text))]
    rows = []
    for line in text.splitlines():
        if line.strip():
            row = json.loads(line)
            if not isinstance(row, dict):
                raise ValueError("a line holds no JSON object")
            rows.append(row)
    return rows


def _place_rows(table: list[dict[str, Any]], folder: str) -> dict[str, dict[str, Any]]:
    """The rows by the name of their picture relative to the folder of the data, without the column of names."""
    columns = table[0] if table else {}
    column = _first_named(columns, FILE_COLUMNS)
    if column is None:
        raise ValueError(f"it has no column file_name (has: {list_text(columns)})")
    placed = {}
    for row in table:
        name = row.get(column)
        if isinstance(name, str) and name:
            place = posixpath.normpath(posixpath.join(folder, name.replace("\\", "/")))
            placed[place] = {str(key): value for key, value in row.items() if key not in (column, None)}
    return placed


def _first_named(columns: Iterable[Any], known: Sequence[str]) -> str | None:
    """The column with the first of the known names, whatever its case and the blanks around it."""
    plain = {str(column).strip().lower(): column for column in columns}
    return next((plain[name] for name in known if name in plain), None)


def _coverage_notes(rows: dict[str, dict[str, Any]], pictures: Sequence[str]) -> list[str]:
    names = set(pictures)
    notes = []
    missing = [name for name in rows if name not in names]
    unnamed = [name for name in pictures if name not in rows]
    if missing:
        count, verb = count_text(len(missing), "file"), agree(len(missing), "is", "are")
        notes.append(f"the metadata name {count} that {verb} not there, such as {shown(missing[0])}")
    if unnamed:
        count = count_text(len(unnamed), "picture")
        notes.append(f"{count} without a row in the metadata, such as {shown(unnamed[0])}")
    return notes


def attribute_array(values: Sequence[Any]) -> np.ndarray:
    """A column of any values as one array: integers or floats where all of them are, else text; "" where none is.

    Example:
        >>> attribute_array(["1", "2"]), attribute_array(["a", None])
        (array([1, 2]), array(['a', ''], dtype='<U1'))
    """
    if not any(isinstance(value, float) for value in values):
        try:
            return np.array([int(value) for value in values], np.int64)
        except (ValueError, TypeError, OverflowError):
            pass
    try:
        return np.array([float(value) for value in values])
    except (ValueError, TypeError, OverflowError):
        return np.array(["" if value is None else printable(str(value)) for value in values])
