"""The record of drawn figures: what figures and report of a study were made from, and which files were written.

The record is a stored file, so it may have been edited, damaged or made by somebody else. It is never trusted: a name
in it is used only where it is the plain name of a figure of ours, and the file is a regular one inside the folder.
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from vaelab.core.console import printable
from vaelab.core.errors import UserError
from vaelab.core.files import read_json, write_json
from vaelab.figures.study_figures import STUDY_FIGURES

__all__ = [
    "FigureRecord",
    "check_figures_folder",
    "file_digests",
    "is_figure_name",
    "read_record",
    "remove_outdated_figures",
    "write_record",
]

RECORD_NAME = ".made.json"

FIGURE_NAME = re.compile(rf"[\w.-]+-({'|'.join(map(re.escape, STUDY_FIGURES))})(-[\w.-]+)?\.(png|pdf)")


@dataclass(frozen=True)
class FigureRecord:
    """What figures were made from, and the names of their files.

    Attributes:
        content: The hash of what they were made from; None where nothing is known.
        files: The names of the files, each of which is that of a figure.
        digests: The digest of each of these files, and of the report.
    """

    content: str | None = None
    files: list[str] = field(default_factory=list)
    digests: dict[str, str] = field(default_factory=dict)

    def is_current(self, content: str, report: Path, figures: Path) -> bool:
        """Whether report and figures were made from this content and are still what was written."""
        return self.content == content and self.digests == file_digests(self.files, report, figures)


def is_figure_name(name: object) -> bool:
    """Whether a value is the plain name of a file that `draw_study_figures` writes.

    Example:
        >>> is_figure_name("B1-curves-KL-weight-1.png"), is_figure_name("../B1-curves.png"), is_figure_name("notes.png")
        (True, False, False)
    """
    return isinstance(name, str) and FIGURE_NAME.fullmatch(name) is not None


def read_record(figures: Path) -> FigureRecord:
    """The record in a folder of figures; an empty one where it is missing or damaged, for figures can be drawn again.

    Args:
        figures: The folder of the figures.
    """
    file = figures / RECORD_NAME
    if not _is_regular(file):
        return FigureRecord()
    try:
        table = read_json(file)
    except UserError:
        return FigureRecord()
    content, names, digests = table.get("from"), table.get("files"), table.get("digests")
    if not isinstance(content, str) or not isinstance(names, list):
        return FigureRecord()
    files = [name for name in names if is_figure_name(name)]
    return FigureRecord(content, files, digests if isinstance(digests, dict) else {})


def write_record(figures: Path, record: FigureRecord) -> None:
    """Write the record into a folder of figures."""
    write_json(figures / RECORD_NAME, {"from": record.content, "files": record.files, "digests": record.digests})


def file_digests(names: Iterable[str], report: Path, figures: Path) -> dict[str, str]:
    """The digests of figures and of the report, by file name, without those that cannot be read."""
    digests = {}
    for file in (report, *(figures / name for name in names)):
        if _is_regular(file):
            with suppress(OSError), file.open("rb") as content:
                digests[file.name] = hashlib.file_digest(content, "blake2b").hexdigest()[:32]
    return digests


def remove_outdated_figures(figures: Path, names: Iterable[str]) -> None:
    """Remove figures of experiments that are no longer asked for.

    Args:
        figures: The folder of the figures.
        names: The names of the files. Whatever is not a figure of ours, or no regular file, stays.
    """
    check_figures_folder(figures)
    for name in names:
        file = figures / name
        if is_figure_name(name) and _is_regular(file):
            with suppress(OSError):  # it is no longer shown, and does no harm
                file.unlink(missing_ok=True)


def check_figures_folder(figures: Path) -> None:
    """Refuse a folder of figures that is a link: everything that a report writes lies inside its own folder.

    Raises:
        UserError: The folder is a link, or no folder.
    """
    if figures.is_symlink() or (figures.exists() and not figures.is_dir()):
        raise UserError(f"{printable(str(figures))} is a link or no folder: move it away, and repeat the command")


def _is_regular(file: Path) -> bool:
    """Whether there is a regular file; a link is none."""
    try:
        return stat.S_ISREG(file.lstat().st_mode)
    except OSError:
        return False
