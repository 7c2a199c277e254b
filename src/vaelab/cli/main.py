"""The command line: parse, call the verb of the same name, print its result.

Results go to standard output, and as JSON alone with --json; notices, progress and errors to standard error. Status 0:
done; 2: the user can correct it, one sentence and no traceback; 3: a study of which runs failed; 130: interrupted; 1: a
fault of ours, with its traceback.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from vaelab import api
from vaelab.cli.arguments import parse_arguments
from vaelab.cli.messages import user_message
from vaelab.cli.text import (
    cache_lines,
    data_lines,
    doctor_lines,
    evaluate_lines,
    list_lines,
    model_lines,
    study_json,
    study_lines,
    train_json,
    train_lines,
    written_json,
    written_lines,
)
from vaelab.core.console import is_secondary_process, notice, prepare_streams, print_error_line, print_result
from vaelab.core.errors import unknown_name_error
from vaelab.core.interrupts import sigterm_as_interrupt
from vaelab.core.version import __version__

__all__ = ["COMMANDS", "main", "run_cli"]


@dataclass(frozen=True)
class Command:
    """A verb's function, and how its result is shown: as lines for people, and as one JSON object."""

    function: Callable[..., Any]
    format_text: Callable[[Any, dict[str, Any]], Iterable[str]]
    to_json: Callable[[Any, dict[str, Any]], Any]
    exit_status: Callable[[Any], int] = lambda _: 0


def study_status(result: Any) -> int:
    """3 where runs of a study failed."""
    return 3 if isinstance(result, api.StudyResult) and result.results.failed else 0


COMMANDS: dict[str, Command] = {
    "train": Command(api.train, train_lines, train_json),
    "evaluate": Command(api.evaluate, evaluate_lines, lambda measured, _: measured),
    "doctor": Command(api.doctor, doctor_lines, lambda found, _: {"findings": [f._asdict() for f in found]}),
    "reconstruct": Command(api.reconstruct, written_lines, written_json),
    "interpolate": Command(api.interpolate, written_lines, written_json),
    "sample": Command(api.sample, written_lines, written_json),
    "embed": Command(api.embed, written_lines, lambda path, _: {"out": str(path)}),
    "model": Command(api.model, model_lines, lambda rows, _: {"layers": [row._asdict() for row in rows]}),
    "study": Command(api.study, study_lines, study_json, study_status),
    "report": Command(api.report, lambda path, _: [f"wrote {path}"], lambda path, _: {"report": str(path)}),
    "list": Command(api.list_, list_lines, lambda rows, _: {"runs": rows}),
    "data": Command(api.data, data_lines, lambda facts, _: facts),
    "cache": Command(api.cache, cache_lines, lambda facts, _: facts),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its status."""
    prepare_streams()
    with sigterm_as_interrupt():
        status = run_cli(list(sys.argv[1:] if arguments is None else arguments))
    sys.exit(status)


def run_cli(arguments: list[str]) -> int:
    """Run the command line.

    Args:
        arguments: The words after `vaelab`.

    Returns:
        The exit status.
    """
    words = [word for word in arguments if word != "--json"]
    try:
        return run_command(words, as_json=len(words) < len(arguments))
    except KeyboardInterrupt:
        resumes = words[:1] in (["train"], ["study"])
        notice(f"\ninterrupted; to {'continue' if resumes else 'repeat'}: {shlex.join(['vaelab', *arguments])}")
        return 130
    except Exception as error:
        text = user_message(error)
        if text is None:  # a fault of ours
            raise
        print_error_line(f"vaelab: {text}")
        return 2


def run_command(words: list[str], as_json: bool) -> int:
    """Parse, call the verb and print its result.

    Args:
        words: The command line without --json.
        as_json: Whether to print the result as one JSON object.

    Returns:
        The exit status.
    """
    name = words[0] if words else "--help"
    if name in ("--help", "-h", "--version"):  # answered without the parser, whose import takes longer
        print_result([__version__] if name == "--version" else help_lines())
        return 0
    if name not in COMMANDS:
        raise unknown_name_error("verb", name, COMMANDS)
    command = COMMANDS[name]
    function, bound = parse_arguments(name, command.function, words)
    result = function(*bound.args, **bound.kwargs)
    if function is not command.function or is_secondary_process():  # it was its help; another process prints
        return 0
    if as_json:
        print_result([json.dumps(command.to_json(result, bound.arguments))])
    else:
        print_result(command.format_text(result, bound.arguments))
    return command.exit_status(result)


def help_lines() -> Iterable[str]:
    """What `vaelab --help` prints: the verbs, in the order in which one comes to need them."""
    yield from ("Variational autoencoders on images: train, look, compare.", "", "Usage: vaelab VERB ...", "")
    width = min(shutil.get_terminal_size().columns, 100) - 15
    for name, command in COMMANDS.items():
        summary = (command.function.__doc__ or "").split("\n\n")[0]
        first, *rest = textwrap.wrap(summary, width)
        yield f"  {name:<13}{first}"
        for line in rest:
            yield f"{'':<15}{line}"
    yield ""
    yield "`vaelab VERB --help` shows all of a verb, `vaelab --version` the version."
