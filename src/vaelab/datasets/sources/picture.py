"""One picture as a data set: the smallest there is."""

from __future__ import annotations

from functools import partial

from vaelab.core.console import printable
from vaelab.datasets.decoding import readable_suffixes
from vaelab.datasets.files import file_stamp
from vaelab.datasets.sources.source import DataSource, Precedence, RawDataset, RawSplit, Request, register

__all__ = ["picture_source"]


def _is_picture(request: Request) -> bool:
    path = request.path
    return path is not None and path.is_file() and path.suffix.lower() in readable_suffixes()


@register(Precedence.MARKED_PATH, _is_picture, lambda: sorted(readable_suffixes()))
def picture_source(request: Request) -> DataSource:
    """A single picture file."""
    assert request.path is not None
    path = request.path
    name = printable(path.name)
    raw = RawDataset({"train": RawSplit([path], None, [name])})
    return DataSource(str(path.resolve()), [file_stamp(path.name, path)], partial(_same, raw))


def _same(raw: RawDataset) -> RawDataset:
    return raw
