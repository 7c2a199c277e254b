"""The digits of scikit-learn: 1,797 pictures of 8 x 8 pixels, which need no download.

Source: Optical Recognition of Handwritten Digits, Alpaydin and Kaynak 1998, archive.ics.uci.edu/dataset/80.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vaelab.datasets.sources.source import DataSource, Precedence, RawDataset, RawSplit, Request, register

__all__ = ["digits_source"]


def _is_digits(request: Request) -> bool:
    return request.path is None and isinstance(request.data, str) and request.data == "digits"


@register(Precedence.BUNDLED, _is_digits, names=("digits",))
def digits_source(request: Request) -> DataSource:
    """The data set that scikit-learn brings along."""
    return DataSource("bundled with scikit-learn", ["digits"], _read_digits)


def _read_digits() -> RawDataset:
    from sklearn.datasets import load_digits

    bunch: Any = load_digits()
    pixels = np.rint(bunch.images * (255 / 16)).astype(np.uint8)
    split = RawSplit(pixels, bunch.target.astype(np.int64), None)
    return RawDataset({"train": split}, tuple(str(name) for name in bunch.target_names))
