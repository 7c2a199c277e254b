"""The one kind of error that the user can correct, and how to suggest what was meant.

A `UserError` carries a sentence of at most three lines: what happened, with the value; what is allowed; what to do.
The command line prints it alone and leaves with status 2. Every other exception is a fault of ours and keeps its
traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["UserError", "unknown_name_error"]


class UserError(ValueError):
    """Wrong use, bad input, no room, no network or NaN, explained in at most three lines.

    Args:
        message: The sentence. It names settings as Python does: `batch_size`.
        settings: The settings named in the message. The command line shows these as flags: `--batch-size`.
    """

    def __init__(self, message: str, *, settings: Iterable[str] = ()) -> None:
        super().__init__(message)
        self.settings = tuple(settings)


def unknown_name_error(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not among the `known` ones, with the nearest of them as a suggestion.

    Example:
        >>> print(unknown_name_error("preset", "textbok", ["fast", "textbook"]))
        unknown preset "textbok"; did you mean "textbook"? (have: fast, textbook)
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    return UserError(f'unknown {kind} "{name}"{hint} (have: {", ".join(known)})')
