"""Splits: train, validation and test, stratified subsets, and binarised copies."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from vaelab.core.errors import UserError
from vaelab.datasets.images import SPLIT_ORDER, Images

__all__ = ["binarise_splits", "make_splits", "subsample_splits"]

TEST_FRACTION = 0.2  # of a source without a test split

TEST_SEED, VALIDATION_SEED = 20131220, 20140116  # constants: a split is part of the data, not of the run

BINARISE_SEED = 20150901  # a constant as well


def make_splits(stored_splits: dict[str, Images], validation: float | None) -> tuple[dict[str, Images], dict[str, str]]:
    """Train, validation if asked for, and test, and how each came about; with validation None, as stored."""
    splits: dict[str, Images] = {"train": stored_splits["train"]}
    made: dict[str, str] = dict.fromkeys(SPLIT_ORDER, "stored")
    wanted = [("test", TEST_FRACTION, TEST_SEED), ("validation", validation, VALIDATION_SEED)]
    for split, fraction, seed in wanted:
        if fraction != 0 and split in stored_splits:
            splits[split] = stored_splits[split]
        elif fraction:
            _hold_out(splits, split, fraction, seed)
            made |= {split: f"{fraction:.6g} of train, stratified, by a fixed seed", "train": "the rest"}
    splits = {split: splits[split] for split in SPLIT_ORDER if split in splits}
    return splits, {split: made[split] for split in splits}


def subsample_splits(splits: dict[str, Images], count: int) -> dict[str, Images]:
    """The splits with at most `count` pictures for training and validation together, in the proportion they had.

    Categories get equal shares as far as they have the pictures; a fixed seed draws them. The test split stays whole.
    """
    total = sum(len(images) for split, images in splits.items() if split != "test")
    shares = {split: round(count * len(images) / total) for split, images in splits.items() if split != "test"}
    if empty := [split for split, share in shares.items() if not share]:
        raise UserError(f"subset {count} leaves no picture for {' and '.join(empty)}; give more of them")
    return splits | {
        split: splits[split].select(_balanced_subset(splits[split].label(), n)) for split, n in shares.items()
    }


def binarise_splits(splits: dict[str, Images], keep_source: bool) -> dict[str, Images]:
    """The splits with every pixel drawn to be 0 or 255, with its grey value as the probability: by a constant seed.

    The draw is a function of the stored picture's row. `keep` leaves the grey pixels at hand for training, so that it
    may draw anew at each visit. Source: On the Quantitative Analysis of Deep Belief Networks, Salakhutdinov and Murray
    2008, from which the field has the custom.
    """
    drawn: dict[int, np.ndarray] = {}
    for images in splits.values():  # splits may share their pixels
        if id(images.pixels) not in drawn:
            drawn[id(images.pixels)] = _draw_binary_pixels(images.pixels, len(drawn))
    return {
        split: replace(images, pixels=drawn[id(images.pixels)], source_pixels=images.pixels if keep_source else None)
        for split, images in splits.items()
    }


def _draw_binary_pixels(pixels: np.ndarray, split_index: int) -> np.ndarray:
    drawn = np.empty(pixels.shape, np.uint8)
    for block, start in enumerate(range(0, len(pixels), 1024)):
        some = pixels[start : start + 1024]
        chance = np.random.default_rng([BINARISE_SEED, split_index, block]).integers(
            255, size=some.shape, dtype=np.uint8
        )
        drawn[start : start + 1024] = 255 * (chance < some)
    return drawn


def _balanced_subset(labels: np.ndarray, count: int) -> np.ndarray:
    """Positions, sorted, of at most `count` pictures: the first of each category, then the second, and so on."""
    order = np.random.default_rng(VALIDATION_SEED).permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    first = np.searchsorted(labels[order], labels[order])  # where the category of each begins
    turn = np.argsort(np.arange(len(order)) - first, kind="stable")
    return np.sort(order[turn[:count]])


def _hold_out(splits: dict[str, Images], split: str, fraction: float, seed: int) -> None:
    """Move a fraction of the training pictures into another split; nothing happens where none can be spared."""
    train = splits["train"]
    chosen = _stratified_mask(train.label(), fraction, seed)
    if not chosen.any() and split == "validation":  # each category has one picture: some of them are given up
        chosen = _stratified_mask(np.zeros(len(train), np.int64), fraction, seed)
    if chosen.any():
        splits[split] = replace(train.select(chosen), split=split)
        splits["train"] = train.select(~chosen)


def _stratified_mask(labels: np.ndarray, fraction: float, seed: int) -> np.ndarray:
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
