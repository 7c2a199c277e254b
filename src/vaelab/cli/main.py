"""The command line: parse, call the verb of the same name, print its result.

Results go to standard output, and as JSON alone with --json; notices, progress and errors to standard error. Status 0:
done; 2: the user's to mend, one sentence and no traceback; 3: a study of which runs failed; 130: interrupted; 1: a
fault of ours, with its traceback.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, get_args

from vaelab import api
from vaelab.cli.text import (
    data_lines,
    doctor_lines,
    evaluate_lines,
    list_lines,
    model_lines,
    study_json,
    study_lines,
    train_lines,
    written_json,
    written_lines,
)
from vaelab.core.console import is_secondary_process, notice
from vaelab.core.errors import UserError, unknown_name_error
from vaelab.core.files import DISK_FULL
from vaelab.core.version import __version__

if TYPE_CHECKING:
    from inspect import BoundArguments

    from cyclopts import App, CycloptsError, Token

__all__ = ["main", "run_cli"]


@dataclass(frozen=True)
class Command:
    """A verb's function, and how its result is shown: as lines for people, and as one JSON object."""

    function: Callable[..., Any]
    format_text: Callable[[Any, dict[str, Any]], Iterable[str]]
    to_json: Callable[[Any, dict[str, Any]], Any]
    exit_status: Callable[[Any], int] = lambda _: 0


COMMANDS: dict[str, Command] = {
    "train": Command(
        api.train,
        train_lines,
        lambda run, _: {
            "run": str(run.path),
            "key": run.key,
            "outcome": run.outcome,
            "from_epoch": run.from_epoch,
            "images_trained": run.images_trained,
        },
    ),
    "evaluate": Command(api.evaluate, evaluate_lines, lambda measured, _: measured),
    "doctor": Command(api.doctor, doctor_lines, lambda found, _: {"findings": [f._asdict() for f in found]}),
    "reconstruct": Command(api.reconstruct, written_lines, written_json),
    "interpolate": Command(api.interpolate, written_lines, written_json),
    "sample": Command(api.sample, written_lines, written_json),
    "embed": Command(api.embed, written_lines, lambda path, _: {"out": str(path)}),
    "model": Command(api.model, model_lines, lambda rows, _: {"layers": [row._asdict() for row in rows]}),
    "study": Command(
        api.study,
        study_lines,
        study_json,
        lambda done: 3 if getattr(getattr(done, "results", None), "failed", None) else 0,
    ),
    "report": Command(api.report, lambda path, _: [f"wrote {path}"], lambda path, _: {"report": str(path)}),
    "list": Command(api.list_, list_lines, lambda rows, _: {"runs": rows}),
    "data": Command(api.data, data_lines, lambda facts, _: facts),
}


def help_lines() -> Iterable[str]:
    """What `vaelab --help` says: the verbs, in the order in which one comes to need them."""
    yield "Variational autoencoders on images: train, look, compare.\n\nUsage: vaelab VERB ...\n"
    width = min(shutil.get_terminal_size().columns, 100) - 15
    for name, verb in COMMANDS.items():
        first, *rest = textwrap.wrap((verb.function.__doc__ or "").split("\n\n")[0], width)
        yield from (f"  {name:<13}{first}", *(f"{'':<15}{line}" for line in rest))
    yield "\n`vaelab VERB --help` tells all of a verb, `vaelab --version` the version."


def parse_strict_int(_: Any, tokens: Sequence[Token]) -> int:
    """Read a whole number; the parser's own reading would cut 2.5 down to 2."""
    return int(tokens[0].value)


def build_app() -> App:
    """The command line as it follows from the verbs' signatures."""
    from cyclopts import App, Parameter

    app = App(name="vaelab", help_format="plaintext", result_action="return_value")
    whole_number, several = Parameter(converter=parse_strict_int), Parameter(consume_multiple=True, negative="")
    for name, verb in COMMANDS.items():
        hints = verb.function.__annotations__
        hints.pop("return", None)  # it names types whose import the help need not wait for
        hints |= {n: Annotated[int | None, whole_number] for n, hint in hints.items() if hint in ("int", "int | None")}
        hints |= {
            n: Annotated[list[int] | None, several] for n, hint in hints.items() if hint == "Sequence[int] | None"
        }
        app.command(verb.function, name=name)
    return app


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave with its status."""
    sys.exit(run_cli(list(sys.argv[1:] if arguments is None else arguments)))


def run_cli(arguments: list[str]) -> int:
    """Run the command line; gives the exit status."""
    try:
        status = run_command([a for a in arguments if a != "--json"], "--json" in arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        notice(f"\ninterrupted; to go on: {shlex.join(['vaelab', *arguments])}")
        return 130
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (UserError, MemoryError, RuntimeError, OSError) as error:
        text = user_message(error)
        if text is None:  # a fault of ours
            raise
        return print_error(text)
    else:
        return status
    return 0


def run_command(arguments: list[str], as_json: bool) -> int:
    """Parse, call the verb and print its result; gives the exit status."""
    if not arguments or arguments[0] in (
        "--help",
        "-h",
        "--version",
    ):  # said without the parser, whose import takes longer
        print(*([__version__] if "--version" in arguments else help_lines()), sep="\n")
        return 0
    if arguments[0] not in COMMANDS:
        raise unknown_name_error("verb", arguments[0], COMMANDS)
    function, bound = parse_arguments(arguments)
    result, verb = function(*bound.args, **bound.kwargs), COMMANDS[arguments[0]]
    if function is verb.function and not is_secondary_process():  # and not its help
        shown = bound.arguments
        print(*([json.dumps(verb.to_json(result, shown))] if as_json else verb.format_text(result, shown)), sep="\n")
        return verb.exit_status(result)
    return 0


def parse_arguments(arguments: list[str]) -> tuple[Callable[..., Any], BoundArguments]:
    """The verb's function, or one that shows its help, and the arguments that it is called with."""
    from cyclopts import CycloptsError

    try:
        function, bound, _ = build_app().parse_args(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise UserError(usage_message(error)) from None
    return function, bound


def print_error(text: str) -> int:
    print(f"vaelab: {text}", file=sys.stderr, flush=True)
    return 2


OUT_OF_MEMORY_TEXTS = (
    "out of memory",
    "not enough memory",
    "allocate memory",
    "excessive memory usage",
)  # torch's and joblib's words

ARGUMENT_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "yes or no"}


def user_message(error: Exception) -> str | None:
    """An error that is the user's to mend in a sentence with the value, what is allowed and the remedy; else None."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in OUT_OF_MEMORY_TEXTS)
    ):
        return "not enough memory; a smaller --latent-dim, --network, --batch-size or --size needs less"
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        return f"no room to write: {error.strerror}"
    return None


def usage_message(error: CycloptsError) -> str:
    """What the parser found."""
    from cyclopts.exceptions import CoercionError, MissingArgumentError

    verb = " ".join(("vaelab", *(error.command_chain or ())))
    if isinstance(error, CoercionError) and error.token is not None:
        wanted = (error.target_type, *get_args(error.target_type))
        for kind in (text for kind, text in ARGUMENT_TYPE_NAMES.items() if kind in wanted):
            return f'{error.token.keyword or "argument"} must be {kind}, got "{error.token.value}"'
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name = error.argument.name
        return f"{name if error.keyword else name.removeprefix('--').upper()} is missing; see `{verb} --help`"
    return f"{' '.join(str(error).split())} See `{verb} --help`."
