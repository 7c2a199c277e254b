"""Command lines as a user gives them, with what they print."""

from __future__ import annotations

import pytest

from vaelab.cli import main


def say(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    """Status, standard output and standard error of a command line."""
    capsys.readouterr()
    status = main.run_cli([str(word) for word in words])
    printed = capsys.readouterr()
    return status, printed.out, printed.err
