"""Images: uint8 pixels, labels and splits, in memory or mapped from disk.

A split is part of the data and not of a run. What a source does not store is held out by constant seeds, stratified by
label, so that every run, whatever its seed, trains, validates and tests on the same pictures.
"""

from __future__ import annotations

import mmap
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from vaelab.core.errors import UserError
from vaelab.datasets.skipped import SkippedFile, SkippedGroup, group_skipped

__all__ = [
    "SPLIT_ORDER",
    "Dataset",
    "DatasetFacts",
    "Duplicates",
    "Examples",
    "Images",
    "is_binary",
    "kind_differences",
    "select_split",
]

SPLIT_ORDER = ("train", "validation", "test")

# Bytes of pixels from which they may not all stay in memory: a quarter of it.
PREFETCH_BYTES = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4 if hasattr(os, "sysconf") else 2**32

MAX_IMAGES_OF_MEAN = 10_000  # the error of their mean is below one of the 256 levels

Index = np.ndarray | Sequence[int] | slice | int


@dataclass(frozen=True, eq=False)
class Images:
    """Some pictures of a stored split: the stored arrays, shared and never copied, and which `rows` of them.

    Args:
        stored_pixels: uint8 pixels of all stored pictures, (M, C, H, W); often mapped from disk.
        rows: Which stored pictures these are, (N,).
        stored_labels: Indices into `categories`, (M,); -1 is unlabelled; None where the source has no labels.
        categories: The names of the categories.
        split: The name of the split.
        stored_names: Relative paths of the pictures, (M,); None where they are not files.
        source_pixels: The grey pixels from which binarised ones were drawn, (M, C, H, W), where training draws anew.
        stored_attributes: Further columns that the source has of each picture, each (M,).

    Example:
        >>> images = Images(np.zeros((4, 1, 2, 2), np.uint8), np.arange(4), None, (), "train", None)
        >>> len(images), images.shape, images.select([0, 2]).pixels.shape
        (4, (1, 2, 2), (2, 1, 2, 2))
    """

    stored_pixels: np.ndarray
    rows: np.ndarray
    stored_labels: np.ndarray | None
    categories: tuple[str, ...]
    split: str
    stored_names: np.ndarray | None
    source_pixels: np.ndarray | None = None
    stored_attributes: Mapping[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one picture."""
        channels, height, width = self.stored_pixels.shape[1:]
        return channels, height, width

    @property
    def pixels(self) -> np.ndarray:
        """The pixels of these pictures, uint8 (N, C, H, W): a view where they are neighbours in the stored array."""
        return self.stored_pixels[_as_slice(self.rows)]

    @property
    def labels(self) -> np.ndarray | None:
        """The labels of these pictures, int64 (N,), -1 where there is none; None where the source has no labels."""
        return None if self.stored_labels is None else self.stored_labels[self.rows]

    @property
    def names(self) -> np.ndarray | None:
        """The relative paths of these pictures, (N,); None where they are not files."""
        return None if self.stored_names is None else self.stored_names[self.rows]

    @property
    def attributes(self) -> dict[str, np.ndarray]:
        """Further columns of these pictures, by name, each (N,)."""
        return {name: column[self.rows] for name, column in self.stored_attributes.items()}

    def select(self, index: np.ndarray | Sequence[int] | slice) -> Images:
        """The pictures at `index` (positions, a mask or a slice), in that order."""
        return replace(self, rows=self.rows[index])

    def evenly_spaced(self, count: int) -> Images:
        """At most `count` of the pictures, evenly over all of them: sources are often sorted by category."""
        return self.select(np.linspace(0, len(self) - 1, min(count, len(self))).astype(np.int64))

    def uint8(self, index: Index | None = None) -> np.ndarray:
        """The pixels of all pictures, or of those at `index`, as a new contiguous array (n, C, H, W)."""
        return self._gather(self.stored_pixels, index)

    def unbinarised(self, index: Index | None = None) -> np.ndarray:
        """As `uint8`, before dynamic binarisation: what training draws its pixels from."""
        return self._gather(self.stored_pixels if self.source_pixels is None else self.source_pixels, index)

    def mean_image(self) -> np.ndarray:
        """The mean of the pictures in [0, 1], float32 (C, H, W), before binarisation; of 10,000 where there are more.

        Example:
            >>> pixels = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
            >>> Images(pixels, np.arange(2), None, (), "train", None).mean_image()
            array([[[0.5]]], dtype=float32)
        """
        pixels = self.evenly_spaced(MAX_IMAGES_OF_MEAN).unbinarised()
        return (pixels.mean(0, dtype=np.float64) / 255).astype(np.float32)

    def prefetch(self, index: np.ndarray) -> None:
        """Ask the system to read the pictures at `index` from disk, where not all may stay in memory.

        A picture that is not in memory when it is needed costs a wait for the disk; asked for beforehand, together
        with others, it costs next to nothing.
        """
        pixels = self.stored_pixels if self.source_pixels is None else self.source_pixels
        memory_map = getattr(pixels, "base", None)
        if not isinstance(pixels, np.memmap) or not isinstance(memory_map, mmap.mmap):
            return
        if pixels.nbytes < PREFETCH_BYTES or not hasattr(memory_map, "madvise"):
            return
        size = pixels[0].nbytes
        for row in self.rows[index].tolist():
            start = pixels.offset + row * size
            page = start - start % mmap.PAGESIZE
            memory_map.madvise(mmap.MADV_WILLNEED, page, start + size - page)

    def _gather(self, pixels: np.ndarray, index: Index | None) -> np.ndarray:
        rows = self.rows if index is None else np.atleast_1d(self.rows[index])
        return np.ascontiguousarray(pixels[rows])

    def label(self, index: Index | None = None) -> np.ndarray:
        """The labels of all pictures, or of those at `index`, as int64 (n,); -1 where there is none."""
        rows = self.rows if index is None else np.atleast_1d(self.rows[index])
        return np.full(len(rows), -1, np.int64) if self.stored_labels is None else self.stored_labels[rows]

    def name(self, i: int) -> str:
        """The relative path of picture `i`, or its row as text where the source has no files."""
        row = self.rows[i]
        return str(row) if self.stored_names is None else str(self.stored_names[row])


def _as_slice(rows: np.ndarray) -> np.ndarray | slice:
    """The rows as a slice where they follow one another, so that selecting them copies nothing."""
    if len(rows) and rows[0] >= 0 and (np.diff(rows) == 1).all():
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


@dataclass(frozen=True)
class Examples:
    """How many pictures something is true of, and the names of the first few."""

    count: int = 0
    examples: tuple[str, ...] = ()


@dataclass(frozen=True)
class Duplicates:
    """How many test pictures stand in the training split too, and the first pairs (test, train) of names."""

    count: int = 0
    examples: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class DatasetFacts:
    """What is known of the files behind a data set.

    Args:
        sizes: Number of pictures by size, "WIDTHxHEIGHT", before they are resized.
        modes: Number of pictures by Pillow's mode.
        formats: Number of pictures by file format.
        duplicates: Test pictures that stand in the training split too.
        one_colour: Pictures whose pixels all have one colour.
        value_range: The values that became black and white, where pictures have more than 8 bits a channel.
        value_ranges: The same for "integer" and "floating" values apart, where there are such pictures.
        other_files: Number of files that are no pictures.
        other_kinds: Number of files that are no pictures by suffix.
        columns: The columns of a table that are used.
        attributes: The names of further columns that are kept.
        split_origins: How each split came about.
        bytes: The size of the cache entry.
        cache: The folder of the cache entry.
    """

    sizes: dict[str, int]
    modes: dict[str, int]
    formats: dict[str, int]
    duplicates: Duplicates = Duplicates()
    one_colour: Examples = Examples()
    value_range: tuple[float, float] | None = None
    value_ranges: dict[str, tuple[float, float]] = field(default_factory=dict)
    other_files: int = 0
    other_kinds: dict[str, int] = field(default_factory=dict)
    columns: tuple[str, ...] = ()
    attributes: tuple[str, ...] = ()
    split_origins: dict[str, str] = field(default_factory=dict)
    bytes: int = 0
    cache: str = ""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Images by split, where they came from and what is worth knowing about them.

    Args:
        source: What named the data.
        location: Where they are.
        splits: The images by the name of the split.
        fingerprint: Hash of pixels, labels, categories and splits as they are stored; neither path nor time nor cache
            enters it.
        skipped: Files (or rows of a table) that are not used, each with its reason.
        notes: What a user should know before trusting numbers that come from these data.
        facts: What is known of the source's files.
        size: The size that was asked for: a side, or height and width.
        validation: The fraction held out for validation; None gives the splits that are stored.
        subset: How many pictures were kept for training and validation.
        binarise: How pixels were made black or white.
        value_range: The values that were asked to become black and white; None for what the pictures suggest.
        split_seed: Which of many ways of drawing the splits that are not stored; 0 is the usual one.
    """

    source: str
    location: str
    splits: dict[str, Images]
    fingerprint: str
    skipped: tuple[SkippedFile, ...]
    notes: tuple[str, ...]
    facts: DatasetFacts
    size: int | tuple[int, int] | None
    validation: float | None
    subset: int | None = None
    binarise: str | None = None
    value_range: tuple[float, ...] | None = None
    split_seed: int = 0

    @property
    def skipped_groups(self) -> tuple[SkippedGroup, ...]:
        """The skipped files by kind and reason, most frequent first, each group with its remedy."""
        return group_skipped(self.skipped)

    def evaluation_images(self) -> Images:
        """The stored test split, or all pictures where the source stores none."""
        train, test = self.splits["train"], self.splits.get("test")
        if test is not None and test.stored_pixels is not train.stored_pixels:
            return test
        return replace(train, rows=np.arange(len(train.stored_pixels)), split="all")


def is_binary(images: Images) -> bool:
    """Whether the pixels of the first thousand images are all black or white."""
    return bool(np.isin(images.evenly_spaced(1000).uint8(), (0, 255)).all())


def _image_kind(images: Images) -> str:
    """What the pixels of the first thousand images show: black and white, grey or colour."""
    if is_binary(images):
        return "black and white"
    pixels = images.evenly_spaced(1000).uint8()
    return "grey" if (pixels == pixels[:, :1]).all() else "colour"


def kind_differences(splits: Mapping[str, Images]) -> list[str]:
    """Sentences on stored splits whose pictures are of another kind than those of the training split.

    Splits that are held out of the training split are of its kind.

    Example:
        >>> grey, colour = np.full((2, 3, 8, 8), 7, np.uint8), np.arange(384, dtype=np.uint8).reshape(2, 3, 8, 8)
        >>> train, test = (Images(pixels, np.arange(2), None, (), "", None) for pixels in (grey, colour))
        >>> kind_differences({"train": train, "test": test})
        ['the test split is colour, the train split is grey']
    """
    train = splits["train"]
    differences = []
    for split, images in splits.items():
        if images.stored_pixels is train.stored_pixels:
            continue
        kind, train_kind = _image_kind(images), _image_kind(train)
        if kind != train_kind:
            differences.append(f"the {split} split is {kind}, the train split is {train_kind}")
    return differences


def select_split(dataset: Dataset, split: str) -> Images:
    """A split of a data set.

    Raises:
        UserError: There is no such split; the message names those there are.
    """
    if split not in dataset.splits:
        raise UserError(f'{dataset.source} has no split "{split}" (have: {", ".join(dataset.splits)})')
    return dataset.splits[split]
