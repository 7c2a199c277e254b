"""Arrays as data sets: .npy and .npz."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from vaelab.core.console import count_text, shown
from vaelab.core.errors import UserError
from vaelab.datasets.files import (
    error_text,
    file_stamp,
    is_system_failure,
    read_error,
    require_memory,
    require_regular,
)
from vaelab.datasets.naming import SPLIT_WORDS, list_text, split_of_word
from vaelab.datasets.sources.labels import LabelColumn, LabelReading, encode_labels, read_label_column
from vaelab.datasets.sources.source import SPLITS, DataSource, Precedence, RawDataset, RawSplit, Request, register

__all__ = ["array_source", "split_arrays"]

IMAGE_WORDS = ("images", "image", "imgs", "img", "x", "data", "pixels", "pictures")

LABEL_WORDS = ("labels", "label", "y", "target", "targets", "class", "classes")

PLAIN_KEYS = {"images": "images", "labels": "labels"}  # without a split: training

FORMS = "(N, H, W), (N, H, W, C) or (N, C, H, W) with 1 to 4 channels"


class ArrayRole(NamedTuple):
    """What an array of a file holds: images or labels, and of which split."""

    kind: str
    split: str


def _is_array_file(request: Request) -> bool:
    path = request.path
    return path is not None and path.is_file() and path.suffix.lower() in (".npy", ".npz")


@register(Precedence.MARKED_PATH, _is_array_file, lambda: (".npy", ".npz"))
def array_source(request: Request) -> DataSource:
    """A .npy file of images, or a .npz file of images and labels by split.

    The arrays of a .npz are called `images` and `labels`, or after a split: train_images, x_train, val_labels, y_test.
    Where there are no such images, a lone word such as `x` or `data` stands for those of training.
    """
    assert request.path is not None
    path = request.path
    return DataSource(str(path.resolve()), [file_stamp(path.name, path)], partial(_read_arrays, path))


def _read_arrays(path: Path) -> RawDataset:
    require_regular(path)
    try:
        arrays = _load_npy(path) if path.suffix.lower() == ".npy" else _load_npz(path)
    except UserError:
        raise
    except Exception as error:  # zip, header and pickle errors have no common class
        if is_system_failure(error):
            raise read_error(path, error) from error
        name = shown(path)
        raise UserError(f"{name} cannot be read as an array of numbers: {error_text(error)}") from error
    return split_arrays(arrays, shown(path))


def _load_npy(path: Path) -> dict[str, np.ndarray]:
    return {"images": np.load(path, mmap_mode="r", allow_pickle=False)}


def _load_npz(path: Path) -> dict[str, np.ndarray]:
    """The arrays of a .npz that hold images or labels; their size is asked before they are unpacked."""
    name = shown(path)
    with zipfile.ZipFile(path) as archive:
        members = {Path(member).stem: member for member in archive.namelist() if member.endswith(".npy")}
        roles = _array_roles(list(members), name)
        needed = sum(_unpacked_bytes(archive, members[key]) for key in roles)
    require_memory(needed, name, "unpacked")
    with np.load(path, allow_pickle=False) as stored:
        return {key: stored[key] for key in roles} | {key: np.empty(0) for key in members if key not in roles}


def _unpacked_bytes(archive: zipfile.ZipFile, member: str) -> int:
    """The size of an array as its header says."""
    with archive.open(member) as stream:
        version = np.lib.format.read_magic(stream)
        read_header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read_header(stream)
    return int(np.prod([int(side) for side in shape], dtype=object)) * dtype.itemsize if shape else dtype.itemsize


def split_arrays(arrays: Mapping[str, np.ndarray], name: str) -> RawDataset:
    """Arrays in memory as a data set.

    Args:
        arrays: Images, numbers of any type, (N, H, W), (N, H, W, C) or (N, C, H, W); and labels, (N,), (N, 1) or
            one-hot (N, K). The keys say which is which.
        name: What the arrays are called in messages.

    Raises:
        UserError: There are no images, or arrays of another form.
    """
    roles = _array_roles(list(arrays), name)
    images = {role.split: _to_channels_last(arrays[key], name) for key, role in roles.items() if role.kind == "images"}
    if "train" not in images:
        raise _no_images_error(list(arrays), list(images), name)
    notes = []
    columns: dict[str, LabelColumn | None] = dict.fromkeys(images)
    for key, role in roles.items():
        if role.kind == "labels" and role.split in images:
            reading = _read_labels(arrays[key], len(images[role.split]), name)
            columns[role.split] = reading.column
            if reading.reason:
                notes.append(f"the array {shown(key)} {reading.reason}: not used")
    unused = [key for key in arrays if key not in roles or roles[key].split not in images]
    if unused:
        notes.append(f"{count_text(len(unused), 'array')} not used: {list_text(unused)}")
    labels, categories = encode_labels(columns)
    splits = {split: RawSplit(images[split], labels[split], None) for split in SPLITS if split in images}
    return RawDataset(splits, categories, tuple(notes))


def _array_roles(keys: Sequence[str], name: str) -> dict[str, ArrayRole]:
    """What each array holds, as its name says; arrays with other names are left out."""
    named = {key: _role_of(key) for key in keys}
    if ArrayRole("images", "train") not in named.values():
        named = {key: role or _lone_role(key) for key, role in named.items()}
    roles: dict[str, ArrayRole] = {}
    for key, role in named.items():
        if role is None:
            continue
        other = next((known for known, its_role in roles.items() if its_role == role), None)
        if other is not None:
            raise UserError(
                f"{name} has two arrays of {role.split} {role.kind}: {shown(other)} and {shown(key)}; keep one of them"
            )
        roles[key] = role
    return roles


def _role_of(key: str) -> ArrayRole | None:
    """What an array holds, as its name says: `images`, `x_train`, `val_labels`, `testImages`."""
    if key in PLAIN_KEYS:
        return ArrayRole(PLAIN_KEYS[key], "train")
    words = _words(key)
    splits = [split for word in words if (split := split_of_word(word)) is not None]
    others = [word for word in words if split_of_word(word) is None]
    if len(splits) != 1 or len(others) != 1:
        return None
    if others[0] in IMAGE_WORDS:
        return ArrayRole("images", splits[0])
    return ArrayRole("labels", splits[0]) if others[0] in LABEL_WORDS else None


def _lone_role(key: str) -> ArrayRole | None:
    """What an array holds whose name has no split: `x`, `data`, `Y`."""
    word = key.lower()
    if word in IMAGE_WORDS:
        return ArrayRole("images", "train")
    return ArrayRole("labels", "train") if word in LABEL_WORDS else None


def _words(key: str) -> list[str]:
    """The words of a name such as x_train, train-images, trainImages or Xtrain."""
    spaced = "".join(
        f" {character}" if character.isupper() and before.islower() else character if character.isalnum() else " "
        for before, character in zip(" " + key, key, strict=False)
    )
    words = spaced.lower().split()
    if len(words) == 1 and words[0][:1] in ("x", "y") and split_of_word(words[0][1:]):
        return [words[0][0], words[0][1:]]
    return words


def _no_images_error(keys: list[str], splits: list[str], name: str) -> UserError:
    if splits:
        return UserError(
            f"{name} has images for {' and '.join(splits)}, but none for training\n"
            "call those for training images, train_images or x_train"
        )
    return UserError(
        f'{name} has no array "images" (has: {list_text(sorted(keys), 20) or "nothing"})\n'
        f"allowed are images and labels, or a word for pictures ({', '.join(IMAGE_WORDS)}) or labels "
        f"({', '.join(LABEL_WORDS)})\nwith a split ({', '.join(SPLIT_WORDS)}) before or after it, such as x_train"
    )


def _read_labels(array: np.ndarray, count: int, name: str) -> LabelReading:
    """An array as labels, or why it gives none."""
    column = array[:, 0] if array.ndim == 2 and array.shape[1] == 1 else array
    if column.ndim == 2 and len(column) == count and column.dtype.kind in "iubf":
        is_one_hot = bool(np.isin(column, (0, 1)).all() and (column.sum(axis=1) == 1).all())
        if not is_one_hot:
            return LabelReading(reason="holds several values for a picture")
        column = column.argmax(axis=1)
    if column.shape != (count,) or column.dtype.kind not in "iubfUS":
        held = f"{array.dtype}{list(array.shape)}"
        raise UserError(f"labels of {name} must be {count} integers or words, got {held}")
    return read_label_column(column.tolist())


def _to_channels_last(array: np.ndarray, name: str) -> np.ndarray:
    """An array of pictures in any layout as (N, H, W) or (N, H, W, C), of the same type."""
    shape = tuple(array.shape)
    channels_first = array.ndim == 4 and shape[1] in (1, 2, 3, 4)
    channels_last = array.ndim == 4 and shape[3] in (1, 2, 3, 4)
    if array.ndim not in (3, 4) or (array.ndim == 4 and channels_first == channels_last) or 0 in shape:
        kind = "ambiguous" if channels_first and channels_last else "not that of pictures"
        raise UserError(f"{name}: the shape {shape} is {kind}; allowed are {FORMS}")
    if array.dtype.kind not in "buif":
        raise UserError(f"{name}: images must be numbers or truth values, got {shown(array.dtype)}")
    return np.moveaxis(array, 1, 3) if channels_first else array
