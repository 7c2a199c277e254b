"""Parquet files with a column of images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaelab.core.errors import UserError
from vaelab.datasets.decoding import error_text
from vaelab.datasets.sources.raw import RawDataset, RawSplit, encode_labels

if TYPE_CHECKING:
    import pyarrow

__all__ = ["parquet_source", "table_source"]


def parquet_source(shards: dict[str, list[Path]]) -> RawDataset:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        tables = {s: pa.concat_tables(map(parquet.read_table, files)) for s, files in shards.items() if files}
    except (OSError, pa.ArrowException) as error:
        raise UserError(
            f"{shards['train'][0].parent}: the parquet files cannot be read: {error_text(error)}"
        ) from error
    metadata = json.loads((tables["train"].schema.metadata or {}).get(b"huggingface", b"{}"))
    return table_source(tables, metadata.get("info", {}).get("features", {}), str(shards["train"][0]))


def table_source(tables: dict[str, pyarrow.Table], features: dict[str, Any], location: str) -> RawDataset:
    """Arrow tables in the hub's schema; `features` is the hub's description of their columns."""
    schema = tables["train"].schema
    image, label = _image_column(schema, location), _label_column(schema, features)
    columns = {split: table[label].to_pylist() if label else None for split, table in tables.items()}
    names = features.get(label, {}).get("names") if label else None
    labels, categories = encode_labels(columns, tuple(names) if names else None)
    parts = {split: RawSplit(_encoded_images(table[image]), labels[split], None) for split, table in tables.items()}
    return RawDataset(parts, categories, facts={"columns": [image, *([label] if label else [])]})


def _image_column(schema: pyarrow.Schema, location: str) -> str:
    import pyarrow.types as kinds

    structs = {f.name for f in schema if kinds.is_struct(f.type) and f.type.get_field_index("bytes") >= 0}
    fits = [f.name for f in schema if f.name in structs or kinds.is_binary(f.type)]
    if not fits:
        have = ", ".join(schema.names)
        raise UserError(f"{location} has no column of images, that is struct<bytes, path> or binary (has: {have})")
    return min(fits, key=lambda name: (name != "image", name != "img"))


def _label_column(schema: pyarrow.Schema, features: dict[str, Any]) -> str | None:
    import pyarrow.types as kinds

    classes = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"]
    named = [name for name in ("label", "labels", "class", "category") if name in schema.names]
    plain = [n for n in named if kinds.is_integer(schema.field(n).type) or kinds.is_string(schema.field(n).type)]
    return next(iter(classes + plain), None)


def _encoded_images(column: pyarrow.ChunkedArray) -> list[Any]:
    """The encoded pictures of an Arrow column: buffers into its memory, or paths where it holds no bytes."""
    import pyarrow as pa

    pictures: list[Any] = []
    for chunk in column.chunks:
        fields = {"bytes": chunk}
        if pa.types.is_struct(chunk.type):
            fields = dict(zip((f.name for f in chunk.type), chunk.flatten(), strict=True))
        paths = fields.get("path", pa.nulls(len(chunk))).to_pylist()
        both = zip(fields["bytes"], paths, strict=True)
        pictures += [data.as_buffer() if data.is_valid else path and Path(path) for data, path in both]
    return pictures
