"""The decode cache: pictures decoded once, mapped from disk afterwards.

Its keys hash the names, sizes and times of a source's files, the settings and the decoder's version. An entry is never
changed. One that does not hold what was written is built again; one that cannot be read is left as it is.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from vaelab.core.cache import mark_used, shrink_cache
from vaelab.core.console import notice
from vaelab.core.errors import UserError
from vaelab.core.files import cache_folder
from vaelab.datasets.build import SIDE_LIMITS, DecodeSettings, SizeError, build_entry
from vaelab.datasets.entry import DamagedEntryError, EntryMeta, read_entry
from vaelab.datasets.files import error_text
from vaelab.datasets.images import Images
from vaelab.datasets.sources.source import DataSource

__all__ = ["SIDE_LIMITS", "CacheEntry", "DecodeSettings", "SizeError", "open_entry"]

CACHE_VERSION = 3  # of the decoding: another number makes every cache entry anew

MAX_ATTEMPTS = 3  # another process may find the same entry damaged and remove it between two lines of ours


class CacheEntry(NamedTuple):
    """An entry of the cache: its folder, what meta.json says, and the stored splits."""

    folder: Path
    meta: EntryMeta
    splits: dict[str, Images]


def open_entry(source: DataSource, settings: DecodeSettings) -> CacheEntry:
    """The cache entry of a source; built if it is missing or damaged.

    Raises:
        UserError: The pictures cannot be decoded, or the cache can be neither read nor written. Nothing is deleted
            that could not be read.
    """
    folder = cache_folder() / _entry_key(source, settings)
    for _ in range(MAX_ATTEMPTS):
        try:
            if folder.is_dir():
                meta, splits = read_entry(folder)
                _remove_leftovers(folder)
                mark_used(folder)
                return CacheEntry(folder, meta, splits)
        except DamagedEntryError as error:
            notice(f"the cache entry {folder} is damaged ({error_text(error)}): decoding again")
            shutil.rmtree(folder, ignore_errors=True)
        except (OSError, MemoryError) as error:
            raise UserError(
                f"the cache entry {folder} cannot be read: {error_text(error)}; it was left as it is\n"
                "repeat the command, or name another folder by the environment variable VAELAB_CACHE"
            ) from error
        build_entry(folder, source, settings)
        shrink_cache()
    raise UserError(f"the cache entry {folder} cannot be read: remove it, or name another folder by $VAELAB_CACHE")


def _entry_key(source: DataSource, settings: DecodeSettings) -> str:
    from PIL import __version__ as decoder_version

    parts = [CACHE_VERSION, decoder_version, *settings, source.cache_key_parts]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]


def _remove_leftovers(folder: Path) -> None:
    """Remove what a process left that was killed after it had built an entry. Those that wait see the entry first."""
    for suffix in (".lock", ".part"):
        leftover = folder.with_name(f".{folder.name}{suffix}")
        with suppress(OSError):
            if suffix == ".lock":
                leftover.unlink(missing_ok=True)
            elif leftover.is_dir():
                shutil.rmtree(leftover, ignore_errors=True)
