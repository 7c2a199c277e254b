"""Sources: what DATA names, and one short function a source that reads it.

Every source yields the same `Raw`: pictures still encoded, labels and categories, split by split. Looked for in this
order: a path, $VAELAB_DATA/NAME, `digits` of scikit-learn, a dataset of the Hugging Face hub.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from vaelab.errors import UserError, unknown
from vaelab.pictures import SUFFIXES, quiet, reason

if TYPE_CHECKING:
    import pyarrow

__all__ = ["SPLITS", "Part", "Raw", "Skipped", "Source", "find"]

SPLITS = ("train", "test", "validation")
FOLDERS = {"train": "train", "test": "test", "val": "validation", "valid": "validation", "validation": "validation"}
HUB = {"mnist": "ylecun/mnist", "cifar10": "uoft-cs/cifar10"}
PROBE = 2.5  # seconds the hub has to answer, name resolution included

Skipped = list[tuple[str, str]]  # (file, reason)


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


def find(data: str) -> Source:
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
        raise UserError(f"{path} cannot be read as an array of numbers: {reason(error)}") from error
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
        raise UserError(f"{shards['train'][0].parent}: the parquet files cannot be read: {reason(error)}") from error
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
        skipped.append((prefix, reason(error)))
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
            skipped.append((name, reason(error)))


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
        with quiet(), _offline(silent):
            loaded: Any = datasets.load_dataset(name)
    except Exception as error:  # network, disk and the dataset's own form: no common class
        if not silent and not isinstance(error, DatasetNotFoundError):
            raise UserError(f"{name} of the Hugging Face hub cannot be loaded: {reason(error)}") from error
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
