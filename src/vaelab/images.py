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

from vaelab.errors import UserError

__all__ = ["Dataset", "Images", "binarised", "make_splits", "reduce"]

HELD_OUT = 0.2  # of a source without a test split
TEST_SEED, VALIDATION_SEED = 20131220, 20140116  # constants: a split is part of the data, not of the run
BINARISE_SEED = 20150901  # a constant as well
SPLITS = ("train", "validation", "test")
# Bytes of pixels from which they may not all stay in memory: a quarter of it.
LARGE = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4 if hasattr(os, "sysconf") else 2**32


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
    origin: np.ndarray | None = None

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
        return self._gather(self.pixels, index)

    def grey(self, index: np.ndarray | Sequence[int] | slice | int | None = None) -> np.ndarray:
        """As `uint8`, before dynamic binarisation: what training draws its pixels from."""
        return self._gather(self.pixels if self.origin is None else self.origin, index)

    def expect(self, index: np.ndarray) -> None:
        """Have the pictures at `index` read from disk ahead of their time, where not all may stay in memory.

        A picture that is not there when it is asked for costs a wait for the disk; asked for beforehand, together with
        others, next to nothing.
        """
        pixels = self.pixels if self.origin is None else self.origin
        there = getattr(pixels, "base", None)
        if not isinstance(pixels, np.memmap) or not isinstance(there, mmap.mmap) or pixels.nbytes < LARGE:
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

    def unsplit(self) -> Images:
        """The stored test split, or all pictures where the source stores none."""
        train, test = self.splits["train"], self.splits.get("test")
        if test is not None and test.pixels is not train.pixels:
            return test
        return replace(train, rows=np.arange(len(train.pixels)), split="all")


def make_splits(parts: dict[str, Images], validation: float | None) -> tuple[dict[str, Images], dict[str, str]]:
    """Train, validation if asked for, and test, and how each came about; with validation None, as stored."""
    splits: dict[str, Images] = {"train": parts["train"]}
    made: dict[str, str] = dict.fromkeys(SPLITS, "stored")
    wanted = [("test", HELD_OUT, TEST_SEED), ("validation", validation, VALIDATION_SEED)]
    for split, fraction, seed in wanted:
        if fraction != 0 and split in parts:
            splits[split] = parts[split]
        elif fraction:
            _hold_out(splits, split, fraction, seed)
            made |= {split: f"{fraction:.6g} of train, stratified, by a fixed seed", "train": "the rest"}
    splits = {split: splits[split] for split in SPLITS if split in splits}
    return splits, {split: made[split] for split in splits}


def reduce(splits: dict[str, Images], count: int) -> dict[str, Images]:
    """The splits with at most `count` pictures for training and validation together, in the proportion they had.

    Categories get equal shares as far as they have the pictures; a fixed seed draws them. The test split stays whole.
    """
    total = sum(len(images) for split, images in splits.items() if split != "test")
    shares = {split: round(count * len(images) / total) for split, images in splits.items() if split != "test"}
    if empty := [split for split, share in shares.items() if not share]:
        raise UserError(f"subset {count} leaves no picture for {' and '.join(empty)}; give more of them")
    return splits | {split: splits[split].select(_balanced(splits[split].label(), n)) for split, n in shares.items()}


def binarised(splits: dict[str, Images], keep: bool) -> dict[str, Images]:
    """The splits with every pixel drawn to be 0 or 255, with its grey value as the probability: by a constant seed.

    The draw is a function of the stored picture's row. `keep` leaves the grey pixels at hand for training, so that it
    may draw anew at each visit. Source: On the Quantitative Analysis of Deep Belief Networks, Salakhutdinov and Murray
    2008, from which the field has the custom.
    """
    drawn: dict[int, np.ndarray] = {}
    for images in splits.values():  # splits may share their pixels
        if id(images.pixels) not in drawn:
            drawn[id(images.pixels)] = _draw(images.pixels, len(drawn))
    return {split: replace(images, pixels=drawn[id(images.pixels)], origin=images.pixels if keep else None)
            for split, images in splits.items()}  # fmt: skip


def _draw(pixels: np.ndarray, part: int) -> np.ndarray:
    drawn = np.empty(pixels.shape, np.uint8)
    for block, start in enumerate(range(0, len(pixels), 1024)):
        some = pixels[start : start + 1024]
        chance = np.random.default_rng([BINARISE_SEED, part, block]).integers(255, size=some.shape, dtype=np.uint8)
        drawn[start : start + 1024] = 255 * (chance < some)
    return drawn


def _balanced(labels: np.ndarray, count: int) -> np.ndarray:
    """Positions, sorted, of at most `count` pictures: the first of each category, then the second, and so on."""
    order = np.random.default_rng(VALIDATION_SEED).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    first = np.searchsorted(labels[order], labels[order])  # where the category of each begins
    turn = np.argsort(np.arange(len(order)) - first, kind="stable")
    return np.sort(order[turn[:count]])


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
