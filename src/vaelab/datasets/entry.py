"""An entry of the decode cache: what its files hold, and reading them back with their content checked.

    SPLIT.npy              uint8 pixels, (n, C, H, W)
    SPLIT-labels.npy       int64 labels, (n,), -1 for none; where the source has labels
    SPLIT-names.npy        relative paths, (n,); where the source has files
    SPLIT-attribute-I.npy  further columns, each (n,); where the source has them
    meta.json              everything else, the digests of these files among it
    checked.json           the times of the files when their content was last right

A digest is worked out again only where a file's times are not those remembered.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from vaelab.core.errors import UserError
from vaelab.core.files import write_json
from vaelab.datasets.files import open_regular
from vaelab.datasets.images import SPLIT_ORDER, DatasetFacts, Duplicates, Examples, Images
from vaelab.datasets.skipped import SkippedFile

__all__ = [
    "DamagedEntryError",
    "EntryMeta",
    "StoredFile",
    "describe_file",
    "read_entry",
    "read_splits",
    "remember_checked",
    "write_meta",
]

MAX_META_BYTES = 2**30

CHECKED = "checked.json"


class DamagedEntryError(ValueError):
    """An entry does not hold what was written."""


@dataclass(frozen=True)
class StoredFile:
    """A file of an entry: its length, and the digest of its content."""

    size: int
    digest: str


@dataclass(frozen=True)
class EntryMeta:
    """What meta.json holds.

    Args:
        fingerprint: Hash of pixels, labels, categories and splits.
        splits: The names of the stored splits.
        shape: (C, H, W) of a picture.
        categories: The names of the categories.
        files: The array files.
        skipped: Pictures that cannot be decoded.
        notes: Sentences for the user.
        facts: What is known of the source's files.
    """

    fingerprint: str
    splits: tuple[str, ...]
    shape: tuple[int, int, int]
    categories: tuple[str, ...]
    files: dict[str, StoredFile]
    skipped: tuple[SkippedFile, ...]
    notes: tuple[str, ...]
    facts: DatasetFacts = field(default_factory=lambda: DatasetFacts({}, {}, {}))


# meta.json.


def write_meta(path: Path, meta: EntryMeta) -> None:
    """Write meta.json, with a digest of itself."""
    body = asdict(meta)
    body["skipped"] = [list(item) for item in meta.skipped]
    text = json.dumps({"digest": _digest_of_text(_canonical(body)), **body}, indent=1)
    temporary = path.with_suffix(".tmp")
    with temporary.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(path)


def _canonical(body: dict[str, Any]) -> str:
    return json.dumps(body, sort_keys=True, separators=(",", ":"))


def _digest_of_text(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _read_meta(path: Path) -> EntryMeta:
    try:
        with open_regular(path) as file:
            if os.fstat(file.fileno()).st_size > MAX_META_BYTES:
                raise DamagedEntryError(f"{path.name} is too long")
            body = json.loads(file.readall().decode())
        digest = body.pop("digest")
        if digest != _digest_of_text(_canonical(body)):
            raise DamagedEntryError(f"{path.name} does not hold what was written")
        return _meta_from_dict(body)
    except DamagedEntryError:
        raise
    except FileNotFoundError as error:
        raise DamagedEntryError(f"{path.name} is missing") from error
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise DamagedEntryError(f"{path.name} cannot be understood") from error


def _meta_from_dict(body: dict[str, Any]) -> EntryMeta:
    channels, height, width = body["shape"]
    return EntryMeta(
        fingerprint=body["fingerprint"],
        splits=tuple(body["splits"]),
        shape=(channels, height, width),
        categories=tuple(body["categories"]),
        files={name: StoredFile(**stored) for name, stored in body["files"].items()},
        skipped=tuple(SkippedFile(file, reason) for file, reason in body["skipped"]),
        notes=tuple(body["notes"]),
        facts=_facts_from_dict(body["facts"]),
    )


def _facts_from_dict(body: dict[str, Any]) -> DatasetFacts:
    known = {item.name for item in fields(DatasetFacts)}
    values: dict[str, Any] = {}
    for name, value in body.items():
        if name in known:
            values[name] = tuple(value) if isinstance(value, list) else value
    values["value_ranges"] = {kind: (low, high) for kind, (low, high) in body["value_ranges"].items()}
    one_colour, duplicates = body["one_colour"], body["duplicates"]
    pairs = tuple((test, train) for test, train in duplicates["examples"])
    values["one_colour"] = Examples(one_colour["count"], tuple(one_colour["examples"]))
    values["duplicates"] = Duplicates(duplicates["count"], pairs)
    return DatasetFacts(**values)


# Arrays.


def describe_file(path: Path) -> StoredFile:
    """The length and digest of a file that was just written."""
    with path.open("rb") as stream:
        digest = hashlib.file_digest(stream, _new_digest).hexdigest()
        return StoredFile(os.fstat(stream.fileno()).st_size, digest)


def _new_digest() -> Any:
    return hashlib.blake2b(digest_size=16)


def read_entry(folder: Path) -> tuple[EntryMeta, dict[str, Images]]:
    """Read an entry and check its content.

    Returns:
        What meta.json says, and the stored splits, mapped from disk.

    Raises:
        DamagedEntryError: It does not hold what was written.
        OSError: The system failed to read it, which says nothing of its content.
    """
    meta = _read_meta(folder / "meta.json")
    _check_files(folder, meta)
    return meta, read_splits(folder, meta)


def _check_files(folder: Path, meta: EntryMeta) -> None:
    """Compare the files with their digests, where their size and times are not those that were right before."""
    remembered = _read_checked(folder)
    times = {}
    for name, stored in meta.files.items():
        status = _stat_regular(folder / name)
        if status.st_size != stored.size:
            raise DamagedEntryError(f"{name} has not its {stored.size:,} bytes")
        times[name] = [status.st_mtime_ns, status.st_ctime_ns]
        if times[name] != remembered.get(name) and describe_file(folder / name).digest != stored.digest:
            raise DamagedEntryError(f"{name} does not hold what was written")
    if times != remembered:
        _write_checked(folder, times)


def remember_checked(folder: Path, meta: EntryMeta) -> None:
    """Remember the times of files that were just written and described."""
    times = {}
    for name in meta.files:
        status = (folder / name).stat()
        times[name] = [status.st_mtime_ns, status.st_ctime_ns]
    _write_checked(folder, times)


def _stat_regular(path: Path) -> os.stat_result:
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise DamagedEntryError(f"{path.name} is missing") from error
    if not stat.S_ISREG(status.st_mode):
        raise DamagedEntryError(f"{path.name} is not a regular file")
    return status


def _read_checked(folder: Path) -> dict[str, list[int]]:
    """The times remembered; none where they cannot be read, for then everything is checked."""
    try:
        with open_regular(folder / CHECKED) as file:
            checked = json.loads(file.readall())
        return checked if isinstance(checked, dict) else {}
    except (OSError, ValueError, RecursionError):
        return {}


def _write_checked(folder: Path, times: dict[str, list[int]]) -> None:
    with suppress(UserError):  # a cache that can only be read is checked each time
        write_json(folder / CHECKED, times)


def read_splits(folder: Path, meta: EntryMeta) -> dict[str, Images]:
    """The stored splits of an entry, mapped from disk.

    Raises:
        DamagedEntryError: An array has not the form that meta.json says.
    """
    if "train" not in meta.splits or not set(meta.splits) <= set(SPLIT_ORDER):
        raise DamagedEntryError("meta.json names no train split, or an unknown one")
    try:
        return {split: _read_split(folder, meta, split) for split in meta.splits}
    except FileNotFoundError as error:
        raise DamagedEntryError(f"{Path(str(error.filename)).name} is missing") from error
    except DamagedEntryError:
        raise
    except (ValueError, TypeError, OverflowError, EOFError, SyntaxError) as error:
        raise DamagedEntryError("an array of numbers cannot be understood") from error


def _read_split(folder: Path, meta: EntryMeta, split: str) -> Images:
    pixels = np.load(folder / f"{split}.npy", mmap_mode="r", allow_pickle=False)
    if pixels.dtype != np.uint8 or pixels.shape[1:] != meta.shape:
        raise DamagedEntryError(f"{split}.npy holds {pixels.dtype} of shape {pixels.shape}")
    labels = _optional_array(folder, meta, f"{split}-labels.npy", len(pixels))
    if labels is not None and (labels.dtype != np.int64 or _out_of_range(labels, len(meta.categories))):
        raise DamagedEntryError(f"{split}-labels.npy holds labels without a category")
    names = _optional_array(folder, meta, f"{split}-names.npy", len(pixels), mapped=True)
    attributes = {}
    for i, name in enumerate(meta.facts.attributes):
        column = _optional_array(folder, meta, f"{split}-attribute-{i}.npy", len(pixels))
        if column is not None:
            attributes[name] = column
    images = Images(pixels, np.arange(len(pixels)), labels, meta.categories, split, names)
    return replace(images, stored_attributes=attributes)


def _optional_array(folder: Path, meta: EntryMeta, name: str, length: int, mapped: bool = False) -> np.ndarray | None:
    if name not in meta.files:
        return None
    array = np.load(folder / name, mmap_mode="r" if mapped else None, allow_pickle=False)
    if array.shape != (length,):
        raise DamagedEntryError(f"{name} holds {array.shape}, not ({length},)")
    return array


def _out_of_range(labels: np.ndarray, count: int) -> bool:
    return bool(len(labels)) and not (labels.min() >= -1 and labels.max() < count)
