"""Files that are not used: each with its reason, and grouped by kind and reason with what can be done."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["SkippedFile", "SkippedGroup", "group_skipped"]

MAX_EXAMPLES = 3


class SkippedFile(NamedTuple):
    """A file, or a row of a table, that is not used, and why."""

    file: str
    reason: str


@dataclass(frozen=True)
class SkippedGroup:
    """Skipped files of one kind with one reason.

    Args:
        kind: The suffix of the files, such as ".png", or "row" for rows of a table.
        reason: The reason, without what differs from file to file.
        count: How many there are.
        remedy: What can be done about it; empty where nothing can.
        examples: The names of the first few.
    """

    kind: str
    reason: str
    count: int
    remedy: str
    examples: tuple[str, ...]


# What can be done, by the beginning of a reason.
REMEDIES = (
    ("not a picture", "the file's content is no picture that can be read: delete it, or get it again"),
    ("a web page", "the picture was not downloaded: get it again"),
    ("a pointer of Git LFS", "fetch the pictures: git lfs pull"),
    ("a document", "save its pages as PNG"),
    ("an archive", "unpack it"),
    ("damaged, or a form", "open it with another program and save it as PNG or JPEG, or get it again"),
    ("damaged", "the file is cut off or damaged: get it again, or delete it"),
    ("empty", "the file or row has no content: delete it, or get it again"),
    ("HEIC", 'install the reader: pip install "pi-heif>=1,<2"'),
    ("camera raw", "convert these files to TIFF, PNG or JPEG"),
    ("drawing", "convert these files to PNG"),
    ("no reader", "convert these files to PNG or JPEG"),
    ("too small", "the side is below 8 pixels: delete it, or use a larger version"),
    ("too large", "make the picture smaller with another program"),
    ("broken link", "the link leads nowhere: mend or delete it"),
    ("not a regular file", "only regular files are read: delete it or replace it by a file"),
    ("outside the folder", "move the picture below the folder of the table"),
    ("an address on the web", "download the pictures, and name the files in the table"),
    ("no file", "the table names a file that is not there: put it there"),
    ("not finite", "the picture holds values that are no numbers"),
)


def group_skipped(skipped: Iterable[SkippedFile]) -> tuple[SkippedGroup, ...]:
    """Group skipped files by kind and reason, most frequent first.

    Args:
        skipped: The files with their reasons.

    Returns:
        One group for each kind and reason.

    Example:
        >>> [group] = group_skipped([SkippedFile("a.png", "too small: 1x1"), SkippedFile("b.png", "too small: 2x1")])
        >>> group.kind, group.reason, group.count
        ('.png', 'too small', 2)
    """
    members: dict[tuple[str, str], list[str]] = {}
    for file, reason in skipped:
        members.setdefault((_kind(file), _common_reason(reason)), []).append(file)
    groups = []
    for (kind, reason), files in members.items():
        groups.append(SkippedGroup(kind, reason, len(files), _remedy(reason), tuple(files[:MAX_EXAMPLES])))
    return tuple(sorted(groups, key=lambda group: -group.count))


def _kind(file: str) -> str:
    if re.fullmatch(r"\w+ \d+", file):
        return "row"
    suffix = os.path.splitext(file)[1].lower()  # noqa: PTH122 (a name may not be a path of this system)
    return suffix or "no suffix"


def _common_reason(reason: str) -> str:
    """A reason without what differs from file to file: numbers in brackets and what follows a colon."""
    return re.sub(r"\s*\(.*?\)", "", reason.split(": ", maxsplit=1)[0])


def _remedy(reason: str) -> str:
    for beginning, remedy in REMEDIES:
        if reason.startswith(beginning):
            return remedy
    return ""
