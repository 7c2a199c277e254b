"""Loading: from what DATA names to `Images`, decoded once and mapped from a cache afterwards.

find     what DATA names (`sources`)                                             -> DataSource
build    read every header, agree on one shape, decode (`build`)                 -> a cache entry
load     map the entry, make the splits that the source lacks (`splits`)         -> Dataset
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from vaelab.core.errors import UserError
from vaelab.datasets.cache import SIDE_LIMITS, CacheEntry, DecodeSettings, open_entry
from vaelab.datasets.files import read_error
from vaelab.datasets.images import Dataset, DatasetFacts, Images
from vaelab.datasets.sources.source import DataSource, find_source
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
    value_range: tuple[float, ...] | None = None,
    run_ranges: Mapping[str, tuple[float, float]] | None = None,
    split_seed: int = 0,
) -> Dataset:
    """Load the images that `data` names, decoded once and mapped from the cache afterwards.

    A source without a test split gives up 20 % of its pictures for one. Both test and validation are drawn by constant
    seeds, stratified by label, and leave every category a training picture; they depend on nothing of a run but its
    `split_seed`. A data set of the hub is fetched once and stays as it was.

    Args:
        data: A path, a name below $VAELAB_DATA, "digits", or a name of the Hugging Face hub.
        size: A side, or height and width, in pixels: crop to the centre and resize.
        channels: 1 (grey) or 3 (colour), whatever the pictures have.
        validation: The fraction of the training pictures held out, unless the source stores a validation split, which
            then serves; None for just what is stored.
        subset: Keep that many pictures for training and validation, evenly over categories.
        binarise: Draw pixels to be black or white by a constant seed; "dynamic" keeps the grey ones for training.
        value_range: The values that become black and white, where pictures have more than eight bits a channel or are
            an array; None for the range that all of them suggest.
        run_ranges: The ranges of the pictures that a run was trained on, `DatasetFacts.value_ranges`, where these
            pictures are for it and no range is given.
        split_seed: Which of many ways of drawing the splits and the subset; 0 is the usual one.

    Returns:
        The images by split, and what is worth knowing about them.

    Raises:
        UserError: There are no such data, or they cannot be read as images of one size.

    Example:
        >>> dataset = load_dataset("digits", validation=0.1)
        >>> {name: len(images) for name, images in dataset.splits.items()}
        {'train': 1294, 'validation': 144, 'test': 359}
    """
    _check_settings(size, channels, validation)
    sides = (size, size) if isinstance(size, int) else size
    source = find_source(data if isinstance(data, Path) else str(data))
    entry = open_entry(
        source, DecodeSettings(sides, channels, _check_range(value_range), tuple((run_ranges or {}).items()))
    )
    splits, origins = make_splits(entry.splits, validation, split_seed)
    if subset is not None:
        splits = subsample_splits(splits, subset, split_seed)
    if binarise is not None:
        splits = binarise_splits(splits, keep_source=binarise == "dynamic")
    return Dataset(
        source=str(data),
        location=source.location,
        splits=splits,
        fingerprint=entry.meta.fingerprint,
        skipped=(*source.skipped, *entry.meta.skipped),
        notes=(*source.notes, *entry.meta.notes),
        facts=_dataset_facts(source, entry, origins),
        size=size,
        validation=validation,
        subset=subset,
        binarise=binarise,
        value_range=value_range,
        split_seed=split_seed,
    )


def _dataset_facts(source: DataSource, entry: CacheEntry, origins: dict[str, str]) -> DatasetFacts:
    return replace(
        entry.meta.facts,
        other_files=sum(source.other_kinds.values()),
        other_kinds=dict(source.other_kinds),
        split_origins=origins,
        bytes=_folder_bytes(entry.folder),
        cache=str(entry.folder),
    )


def _folder_bytes(folder: Path) -> int:
    total = 0
    try:
        for file in folder.iterdir():
            total += file.stat().st_size
    except FileNotFoundError:  # a temporary file of another process
        pass
    except OSError as error:
        raise read_error(folder, error) from error
    return total


def describe_dataset(dataset: Dataset) -> dict[str, Any]:
    """What is in a data set, for JSON.

    Args:
        dataset: The data set.

    Returns:
        Counts, shape, sizes, modes, splits, skipped files (each, and in groups with remedies), duplicates, disk use.
    """
    facts = asdict(dataset.facts)
    origins = facts.pop("split_origins")
    splits = {}
    for name, images in dataset.splits.items():
        splits[name] = {"n": len(images), "origin": origins[name], **_category_counts(images)}
    first = next(iter(dataset.splits.values()))
    facts["duplicates"]["examples"] = [list(pair) for pair in dataset.facts.duplicates.examples]
    facts["one_colour"]["examples"] = list(dataset.facts.one_colour.examples)
    for name in ("columns", "attributes"):
        facts[name] = list(facts[name])
    facts["value_range"] = list(dataset.facts.value_range) if dataset.facts.value_range else None
    facts["value_ranges"] = {kind: list(its_range) for kind, its_range in dataset.facts.value_ranges.items()}
    return {
        "source": dataset.source,
        "location": dataset.location,
        "fingerprint": dataset.fingerprint,
        "shape": list(first.shape),
        "categories": list(first.categories),
        "splits": splits,
        **facts,
        "skipped": [file._asdict() for file in dataset.skipped],
        "skipped_groups": [{**asdict(group), "examples": list(group.examples)} for group in dataset.skipped_groups],
        "notes": list(dataset.notes),
    }


def _category_counts(images: Images) -> dict[str, Any]:
    if images.stored_labels is None:
        return {}
    counts = Counter(images.label().tolist())
    categories = {name: counts[i] for i, name in enumerate(images.categories)}
    return {"categories": categories, **({"unlabelled": counts[-1]} if counts[-1] else {})}


def _check_settings(size: int | tuple[int, int] | None, channels: int | None, validation: float | None) -> None:
    for side in (size,) if isinstance(size, int) else size or ():
        if not SIDE_LIMITS[0] <= side <= SIDE_LIMITS[1]:
            raise UserError(f"size must be between {SIDE_LIMITS[0]} and {SIDE_LIMITS[1]} pixels a side, got {side}")
    if channels not in (None, 1, 3):
        raise UserError(f"channels must be 1 (grey) or 3 (colour), got {channels}")
    if validation is not None and not 0 <= validation < 1:
        raise UserError(f"validation is a fraction of the training pictures, at least 0 and below 1, got {validation}")


def _check_range(value_range: tuple[float, ...] | None) -> tuple[float, float] | None:
    """The two values of a range, the lower first."""
    if value_range is None:
        return None
    if len(value_range) != 2 or not np.isfinite(value_range).all() or value_range[0] >= value_range[1]:
        values = " and ".join(f"{value:g}" for value in value_range)
        raise UserError(f"value_range is the lowest and the highest value, the lower first, got {values}")
    return float(value_range[0]), float(value_range[1])
