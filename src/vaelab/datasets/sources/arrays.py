"""Arrays as data sets: .npy, .npz and the digits of scikit-learn."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from vaelab.core.errors import UserError
from vaelab.datasets.decoding import error_text
from vaelab.datasets.sources.raw import RawDataset, RawSplit, encode_labels

__all__ = ["array_source", "digits_source"]


def digits_source() -> RawDataset:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    return RawDataset(
        {"train": RawSplit(pixels, bunch.target.astype(np.int64), None)}, tuple(map(str, bunch.target_names))
    )


def array_source(path: Path) -> RawDataset:
    """.npy: images; .npz: `images`, and optionally `labels`, `test_images`, `test_labels`."""
    try:
        stored = np.load(path, mmap_mode="r" if path.suffix.lower() == ".npy" else None, allow_pickle=False)
        arrays = {"images": stored} if isinstance(stored, np.ndarray) else {key: stored[key] for key in stored.files}
    except Exception as error:  # zip, header and pickle errors have no common class
        raise UserError(f"{path} cannot be read as an array of numbers: {error_text(error)}") from error
    if "images" not in arrays:
        raise UserError(f'{path} has no array "images" (has: {", ".join(sorted(arrays))})')
    keys = {"train": "", "test": "test_"} if "test_images" in arrays else {"train": ""}
    pictures = {split: _to_channels_last(arrays[f"{key}images"], path) for split, key in keys.items()}
    labels = {split: arrays.get(f"{key}labels") for split, key in keys.items()}
    for split, column in labels.items():
        if column is not None and (column.shape != (len(pictures[split]),) or column.dtype.kind not in "iuU"):
            shape = f"{column.dtype}{list(column.shape)}"
            raise UserError(f"labels of {path} must be {len(pictures[split])} integers or strings, got {shape}")
    encoded, categories = encode_labels({split: None if c is None else c.tolist() for split, c in labels.items()}, None)
    return RawDataset({split: RawSplit(pictures[split], encoded[split], None) for split in keys}, categories)


def _to_channels_last(array: np.ndarray, path: Path) -> np.ndarray:
    """An array of pictures in any layout as (N, H, W) or (N, H, W, C), still of its own type."""
    shape = tuple(array.shape)
    first, last = (array.ndim == 4 and shape[axis] in (1, 2, 3, 4) for axis in (1, 3))
    if array.ndim not in (3, 4) or (array.ndim == 4 and first == last) or 0 in shape:
        forms = "(N, H, W), (N, H, W, C) or (N, C, H, W) with 1 to 4 channels"
        kind = "ambiguous" if first and last else "not that of pictures"
        raise UserError(f"{path}: the shape {shape} is {kind}; allowed are {forms}")
    kinds = array.dtype in (np.uint8, np.bool_) or array.dtype.kind == "f"
    if not kinds or (array.dtype.kind == "f" and not (array.min() >= 0 and array.max() <= 1)):
        held = f"{array.dtype} from {array.min()} to {array.max()}" if array.dtype.kind in "fiu" else array.dtype
        raise UserError(f"{path}: images must be uint8, or floats in [0, 1], got {held}")
    return np.moveaxis(array, 1, 3) if first else array
