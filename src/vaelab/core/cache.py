"""The cache: decoded images and compiled programs, which can be made again at any time, within a bound of disk space.

    <cache folder>/<32 hexadecimal digits>/     the decoded images of a data set
    <cache folder>/programs/<digits>/           the compiled training steps of a shape

Other files in the folder are not ours and are left alone.
"""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from vaelab.core.errors import UserError
from vaelab.core.files import cache_folder
from vaelab.core.folders import folder_size

__all__ = ["CacheItem", "cache_items", "cache_limit", "clear_cache", "mark_used", "shrink_cache"]

ENTRY_NAME = re.compile(r"[0-9a-f]{32}")

PROGRAM_NAME = re.compile(r"[0-9a-f]{16,64}")

LEFTOVER_NAME = re.compile(r"\.[0-9a-f]{32}\.(lock|part)")

DEFAULT_LIMIT = 20.0  # GiB

RECENT_SECONDS = 24 * 3600  # what was used so lately may be in use


class CacheItem(NamedTuple):
    """One thing in the cache.

    Attributes:
        kind: "images" or "program".
        path: Its folder.
        num_bytes: The disk space that it takes.
        last_used: When it was last opened, in seconds since 1970.
    """

    kind: str
    path: Path
    num_bytes: int
    last_used: float


def cache_limit() -> int:
    """The bytes that the cache may take: $VAELAB_CACHE_LIMIT in GiB, 20 if it is not set.

    Raises:
        UserError: The variable is not a positive number.
    """
    text = os.environ.get("VAELAB_CACHE_LIMIT") or str(DEFAULT_LIMIT)
    try:
        limit = float(text)
    except ValueError:
        limit = 0.0
    if not 0 < limit < 1e9:
        raise UserError(f'$VAELAB_CACHE_LIMIT is a positive number of GiB, got "{text}"')
    return int(limit * 2**30)


def cache_items() -> list[CacheItem]:
    """What is in the cache, the least recently used first."""
    root = cache_folder()
    items = []
    for kind, folder, pattern in (("images", root, ENTRY_NAME), ("program", root / "programs", PROGRAM_NAME)):
        for path in _folders(folder, pattern):
            with suppress(FileNotFoundError):  # removed by another process meanwhile
                items.append(CacheItem(kind, path, folder_size(path), path.stat().st_mtime))
    return sorted(items, key=lambda item: item.last_used)


def _folders(folder: Path, pattern: re.Pattern[str]) -> Iterator[Path]:
    """The folders with a name of ours; links are none of ours."""
    if not folder.is_dir():
        return
    for path in sorted(folder.iterdir()):
        if pattern.fullmatch(path.name) and path.is_dir() and not path.is_symlink():
            yield path


def mark_used(path: Path) -> None:
    """Note that something in the cache was used now."""
    with suppress(OSError):  # of a cache that cannot be written, nothing is removed either
        os.utime(path)


def shrink_cache() -> int:
    """Remove what was used longest ago until the cache is within its bound; not what was used in the last day.

    Returns:
        The bytes that were freed.
    """
    items = cache_items()
    excess = sum(item.num_bytes for item in items) - cache_limit()
    freed = 0
    for item in items:
        if freed >= excess or time.time() - item.last_used < RECENT_SECONDS:
            break
        shutil.rmtree(item.path, ignore_errors=True)
        freed += item.num_bytes
    return freed


def clear_cache() -> int:
    """Remove everything that vaelab has put into the cache.

    Returns:
        The bytes that were freed.

    Raises:
        UserError: Something cannot be removed.
    """
    items = cache_items()
    root = cache_folder()
    paths = [item.path for item in items]
    if root.is_dir():
        paths += [path for path in root.iterdir() if LEFTOVER_NAME.fullmatch(path.name)]
    try:
        for path in paths:
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
    except OSError as error:
        raise UserError(f"cannot remove {error.filename}: {error.strerror}; remove the folder {root} by hand") from None
    return sum(item.num_bytes for item in items)
