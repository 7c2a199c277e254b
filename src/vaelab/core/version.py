"""The version of this package, and a digest of its source."""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["__version__", "source_digest"]

__version__ = "0.1.0"

PACKAGE = Path(__file__).parents[1]


def source_digest(*patterns: str) -> str:
    """A hash of the package's files that match glob patterns relative to its root, names included."""
    files = {file for pattern in patterns for file in PACKAGE.glob(pattern) if file.is_file()}
    digest = hashlib.blake2b(digest_size=16)
    for file in sorted(files):
        digest.update(file.relative_to(PACKAGE).as_posix().encode())
        digest.update(file.read_bytes())
    return digest.hexdigest()
