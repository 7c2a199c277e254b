"""Folders of image files; subfolders are categories or splits."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from vaelab.core.errors import UserError
from vaelab.datasets.decoding import SUFFIXES, error_text
from vaelab.datasets.sources.raw import SPLIT_FOLDERS, DataSource, RawDataset, RawSplit, Skipped, encode_labels

__all__ = ["folder_source"]


def folder_source(path: Path) -> DataSource:
    """A folder of pictures: sub-folders are categories, below train/, test/ and validation/ if there is a train/."""
    skipped: Skipped = []
    files = sorted(_walk_files(path, "", (_inode(path),), skipped))
    chosen = [(name, status) for name, status in files if name[name.rfind(".") :].lower() in SUFFIXES]
    if not chosen:
        others = ", ".join(name for name, _ in files[:3]) + (" ..." if len(files) > 3 else "")
        held = f"it holds {len(files)} other files: {others}" if files else "it is empty"
        raise UserError(f"no pictures in {path.resolve()} ({held})\nknown are {' '.join(sorted(SUFFIXES))}")
    stamp = [[name, status.st_size, status.st_mtime_ns, status.st_ctime_ns] for name, status in chosen]
    others = len(files) - len(chosen)
    return DataSource(
        str(path.resolve()), stamp, partial(_split_by_folder, path, [name for name, _ in chosen], skipped, others)
    )


def _walk_files(
    folder: Path, prefix: str, parent_inodes: tuple[Any, ...], skipped: Skipped
) -> Iterator[tuple[str, os.stat_result]]:
    """The files below a folder, hidden ones left out; a link that leads back to a folder above is not followed."""
    try:
        entries = list(os.scandir(folder))
    except OSError as error:
        skipped.append((prefix, error_text(error)))
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
            elif (mark := _inode(Path(entry.path))) not in parent_inodes:
                yield from _walk_files(Path(entry.path), f"{name}/", (*parent_inodes, mark), skipped)
        except OSError as error:
            skipped.append((name, error_text(error)))


def _inode(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _split_by_folder(path: Path, names: list[str], skipped: Skipped, others: int) -> RawDataset:
    """The pictures of a folder by split and category, as their relative names say."""
    tops = {name.split("/")[0] for name in names if "/" in name}
    known = {top: SPLIT_FOLDERS[top.lower()] for top in tops if top.lower() in SPLIT_FOLDERS}
    # A category may itself be called "train": it is a split only beside another one, or alone.
    stored = "train" in known.values() and (len(known) > 1 or len(tops) == 1)
    if not stored and tops and len(known) == len(tops):
        raise UserError(f"{path} has {', '.join(sorted(known))} but no pictures in train")
    members: dict[str, list[str]] = {}
    for name in names:
        members.setdefault(known.get(name.split("/")[0], "") if stored else "train", []).append(name)
    beside = members.pop("", [])
    notes = [f"{len(beside)} pictures beside train are not used, such as {beside[0]}"] if beside else []
    values = {split: [_folder_category(name, stored) for name in part] for split, part in members.items()}
    named = any(value for column in values.values() for value in column)
    labels, categories = encode_labels({split: column if named else None for split, column in values.items()}, None)
    parts = {split: RawSplit([path / name for name in part], labels[split], part) for split, part in members.items()}
    return RawDataset(parts, categories, list(skipped), notes, {"other_files": others})


def _folder_category(name: str, stored: bool) -> str | None:
    folders = name.split("/")[1 if stored else 0 : -1]
    return folders[0] if folders else None
