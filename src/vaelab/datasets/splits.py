"""Splits: train, validation and test, stratified subsets, and binarised copies."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import numpy as np

from vaelab.core.errors import UserError
from vaelab.datasets.images import SPLIT_ORDER, Images

__all__ = ["Splits", "binarise_splits", "make_splits", "subsample_splits"]

TEST_FRACTION = 0.2  # of a source without a test split

TEST_SEED, VALIDATION_SEED = 20131220, 20140116  # constants: a split is part of the data, not of a run's randomness

BINARISE_SEED = 20150901  # a constant as well

ROWS_PER_BLOCK = 1024  # pictures that are binarised together

DrawSeed = int | list[int]  # as NumPy takes it


class Splits(NamedTuple):
    """The splits of a data set, and how each came about: "stored", or in words."""

    images: dict[str, Images]
    origins: dict[str, str]


def make_splits(stored_splits: dict[str, Images], validation: float | None, split_seed: int = 0) -> Splits:
    """Make the splits that a source does not store.

    Args:
        stored_splits: The stored splits; `train` is among them.
        validation: The fraction of the training pictures held out for validation, where no such split is stored; 0 for
            none, also where one is stored; None for just what is stored.
        split_seed: Which of many ways of drawing them; stored splits stay as they are.

    Returns:
        Train, validation and test, as far as pictures can be spared for them.
    """
    splits = {"train": stored_splits["train"]}
    origins: dict[str, str] = dict.fromkeys(SPLIT_ORDER, "stored")
    requested_splits = [("test", TEST_FRACTION, TEST_SEED), ("validation", validation, VALIDATION_SEED)]
    for split, fraction, seed in requested_splits:
        if fraction != 0 and split in stored_splits:
            splits[split] = stored_splits[split]
        elif fraction:
            splits.update(_hold_out(splits["train"], split, fraction, _draw_seed(seed, split_seed)))
            drawn_by = f"by split seed {split_seed}" if split_seed else "by a fixed seed"
            origins[split] = f"{fraction:.6g} of train, stratified, {drawn_by}"
            origins["train"] = "the rest"
    present = [split for split in SPLIT_ORDER if split in splits]
    return Splits({split: splits[split] for split in present}, {split: origins[split] for split in present})


def _draw_seed(seed: int, split_seed: int) -> DrawSeed:
    """The seed of a draw; split seed 0 draws as it always was."""
    return [seed, split_seed] if split_seed else seed


def subsample_splits(splits: dict[str, Images], count: int, split_seed: int = 0) -> dict[str, Images]:
    """Keep at most `count` pictures for training and validation together, in the proportion they had.

    Categories get equal shares as far as they have the pictures; a fixed seed draws them, another one for each split
    seed. The test split stays whole.

    Raises:
        UserError: So few would leave a split empty.
    """
    reduced = [split for split in splits if split != "test"]
    total = sum(len(splits[split]) for split in reduced)
    shares = {split: round(count * len(splits[split]) / total) for split in reduced}
    empty = [split for split, share in shares.items() if not share]
    if empty:
        raise UserError(f"subset {count} leaves no picture for {' and '.join(empty)}; give more of them")
    subsets = dict(splits)
    seed = _draw_seed(VALIDATION_SEED, split_seed)
    for split, share in shares.items():
        subsets[split] = splits[split].select(_balanced_subset(splits[split].label(), share, seed))
    return subsets


def binarise_splits(splits: dict[str, Images], keep_source: bool) -> dict[str, Images]:
    """Draw every pixel to be 0 or 255, with its grey value as the probability, by a constant seed.

    The draw is a function of the stored picture's row.

    Args:
        splits: The splits of a data set.
        keep_source: Keep the grey pixels for training, so that it may draw anew at each visit.

    Source: On the Quantitative Analysis of Deep Belief Networks, Salakhutdinov and Murray 2008, from which the field
    has the custom.
    """
    drawn_pixels: dict[int, np.ndarray] = {}
    binarised = {}
    for split, images in splits.items():
        pixels = images.stored_pixels
        if id(pixels) not in drawn_pixels:  # splits may share their pixels
            drawn_pixels[id(pixels)] = _draw_binary_pixels(pixels, len(drawn_pixels))
        source_pixels = pixels if keep_source else None
        binarised[split] = replace(images, stored_pixels=drawn_pixels[id(pixels)], source_pixels=source_pixels)
    return binarised


def _draw_binary_pixels(pixels: np.ndarray, split_index: int) -> np.ndarray:
    drawn = np.empty(pixels.shape, np.uint8)
    for block, start in enumerate(range(0, len(pixels), ROWS_PER_BLOCK)):
        block_pixels = pixels[start : start + ROWS_PER_BLOCK]
        rng = np.random.default_rng([BINARISE_SEED, split_index, block])
        thresholds = rng.integers(255, size=block_pixels.shape, dtype=np.uint8)
        drawn[start : start + ROWS_PER_BLOCK] = 255 * (thresholds < block_pixels)
    return drawn


def _balanced_subset(labels: np.ndarray, count: int, seed: DrawSeed) -> np.ndarray:
    """Positions, sorted, of at most `count` pictures: the first of each category, then the second, and so on."""
    order = _shuffled_by_label(labels, seed)
    category_start = np.searchsorted(labels[order], labels[order])
    round_robin_order = np.argsort(np.arange(len(order)) - category_start, kind="stable")
    return np.sort(order[round_robin_order[:count]])


def _shuffled_by_label(labels: np.ndarray, seed: DrawSeed) -> np.ndarray:
    """Positions, shuffled and then sorted by label."""
    order = np.random.default_rng(seed).permutation(len(labels))
    return order[np.argsort(labels[order], kind="stable")]


def _hold_out(train: Images, split: str, fraction: float, seed: DrawSeed) -> dict[str, Images]:
    """Move a fraction of the training pictures into another split; empty where none can be spared."""
    mask = _stratified_mask(train.label(), fraction, seed)
    if not mask.any() and split == "validation":  # each category has one picture: some of them are given up
        mask = _stratified_mask(np.zeros(len(train), np.int64), fraction, seed)
    if not mask.any():
        return {}
    return {split: replace(train.select(mask), split=split), "train": train.select(~mask)}


def _stratified_mask(labels: np.ndarray, fraction: float, seed: DrawSeed) -> np.ndarray:
    """A mask of the fraction, at least one, that is held out: evenly among the labels, never the last of its label.

    The pictures, shuffled and then sorted by label, are passed at even steps; the first of each label is left out.
    """
    order = _shuffled_by_label(labels, seed)
    candidates = order[1:][labels[order[1:]] == labels[order[:-1]]]
    count = min(max(1, round(fraction * len(labels))), len(candidates))
    mask = np.zeros(len(labels), bool)
    mask[candidates[(2 * np.arange(count) + 1) * len(candidates) // (2 * max(count, 1))]] = True
    return mask
