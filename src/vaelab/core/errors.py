"""The one kind of error that is the user's to mend, and how to suggest what was meant.

A `UserError` carries a sentence of at most three lines: what happened, with the value; what is allowed; what to do.
The command line prints it alone and leaves with status 2; every other exception is a fault of ours and keeps its
traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["UserError", "unknown_name_error"]


class UserError(ValueError):
    """Wrong use, bad input, no room, no network or NaN, said in at most three lines."""


def unknown_name_error(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not among the `known` ones, with the nearest of them as a suggestion."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f'; did you mean "{near[0]}"?' if near else ""
    return UserError(f'unknown {kind} "{name}"{hint} (have: {", ".join(known)})')
