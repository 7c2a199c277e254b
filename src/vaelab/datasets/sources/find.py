"""Sources: what DATA names, and one short function a source that reads it.

Every source yields the same `Raw`: pictures still encoded, labels and categories, split by split. Looked for in this
order: a path, $VAELAB_DATA/NAME, `digits` of scikit-learn, a dataset of the Hugging Face hub.
"""

from __future__ import annotations

import os
import re
from functools import partial
from pathlib import Path
from typing import Any

from vaelab.core.errors import UserError
from vaelab.datasets.decoding import SUFFIXES
from vaelab.datasets.sources.arrays import array_source, digits_source
from vaelab.datasets.sources.folder import folder_source
from vaelab.datasets.sources.hub import HUB_NAMES, hub_source, source_not_found_error
from vaelab.datasets.sources.raw import SPLITS, DataSource, RawDataset, RawSplit
from vaelab.datasets.sources.tables import parquet_source

__all__ = ["find_source"]


def find_source(data: str) -> DataSource:
    root = os.environ.get("VAELAB_DATA")
    for path in [Path(data).expanduser(), *([Path(root).expanduser() / data] if root else [])]:
        if data and os.path.exists(path):  # noqa: PTH110 (Path.exists raises on too long a name or a locked folder)
            return _local_source(path)
    if data == "digits":
        return DataSource("bundled with scikit-learn", ["digits"], digits_source)
    if re.fullmatch(r"\w[\w.-]{0,95}(/[\w.-]{1,96})?", data) and Path(data).suffix not in {
        ".npz",
        ".npy",
        ".parquet",
        *SUFFIXES,
    }:
        return DataSource(
            f"Hugging Face hub {HUB_NAMES.get(data, data)}",
            ["hub", HUB_NAMES.get(data, data)],
            partial(hub_source, data),
        )
    raise source_not_found_error(data, "")


def _local_source(path: Path) -> DataSource:
    location = str(path.resolve())
    suffix = path.suffix.lower()
    if path.is_dir():
        shards = {
            split: sorted(path.glob(f"{split}.parquet")) or sorted(path.glob(f"{split}-*.parquet")) for split in SPLITS
        }
        if not shards["train"]:
            return folder_source(path)
        files, reader = [file for part in shards.values() for file in part], partial(parquet_source, shards)
    elif suffix in {".npy", ".npz"}:
        files, reader = [path], partial(array_source, path)
    elif suffix == ".parquet":
        files, reader = [path], partial(parquet_source, {"train": [path]})
    elif suffix in SUFFIXES:
        files, reader = [path], partial(RawDataset, {"train": RawSplit([path], None, [path.name])})
    else:
        raise UserError(f"{path} is neither a folder nor a picture, .parquet, .npy or .npz file")
    return DataSource(location, [_file_stamp(file.name, file) for file in files], reader)


def _file_stamp(name: str, file: Path) -> list[Any]:
    # The time of change stands beside that of modification because archives often set the latter to a constant.
    status = file.stat()
    return [name, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
