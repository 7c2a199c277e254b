"""metadata.csv, metadata.jsonl or metadata.parquet beside pictures, as Hugging Face's imagefolder has them.

Each row names a file, relative to the metadata file, in the column `file_name`. A column of labels gives the
categories; further columns are kept as attributes.
Source: huggingface.co/docs/datasets/image_load, "ImageFolder".
"""

from __future__ import annotations

import codecs
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

METADATA_NAMES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")

SEPARATORS = {";": "semicolons", "\t": "tabs", "|": "bars"}

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
    repeated = []
    for file in files:
        try:
            table = _read_table(root / file)
            placed = _place_rows(table.rows, posixpath.dirname(file))
        except ValueError as error:
            notes.append(f"{shown(file)} is not used: {error_text(error)}")
            continue
        notes.extend(f"{shown(file)}: {note}" for note in table.notes)
        if not placed:
            notes.append(f"{shown(file)} is not used: no row names a file")
        for name, row in placed:
            repeated.extend([name] if name in rows else [])
            rows[name] = row
            columns.update(dict.fromkeys(row))
    if repeated:
        count = count_text(len(repeated), "row")
        notes.append(f"the metadata repeat {count}, such as {shown(repeated[0])}: the last one counts")
    if not rows:
        return Metadata({}, None, (), notes) if notes else None
    label = _first_named(columns, LABEL_COLUMNS)
    attributes = tuple(name for name in columns if name != label)
    return Metadata(rows, label, attributes, notes + _coverage_notes(rows, pictures))


class Table(NamedTuple):
    """The rows of a metadata file, and sentences for the user."""

    rows: list[dict[Any, Any]]
    notes: list[str]


def _read_table(path: Path) -> Table:
    """The rows of a CSV, JSON Lines or parquet file.

    Raises:
        ValueError: It holds no table; the message says why.
    """
    try:
        content = read_regular(path)
    except (OSError, MemoryError) as error:
        raise read_error(path, error) from error
    suffix = path.suffix.lower()
    if suffix == ".parquet":
        return Table(_parquet_rows(content), [])
    return _csv_table(_decoded(content)) if suffix == ".csv" else Table(_json_rows(_decoded(content)), [])


def _decoded(content: bytes) -> str:
    """The text of a file in UTF-8 or, where it begins with that mark, in UTF-16."""
    encoding = "utf-16" if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8"
    try:
        return content.decode(encoding).lstrip("\ufeff")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not text in {encoding.upper()}: save it in UTF-8") from error


def _csv_table(text: str) -> Table:
    """The rows of a CSV file. Its columns may be separated by semicolons, tabs or bars, as spreadsheets do."""
    text = text.replace("\r\n", "\n").replace("\r", "\n").lstrip("\n")
    if text.lower().startswith("sep="):  # a line by which a spreadsheet remembers its separator
        text = text.partition("\n")[2]
    try:
        separator = _separator(text.partition("\n")[0])
        reader = csv.DictReader(io.StringIO(text), delimiter=separator)
        rows: list[dict[Any, Any]] = list(reader)
    except csv.Error as error:
        limit = csv.field_size_limit()
        raise ValueError(
            f"it is no table, or has a cell of over {limit:,} characters; are all quotes closed?"
        ) from error
    notes = [] if separator == "," else [f"its columns are separated by {SEPARATORS[separator]}"]
    names = list(reader.fieldnames or ())
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        notes.append(f"the header repeats {list_text(repeated)}: the last column counts")
    too_long = sum(None in row for row in rows)
    if too_long:
        count, verb = count_text(too_long, "row"), agree(too_long, "has", "have")
        notes.append(f"{count} {verb} more cells than the header, which are not used: put quotes around their text")
    return Table(rows, notes)


def _separator(header: str) -> str:
    """The mark between the columns of a header: the one with which it has a column of file names; else a comma."""
    for mark in (",", *SEPARATORS):
        if _first_named(next(csv.reader([header], delimiter=mark), []), FILE_COLUMNS) is not None:
            return mark
    return ","


def _json_rows(text: str) -> list[dict[Any, Any]]:
    rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            row = None
        if not isinstance(row, dict):
            raise ValueError(f'line {number} is no JSON object, such as {{"file_name": "0.png", "label": "cat"}}')
        rows.append(row)
    return rows


def _parquet_rows(content: bytes) -> list[dict[Any, Any]]:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        return parquet.read_table(pa.BufferReader(content)).to_pylist()
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"it is no parquet file that can be read: {error_text(error)}") from error


def _place_rows(table: list[dict[Any, Any]], folder: str) -> list[tuple[str, dict[str, Any]]]:
    """The rows with the name of their picture relative to the folder of the data, without the column of names."""
    columns = table[0] if table else {}
    column = _first_named(columns, FILE_COLUMNS)
    if column is None:
        raise ValueError(f"it has no column file_name (has: {list_text(columns) or 'nothing'})")
    placed = []
    for row in table:
        name = row.get(column)
        if isinstance(name, str) and name.strip():
            place = posixpath.normpath(posixpath.join(folder, name.strip().replace("\\", "/")))
            placed.append((place, {str(key): value for key, value in row.items() if key not in (column, None)}))
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
