"""Images: uint8 pixels, labels and splits, in memory or mapped from disk.

A split is part of the data and not of a run: what a source does not store is held out by constant seeds, stratified by
label, so that every run, whatever its seed, trains, validates and tests on the same pictures.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vaelab.core.errors import UserError

__all__ = ["SPLIT_ORDER", "Dataset", "Images", "is_binary", "select_split"]

SPLIT_ORDER = ("train", "validation", "test")

# Bytes of pixels from which they may not all stay in memory: a quarter of it.
PREFETCH_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4 if hasattr(os, "sysconf") else 2**32


@dataclass(frozen=True, eq=False)
class Images:
    """Some pictures of a stored split: uint8 `pixels` (M, C, H, W), shared and never copied, and which `rows` of it.

    `labels` (M,) index `categories`, -1 is unlabelled, None where the source has no labels; `names` are relative paths.
    `origin` (M, C, H, W) are the grey pixels of which binarised ones were drawn, where they are drawn anew in training.
    """

    pixels: np.ndarray
    rows: np.ndarray
    labels: np.ndarray | None
    categories: tuple[str, ...]
    split: str
    names: np.ndarray | None
    source_pixels: np.ndarray | None = None

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

    def evenly_spaced(self, count: int) -> Images:
        """At most `count` of the pictures, evenly over all of them: sources are often sorted by category."""
        return self.select(np.linspace(0, len(self) - 1, min(count, len(self))).astype(np.int64))

    def uint8(self, index: np.ndarray | Sequence[int] | slice | int | None = None) -> np.ndarray:
        """The pixels of all pictures, or of those at `index`, as a contiguous array (n, C, H, W) of its own."""
        return self._gather(self.pixels, index)

    def unbinarised(self, index: np.ndarray | Sequence[int] | slice | int | None = None) -> np.ndarray:
        """As `uint8`, before dynamic binarisation: what training draws its pixels from."""
        return self._gather(self.pixels if self.source_pixels is None else self.source_pixels, index)

    def prefetch(self, index: np.ndarray) -> None:
        """Have the pictures at `index` read from disk ahead of their time, where not all may stay in memory.

        A picture that is not there when it is asked for costs a wait for the disk; asked for beforehand, together with
        others, next to nothing.
        """
        pixels = self.pixels if self.source_pixels is None else self.source_pixels
        there = getattr(pixels, "base", None)
        if not isinstance(pixels, np.memmap) or not isinstance(there, mmap.mmap) or pixels.nbytes < PREFETCH_BYTES:
            return
        if hasattr(there, "madvise"):
            size = pixels[0].nbytes
            for row in self.rows[index].tolist():
                start = pixels.offset + row * size
                page = start - start % mmap.PAGESIZE
                there.madvise(mmap.MADV_WILLNEED, page, start + size - page)

    def _gather(self, pixels: np.ndarray, index: np.ndarray | Sequence[int] | slice | int | None) -> np.ndarray:
        rows = self.rows if index is None else np.atleast_1d(self.rows[index])
        return np.ascontiguousarray(pixels[rows])

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

    `size`, `validation`, `subset` and `binarise` are what it was loaded with; `validation` None gives the splits that
    are stored. `fingerprint` hashes pixels, labels, categories and splits as they are stored; neither path nor time nor
    cache enters it. `skipped` are (file, reason); `facts` is what `describe` says of the source's files.
    """

    source: str
    location: str
    splits: dict[str, Images]
    fingerprint: str
    skipped: tuple[tuple[str, str], ...]
    notes: tuple[str, ...]
    facts: dict[str, Any]
    size: int | tuple[int, int] | None
    validation: float | None
    subset: int | None = None
    binarise: str | None = None

    def evaluation_images(self) -> Images:
        """The stored test split, or all pictures where the source stores none."""
        train, test = self.splits["train"], self.splits.get("test")
        if test is not None and test.pixels is not train.pixels:
            return test
        return replace(train, rows=np.arange(len(train.pixels)), split="all")


def is_binary(images: Images) -> bool:
    """Whether the pixels of the first thousand images are all black or white."""
    return bool(np.isin(images.evenly_spaced(1000).uint8(), (0, 255)).all())


def select_split(dataset: Dataset, split: str) -> Images:
    """A split of a data set, or the sentence that says which there are."""
    if split not in dataset.splits:
        raise UserError(f'{dataset.source} has no split "{split}" (have: {", ".join(dataset.splits)})')
    return dataset.splits[split]
