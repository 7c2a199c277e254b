"""Parquet files with a column of images, in the schema of the Hugging Face hub, of pandas or of one's own."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from vaelab.core.console import count_text, shown
from vaelab.core.errors import UserError
from vaelab.datasets.decoding import UnreadableImage, readable_suffixes
from vaelab.datasets.files import error_text, file_stamp, read_error, require_memory, require_regular
from vaelab.datasets.naming import list_text, split_of_folder, split_of_stem
from vaelab.datasets.sources.labels import (
    LABEL_COLUMNS,
    LabelColumn,
    LabelReading,
    encode_labels,
    label_notes,
    merge_columns,
    read_label_column,
)
from vaelab.datasets.sources.source import SPLITS, DataSource, Precedence, RawDataset, RawSplit, Request, register
from vaelab.datasets.sources.walk import is_ignored

if TYPE_CHECKING:
    import pyarrow

__all__ = ["Columns", "ImageTable", "choose_columns", "parquet_file_source", "parquet_folder_source", "read_tables"]

IMAGE_COLUMNS = ("image", "img", "images", "picture", "photo", "pixel_values")

PICTURE_WORDS = ("image", "img", "mask", "picture", "photo", "path", "file")  # in the names of columns of paths

PATH_COLUMNS = ("image", "img", "image_path", "img_path", "path", "file_name", "filename", "file", "filepath")

METADATA_TABLE = "metadata.parquet"  # beside pictures, which it describes

NESTED_FOLDERS = ("data", "default")  # in which the hub keeps the files of a data set


class Columns(NamedTuple):
    """The columns of a table that are used, those that look like labels or pictures and are not, and all others."""

    image: str
    label: str | None
    unused_labels: tuple[str, ...] = ()
    unused_images: tuple[str, ...] = ()
    others: tuple[str, ...] = ()


class ImageTable(NamedTuple):
    """A table of pictures.

    Args:
        table: The rows.
        columns: Which of its columns are used.
        features: What the hub's metadata say of the columns; empty where they say nothing.
        name: What the table is called in messages.
        folders: The folders below which rows may name files; the first is what relative names start from.
    """

    table: pyarrow.Table
    columns: Columns
    features: Mapping[str, Any]
    name: str
    folders: Sequence[Path]


class Shards(NamedTuple):
    """The parquet files of a folder by split, and those that are not used."""

    files: dict[str, list[Path]]
    unused: list[Path]
    notes: list[str]


class FolderContent(NamedTuple):
    """The names of the parquet files and folders directly in a folder, and whether there are pictures beside them."""

    tables: list[str]
    folders: list[str]
    has_pictures: bool


# Files.


def _is_parquet_file(request: Request) -> bool:
    path = request.path
    return path is not None and path.is_file() and path.suffix.lower() == ".parquet"


@register(Precedence.MARKED_PATH, _is_parquet_file, lambda: (".parquet",))
def parquet_file_source(request: Request) -> DataSource:
    """A parquet file, all of which is the training split."""
    assert request.path is not None
    return _shards_source(request.path, Shards({"train": [request.path]}, [], []))


def _is_parquet_folder(request: Request) -> bool:
    return request.path is not None and request.path.is_dir() and bool(_find_shards(request.path).files)


@register(Precedence.MARKED_PATH, _is_parquet_folder)
def parquet_folder_source(request: Request) -> DataSource:
    """A folder of parquet files named after their splits: train.parquet, dev-00000-of-00001.parquet, test/0000.parquet.

    Raises:
        UserError: There are splits, but none for training.
    """
    assert request.path is not None
    path = request.path
    shards = _find_shards(path)
    if "train" not in shards.files:
        have = list_text(file.relative_to(path) for files in shards.files.values() for file in files)
        raise UserError(
            f"{shown(path)} has {have} but no parquet file for training\n"
            "call that train.parquet, or give the file itself as the data"
        )
    return _shards_source(path, shards)


def _shards_source(path: Path, shards: Shards) -> DataSource:
    root = path if path.is_dir() else path.parent
    stamp: list[Any] = []
    for split, files in shards.files.items():
        for file in files:
            require_regular(file)
            stamp.append([split, *file_stamp(str(file.relative_to(root)), file), *_row_files_stamp(file)])
    notes = list(shards.notes)
    if shards.unused:
        names = list_text(file.relative_to(root) for file in shards.unused)
        notes.append(f"{count_text(len(shards.unused), 'parquet file')} not used: {names}")
    return DataSource(str(path.resolve()), stamp, partial(_read_shards, shards.files), (), tuple(notes))


def _find_shards(path: Path) -> Shards:
    """The parquet files of a folder, or of the folder inside it in which the hub keeps them."""
    for folder in _candidate_folders(path):
        shards = _shards_in(folder)
        if shards.files:
            return shards
    return Shards({}, [], [])


def _candidate_folders(path: Path) -> Iterator[Path]:
    """The folder itself; then the usual folders inside it, and a lone one."""
    yield path
    folders = _scan_folder(path).folders
    for folder in folders:
        if folder in NESTED_FOLDERS or len(folders) == 1:
            yield path / folder


def _scan_folder(path: Path) -> FolderContent:
    """The names of what is directly in a folder, in one quick pass: it may hold a million pictures."""
    tables, folders = [], []
    has_pictures = False
    pictures = tuple(readable_suffixes())
    try:
        with os.scandir(path) as entries:
            for entry in entries:
                if is_ignored(entry.name):
                    continue
                name = entry.name.lower()
                if name.endswith(".parquet"):
                    if name != METADATA_TABLE:
                        tables.append(entry.name)
                elif not has_pictures and name.endswith(pictures):
                    has_pictures = True
                elif not name.endswith(pictures) and entry.is_dir():
                    folders.append(entry.name)
    except OSError as error:
        raise read_error(path, error) from error
    return FolderContent(sorted(tables), sorted(folders), has_pictures)


def _shards_in(folder: Path) -> Shards:
    """The parquet files directly in a folder, and in its folders that are named after splits and hold nothing else."""
    content = _scan_folder(folder)
    files: dict[str, list[Path]] = {}
    unused = []
    for name in content.tables:
        split = split_of_stem(name.rpartition(".")[0])
        if split is None:
            unused.append(folder / name)
        else:
            files.setdefault(split, []).append(folder / name)
    has_pictures = content.has_pictures
    for name in content.folders:
        split = split_of_folder(name)
        inner = _scan_folder(folder / name) if split is not None else None
        if split is None or inner is None or inner.has_pictures or inner.folders:
            has_pictures = True
        else:
            files.setdefault(split, []).extend(folder / name / table for table in inner.tables)
    found = {split: sorted(files[split]) for split in SPLITS if files.get(split)}
    if "train" in found or (found and not has_pictures):
        return Shards(found, unused, [])
    if unused and not found and not content.has_pictures and not content.folders:
        names = list_text(file.name for file in unused)
        return Shards({"train": unused}, [], [f"no parquet file is named after a split: {names} are for training"])
    return Shards({}, [], [])


def _row_files_stamp(file: Path) -> list[Any]:
    """What the files are known by that the rows of a parquet file name instead of holding pictures."""
    stamp: list[Any] = []
    for picture in _named_pictures(file):
        if isinstance(picture, Path) and picture.is_file():
            stamp.append(file_stamp(str(picture), picture)[1:])
        else:
            stamp.append(None)
    return [stamp] if stamp else []


def _named_pictures(file: Path) -> list[Any]:
    """The files that rows name, in order; quick where all rows hold their pictures."""
    from pyarrow import parquet

    with _reading(file):
        stored = parquet.ParquetFile(file)
        schema = stored.schema_arrow
        features = _features(schema)
        name = _image_column(schema, features, str(file))
        if not _is_text(schema.field(name).type) and _holds_all_pictures(stored.metadata, name):
            return []
        column = stored.read(columns=[name])[name]
        return [picture for picture in _pictures(column, [file.parent], shown(file)) if not _is_bytes(picture)]


def _is_bytes(picture: Any) -> bool:
    return picture is not None and not isinstance(picture, Path | UnreadableImage)


def _holds_all_pictures(metadata: Any, column: str) -> bool:
    """Whether the statistics of a file say that every row has the bytes of its picture."""
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        chunks = [row_group.column(i) for i in range(row_group.num_columns)]
        contents = [chunk for chunk in chunks if chunk.path_in_schema in (column, f"{column}.bytes")]
        if not contents or not all(_has_no_gap(chunk) for chunk in contents):
            return False
    return True


def _has_no_gap(chunk: Any) -> bool:
    is_bytes = chunk.physical_type in ("BYTE_ARRAY", "FIXED_LEN_BYTE_ARRAY")
    return is_bytes and chunk.statistics is not None and chunk.statistics.null_count == 0


@contextmanager
def _reading(file: Path) -> Iterator[None]:
    """Turn Arrow's errors into a sentence."""
    import pyarrow as pa

    try:
        yield
    except UserError:
        raise
    except MemoryError as error:
        raise read_error(file, error) from error
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{shown(file)} cannot be read as a parquet file: {error_text(error)}") from error


def _read_shards(shards: Mapping[str, Sequence[Path]]) -> RawDataset:
    tables: dict[str, list[ImageTable]] = {}
    for split, files in shards.items():
        tables[split] = [_read_shard(file) for file in files]
    return read_tables(tables)


def _read_shard(file: Path) -> ImageTable:
    """The columns of a parquet file that are used."""
    from pyarrow import parquet

    with _reading(file):
        stored = parquet.ParquetFile(file)
        schema = stored.schema_arrow
        features = _features(schema)
        columns = choose_columns(schema, features, str(file))
        wanted = [columns.image, *([columns.label] if columns.label else [])]
        require_memory(_stored_bytes(stored.metadata, wanted), shown(file), "unpacked")
        return ImageTable(stored.read(columns=wanted), columns, features, shown(file), [file.parent])


def _stored_bytes(metadata: Any, columns: Sequence[str]) -> int:
    """The unpacked size of some columns of a parquet file."""
    total = 0
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        for i in range(row_group.num_columns):
            chunk = row_group.column(i)
            if chunk.path_in_schema.split(".")[0] in columns:
                total += chunk.total_uncompressed_size
    return total


# Columns.


def read_tables(tables: Mapping[str, Sequence[ImageTable]]) -> RawDataset:
    """Tables of pictures as a data set.

    Args:
        tables: The tables of each split. Their columns and types may differ.

    Returns:
        The pictures, still encoded, with their labels.

    Raises:
        UserError: A table has no column of images.
    """
    first = tables["train"][0]
    columns = first.columns
    notes: list[str] = []
    images: dict[str, list[Any]] = {}
    labels: dict[str, LabelColumn | None] = {}
    reasons: dict[str, str] = {}
    for split, shards in tables.items():
        images[split] = []
        readings = [_read_labels(shard) for shard in shards]
        for shard in shards:
            images[split].extend(_pictures(shard.table[shard.columns.image], shard.folders, shard.name))
        labels[split] = _merge_labels([reading.column for reading in readings], [len(shard.table) for shard in shards])
        reasons[split] = next((reading.reason for reading in readings if reading.reason), "")
    notes.extend(_unused_notes(columns))
    if columns.label is not None:
        notes.extend(label_notes(columns.label, labels, reasons))
    encoded, categories = encode_labels(labels)
    splits = {split: RawSplit(images[split], encoded[split], None) for split in tables}
    used = (columns.image, *([columns.label] if columns.label and categories else []))
    return RawDataset(splits, categories, tuple(notes), used)


def _merge_labels(columns: Sequence[LabelColumn | None], lengths: Sequence[int]) -> LabelColumn | None:
    """The labels of a split's shards as one column; shards without labels are unlabelled."""
    if all(column is None for column in columns):
        return None
    filled = []
    for column, length in zip(columns, lengths, strict=True):
        filled.append(LabelColumn([None] * length) if column is None else column)
    known = [column for column in columns if column is not None]
    if len({column.names for column in known}) == 1:  # what is missing has no say in the names
        filled = [column._replace(names=known[0].names) for column in filled]
    return merge_columns(filled)


def _unused_notes(columns: Columns) -> list[str]:
    notes = []
    for name in columns.unused_images:
        notes.append(f"the column {shown(name)} looks like pictures and is not used: {shown(columns.image)} is")
    for name in columns.unused_labels:
        notes.append(f"the column {shown(name)} looks like labels and is not used")
    if columns.label is None and columns.others:
        names = list_text(columns.others)
        notes.append(f"no column of labels, such as label, class, category or target; not used: {names}")
    return notes


def _features(schema: pyarrow.Schema) -> dict[str, Any]:
    """What the metadata of the hub say of the columns, whatever their form; empty where they say nothing."""
    text = (schema.metadata or {}).get(b"huggingface")
    if text is None:
        return {}
    try:
        metadata = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return _named_features(_member(_member(metadata, "info") or metadata, "features"))


def _member(value: Any, name: str) -> Any:
    return value.get(name) if isinstance(value, dict) else None


def _named_features(features: Any) -> dict[str, Any]:
    """Features by column: of a mapping, or of a list of {"name": ..., "dtype": ...} as in a data set's card."""
    if isinstance(features, dict):
        return {str(name): feature for name, feature in features.items()}
    if not isinstance(features, list):
        return {}
    named = {}
    for feature in features:
        name = _member(feature, "name")
        if isinstance(name, str):
            named[name] = feature.get("dtype", feature)
    return named


def _class_names(feature: Any, depth: int = 0) -> tuple[str, ...] | None:
    """The names of classes in the description of a column, also within a list; None where it has none."""
    if isinstance(feature, list):
        feature = feature[0] if feature else None
    if not isinstance(feature, dict) or depth > 4:
        return None
    names = feature.get("names")
    if isinstance(names, dict) and all(str(key).isdigit() for key in names):
        names = [names[key] for key in sorted(names, key=int)]
    if isinstance(names, list) and names:
        return tuple(str(name) for name in names)
    for inner in ("feature", "class_label", "dtype", "list", "sequence"):
        if (found := _class_names(feature.get(inner), depth + 1)) is not None:
            return found
    return None


def choose_columns(schema: pyarrow.Schema, features: Mapping[str, Any], name: str) -> Columns:
    """The columns of images and labels of a table.

    Args:
        schema: The columns with their types.
        features: What the hub's metadata say of them.
        name: What the table is called in messages.

    Raises:
        UserError: There is no column of images.
    """
    image = _image_column(schema, features, name)
    classes = [column for column in schema.names if column != image and _class_names(features.get(column))]
    named = [column for column in schema.names if column != image and column.lower() in LABEL_COLUMNS]
    named.sort(key=lambda column: (_is_null(schema.field(column).type), LABEL_COLUMNS.index(column.lower())))
    fitting = [column for column in named if _can_be_labels(schema.field(column).type)]
    ordered = list(dict.fromkeys(classes + fitting))
    label = ordered[0] if ordered else None
    unused = [column for column in dict.fromkeys(classes + named) if column != label]
    pictures = [name for name in _picture_columns(schema, features, image) if name not in (image, label, *unused)]
    others = [column for column in schema.names if column not in (image, label, *unused, *pictures)]
    return Columns(image, label, tuple(unused), tuple(pictures), tuple(others))


def _picture_columns(schema: pyarrow.Schema, features: Mapping[str, Any], image: str) -> list[str]:
    """The columns that look like pictures: by their type, by the hub's metadata, or by their name beside paths."""
    names = [column for column in schema.names if _member(features.get(column), "_type") == "Image"]
    names += [field.name for field in schema if _is_image_struct(field.type) or _is_binary(field.type)]
    if _is_text(schema.field(image).type):
        texts = [field.name for field in schema if _is_text(field.type)]
        names += [name for name in texts if any(word in name.lower() for word in PICTURE_WORDS)]
    return list(dict.fromkeys(names))


def _value_type(data_type: Any) -> Any:
    """The type of the values of a dictionary-encoded column; other types are themselves."""
    import pyarrow.types as kinds

    return data_type.value_type if kinds.is_dictionary(data_type) else data_type


def _is_null(data_type: Any) -> bool:
    import pyarrow.types as kinds

    return kinds.is_null(data_type)


def _is_text(data_type: Any) -> bool:
    import pyarrow.types as kinds

    value = _value_type(data_type)
    return kinds.is_string(value) or kinds.is_large_string(value) or kinds.is_string_view(value)


def _is_binary(data_type: Any) -> bool:
    import pyarrow.types as kinds

    value = _value_type(data_type)
    checks = (kinds.is_binary, kinds.is_large_binary, kinds.is_binary_view, kinds.is_fixed_size_binary)
    return any(check(value) for check in checks)


def _is_list(data_type: Any) -> bool:
    import pyarrow.types as kinds

    names = ("is_list", "is_large_list", "is_fixed_size_list", "is_list_view", "is_large_list_view")
    return any(getattr(kinds, name)(data_type) for name in names if hasattr(kinds, name))


def _is_bytes_list(data_type: Any) -> bool:
    """Whether a column holds encoded files as lists of numbers."""
    import pyarrow.types as kinds

    return _is_list(data_type) and kinds.is_integer(data_type.value_type)


def _can_be_labels(data_type: Any) -> bool:
    import pyarrow.types as kinds

    value = _value_type(data_type)
    if _is_list(value):
        return _can_be_labels(value.value_type)
    checks = (kinds.is_integer, kinds.is_boolean, kinds.is_floating, kinds.is_null)
    return _is_text(value) or _is_binary(value) or any(check(value) for check in checks)


def _is_image_struct(data_type: Any) -> bool:
    import pyarrow.types as kinds

    if not kinds.is_struct(data_type):
        return False
    names = {data_type.field(i).name: data_type.field(i).type for i in range(data_type.num_fields)}
    return "bytes" in names or ("path" in names and _is_text(names["path"]))


def _image_column(schema: pyarrow.Schema, features: Mapping[str, Any], name: str) -> str:
    """The column of images: as the hub's metadata say, by its type, or by its name and type."""
    structs = [field.name for field in schema if _is_image_struct(field.type)]
    binary = [field.name for field in schema if _is_binary(field.type) and field.name.lower() not in LABEL_COLUMNS]
    declared = [column for column in schema.names if _member(features.get(column), "_type") == "Image"]
    lists = [f.name for f in schema if _is_bytes_list(f.type) and f.name.lower() in (*IMAGE_COLUMNS, "bytes")]
    paths = [f.name for f in schema if _is_text(f.type) and f.name.lower() in PATH_COLUMNS]
    for candidates in (structs + binary, declared, lists, paths):
        if candidates:
            return min(candidates, key=_image_name_rank)
    have = list_text(schema.names, 20)
    raise UserError(f"{shown(name)} has no column of images, that is struct<bytes, path> or binary (has: {have})")


def _image_name_rank(name: str) -> int:
    return IMAGE_COLUMNS.index(name.lower()) if name.lower() in IMAGE_COLUMNS else len(IMAGE_COLUMNS)


# Pictures and labels of a column.


def _pictures(column: pyarrow.ChunkedArray, folders: Sequence[Path], name: str) -> list[Any]:
    """The pictures of a column: buffers into its memory, or paths where it holds no bytes."""
    import pyarrow as pa

    pictures: list[Any] = []
    for chunk in column.chunks:
        fields: dict[str, Any] = {}
        if pa.types.is_struct(chunk.type):
            names = [chunk.type.field(i).name for i in range(chunk.type.num_fields)]
            fields = dict(zip(names, chunk.flatten(), strict=True))
        elif _is_text(chunk.type):
            fields["path"] = chunk
        else:
            fields["bytes"] = chunk
        contents = _encoded(fields["bytes"], name) if "bytes" in fields else [None] * len(chunk)
        paths = _texts(fields["path"]) if "path" in fields else [None] * len(chunk)
        for content, path in zip(contents, paths, strict=True):
            pictures.append(_local_file(path, folders) if content is None and path else content)
    return pictures


def _encoded(array: Any, name: str) -> list[Any]:
    """The encoded files of an array of bytes in any of Arrow's types; None where a row holds none."""
    import pyarrow as pa

    if pa.types.is_null(array.type):
        return [None] * len(array)
    if _is_bytes_list(array.type):
        return [_bytes_of_numbers(row) for row in array.to_pylist()]
    if _is_text(array.type):
        raise UserError(f"the column of images of {name} holds text; allowed are the bytes of picture files")
    plain = _decoded_dictionary(array)
    if not pa.types.is_binary(plain.type):
        plain = plain.cast(pa.large_binary())
    return [row.as_buffer() if row.is_valid else None for row in plain]


def _bytes_of_numbers(row: list[int | None] | None) -> Any:
    if row is None:
        return None
    try:
        return bytes(number if number is None or number >= 0 else number + 256 for number in row)  # type: ignore[misc]
    except (ValueError, TypeError):
        return UnreadableImage("not a picture")


def _decoded_dictionary(array: Any) -> Any:
    import pyarrow as pa

    return array.dictionary_decode() if pa.types.is_dictionary(array.type) else array


def _texts(array: Any) -> list[str | None]:
    return _decoded_dictionary(array).to_pylist()


def _local_file(path: str, folders: Sequence[Path]) -> Path | UnreadableImage:
    """The file that a row names, which must lie below one of the folders: a table of others may name any file."""
    if not isinstance(path, str) or "\x00" in path:
        return UnreadableImage("no file of that name")
    if path.startswith(("http://", "https://")):
        return UnreadableImage(f"an address on the web: {shown(path)}")
    try:
        return _file_below(path, folders)
    except (RuntimeError, ValueError):  # a ring of links
        return UnreadableImage(f"no file: {shown(path)}")
    except OSError as error:
        if "too long" in error_text(error):
            return UnreadableImage("no file of that name")
        raise read_error(path, error) from error


def _file_below(path: str, folders: Sequence[Path]) -> Path | UnreadableImage:
    target = (folders[0] / path).resolve()
    if "\\" in path and not target.exists():  # a path as Windows writes it
        target = (folders[0] / path.replace("\\", "/")).resolve()
    if not any(target.is_relative_to(folder.resolve()) for folder in folders):
        return UnreadableImage(f"outside the folder of the table: {shown(path)}")
    if not target.exists():
        return UnreadableImage(f"no file: {shown(path)}")
    return target if target.is_file() else UnreadableImage("not a regular file")


def _read_labels(shard: ImageTable) -> LabelReading:
    """The labels of a table, or why it has none."""
    label = shard.columns.label
    if label is None:
        return LabelReading()
    values = [value for chunk in shard.table[label].chunks for value in _decoded_dictionary(chunk).to_pylist()]
    return read_label_column(
        values, _class_names(shard.features.get(label)), f"the column {shown(label)} of {shard.name}"
    )
