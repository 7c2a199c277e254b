"""Errors as the command line prints them: a sentence with the value, what is allowed and the remedy."""

from __future__ import annotations

import errno
import os
import re

from vaelab.cli.arguments import flag_name
from vaelab.core.console import shown
from vaelab.core.errors import UserError
from vaelab.core.files import DISK_FULL

__all__ = ["user_message"]

OUT_OF_MEMORY = "not enough memory; a smaller --latent-dim, --network, --batch-size or --size needs less"

# How torch and joblib word it that memory does not suffice.
OUT_OF_MEMORY_TEXTS = ("out of memory", "not enough memory", "allocate memory", "excessive memory usage")

# What to do about an error of the operating system.
REMEDIES = {
    errno.EACCES: "its owner can change that with chmod, or give another place",
    errno.EPERM: "its owner can change that, or give another place",
    errno.EROFS: "give another place",
    errno.EMFILE: "allow more open files (`ulimit -n 4096`) and repeat the command",
    errno.ENFILE: "close other programs and repeat the command",
    errno.ENAMETOOLONG: "give a shorter name",
    errno.ELOOP: "it links to itself; give another place",
    errno.EIO: "the disk or its connection fails; repeat the command, and if that does not help, check the disk",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "check the path",
    errno.EISDIR: "check the path",
}


def user_message(error: BaseException) -> str | None:
    """The sentence for an error that the user can correct; None for a fault of ours."""
    if isinstance(error, UserError):
        return with_flags(error)
    if isinstance(error, OSError) and error.errno is not None:
        return _system_message(error.errno, error.filename)
    if rust_error := re.search(r"\(os error (\d+)\)", str(error)):  # of safetensors, for example
        return _system_message(int(rust_error[1]), None)
    if isinstance(error, MemoryError):
        return OUT_OF_MEMORY
    if isinstance(error, RuntimeError | ValueError):
        return _worded_message(str(error))
    return None


def with_flags(error: UserError) -> str:
    """The message of an error with the settings that it names written as flags: `batch_size` is `--batch-size`."""
    text = str(error)
    for name in error.settings:
        text = re.sub(rf"(?<![\w.:=-]){re.escape(name)}(?!\w)", flag_name(name), text)
    return text


def _worded_message(text: str) -> str | None:
    """The sentence for an error of a library that only its wording tells from others."""
    if any(words in text for words in OUT_OF_MEMORY_TEXTS):
        return OUT_OF_MEMORY
    if "home directory" in text:
        return "a path begins with ~ and a user whom this machine does not know; write the path in full"
    if "embedded null" in text:
        return "a path holds a null character; check the path"
    return None


def _system_message(number: int, path: object) -> str:
    """An error of the operating system: the place, what is wrong, and what to do."""
    reason = os.strerror(number)
    place = _shown_path(path)
    if number in DISK_FULL:
        where = f" to write {place}" if place else ""
        return f"no room{where}: {reason}; free some space and repeat the command, which continues where it was"
    if number == errno.ENOMEM:
        return OUT_OF_MEMORY
    if number == errno.ENOENT and not place:
        return "the working folder is gone; change to another folder and repeat the command"
    remedy = REMEDIES.get(number, "check the path, or give another place")
    return f"cannot read or write {place or 'a file'}: {reason}; {remedy}"


def _shown_path(path: object) -> str:
    """A path as it is shown in a message, shortened where it is very long."""
    if not isinstance(path, str | bytes | os.PathLike):
        return ""
    return shown(os.fsdecode(path))
