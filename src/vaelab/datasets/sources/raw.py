"""Raw data sets: encoded images and labels by split, before decoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from vaelab.core.errors import UserError

__all__ = ["SPLITS", "SPLIT_FOLDERS", "DataSource", "RawDataset", "RawSplit", "Skipped", "encode_labels"]

SPLITS = ("train", "test", "validation")

SPLIT_FOLDERS = {
    "train": "train",
    "test": "test",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
}

Skipped = list[tuple[str, str]]  # (file, reason)


@dataclass(frozen=True, eq=False)
class RawSplit:
    """One stored split before decoding: paths, encoded bytes or arrays, their labels, and names if they are files."""

    images: Sequence[Any] | np.ndarray
    labels: np.ndarray | None
    names: Sequence[str] | None

    def select(self, index: Sequence[int]) -> RawSplit:
        pictures = [self.images[i] for i in index]
        labels = None if self.labels is None else self.labels[list(index)]
        return RawSplit(pictures, labels, None if self.names is None else [self.names[i] for i in index])

    def image_name(self, split: str, i: int) -> str:
        return f"{split} {i}" if self.names is None else self.names[i]


@dataclass(frozen=True, eq=False)
class RawDataset:
    """What every source yields: stored splits, categories and what was left aside."""

    splits: dict[str, RawSplit]
    categories: tuple[str, ...] = ()
    skipped: Skipped = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)


class DataSource(NamedTuple):
    """Where data lie, what they are known by in the cache (JSON), and how to read them should they not be there."""

    location: str
    cache_key_parts: Any
    read: Callable[[], RawDataset]


def encode_labels(
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
    arrays = {
        split: np.array([index.get(value, -1) for value in c], np.int64) if c is not None else None
        for split, c in columns.items()
    }
    return arrays, names or tuple(map(str, values))
