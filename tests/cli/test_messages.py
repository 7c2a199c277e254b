"""What the command line prints where the system refuses, where nobody reads it, and of names that are no plain text."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vaelab.cli import main
from vaelab.cli.messages import user_message
from vaelab.core.console import printable
from vaelab.core.errors import UserError

SYSTEM_ERRORS = [
    (PermissionError(errno.EACCES, "Permission denied", "/a/b"), "cannot read or write /a/b: Permission denied; its"),
    (OSError(errno.EIO, "Input/output error", "/a/b"), "the disk or its connection fails"),
    (OSError(errno.EMFILE, "Too many open files"), "allow more open files"),
    (OSError(errno.ENOSPC, "No space left on device", b"/a/b"), "no room to write /a/b: No space left on device; free"),
    (OSError(errno.ENAMETOOLONG, "File name too long", "x" * 5000), "give a shorter name"),
    (FileNotFoundError(errno.ENOENT, "No such file or directory"), "the working folder is gone"),
    (RuntimeError("Could not determine home directory."), "a user whom this machine does not know"),
    (ValueError("embedded null byte"), "null character"),
    (RuntimeError("I/O error: Input/output error (os error 5)"), "the disk or its connection fails"),
    (MemoryError(), "not enough memory"),
]


@pytest.mark.parametrize(("error", "text"), SYSTEM_ERRORS, ids=str)
def test_an_error_of_the_system_is_one_sentence(error: Exception, text: str) -> None:
    message = user_message(error)
    assert message is not None
    assert text in message
    assert len(message) < 500


def test_a_fault_of_ours_keeps_its_traceback() -> None:
    assert user_message(KeyError("name")) is None
    assert user_message(ValueError("anything")) is None
    assert user_message(OSError("a decoder's verdict")) is None


def test_errors_name_settings_and_the_command_line_shows_flags() -> None:
    error = UserError("batch_size must be at least 1, got 0; the network:hidden", settings=["batch_size"])
    assert str(error).startswith("batch_size must")
    assert user_message(error) == "--batch-size must be at least 1, got 0; the network:hidden"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain naïve 猫.png", "plain naïve 猫.png"),
        ("\x1b[2Jcat\r", r"\x1b[2Jcat\x0d"),
        ("a\nb\tc", r"a\x0ab\x09c"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\udcff.png", r"\udcff.png"),
        ("\x9b31m", r"\x9b31m"),
    ],
)
def test_what_a_terminal_would_act_on_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def run_vaelab(redirection: str, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """A command line run by a shell with a redirection."""
    command = f'exec "$0" -m vaelab "$@" {redirection}'
    return subprocess.run(
        ["sh", "-c", command, sys.executable, *words],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("redirection", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams_are_no_fault(redirection: str, tmp_path: Path) -> None:
    done = run_vaelab(redirection, "list", str(tmp_path))
    assert done.returncode == 0
    assert done.stderr == ""
    done = run_vaelab(redirection, "list", str(tmp_path / "nowhere"))
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert done.stdout == "", "an error never goes where results go"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is always full")
def test_a_full_standard_output_is_said(tmp_path: Path) -> None:
    done = run_vaelab(">/dev/full", "list", str(tmp_path))
    assert done.returncode == 2
    assert done.stderr == "vaelab: cannot write the result to standard output: No space left on device\n"


def test_a_terminal_of_few_characters_takes_every_name(tmp_path: Path) -> None:
    done = run_vaelab("", "list", str(tmp_path / "猫"), PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert done.returncode == 2
    assert "\\u732b" in done.stderr


def test_names_are_shown_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main.run_cli(["list", str(tmp_path / "\x1b[31mred")]) == 2
    printed = capsys.readouterr()
    assert "\x1b" not in printed.err + printed.out
    assert r"\x1b[31mred" in printed.err


def test_a_deleted_working_folder_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "gone").mkdir()
    script = 'cd "$1" && rmdir "$1" && exec "$0" -m vaelab data .'
    done = subprocess.run(
        ["sh", "-c", script, sys.executable, str(tmp_path / "gone")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert len(done.stderr.splitlines()) == 1


def test_a_terminated_command_says_how_to_repeat_it(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from vaelab.cli import main\n"
        "main.run_command = lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM)\n"
        "main.main(['train', 'digits'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 130
    assert done.stderr == "\ninterrupted; to continue: vaelab train digits\n"
