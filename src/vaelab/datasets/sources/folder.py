"""Folders of picture files: sub-folders are categories or splits."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from vaelab.core.console import count_text, printable, shown
from vaelab.core.errors import UserError
from vaelab.datasets.decoding import HEIC_SUFFIXES, readable_suffixes, unreadable_reason
from vaelab.datasets.naming import agree, list_text, split_of_folder, splits_of_siblings
from vaelab.datasets.skipped import SkippedFile
from vaelab.datasets.sources.labels import LabelColumn, encode_labels, label_notes, read_label_column
from vaelab.datasets.sources.metadata import METADATA_NAMES, Metadata, attribute_array, read_metadata
from vaelab.datasets.sources.source import DataSource, Precedence, RawDataset, RawSplit, Request, register
from vaelab.datasets.sources.walk import FoundFile, Walk, walk_files

__all__ = ["folder_source"]


class SortedFiles(NamedTuple):
    """The files of a folder by what they are for."""

    pictures: list[FoundFile]
    metadata: list[FoundFile]
    unreadable: list[SkippedFile]
    other_kinds: dict[str, int]


class Layout(NamedTuple):
    """How the folders of pictures are to be understood.

    Args:
        depth: The number of leading folders that wrap everything and say nothing.
        split_folders: The split that each folder below these stands for, such as "train", or "cat/train" where the
            splits are inside the categories; empty where there are categories alone.
        category_depth: The number of leading folders above that of the category.
        notes: Sentences for the user.
    """

    depth: int
    split_folders: Mapping[str, str]
    category_depth: int
    notes: list[str]


def _is_folder(request: Request) -> bool:
    return request.path is not None and request.path.is_dir()


@register(Precedence.ANY_PATH, _is_folder, lambda: sorted(readable_suffixes()))
def folder_source(request: Request) -> DataSource:
    """A folder of pictures.

    Sub-folders are categories. Where they are named after splits (train, Training, val, test, ...), they are the
    splits, and the folders below them the categories; they may also be inside each category. A lone folder around
    everything is passed through. metadata.csv, metadata.jsonl or metadata.parquet may give the labels.

    Raises:
        UserError: The folder holds no picture that can be read.
    """
    assert request.path is not None
    path = request.path
    walk = walk_files(path)
    files = _sort_files(walk)
    if not files.pictures:
        raise _no_pictures_error(path, walk, files)
    used = sorted(files.pictures + files.metadata)
    stamp: list[Any] = [[file.name, file.size, file.mtime_ns, file.ctime_ns] for file in used]
    if any(file.name.lower().endswith(HEIC_SUFFIXES) for file in files.pictures):
        stamp.append(_heic_reader_version())
    names = [file.name for file in files.pictures]
    read = partial(_read_folder, path, names, [file.name for file in files.metadata])
    skipped = (*walk.skipped, *files.unreadable)
    return DataSource(str(path.resolve()), stamp, read, skipped, tuple(walk.notes), files.other_kinds)


def _heic_reader_version() -> list[str]:
    from importlib.metadata import version

    return ["pi-heif", version("pi-heif")]


def _suffix(name: str) -> str:
    return name[name.rfind(".") :].lower() if "." in name.rpartition("/")[2] else ""


def _sort_files(walk: Walk) -> SortedFiles:
    """Tell pictures from metadata, from pictures that cannot be read here, and from other files."""
    readable = readable_suffixes()
    pictures, metadata, unreadable = [], [], []
    others: Counter[str] = Counter()
    for file in walk.files:
        suffix = _suffix(file.name)
        if suffix in readable:
            pictures.append(file)
        elif file.name.rpartition("/")[2].lower() in METADATA_NAMES:
            metadata.append(file)
        elif reason := unreadable_reason(suffix):
            unreadable.append(SkippedFile(printable(file.name), reason))
        else:
            others[printable(suffix) or "no suffix"] += 1
    return SortedFiles(pictures, metadata, unreadable, dict(others.most_common()))


def _no_pictures_error(path: Path, walk: Walk, files: SortedFiles) -> UserError:
    where = shown(path.resolve())
    known = f"known are {' '.join(sorted(readable_suffixes()))}"
    if files.unreadable:
        first = files.unreadable[0]
        count = count_text(len(files.unreadable), "file")
        what = f"no pictures in {where} that can be read: {count} such as {shown(first.file)}"
        return UserError(f"{what}\n{first.reason}\n{known}")
    if not walk.files:
        return UserError(f"no pictures in {where} (it is empty)\n{known}")
    names = list_text((file.name for file in walk.files), 3)
    count = count_text(len(walk.files), "other file")
    return UserError(f"no pictures in {where} (it holds {count}: {names})\n{known}")


# Splits and categories.


def _read_folder(path: Path, names: Sequence[str], metadata_files: Sequence[str]) -> RawDataset:
    """The pictures of a folder by split and category, as their relative names and the metadata say."""
    layout = _find_layout(path, names)
    members: dict[str, list[str]] = {}
    unused = []
    for name in names:
        split = _split_of(name, layout)
        if split is None:
            unused.append(name)
        else:
            members.setdefault(split, []).append(name)
    notes = list(layout.notes)
    if unused:
        count = count_text(len(unused), "picture")
        verb = agree(len(unused), "is", "are")
        notes.append(f"{count} beside train {verb} not used, such as {shown(unused[0])}")
    metadata = read_metadata(path, metadata_files, names) if metadata_files else None
    if metadata is not None:
        notes.extend(metadata.notes)
    columns, its_notes = _label_columns(members, layout, metadata)
    notes.extend(its_notes)
    labels, categories = encode_labels(columns)
    splits = {}
    for split, files in members.items():
        shown_names = [printable(name) for name in files]
        images = [path / name for name in files]
        splits[split] = RawSplit(images, labels[split], shown_names, _attributes(files, metadata))
    return RawDataset(splits, categories, tuple(notes))


def _find_layout(path: Path, names: Sequence[str]) -> Layout:
    """Whether folders stand for splits or categories, below those that wrap everything.

    Raises:
        UserError: There are splits, but none for training.
    """
    depth = _wrapping_depth(names)
    notes = []
    if depth:
        wrapper = shown("/".join(names[0].split("/")[:depth]))
        notes.append(f"all pictures lie below {wrapper}, whose folders are taken as those of the data")
    tops = {name.split("/")[depth] for name in names if name.count("/") > depth}
    known = splits_of_siblings(tops)
    splits = set(known.values())
    # A category may itself be called "train": it is a split only beside another one, or alone.
    if "train" in splits and (len(splits) > 1 or len(tops) == 1):
        return Layout(depth, known, depth + 1, notes + _merged_split_notes(known))
    if tops and len(known) == len(tops) and "train" not in splits:
        raise _no_training_error(path, list(known))
    inner = _inner_splits(names, depth, tops)
    folders = list_text(sorted({folder.partition("/")[2] for folder in inner.split_folders}))
    if inner.is_complete:
        notes.append(f"the folders {folders} inside the categories are the splits")
        return Layout(depth, inner.split_folders, depth, notes)
    if len(set(inner.split_folders.values())) > 1:
        notes.append(f"the folders {folders} are no splits, since not every category has train and splits alone inside")
    return Layout(depth, {}, depth, notes)


class InnerSplits(NamedTuple):
    """The folders inside the categories that are called after splits, and whether they can be the splits."""

    split_folders: dict[str, str]
    is_complete: bool


def _inner_splits(names: Sequence[str], depth: int, tops: Iterable[str]) -> InnerSplits:
    """The splits inside the categories, as in cat/train and cat/test.

    They are complete where every category has a train split and no other folders, and there are at least two splits.
    """
    inner: dict[str, set[str]] = {top: set() for top in tops}
    for name in names:
        parts = name.split("/")
        if len(parts) > depth + 2:
            inner[parts[depth]].add(parts[depth + 1])
    splits: dict[str, str] = {}
    is_complete = bool(inner)
    for top, folders in inner.items():
        known = splits_of_siblings(folders)
        is_complete = is_complete and len(known) == len(folders) and "train" in known.values()
        splits.update({f"{top}/{folder}": split for folder, split in known.items()})
    return InnerSplits(splits, is_complete and len(set(splits.values())) > 1)


def _wrapping_depth(names: Sequence[str]) -> int:
    """The number of folders, each the only one beside no picture, that hold further folders and are no splits."""
    folders = [PurePosixPath(name).parts[:-1] for name in names]
    depth = 0
    while True:
        tops = {parts[depth] if len(parts) > depth else None for parts in folders}
        if len(tops) != 1 or None in tops:
            return depth
        is_leaf = any(len(parts) == depth + 1 for parts in folders)
        if is_leaf or split_of_folder(str(next(iter(tops)))) is not None:
            return depth
        depth += 1


def _merged_split_notes(known: Mapping[str, str]) -> list[str]:
    notes = []
    for split in dict.fromkeys(known.values()):
        folders = [folder for folder, its_split in known.items() if its_split == split]
        if len(folders) > 1:
            notes.append(f"the folders {list_text(folders)} together are the {split} split")
    return notes


def _no_training_error(path: Path, folders: list[str]) -> UserError:
    first = folders[0]
    return UserError(
        f"{shown(path)} has {list_text(folders)} but no pictures in train\n"
        f"put pictures for training into {shown(path.name)}/train, or name the folder itself: {shown(path / first)}"
    )


def _split_of(name: str, layout: Layout) -> str | None:
    """The split of a picture; None where it lies beside the folders of the splits."""
    if not layout.split_folders:
        return "train"
    folders = name.split("/")[layout.depth : -1]
    return layout.split_folders.get("/".join(folders[:1])) or layout.split_folders.get("/".join(folders[:2]))


def _label_columns(
    members: Mapping[str, list[str]], layout: Layout, metadata: Metadata | None
) -> tuple[dict[str, LabelColumn | None], list[str]]:
    """The labels of each split, of the metadata where they have any, else the folders; and sentences for the user."""
    notes: list[str] = []
    if metadata is not None and metadata.label_column is not None:
        name = metadata.label_column
        values = {split: _plain_column(metadata.values(names, name)) for split, names in members.items()}
        readings = {split: read_label_column(column) for split, column in values.items()}
        labels = {split: reading.column for split, reading in readings.items()}
        notes = label_notes(name, labels, {split: reading.reason for split, reading in readings.items()})
        if any(labels.values()):
            return labels, notes
    return _folder_labels(members, layout), notes


def _folder_labels(members: Mapping[str, list[str]], layout: Layout) -> dict[str, LabelColumn | None]:
    """The folders as labels."""
    depth = layout.category_depth
    values = {split: [_folder_at(name, depth) for name in names] for split, names in members.items()}
    if not any(value is not None for column in values.values() for value in column):
        return dict.fromkeys(members)
    return {split: LabelColumn(column) for split, column in values.items()}


def _plain_column(values: list[Any]) -> list[Any]:
    """Labels of metadata: numbers where all of them are, so that they are sorted as such."""
    given = [value for value in values if value not in (None, "")]
    if not all(isinstance(value, str | int | float) for value in given):
        return values
    array = attribute_array(given)
    if array.dtype.kind not in "if":
        return values
    return [None if value in (None, "") else array.dtype.type(value).item() for value in values]


def _folder_at(name: str, depth: int) -> str | None:
    parts = name.split("/")
    return parts[depth] if len(parts) > depth + 1 else None


def _attributes(names: Sequence[str], metadata: Metadata | None) -> dict[str, np.ndarray]:
    if metadata is None:
        return {}
    return {printable(name): attribute_array(metadata.values(names, name)) for name in metadata.attributes}
