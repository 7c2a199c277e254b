"""What every source yields, and the registry of sources.

A source is a module of this package. It registers a function that opens what DATA names, beside a function that says
whether it can. Adding a source is adding a module: nothing else names it.
"""

from __future__ import annotations

import errno
import os
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vaelab.core.console import shown
from vaelab.core.errors import UserError, unknown_name_error
from vaelab.datasets.files import read_error
from vaelab.datasets.skipped import SkippedFile

__all__ = [
    "SPLITS",
    "DataSource",
    "Precedence",
    "RawDataset",
    "RawSplit",
    "Request",
    "find_source",
    "known_suffixes",
    "register",
    "source_not_found_error",
]

SPLITS = ("train", "test", "validation")


@dataclass(frozen=True, eq=False)
class RawSplit:
    """One stored split before decoding.

    Args:
        images: Paths, encoded bytes or arrays of the n pictures.
        labels: Their labels, int64 (n,), -1 for none; None where the source has no labels.
        names: The names of their files, printable; None where they are not files.
        attributes: Further columns, each (n,).
    """

    images: Sequence[Any] | np.ndarray
    labels: np.ndarray | None
    names: Sequence[str] | None
    attributes: Mapping[str, np.ndarray] = field(default_factory=dict)

    def select(self, index: Sequence[int]) -> RawSplit:
        """The pictures at `index`."""
        rows = list(index)
        images = [self.images[i] for i in rows]
        labels = None if self.labels is None else self.labels[rows]
        names = None if self.names is None else [self.names[i] for i in rows]
        return RawSplit(images, labels, names, {name: column[rows] for name, column in self.attributes.items()})

    def image_name(self, split: str, i: int) -> str:
        """The name of picture `i` for people: its file, or its split and row."""
        return f"{split} {i}" if self.names is None else self.names[i]


@dataclass(frozen=True, eq=False)
class RawDataset:
    """The stored splits of a source before decoding, its categories, and what the user should know.

    Args:
        splits: The splits by name; `train` is among them.
        categories: The names of the categories.
        notes: Sentences for the user.
        columns: The columns of a table that are used.
    """

    splits: dict[str, RawSplit]
    categories: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class DataSource:
    """What DATA names: where it is, what it is known by in the cache, and how to read it where it is not there.

    Args:
        location: Where the data are, for people.
        cache_key_parts: What the content depends on, as JSON: names, sizes and times of the files.
        read: Reads the pictures and labels, still encoded.
        skipped: Files that are left out before they are read.
        notes: Sentences for the user.
        other_kinds: The number of files that are no pictures, by suffix.
    """

    location: str
    cache_key_parts: Any
    read: Callable[[], RawDataset]
    skipped: tuple[SkippedFile, ...] = ()
    notes: tuple[str, ...] = ()
    other_kinds: Mapping[str, int] = field(default_factory=dict)


class Request(NamedTuple):
    """What is asked for: DATA as it was given, and the existing file or folder that it names, if there is one."""

    data: Any
    path: Path | None


class Precedence(IntEnum):
    """The order in which sources are asked; the first that says yes is used."""

    MARKED_PATH = 1  # a file of a known suffix, or a folder that holds such files under known names
    ANY_PATH = 2  # any other folder
    BUNDLED = 3  # a name that a library brings along
    REMOTE = 4  # a name that a server knows


class RegisteredSource(NamedTuple):
    """An entry of the registry."""

    precedence: Precedence
    matches: Callable[[Request], bool]
    open: Callable[[Request], DataSource]
    suffixes: Callable[[], Sequence[str]]
    names: Sequence[str]


REGISTRY: dict[str, RegisteredSource] = {}

Opener = Callable[[Request], DataSource]


def register(
    precedence: Precedence,
    matches: Callable[[Request], bool],
    suffixes: Callable[[], Sequence[str]] = tuple,
    names: Sequence[str] = (),
) -> Callable[[Opener], Opener]:
    """Register the decorated function as the source of what `matches` says yes to.

    Args:
        precedence: When it is asked.
        matches: Whether the source can open a request; it must be quick and read no pictures.
        suffixes: The suffixes of the files that it reads, for messages.
        names: Names that it knows, for suggestions.
    """

    def add(function: Opener) -> Opener:
        REGISTRY[f"{function.__module__}.{function.__qualname__}"] = RegisteredSource(
            precedence, matches, function, suffixes, names
        )
        return function

    return add


@cache
def _load_sources() -> None:
    """Import all modules of this package, which register themselves."""
    package = __name__.rpartition(".")[0]
    for module in pkgutil.iter_modules(import_module(package).__path__):
        import_module(f"{package}.{module.name}")


def _sources() -> list[RegisteredSource]:
    """All sources in the order in which they are asked."""
    _load_sources()
    return sorted(REGISTRY.values(), key=lambda source: source.precedence)


def known_suffixes() -> list[str]:
    """The suffixes of all files that can be read."""
    return sorted({suffix for source in _sources() for suffix in source.suffixes()})


def find_source(data: Any) -> DataSource:
    """Find what DATA names: a path, a name below $VAELAB_DATA, a bundled data set, or one of the Hugging Face hub.

    Args:
        data: A path or a name.

    Returns:
        The source, not yet read.

    Raises:
        UserError: Nothing is there, or nothing that can be read.
    """
    request = Request(data, _existing_path(data))
    for source in _sources():
        if source.matches(request):
            return source.open(request)
    if request.path is not None:
        raise _unknown_file_error(request.path)
    raise source_not_found_error(str(data), "")


def _existing_path(data: Any) -> Path | None:
    """The path that DATA names: as it stands, or below $VAELAB_DATA."""
    if not isinstance(data, str | Path) or not str(data):
        return None
    root = os.environ.get("VAELAB_DATA")
    places = [Path(data)] + ([Path(root) / data] if root else [])
    for place in places:
        try:
            path = place.expanduser()
            path.stat()
        except (FileNotFoundError, NotADirectoryError, ValueError, RuntimeError):  # or no such user's home
            continue
        except OSError as error:
            if _is_no_path(error):
                continue
            raise read_error(place, error) from error
        return path
    return None


def _is_no_path(error: OSError) -> bool:
    """Whether an error says that a name cannot be that of a file: too long, or a ring of links."""
    return error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL)


def _unknown_file_error(path: Path) -> UserError:
    name = shown(path)
    if not path.is_file():
        return UserError(f"{name} is neither a file nor a folder: pipes and devices are not read")
    return UserError(
        f"{name} is neither a folder nor a picture, .parquet, .npy or .npz file\nknown are {' '.join(known_suffixes())}"
    )


def source_not_found_error(data: str, hub: str) -> UserError:
    """The error for data that are nowhere.

    Args:
        data: What was asked for.
        hub: What is to be said of the hub; empty where it was not asked.

    Returns:
        The error: what was looked for, where, and how to give it.
    """
    root = os.environ.get("VAELAB_DATA")
    known = {*(name for source in _sources() for name in source.names), *_folders_below(root)}
    nothing_similar = data in known or "/" in data or not data
    what = f'data "{shown(data)}" not found' if nothing_similar else str(unknown_name_error("data", data, known))
    places = [f"the path {shown(Path(data).absolute())}", f"$VAELAB_DATA ({root or 'unset'})", *([hub] if hub else [])]
    remedy = 'give a folder of images or of train.parquet, a .npz or .npy file, or "digits"'
    return UserError(f"{what}\nlooked for: {', '.join(places)}\n{remedy}; $VAELAB_DATA is the folder of named sources")


def _folders_below(root: str | None) -> list[str]:
    """The names of the data sets below $VAELAB_DATA; none where it cannot be read."""
    if not root:
        return []
    try:
        entries = list(Path(root).expanduser().iterdir())
        return [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    except (OSError, RuntimeError):
        return []
