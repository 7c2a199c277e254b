"""Loading: from what DATA names to `Images`, decoded once and mapped from a cache afterwards.

    find     what DATA names                                                                           -> Source
    make     look at every picture, agree on one shape, decode (`building`)                            -> a cache entry
    load     map the entry, make the splits that the source lacks                                      -> Dataset

The cache is content-addressed: its key hashes names, sizes and times of the files, the settings and the decoder's
version. It holds .npy files and one JSON file, and is never changed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vaelab.core.errors import UserError
from vaelab.datasets.cache import SIDE_LIMITS, open_entry
from vaelab.datasets.images import Dataset, Images
from vaelab.datasets.sources.find import find_source
from vaelab.datasets.splits import binarise_splits, make_splits, subsample_splits

__all__ = ["describe_dataset", "load_dataset"]


def load_dataset(
    data: str | Path,
    *,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    validation: float | None = None,
    subset: int | None = None,
    binarise: str | None = None,
) -> Dataset:
    """The images that `data` names, decoded once and mapped from the cache afterwards.

    `size` (a side, or height and width) crops to the centre and resizes; `channels` 1 or 3 overrides what the pictures
    say. A source without a test split gives up 20 % of its pictures for one; `validation` is the fraction of the
    training pictures held out besides, unless the source stores a validation split, which then serves; None means just
    what is stored. Both are drawn by constant seeds, stratified by label, and leave every category a training picture;
    they never depend on a run. `subset` keeps that many pictures for training and validation, evenly over categories.
    `binarise` draws pixels to be black or white by a constant seed; "dynamic" keeps the grey ones for training besides.
    A dataset of the hub is fetched once and stays as it was.
    """
    _check_settings(size, channels, validation)
    sides = (size, size) if isinstance(size, int) else size
    source = find_source(str(data))
    folder, meta, parts = open_entry(source, sides, channels)
    splits, made = make_splits(parts, validation)
    splits = splits if subset is None else subsample_splits(splits, subset)
    splits = splits if binarise is None else binarise_splits(splits, keep_source=binarise == "dynamic")
    used = sum(entry.stat().st_size for entry in folder.iterdir())
    facts = {**meta["facts"], "splits": made, "bytes": used, "cache": str(folder)}
    skipped = tuple((file, reason) for file, reason in meta["skipped"])
    return Dataset(
        str(data),
        source.location,
        splits,
        meta["fingerprint"],
        skipped,
        tuple(meta["notes"]),
        facts,
        size,
        validation,
        subset,
        binarise,
    )


def describe_dataset(dataset: Dataset) -> dict[str, Any]:
    """What is in a dataset, for JSON: counts, shape, sizes, modes, splits, skipped files, duplicates, disk use."""
    facts = dict(dataset.facts)
    made = facts.pop("splits")
    splits = {
        name: {"n": len(part), "origin": made[name], **_category_counts(part)} for name, part in dataset.splits.items()
    }
    head = {"source": dataset.source, "location": dataset.location, "fingerprint": dataset.fingerprint}
    first = next(iter(dataset.splits.values()))
    skipped = [{"file": file, "reason": reason} for file, reason in dataset.skipped]
    body = {"shape": list(first.shape), "categories": list(first.categories), "splits": splits}
    return {**head, **body, **facts, "skipped": skipped, "notes": list(dataset.notes)}


def _category_counts(images: Images) -> dict[str, Any]:
    if images.labels is None:
        return {}
    labels = images.label()
    counts = np.bincount(labels[labels >= 0], minlength=len(images.categories)).tolist()
    unlabelled = {"unlabelled": n} if (n := int((labels < 0).sum())) else {}
    return {"categories": dict(zip(images.categories, counts, strict=True)), **unlabelled}


def _check_settings(size: int | tuple[int, int] | None, channels: int | None, validation: float | None) -> None:
    for side in (size,) if isinstance(size, int) else size or ():
        if not SIDE_LIMITS[0] <= side <= SIDE_LIMITS[1]:
            raise UserError(f"size must be between {SIDE_LIMITS[0]} and {SIDE_LIMITS[1]} pixels a side, got {side}")
    if channels not in (None, 1, 3):
        raise UserError(f"channels must be 1 (grey) or 3 (colour), got {channels}")
    if validation is not None and not 0 <= validation < 1:
        raise UserError(f"validation is a fraction of the training pictures, at least 0 and below 1, got {validation}")
