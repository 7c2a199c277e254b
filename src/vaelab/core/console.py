"""What is printed while work goes on: notices and progress, always to standard error.

On a terminal progress is a live bar (rich); in a pipe or a log it becomes a plain line now and then.
Results never pass through here: they are returned, and the command line prints them to standard output.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, TextIO

from vaelab.core.errors import UserError

__all__ = [
    "ProgressCallback",
    "command_line",
    "count_text",
    "format_duration",
    "is_distributed",
    "is_secondary_process",
    "notice",
    "prepare_streams",
    "print_error_line",
    "print_result",
    "printable",
    "progress",
    "shown",
]

PLAIN_INTERVAL = 10.0  # seconds between two lines of progress where there is no terminal

QUIET_SECONDS = 2.0  # seconds before the first of them: what is shorter needs no progress


class ProgressCallback(Protocol):
    """Reports progress: `done` units are finished, `text` says what else is worth knowing."""

    def __call__(self, done: int, text: str = "") -> None: ...


def is_distributed() -> bool:
    """Whether `torchrun` started this process as one of several."""
    return os.environ.get("WORLD_SIZE", "1") != "1" and {"RANK", "MASTER_ADDR"} <= os.environ.keys()


def is_secondary_process() -> bool:
    """Whether another process prints what there is to print."""
    return is_distributed() and os.environ["RANK"] != "0"


def notice(text: str) -> None:
    """Print a line for the user that is no result."""
    if not is_secondary_process():
        print_error_line(text)


def print_error_line(text: str, stream: TextIO | None = None) -> None:
    """Print to standard error. That nobody reads it, or that it is closed, is no reason to stop the work."""
    stream = stream or sys.stderr
    if stream is None:
        return
    with suppress(OSError, ValueError):
        print(printable(text, keep="\n"), file=stream, flush=True)


# Characters that a terminal acts on, or that change the order in which others are shown: controls, direction marks,
# line separators, and the bytes of a file name that are no text.
UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str, keep: str = "") -> str:
    r"""Text that is safe to print: what a terminal would act on is escaped. Names of files and folders need this.

    Args:
        text: The text.
        keep: Characters that stay, such as line breaks of a message of ours.

    Example:
        >>> print(printable("cat\x1b[31m.png"))
        cat\x1b[31m.png
    """
    return UNPRINTABLE.sub(lambda match: match[0] if match[0] in keep else _escape(match[0]), text)


def _escape(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


MAX_SHOWN = 160  # characters of a name or value in a message


def shown(value: object, limit: int = MAX_SHOWN) -> str:
    r"""A name or value as messages show it: safe to print, on one line, and without its middle where it is very long.

    Args:
        value: The name or value; of a path or number its text.
        limit: The most characters that are shown.

    Example:
        >>> shown("picture-" + 1000 * "x" + ".png", 20)
        'picture-xx ... x.png'
    """
    text = printable(str(value))
    if len(text) <= limit:
        return text
    mark = " ... "
    tail = (limit - len(mark)) // 3
    return text[: limit - len(mark) - tail] + mark + text[-tail:]


def prepare_streams() -> None:
    """Make standard output and error safe to print to, for a whole process.

    A closed one is replaced by the null device, so that no file opened later takes its place. Characters that the
    terminal's encoding does not have are escaped.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def print_result(lines: Iterable[str]) -> None:
    """Print lines to standard output.

    Raises:
        UserError: They cannot be written. That the reader has gone, as in `vaelab list | head`, is no error.
    """
    texts = [printable(line) for line in lines]
    try:
        for text in texts:
            print(text)
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is left to write would fail again at the end
        if not isinstance(error, BrokenPipeError):
            raise UserError(f"cannot write the result to standard output: {error.strerror}") from None


def command_line() -> str | None:
    """The command line as it was given, where this process is one of vaelab's."""
    program = Path(sys.argv[0])
    ours = program.name == "vaelab" or (program.name == "__main__.py" and program.parent.name == "vaelab")
    return shlex.join(["vaelab", *sys.argv[1:]]) if ours else None


def count_text(count: int, noun: str, plural: str | None = None) -> str:
    """A count with its noun.

    Example:
        >>> count_text(1, "image"), count_text(1200, "image"), count_text(2, "category", "categories")
        ('1 image', '1,200 images', '2 categories')
    """
    return f"{count:,} {noun if count == 1 else plural or noun + 's'}"


def format_duration(seconds: float) -> str:
    """Seconds as a person writes them.

    Example:
        >>> format_duration(8), format_duration(185), format_duration(3720)
        ('8 s', '3:05 min', '1:02 h')
    """
    if seconds < 60:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"


@contextmanager
def progress(label: str, total: int, initial: int = 0) -> Iterator[ProgressCallback]:
    """Show how far `label` has come; yields the function to call with the units done, the `initial` ones included."""
    if is_secondary_process():
        yield lambda done, text="": None
    elif sys.stderr.isatty():
        with _progress_bar(label, total, initial) as advance:
            yield advance
    else:
        yield _progress_lines(label, total, initial)


@contextmanager
def _progress_bar(label: str, total: int, initial: int) -> Iterator[ProgressCallback]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn
    from rich.table import Column

    whole, rest = Column(no_wrap=True), Column(no_wrap=True, overflow="ellipsis", ratio=1)
    columns = (
        TextColumn("{task.description}", table_column=whole),
        BarColumn(bar_width=12, table_column=whole),
        TextColumn("{task.percentage:>3.0f} %", table_column=whole),
        TimeRemainingColumn(compact=True, table_column=whole),
        TextColumn("{task.fields[text]}", table_column=rest),
    )
    with Progress(*columns, console=Console(file=sys.stderr), transient=True, expand=True) as bar:
        task = bar.add_task(label, total=total, completed=initial, text="")

        def advance(done: int, text: str = "") -> None:
            bar.update(task, completed=done, text=text)

        yield advance


def _progress_lines(label: str, total: int, initial: int) -> ProgressCallback:
    start, out = time.monotonic(), sys.stderr  # as it is now: a job carried out meanwhile may redirect it
    due = start + QUIET_SECONDS

    def advance(done: int, text: str = "") -> None:
        nonlocal due
        now = time.monotonic()
        if now >= due and initial < done < total:
            left = f", {format_duration((now - start) * (total - done) / (done - initial))} left" * (
                done - initial > total / 50
            )
            detail = f", {text}" if text else ""
            print_error_line(f"{label}: {100 * done // total} %{left}{detail}", out)
            due = now + PLAIN_INTERVAL

    return advance
