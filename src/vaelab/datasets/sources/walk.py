"""The files below a folder: every folder once, regular files only, and nothing of what systems leave behind."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import NamedTuple

from vaelab.core.console import count_text, printable, shown
from vaelab.datasets.files import error_text, read_error
from vaelab.datasets.naming import list_text
from vaelab.datasets.skipped import SkippedFile

__all__ = ["FoundFile", "Walk", "is_ignored", "walk_files"]

# What operating systems, network disks and notebooks leave in folders; hidden files are left out as well.
IGNORED_NAMES = frozenset(
    {
        "@eadir",
        "#recycle",
        "$recycle.bin",
        "__macosx",
        "__pycache__",
        "desktop.ini",
        "ehthumbs.db",
        "lost+found",
        "system volume information",
        "thumbs.db",
    }
)

# Errors that say something of the name or the link itself, and not of a disk that fails.
FACTS_OF_THE_NAME = {errno.ENOENT, errno.ELOOP, errno.ENOTDIR, errno.ENAMETOOLONG}


class FoundFile(NamedTuple):
    """A regular file: its path relative to the folder, with "/" between the parts, its size and its times."""

    name: str
    size: int
    mtime_ns: int
    ctime_ns: int


class Walk(NamedTuple):
    """The files below a folder, sorted by name; what was left out, and where links lead."""

    files: list[FoundFile]
    skipped: list[SkippedFile]
    notes: list[str]


def is_ignored(name: str) -> bool:
    """Whether a name is hidden or one that a system left behind."""
    return name.startswith(".") or name.lower() in IGNORED_NAMES


def walk_files(root: Path) -> Walk:
    """Find the regular files below a folder. Links are followed, but no folder is entered twice.

    Args:
        root: The folder.

    Returns:
        The files; broken links and special files are skipped, and links out of the folder are noted.

    Raises:
        ReadError: A folder or file below it cannot be read. To go on without it would change the data.
    """
    return _Walker(root).walk()


class _Walker:
    """The state of one walk: folders seen, and folders still to be read. Links wait until all real folders are read."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.real_root = os.path.realpath(root)
        self.files: list[FoundFile] = []
        self.skipped: list[SkippedFile] = []
        self.visited: set[tuple[int, int]] = set()
        self.linked_folders: list[str] = []
        self.repeated: list[str] = []
        self.outside_folders: list[str] = []
        self.outside_files: list[str] = []

    def walk(self) -> Walk:
        self._read_tree("")
        while self.linked_folders:
            name = min(self.linked_folders)
            self.linked_folders.remove(name)
            self._follow(name)
        return Walk(sorted(self.files), self.skipped, self._notes())

    def _path(self, name: str) -> str:
        return os.path.join(self.root, name) if name else os.fspath(self.root)  # noqa: PTH118 (quick, and any bytes)

    def _read_tree(self, top: str) -> None:
        """Read a folder and those below it, links aside."""
        pending = [top]
        while pending:
            folder = pending.pop()
            path = self._path(folder)
            try:
                status = os.stat(path)  # noqa: PTH116
                inode = status.st_dev, status.st_ino
                if inode in self.visited:
                    continue
                self.visited.add(inode)
                with os.scandir(path) as entries:
                    names = list(entries)
            except OSError as error:
                self._skip_or_raise(folder, error)
                continue
            prefix = f"{folder}/" if folder else ""
            for entry in names:
                if not is_ignored(entry.name):
                    pending.extend(self._read_entry(entry, prefix + entry.name))

    def _read_entry(self, entry: os.DirEntry[str], name: str) -> list[str]:
        """Take a file, remember a linked folder; returns the name of a real folder, which is still to be read."""
        try:
            is_link = entry.is_symlink()
            if not is_link and entry.is_dir(follow_symlinks=False):
                return [name]
            status = entry.stat()
        except OSError as error:
            self._skip_or_raise(name, error)
            return []
        if stat.S_ISDIR(status.st_mode):
            self.linked_folders.append(name)
        elif stat.S_ISREG(status.st_mode):
            self.files.append(FoundFile(name, status.st_size, status.st_mtime_ns, status.st_ctime_ns))
            if is_link and not self._is_inside(name):
                self.outside_files.append(name)
        else:
            self.skipped.append(SkippedFile(printable(name), "not a regular file"))
        return []

    def _follow(self, name: str) -> None:
        """Read the folder that a link leads to, unless it was read before or holds the folder itself."""
        target = os.path.realpath(self._path(name))
        try:
            status = os.stat(target)  # noqa: PTH116
        except OSError as error:
            self._skip_or_raise(name, error)
            return
        holds_root = self.real_root.startswith(target.rstrip("/") + "/")
        if (status.st_dev, status.st_ino) in self.visited or holds_root:
            self.repeated.append(name)
            return
        self.outside_folders.append(name)
        self._read_tree(name)

    def _is_inside(self, name: str) -> bool:
        target = os.path.realpath(self._path(name))
        return target.startswith(self.real_root.rstrip("/") + "/")

    def _skip_or_raise(self, name: str, error: OSError) -> None:
        """Skip what is a fact of a name, such as a broken link; stop for everything else, which may pass."""
        if error.errno not in FACTS_OF_THE_NAME:
            raise read_error(self._path(name), error) from error
        reason = "broken link" if error.errno in (errno.ENOENT, errno.ELOOP) else error_text(error)
        self.skipped.append(SkippedFile(printable(name), reason))

    def _notes(self) -> list[str]:
        notes = []
        if self.repeated:
            names = list_text(sorted(self.repeated))
            count = count_text(len(self.repeated), "link")
            notes.append(f"{count} to folders that are read already: {names}; every folder is read once")
        for names, noun in ((self.outside_folders, "linked folder"), (self.outside_files, "linked file")):
            if names:
                first = min(names)
                target = shown(os.path.realpath(self._path(first)))
                notes.append(f"{count_text(len(names), noun)} out of the folder, such as {shown(first)} -> {target}")
        return notes
