"""Errors as the command line prints them: a sentence with the value, what is allowed and the remedy."""

from __future__ import annotations

import re

from vaelab.cli.arguments import flag_name
from vaelab.core.errors import UserError
from vaelab.core.files import DISK_FULL

__all__ = ["user_message"]

# How torch and joblib word it that memory does not suffice.
OUT_OF_MEMORY_TEXTS = ("out of memory", "not enough memory", "allocate memory", "excessive memory usage")


def user_message(error: BaseException) -> str | None:
    """The sentence for an error that the user can correct; None for a fault of ours."""
    if isinstance(error, UserError):
        return with_flags(error)
    if isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and _is_out_of_memory(error)):
        return "not enough memory; a smaller --latent-dim, --network, --batch-size or --size needs less"
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return f"no room to write: {error.strerror}"
    return None


def with_flags(error: UserError) -> str:
    """The message of an error with the settings that it names written as flags: `batch_size` is `--batch-size`."""
    text = str(error)
    for name in error.settings:
        text = re.sub(rf"(?<![\w.:=-]){re.escape(name)}(?!\w)", flag_name(name), text)
    return text


def _is_out_of_memory(error: RuntimeError) -> bool:
    return any(words in str(error) for words in OUT_OF_MEMORY_TEXTS)
