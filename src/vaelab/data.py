"""Images: uint8 pixels, labels, splits; one short function a source.

A model is only as comparable as its pictures. So every source, whatever its form, is brought to the same thing once:
one array of bytes `(M, C, H, W)` a split, an integer label a picture, and a fingerprint of exactly that.

    find     what DATA names: a path, $VAELAB_DATA/NAME, `digits`, a dataset of the Hugging Face hub    -> Source
    read     its pictures, still encoded, with their labels, split by split                           -> Raw
    build    look at every picture, agree on one shape, decode, hash, write                            -> a cache entry
    load     map the entry, make the splits the source lacks                                           -> Dataset

The cache is content-addressed: its key hashes names, sizes and times of the files, the settings and the decoder's
version. An entry is written under a temporary name, renamed and never changed; it holds .npy files and one JSON file.
"""

from __future__ import annotations

import hashlib
import io
import json
import math
import os
import re
import secrets
import shutil
import stat
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vaelab.console import notice, progress
from vaelab.errors import UserError, unknown

if TYPE_CHECKING:
    import pyarrow
    from PIL.Image import Image as Picture

__all__ = ["Dataset", "Images", "describe", "load", "read"]

VERSION = 1  # of the decoding below: another number makes every cache entry anew
SIDES = (8, 256)  # pixels a side that the networks are made for
SPLITS = ("train", "test", "validation")
FOLDERS = {"train": "train", "test": "test", "val": "validation", "valid": "validation", "validation": "validation"}
HUB = {"mnist": "ylecun/mnist", "cifar10": "uoft-cs/cifar10"}
HELD_OUT = 0.2  # of a source without a test split
TEST_SEED, VALIDATION_SEED = 20131220, 20140116  # constants: a split is part of the data, not of the run
PROBE = 2.5  # seconds the hub has to answer, name resolution included
FORMATS = "png jpg jpeg jpe jfif gif bmp dib tif tiff webp avif jp2 j2k ppm pgm pbm pnm tga ico heic heif"
SUFFIXES = frozenset(f".{name}" for name in FORMATS.split())


Skipped = list[tuple[str, str]]  # (file, reason)
Sides = tuple[int, int] | None  # height and width asked for


@dataclass(frozen=True, eq=False)
class Images:
    """Some pictures of a stored split: uint8 `pixels` (M, C, H, W), shared and never copied, and which `rows` of it.

    `labels` (M,) index `categories`, -1 is unlabelled, None where the source has no labels; `names` are relative paths.
    """

    pixels: np.ndarray
    rows: np.ndarray
    labels: np.ndarray | None
    categories: tuple[str, ...]
    split: str
    names: np.ndarray | None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one picture."""
        channels, height, width = self.pixels.shape[1:]
        return channels, height, width

    def select(self, index: np.ndarray | Sequence[int] | slice) -> Images:
        """The pictures at `index` (positions, a mask or a slice), in that order."""
        return replace(self, rows=self.rows[index])

    def spread(self, count: int) -> Images:
        """At most `count` of the pictures, evenly over all of them: sources are often sorted by category."""
        return self.select(np.linspace(0, len(self) - 1, min(count, len(self))).astype(np.int64))

    def uint8(self, index: np.ndarray | Sequence[int] | slice | int | None = None) -> np.ndarray:
        """The pixels of all pictures, or of those at `index`, as a contiguous array (n, C, H, W) of its own."""
        rows = self.rows if index is None else np.atleast_1d(self.rows[index])
        return np.ascontiguousarray(self.pixels[rows])

    def label(self, index: np.ndarray | Sequence[int] | slice | int | None = None) -> np.ndarray:
        """The labels of all pictures, or of those at `index`, as int64 (n,); -1 where there is none."""
        rows = self.rows if index is None else np.atleast_1d(self.rows[index])
        return np.full(len(rows), -1, np.int64) if self.labels is None else self.labels[rows]

    def name(self, i: int) -> str:
        """The relative path of picture `i`, or its row as text where the source has no files."""
        return str(self.rows[i]) if self.names is None else str(self.names[self.rows[i]])


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images by split, where they came from and what is worth knowing about them.

    `fingerprint` hashes pixels, labels, categories and splits before a validation split is cut off; neither path nor
    time nor cache enters it. `skipped` are (file, reason); `facts` is what `describe` says of the source's files.
    """

    source: str
    location: str
    splits: dict[str, Images]
    fingerprint: str
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    facts: dict[str, Any]


@dataclass(frozen=True, eq=False)
class Part:
    """One stored split before decoding: paths, encoded bytes or arrays, their labels, and names if they are files."""

    pictures: Sequence[Any] | np.ndarray
    labels: np.ndarray | None
    names: Sequence[str] | None

    def keep(self, index: Sequence[int]) -> Part:
        pictures = [self.pictures[i] for i in index]
        labels = None if self.labels is None else self.labels[list(index)]
        return Part(pictures, labels, None if self.names is None else [self.names[i] for i in index])

    def name(self, split: str, i: int) -> str:
        return f"{split} {i}" if self.names is None else self.names[i]


@dataclass(frozen=True, eq=False)
class Raw:
    """What every source yields: stored splits, categories and what was left aside."""

    parts: dict[str, Part]
    categories: tuple[str, ...] = ()
    skipped: Skipped = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


class Source(NamedTuple):
    """Where data lie, what they are known by in the cache (JSON), and how to read them should they not be there."""

    location: str
    stamp: Any
    read: Callable[[], Raw]


class Look(NamedTuple):
    """What a picture's header says: upright (width, height), mode, file format, and whether it is grey."""

    size: tuple[int, int]
    mode: str
    format: str
    grey: bool


# ---- the public functions -------------------------------------------------------------------------------------------


def load(
    data: str | Path, *, size: int | tuple[int, int] | None = None, channels: int | None = None, validation: float = 0.0
) -> Dataset:
    """The images that `data` names, decoded once and mapped from the cache afterwards.

    `size` (a side, or height and width) crops to the centre and resizes; `channels` 1 or 3 overrides what the pictures
    say. A source without a test split gives up 20 % of its pictures for one; `validation` is the fraction of the
    training pictures held out besides, unless the source stores a validation split, which then serves. Both are drawn
    by constant seeds, stratified by label, and leave every category a training picture; they never depend on a run.
    A dataset of the hub is fetched once and stays as it was.
    """
    _check(size, channels, validation)
    sides = (size, size) if isinstance(size, int) else size
    source = _find(str(data))
    folder, meta, parts = _cached(source, sides, channels)
    splits, made = _splits(parts, validation)
    used = sum(entry.stat().st_size for entry in folder.iterdir())
    facts = {**meta["facts"], "splits": made, "bytes": used, "cache": str(folder)}
    skipped = tuple((file, reason) for file, reason in meta["skipped"])
    return Dataset(str(data), source.location, splits, meta["fingerprint"], skipped, tuple(meta["notes"]), facts)


def read(paths: Sequence[str | Path], shape: tuple[int, int, int]) -> np.ndarray:
    """Picture files of any size and mode as uint8 (n, C, H, W) of the given shape (C, H, W), cropped to its aspect."""
    pixels = np.empty((len(paths), *shape), np.uint8)
    with _quiet():
        for row, path in zip(pixels, paths, strict=True):
            try:
                row[:] = _decode(Path(path), shape)
            except Exception as error:  # a damaged file raises nearly anything in Pillow's decoders
                raise UserError(f"{path} cannot be read as a picture: {_reason(error)}") from error
    return pixels


def describe(dataset: Dataset) -> dict[str, Any]:
    """What is in a dataset, for JSON: counts, shape, sizes, modes, splits, skipped files, duplicates, disk use."""
    facts = dict(dataset.facts)
    made = facts.pop("splits")
    splits = {name: {"n": len(part), "origin": made[name], **_counts(part)} for name, part in dataset.splits.items()}
    head = {"source": dataset.source, "location": dataset.location, "fingerprint": dataset.fingerprint}
    first = next(iter(dataset.splits.values()))
    skipped = [{"file": file, "reason": reason} for file, reason in dataset.skipped]
    body = {"shape": list(first.shape), "categories": list(first.categories), "splits": splits}
    return {**head, **body, **facts, "skipped": skipped, "notes": list(dataset.notes)}


def _counts(images: Images) -> dict[str, Any]:
    if images.labels is None:
        return {}
    labels = images.label()
    counts = np.bincount(labels[labels >= 0], minlength=len(images.categories)).tolist()
    unlabelled = {"unlabelled": n} if (n := int((labels < 0).sum())) else {}
    return {"categories": dict(zip(images.categories, counts, strict=True)), **unlabelled}


def _check(size: int | tuple[int, int] | None, channels: int | None, validation: float) -> None:
    for side in (size,) if isinstance(size, int) else size or ():
        if not SIDES[0] <= side <= SIDES[1]:
            raise UserError(f"size must be between {SIDES[0]} and {SIDES[1]} pixels a side, got {side}")
    if channels not in (None, 1, 3):
        raise UserError(f"channels must be 1 (grey) or 3 (colour), got {channels}")
    if not 0 <= validation < 1:
        raise UserError(f"validation is a fraction of the training pictures, at least 0 and below 1, got {validation}")


# ---- finding --------------------------------------------------------------------------------------------------------


def _find(data: str) -> Source:
    root = os.environ.get("VAELAB_DATA")
    for path in [Path(data).expanduser(), *([Path(root).expanduser() / data] if root else [])]:
        if data and os.path.exists(path):  # noqa: PTH110 (Path.exists raises on too long a name or a locked folder)
            return _local(path)
    if data == "digits":
        return Source("bundled with scikit-learn", ["digits"], _digits)
    if re.fullmatch(r"\w[\w.-]{0,95}(/[\w.-]{1,96})?", data) and Path(data).suffix not in {
        ".npz",
        ".npy",
        ".parquet",
        *SUFFIXES,
    }:
        return Source(f"Hugging Face hub {HUB.get(data, data)}", ["hub", HUB.get(data, data)], partial(_hub, data))
    raise _missing(data, "")


def _local(path: Path) -> Source:
    location = str(path.resolve())
    suffix = path.suffix.lower()
    if path.is_dir():
        shards = {split: sorted(path.glob(f"{split}.parquet")) or sorted(path.glob(f"{split}-*.parquet"))
                  for split in SPLITS}  # fmt: skip
        if not shards["train"]:
            return _folder(path)
        files, reader = [file for part in shards.values() for file in part], partial(_parquet, shards)
    elif suffix in {".npy", ".npz"}:
        files, reader = [path], partial(_arrays, path)
    elif suffix == ".parquet":
        files, reader = [path], partial(_parquet, {"train": [path]})
    elif suffix in SUFFIXES:
        files, reader = [path], partial(Raw, {"train": Part([path], None, [path.name])})
    else:
        raise UserError(f"{path} is neither a folder nor a picture, .parquet, .npy or .npz file")
    return Source(location, [_stamp(file.name, file) for file in files], reader)


def _stamp(name: str, file: Path) -> list[Any]:
    # The time of change stands beside that of modification because archives often set the latter to a constant.
    status = file.stat()
    return [name, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _missing(data: str, hub: str) -> UserError:
    """The error for data that are nowhere: what was looked for, where, and how to give it."""
    root = os.environ.get("VAELAB_DATA")
    entries = list(Path(root).expanduser().iterdir()) if root and Path(root).expanduser().is_dir() else []
    known = {"digits", *HUB, *(entry.name for entry in entries if entry.is_dir() and entry.name[0] != ".")}
    plain = data in known or "/" in data or not data
    what = f'data "{data}" not found' if plain else str(unknown("data", data, known))
    places = [f"the path {Path(data).absolute()}", f"$VAELAB_DATA ({root or 'unset'})", *([hub] if hub else [])]
    remedy = 'give a folder of images or of train.parquet, a .npz or .npy file, or "digits"'
    return UserError(f"{what}\nlooked for: {', '.join(places)}\n{remedy}; $VAELAB_DATA is the folder of named sources")


# ---- sources --------------------------------------------------------------------------------------------------------


def _digits() -> Raw:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return Raw({"train": Part(pixels, bunch.target.astype(np.int64), None)}, tuple(map(str, bunch.target_names)))


def _arrays(path: Path) -> Raw:
    """.npy: images; .npz: `images`, and optionally `labels`, `test_images`, `test_labels`."""
    try:
        stored = np.load(path, mmap_mode="r" if path.suffix.lower() == ".npy" else None, allow_pickle=False)
        arrays = {"images": stored} if isinstance(stored, np.ndarray) else {key: stored[key] for key in stored.files}
    except Exception as error:  # zip, header and pickle errors have no common class
        raise UserError(f"{path} cannot be read as an array of numbers: {_reason(error)}") from error
    if "images" not in arrays:
        raise UserError(f'{path} has no array "images" (has: {", ".join(sorted(arrays))})')
    keys = {"train": "", "test": "test_"} if "test_images" in arrays else {"train": ""}
    pictures = {split: _pictures(arrays[f"{key}images"], path) for split, key in keys.items()}
    labels = {split: arrays.get(f"{key}labels") for split, key in keys.items()}
    for split, column in labels.items():
        if column is not None and (column.shape != (len(pictures[split]),) or column.dtype.kind not in "iuU"):
            shape = f"{column.dtype}{list(column.shape)}"
            raise UserError(f"labels of {path} must be {len(pictures[split])} integers or strings, got {shape}")
    encoded, categories = _encode({split: None if c is None else c.tolist() for split, c in labels.items()}, None)
    return Raw({split: Part(pictures[split], encoded[split], None) for split in keys}, categories)


def _pictures(array: np.ndarray, path: Path) -> np.ndarray:
    """An array of pictures in any layout as (N, H, W) or (N, H, W, C), still of its own type."""
    shape = tuple(array.shape)
    first, last = (array.ndim == 4 and shape[axis] in (1, 2, 3, 4) for axis in (1, 3))
    if array.ndim not in (3, 4) or (array.ndim == 4 and first == last) or 0 in shape:
        forms = "(N, H, W), (N, H, W, C) or (N, C, H, W) with 1 to 4 channels"
        kind = "ambiguous" if first and last else "not that of pictures"
        raise UserError(f"{path}: the shape {shape} is {kind}; allowed are {forms}")
    kinds = array.dtype in (np.uint8, np.bool_) or array.dtype.kind == "f"
    if not kinds or (array.dtype.kind == "f" and not (array.min() >= 0 and array.max() <= 1)):
        held = f"{array.dtype} from {array.min()} to {array.max()}" if array.dtype.kind in "fiu" else array.dtype
        raise UserError(f"{path}: images must be uint8, or floats in [0, 1], got {held}")
    return np.moveaxis(array, 1, 3) if first else array


def _parquet(shards: dict[str, list[Path]]) -> Raw:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        tables = {s: pa.concat_tables(map(parquet.read_table, files)) for s, files in shards.items() if files}
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{shards['train'][0].parent}: the parquet files cannot be read: {_reason(error)}") from error
    metadata = json.loads((tables["train"].schema.metadata or {}).get(b"huggingface", b"{}"))
    return _tables(tables, metadata.get("info", {}).get("features", {}), str(shards["train"][0]))


def _tables(tables: dict[str, pyarrow.Table], features: dict[str, Any], where: str) -> Raw:
    """Arrow tables in the hub's schema; `features` is the hub's description of their columns."""
    schema = tables["train"].schema
    image, label = _image_column(schema, where), _label_column(schema, features)
    columns = {split: table[label].to_pylist() if label else None for split, table in tables.items()}
    names = features.get(label, {}).get("names") if label else None
    labels, categories = _encode(columns, tuple(names) if names else None)
    parts = {split: Part(_encoded(table[image]), labels[split], None) for split, table in tables.items()}
    return Raw(parts, categories, facts={"columns": [image, *([label] if label else [])]})


def _image_column(schema: pyarrow.Schema, where: str) -> str:
    import pyarrow.types as kinds

    structs = {f.name for f in schema if kinds.is_struct(f.type) and f.type.get_field_index("bytes") >= 0}
    fits = [f.name for f in schema if f.name in structs or kinds.is_binary(f.type)]
    if not fits:
        have = ", ".join(schema.names)
        raise UserError(f"{where} has no column of images, that is struct<bytes, path> or binary (has: {have})")
    return min(fits, key=lambda name: (name != "image", name != "img"))


def _label_column(schema: pyarrow.Schema, features: dict[str, Any]) -> str | None:
    import pyarrow.types as kinds

    classes = [name for name in schema.names if features.get(name, {}).get("_type") == "ClassLabel"]
    named = [name for name in ("label", "labels", "class", "category") if name in schema.names]
    plain = [n for n in named if kinds.is_integer(schema.field(n).type) or kinds.is_string(schema.field(n).type)]
    return next(iter(classes + plain), None)


def _encoded(column: pyarrow.ChunkedArray) -> list[Any]:
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


def _encode(
    columns: dict[str, list[Any] | None], names: tuple[str, ...] | None
) -> tuple[dict[str, np.ndarray | None], tuple[str, ...]]:
    """Label values of each split as indices into one tuple of categories; None, "" and -1 are unlabelled."""
    if all(column is None for column in columns.values()):
        return dict.fromkeys(columns), ()
    absent = (None, "", -1)
    values = sorted({value for column in columns.values() for value in column or () if value not in absent})
    index = {value: i for i, value in enumerate(values)}
    if names is not None:
        index = {i: i for i in range(len(names))}
        if unnamed := set(values) - set(index):
            raise UserError(f"label {min(unnamed)} has no name among the {len(names)} categories")
    arrays = {split: np.array([index.get(value, -1) for value in c], np.int64) if c is not None else None
              for split, c in columns.items()}  # fmt: skip
    return arrays, names or tuple(map(str, values))


def _folder(path: Path) -> Source:
    """A folder of pictures: sub-folders are categories, below train/, test/ and validation/ if there is a train/."""
    skipped: Skipped = []
    files = sorted(_walk(path, "", (_mark(path),), skipped))
    chosen = [(name, status) for name, status in files if name[name.rfind(".") :].lower() in SUFFIXES]
    if not chosen:
        others = ", ".join(name for name, _ in files[:3]) + (" ..." if len(files) > 3 else "")
        held = f"it holds {len(files)} other files: {others}" if files else "it is empty"
        raise UserError(f"no pictures in {path.resolve()} ({held})\nknown are {' '.join(sorted(SUFFIXES))}")
    stamp = [[name, status.st_size, status.st_mtime_ns, status.st_ctime_ns] for name, status in chosen]
    others = len(files) - len(chosen)
    return Source(str(path.resolve()), stamp, partial(_sorted_out, path, [name for name, _ in chosen], skipped, others))


def _walk(folder: Path, prefix: str, above: tuple[Any, ...], skipped: Skipped) -> Iterator[tuple[str, os.stat_result]]:
    """The files below a folder, hidden ones left out; a link that leads back to a folder above is not followed."""
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        skipped.append((prefix, _reason(error)))
        return
    for entry in entries:
        name = f"{prefix}{entry.name}"
        try:
            if entry.name.startswith("."):
                continue
            if not entry.is_dir():
                status = entry.stat()
                if stat.S_ISREG(status.st_mode):
                    yield name, status
            elif (mark := _mark(Path(entry.path))) not in above:
                yield from _walk(Path(entry.path), f"{name}/", (*above, mark), skipped)
        except OSError as error:
            skipped.append((name, _reason(error)))


def _mark(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _sorted_out(path: Path, names: list[str], skipped: Skipped, others: int) -> Raw:
    """The pictures of a folder by split and category, as their relative names say."""
    tops = {name.split("/")[0] for name in names if "/" in name}
    known = {top: FOLDERS[top.lower()] for top in tops if top.lower() in FOLDERS}
    # A category may itself be called "train": it is a split only beside another one, or alone.
    stored = "train" in known.values() and (len(known) > 1 or len(tops) == 1)
    if not stored and tops and len(known) == len(tops):
        raise UserError(f"{path} has {', '.join(sorted(known))} but no pictures in train")
    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault(known.get(name.split("/")[0], "") if stored else "train", []).append(name)
    beside = members.pop("", [])
    notes = [f"{len(beside)} pictures beside train are not used, such as {beside[0]}"] if beside else []
    values = {split: [_category(name, stored) for name in part] for split, part in members.items()}
    named = any(value for column in values.values() for value in column)
    labels, categories = _encode({split: column if named else None for split, column in values.items()}, None)
    parts = {split: Part([path / name for name in part], labels[split], part) for split, part in members.items()}
    return Raw(parts, categories, list(skipped), notes, {"other_files": others})


def _category(name: str, stored: bool) -> str | None:
    folders = name.split("/")[1 if stored else 0 : -1]
    return folders[0] if folders else None


def _hub(data: str) -> Raw:
    """A dataset of the Hugging Face hub; where the hub does not answer, of its local cache or an error at once."""
    from huggingface_hub import constants

    name, offline = HUB.get(data, data), constants.HF_HUB_OFFLINE
    silent = offline or not _answers(constants.ENDPOINT)
    import datasets
    from datasets.exceptions import DatasetNotFoundError

    try:
        with _quiet(), _offline(silent):
            loaded: Any = datasets.load_dataset(name)
    except Exception as error:  # network, disk and the dataset's own form: no common class
        if not silent and not isinstance(error, DatasetNotFoundError):
            raise UserError(f"{name} of the Hugging Face hub cannot be loaded: {_reason(error)}") from error
        state = "is set to offline" if offline else "does not answer" if silent else f"has no {name}"
        where = f"the Hugging Face hub ({constants.ENDPOINT} {state}; cache {constants.HF_HOME})"
        raise _missing(data, where) from error
    parts = {FOLDERS.get(str(split), str(split)): part for split, part in loaded.items()}
    if "train" not in parts:
        raise UserError(f"{name} of the Hugging Face hub has no train split (has: {', '.join(parts)})")
    tables = {split: parts[split].with_format("arrow")[:] for split in SPLITS if split in parts}
    raw = _tables(tables, parts["train"].features.to_dict(), name)
    unused = sorted(set(parts) - set(SPLITS))
    return replace(raw, notes=[f"splits not used: {', '.join(unused)}"] if unused else [])


def _answers(endpoint: str) -> bool:
    """Whether a server answers at all. In a thread, because name resolution knows no time limit."""
    from huggingface_hub.utils import get_session

    heard: list[bool] = []

    def ask() -> None:
        try:
            heard.append(get_session().head(endpoint, timeout=PROBE).status_code < 500)
        except Exception:  # of the HTTP library at hand, which differs between versions: all mean silence
            heard.append(False)

    thread = Thread(target=ask, daemon=True)
    thread.start()
    thread.join(PROBE)
    return heard == [True]


@contextmanager
def _offline(wanted: bool) -> Iterator[None]:
    """Let the hub's libraries look into their cache only: they would retry for half a minute or far longer."""
    from datasets import config
    from huggingface_hub import constants

    before = constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE
    if wanted:
        constants.HF_HUB_OFFLINE = config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE, config.HF_HUB_OFFLINE = before


# ---- decoding -------------------------------------------------------------------------------------------------------


@contextmanager
def _quiet() -> Iterator[None]:
    # Pillow warns of large pictures and of odd metadata, of which a user can mend neither.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _reason(error: Exception) -> str:
    """What an error says, on one line and without the path, which stands beside it."""
    text = (isinstance(error, OSError) and error.strerror) or str(error).split("\n")[0] or type(error).__name__
    return "not a picture" if type(error).__name__ == "UnidentifiedImageError" else text


def _open(picture: Any) -> Picture:
    """Open a path, encoded bytes, or an array (H, W) or (H, W, C) of uint8, truth values or floats in [0, 1]."""
    from PIL import Image

    if picture is None:
        raise ValueError("empty")
    if isinstance(picture, np.ndarray):
        levels = picture if picture.dtype == np.uint8 else np.rint(picture * 255.0).astype(np.uint8)
        return Image.fromarray(levels[..., 0] if levels.ndim == 3 and levels.shape[2] == 1 else levels)
    return Image.open(picture if isinstance(picture, Path) else io.BytesIO(picture))


def _grey(image: Picture) -> bool:
    if image.mode in ("P", "PA"):
        palette = np.array(image.getpalette("RGB")).reshape(-1, 3)
        return bool((palette == palette[:, :1]).all())
    return image.mode[0] in "1LIF" and image.mode != "LAB"


def _look(picture: Any) -> Look:
    with _open(picture) as image:
        turned = image.getexif().get(0x0112, 1) in (5, 6, 7, 8)  # EXIF orientation: these four swap the sides
        width, height = image.size
        size = (height, width) if turned else (width, height)
        return Look(size, image.mode, image.format or "array", _grey(image))


def _plain(image: Picture) -> Picture:
    """The first frame of a picture of any mode, upright, flattened onto white, as mode L or RGB."""
    from PIL import Image, ImageOps

    image = ImageOps.exif_transpose(image)
    if image.mode[0] in "IF":
        # 16 bits a pixel, whether stored as such or in 32; 255 / 65535 = 1 / 257. Floats are taken as [0, 1].
        values = np.asarray(image).astype(np.float64) / (257 if image.mode[0] == "I" else 1 / 255)
        if not (values.min() >= 0 and values.max() <= 255):
            raise ValueError(f"values of mode {image.mode} beyond the known range")
        return Image.fromarray(np.rint(values).astype(np.uint8))
    grey = _grey(image)
    if image.has_transparency_data:
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image.convert("RGBA"))
    return image.convert("L" if grey else "RGB")


def _decode(picture: Any, shape: tuple[int, int, int]) -> np.ndarray:
    """A picture as uint8 (C, H, W), cropped to the aspect about its centre and resized where its size differs."""
    from PIL import Image

    channels, height, width = shape
    with _open(picture) as image:
        enough = 2 * max(height, width)
        image.draft(image.mode, (enough, enough))  # a large JPEG need not be decoded in full
        plain = _plain(image)
    if plain.size != (width, height):
        # Cropped before, not while resizing, so that nothing beyond the edge leaks in.
        scale = min(plain.width / width, plain.height / height)
        wide, high = max(1, round(width * scale)), max(1, round(height * scale))
        left, top = (plain.width - wide) // 2, (plain.height - high) // 2
        plain = plain.crop((left, top, left + wide, top + high)).resize((width, height), Image.Resampling.LANCZOS)
    pixels = np.asarray(plain.convert("L" if channels == 1 else "RGB"))
    return np.ascontiguousarray(pixels.reshape(height, width, channels).transpose(2, 0, 1))


# ---- building and caching -------------------------------------------------------------------------------------------


def _cache() -> Path:
    """$VAELAB_CACHE, else the folder that the platform has for such things."""
    if root := os.environ.get("VAELAB_CACHE"):
        return Path(root).expanduser().absolute()
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "vaelab" / "Cache"
    default = Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache")
    return Path(os.environ.get("XDG_CACHE_HOME") or default) / "vaelab"


def _cached(source: Source, sides: Sides, channels: int | None) -> tuple[Path, dict[str, Any], dict[str, Images]]:
    """The cache entry of a source: its folder, its facts and its stored splits; built if missing or damaged."""
    from PIL import __version__ as decoder

    key = hashlib.sha256(json.dumps([VERSION, decoder, sides, channels, source.stamp]).encode()).hexdigest()[:32]
    folder = _cache() / key
    for _ in range(3):  # another process may find the same entry damaged and remove it between two lines of ours
        if folder.is_dir():
            try:
                meta = json.loads((folder / "meta.json").read_text())
                return folder, meta, _parts(folder, meta)
            except (OSError, ValueError, KeyError, TypeError) as error:
                notice(f"the cache entry {folder} is damaged ({_reason(error)}): decoding again")
                shutil.rmtree(folder, ignore_errors=True)
        _make(folder, source, sides, channels)
    raise UserError(f"the cache entry {folder} cannot be read: remove it, or name another folder by $VAELAB_CACHE")


def _parts(folder: Path, meta: dict[str, Any]) -> dict[str, Images]:
    """The stored splits of an entry, whose files must have the lengths they were written with."""
    for name, length in meta["files"].items():
        if (folder / name).stat().st_size != length:
            raise ValueError(f"{name} has not its {length} bytes")

    def stored(name: str, mode: Any = None) -> np.ndarray | None:
        return np.load(folder / name, mmap_mode=mode) if name in meta["files"] else None

    parts = {}
    for split in meta["splits"]:
        pixels = np.load(folder / f"{split}.npy", mmap_mode="r")
        labels, names = stored(f"{split}-labels.npy"), stored(f"{split}-names.npy", "r")
        parts[split] = Images(pixels, np.arange(len(pixels)), labels, tuple(meta["categories"]), split, names)
    return parts


def _make(folder: Path, source: Source, sides: Sides, channels: int | None) -> None:
    """Build a cache entry aside and rename it; if another process was faster, its entry stands."""
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        temporary.mkdir(parents=True)
    except OSError as error:
        what = f"the cache folder {folder.parent} cannot be written: {_reason(error)}"
        raise UserError(f"{what}\nname another by the environment variable VAELAB_CACHE") from error
    try:
        _build(source, sides, channels, temporary)
        temporary.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _build(source: Source, sides: Sides, channels: int | None, into: Path) -> None:
    """Look at every picture, decode those that can be read, and write the entry."""
    raw, label = source.read(), Path(source.location).name
    kept, looks = _inspect(raw, label)
    if "train" not in kept:
        raise _unreadable(source.location, raw.skipped)
    shape = _shape(looks, source.location, sides, channels)
    with _room(into, sum(len(part.pictures) for part in kept.values()) * (math.prod(shape) + 64)):
        digests = {split: _store(split, part, shape, raw.skipped, into) for split, part in kept.items()}
        if not len(digests["train"]):
            raise _unreadable(source.location, raw.skipped)
        files = {file.name: file.stat().st_size for file in into.iterdir()}
        full = [split for split in digests if len(digests[split])]
        meta: dict[str, Any] = {"splits": full, "categories": raw.categories, "files": files, "skipped": raw.skipped}
        _judge(raw, looks, _parts(into, meta), digests, meta)
        (into / "meta.json").write_text(json.dumps(meta, indent=1))


def _judge(
    raw: Raw, looks: Counter[Look], parts: dict[str, Images], digests: dict[str, np.ndarray], meta: dict[str, Any]
) -> None:
    """Add to an entry's `meta` what can be said of the pictures as a whole: fingerprint, duplicates, notes, facts."""
    splits, made = _splits(parts, 0.0)
    every = {**parts, **splits}  # a stored validation split counts, whether it is asked for or not
    hashes = {split: digests[split if split in parts else "train"][images.rows] for split, images in every.items()}
    common = _common(splits, hashes)
    meta["fingerprint"] = _fingerprint(every, hashes)
    meta["notes"] = [*raw.notes, *_notes(splits, made, len(common), raw.skipped)]
    duplicates = {"count": len(common), "examples": common[:5]}
    meta["facts"] = {**_seen(looks), "other_files": 0, **raw.facts, "duplicates": duplicates}


def _each(
    parts: dict[str, Part], work: Callable[[Any], Any], skipped: Skipped, label: str
) -> Iterator[tuple[str, int, Any]]:
    """Work on every picture, with progress; one that cannot be read is set aside with its reason."""
    done = 0
    with progress(label, sum(len(part.pictures) for part in parts.values())) as advance, _quiet():
        for split, part in parts.items():
            for i, picture in enumerate(part.pictures):
                try:
                    result = work(picture)
                except Exception as error:  # damaged files raise nearly anything in Pillow's decoders
                    skipped.append((part.name(split, i), _reason(error)))
                else:
                    yield split, i, result
                done += 1
                if done % 100 == 0:
                    advance(done)


def _inspect(raw: Raw, label: str) -> tuple[dict[str, Part], Counter[Look]]:
    """The parts without what cannot be opened or is too small to be meant, and what the other pictures look like."""
    seen = list(_each(raw.parts, _look, raw.skipped, f"looking at {label}"))
    index: dict[str, list[int]] = {}
    looks: Counter[Look] = Counter()
    least = min(SIDES[0], max((min(look.size) for _, _, look in seen), default=0))
    for split, i, look in seen:
        if min(look.size) < least:
            raw.skipped.append((raw.parts[split].name(split, i), f"too small: {_times(look.size)}"))
        else:
            index.setdefault(split, []).append(i)
            looks[look] += 1
    return {split: raw.parts[split].keep(index[split]) for split in SPLITS if split in index}, looks


def _shape(looks: Counter[Look], where: str, sides: Sides, channels: int | None) -> tuple[int, int, int]:
    """The one shape of all pictures: asked for, or theirs if they agree."""
    channels = channels or (1 if all(look.grey for look in looks) else 3)
    if sides is not None:
        return channels, *sides
    sizes = _seen(looks)["sizes"]
    width, height = next(iter(looks)).size
    remedy = "give --size, such as --size 64, to crop and resize them"
    if len(sizes) > 1:
        text = ", ".join(f"{size} ({n})" for size, n in list(sizes.items())[:6])
        more = f" and {len(sizes) - 6} more" if len(sizes) > 6 else ""
        raise UserError(f"pictures of several sizes in {where}: {text}{more}, width x height\n{remedy}")
    if min(width, height) < SIDES[0] or max(width, height) > SIDES[1]:
        limits = f"sides must be between {SIDES[0]} and {SIDES[1]}"
        raise UserError(f"pictures of {width}x{height} in {where}: {limits}\n{remedy}")
    return channels, height, width


def _times(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"


def _seen(looks: Counter[Look]) -> dict[str, dict[str, int]]:
    """How many pictures have which size (width x height), mode and format, most frequent first."""
    counts: dict[str, Counter[str]] = {"sizes": Counter(), "modes": Counter(), "formats": Counter()}
    for look, n in looks.items():
        for key, value in zip(counts, (_times(look.size), look.mode, look.format), strict=True):
            counts[key][value] += n
    return {key: dict(counter.most_common()) for key, counter in counts.items()}


def _store(split: str, part: Part, shape: tuple[int, int, int], skipped: Skipped, into: Path) -> np.ndarray:
    """Write the pixels, labels and names of one stored split; returns a hash (16 bytes) of each picture."""
    digests: list[bytes] = []
    kept: list[int] = []

    def decoded() -> Iterator[bytes]:
        for _, i, pixels in _each({split: part}, partial(_decode, shape=shape), skipped, f"decoding {split}"):
            kept.append(i)
            digests.append(hashlib.blake2b(pixels, digest_size=16).digest())
            yield pixels.tobytes()

    _write(into / f"{split}.npy", decoded(), len(part.pictures), shape)
    part = part.keep(kept)
    if part.labels is not None:
        np.save(into / f"{split}-labels.npy", part.labels)
    if part.names:
        np.save(into / f"{split}-names.npy", np.array(part.names))
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 16)


def _write(path: Path, pictures: Iterable[bytes], most: int, shape: tuple[int, int, int]) -> None:
    # Written, not mapped: a full disk under a writable map kills the process instead of raising. NumPy pads the header
    # so that it keeps its length when the first axis, known only in the end, is filled in.
    header = {"descr": "|u1", "fortran_order": False}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (most, *shape)})
        count = sum(1 for data in pictures if file.write(data))
        file.seek(0)
        np.lib.format.write_array_header_1_0(file, {**header, "shape": (count, *shape)})
        file.flush()
        os.fsync(file.fileno())


@contextmanager
def _room(folder: Path, need: int) -> Iterator[None]:
    """Say so if what is written inside does not fit, beforehand where that can be known."""
    message = f"the decoded pictures need {need:,} bytes in the cache folder {folder.parent}"
    remedy = "make room, or name another folder by the environment variable VAELAB_CACHE"
    if need > (free := shutil.disk_usage(folder).free):
        raise UserError(f"{message}, {free:,} are free\n{remedy}")
    try:
        yield
    except OSError as error:
        raise UserError(f"{message}: {_reason(error)}\n{remedy}") from error


def _unreadable(where: str, skipped: Skipped) -> UserError:
    first = f" ({len(skipped)} skipped, the first {skipped[0][0]}: {skipped[0][1]})" if skipped else ""
    return UserError(f"no training picture in {where} can be read{first}")


# ---- splits and what is said of them --------------------------------------------------------------------------------


def _splits(parts: dict[str, Images], validation: float) -> tuple[dict[str, Images], dict[str, str]]:
    """Train, validation if asked for, and test, and how each came about."""
    splits: dict[str, Images] = {"train": parts["train"]}
    made: dict[str, str] = dict.fromkeys(SPLITS, "stored")
    wanted = [("test", HELD_OUT, TEST_SEED), ("validation", validation, VALIDATION_SEED)]
    for split, fraction, seed in wanted:
        if fraction and split in parts:
            splits[split] = parts[split]
        elif fraction:
            _hold_out(splits, split, fraction, seed)
            made |= {split: f"{fraction:.6g} of train, stratified, by a fixed seed", "train": "the rest"}
    splits = {split: splits[split] for split in ("train", "validation", "test") if split in splits}
    return splits, {split: made[split] for split in splits}


def _hold_out(splits: dict[str, Images], split: str, fraction: float, seed: int) -> None:
    """Move a fraction of the training pictures into another split; nothing happens where none can be spared."""
    train = splits["train"]
    chosen = _chosen(train.label(), fraction, seed)
    if not chosen.any() and split == "validation":  # each category has one picture: some of them are given up
        chosen = _chosen(np.zeros(len(train), np.int64), fraction, seed)
    if chosen.any():
        splits[split] = replace(train.select(chosen), split=split)
        splits["train"] = train.select(~chosen)


def _chosen(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """A mask of the fraction, at least one, that is held out: evenly among the labels, never the last of its label.

    The pictures, shuffled and then sorted by label, are passed at even steps; the first of each label is left out.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    rest = order[1:][labels[order[1:]] == labels[order[:-1]]]
    count = min(max(1, round(fraction * len(labels))), len(rest))
    chosen = np.zeros(len(labels), bool)
    chosen[rest[(2 * np.arange(count) + 1) * len(rest) // (2 * max(count, 1))]] = True
    return chosen


def _fingerprint(splits: dict[str, Images], hashes: dict[str, np.ndarray]) -> str:
    """Hash of the pixels, labels and categories of each split, in order."""
    total = hashlib.sha256(json.dumps([splits["train"].shape, splits["train"].categories]).encode())
    for split, images in sorted(splits.items()):
        total.update(f"{split} {len(images)}".encode())
        total.update(hashes[split].tobytes())
        total.update(images.label().astype("<i8").tobytes())
    return total.hexdigest()[:32]


def _common(splits: dict[str, Images], hashes: dict[str, np.ndarray]) -> list[tuple[str, str]]:
    """Names of the test pictures whose pixels stand in the training split as well, each with a name from there."""
    if "test" not in splits:
        return []
    first = {digest.tobytes(): i for i, digest in reversed(list(enumerate(hashes["train"])))}
    tested = enumerate(digest.tobytes() for digest in hashes["test"])
    return [(splits["test"].name(i), splits["train"].name(first[d])) for i, d in tested if d in first]


def _notes(splits: dict[str, Images], made: dict[str, str], common: int, skipped: Skipped) -> list[str]:
    """What a user should know before trusting numbers that come from these data."""
    notes = []
    train, test = splits["train"], splits.get("test")
    if test is None:
        notes.append("no picture could be spared for a test split")
    elif made["test"] != "stored":
        notes.append(f"no test split in the source: {len(test)} pictures ({made['test']}) stand for one")
    unlabelled, *counts = np.bincount(train.label() + 1, minlength=len(train.categories) + 1).tolist()
    if train.categories and unlabelled:
        notes.append(f"{unlabelled} training pictures have no label")
    for n, text in ((0, "no training picture"), (1, "one training picture only")):
        if names := [name for name, count in zip(train.categories, counts, strict=True) if count == n]:
            notes.append(f"categories with {text}: {', '.join(names[:5])}{' ...' if len(names) > 5 else ''}")
    if common:
        notes.append(f"{common} of {len(test or ())} test pictures stand in the training split too")
    if skipped:
        notes.append(f"{len(skipped)} files were skipped, the first: {skipped[0][0]} ({skipped[0][1]})")
    return notes
