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
    drawn,
    show_data,
    show_findings,
    show_layers,
    show_metrics,
    show_runs,
    show_study,
    show_train,
    study_json,
    wrote,
)
from vaelab.core.console import follows, notice
from vaelab.core.errors import UserError, unknown
from vaelab.core.files import NO_ROOM
from vaelab.core.version import __version__

if TYPE_CHECKING:
    from inspect import BoundArguments

    from cyclopts import App, CycloptsError, Token

__all__ = ["main", "run"]


@dataclass(frozen=True)
class Verb:
    """A verb's function, and how its result is shown: as lines for people, and as one JSON object."""

    function: Callable[..., Any]
    lines: Callable[[Any, dict[str, Any]], Iterable[str]]
    json: Callable[[Any, dict[str, Any]], Any]
    status: Callable[[Any], int] = lambda _: 0


VERBS: dict[str, Verb] = {
    "train": Verb(
        api.train,
        show_train,
        lambda run, _: {
            "run": str(run.path),
            "key": run.key,
            "outcome": run.outcome,
            "from_epoch": run.from_epoch,
            "images_trained": run.images_trained,
        },
    ),
    "evaluate": Verb(api.evaluate, show_metrics, lambda measured, _: measured),
    "doctor": Verb(api.doctor, show_findings, lambda found, _: {"findings": [f._asdict() for f in found]}),
    "reconstruct": Verb(api.reconstruct, wrote, drawn),
    "interpolate": Verb(api.interpolate, wrote, drawn),
    "sample": Verb(api.sample, wrote, drawn),
    "embed": Verb(api.embed, wrote, lambda path, _: {"out": str(path)}),
    "model": Verb(api.model, show_layers, lambda rows, _: {"layers": [row._asdict() for row in rows]}),
    "study": Verb(
        api.study,
        show_study,
        study_json,
        lambda done: 3 if getattr(getattr(done, "results", None), "failed", None) else 0,
    ),
    "report": Verb(api.report, lambda path, _: [f"wrote {path}"], lambda path, _: {"report": str(path)}),
    "list": Verb(api.list_, show_runs, lambda rows, _: {"runs": rows}),
    "data": Verb(api.data, show_data, lambda facts, _: facts),
}


def overview() -> Iterable[str]:
    """What `vaelab --help` says: the verbs, in the order in which one comes to need them."""
    yield "Variational autoencoders on images: train, look, compare.\n\nUsage: vaelab VERB ...\n"
    width = min(shutil.get_terminal_size().columns, 100) - 15
    for name, verb in VERBS.items():
        first, *rest = textwrap.wrap((verb.function.__doc__ or "").split("\n\n")[0], width)
        yield from (f"  {name:<13}{first}", *(f"{'':<15}{line}" for line in rest))
    yield "\n`vaelab VERB --help` tells all of a verb, `vaelab --version` the version."


def whole(_: Any, tokens: Sequence[Token]) -> int:
    """Read a whole number; the parser's own reading would cut 2.5 down to 2."""
    return int(tokens[0].value)


def application() -> App:
    """The command line as it follows from the verbs' signatures."""
    from cyclopts import App, Parameter

    app = App(name="vaelab", help_format="plaintext", result_action="return_value")
    whole_number, several = Parameter(converter=whole), Parameter(consume_multiple=True, negative="")
    for name, verb in VERBS.items():
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
    sys.exit(run(list(sys.argv[1:] if arguments is None else arguments)))


def run(arguments: list[str]) -> int:
    """Run the command line; gives the exit status."""
    try:
        status = execute([a for a in arguments if a != "--json"], "--json" in arguments)
        sys.stdout.flush()
    except KeyboardInterrupt:
        notice(f"\ninterrupted; to go on: {shlex.join(['vaelab', *arguments])}")
        return 130
    except BrokenPipeError:  # the reader of our output went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (UserError, MemoryError, RuntimeError, OSError) as error:
        text = sentence(error)
        if text is None:  # a fault of ours
            raise
        return refuse(text)
    else:
        return status
    return 0


def execute(words: list[str], as_json: bool) -> int:
    """Parse, call the verb and print its result; gives the exit status."""
    if not words or words[0] in ("--help", "-h", "--version"):  # said without the parser, whose import takes longer
        print(*([__version__] if "--version" in words else overview()), sep="\n")
        return 0
    if words[0] not in VERBS:
        raise unknown("verb", words[0], VERBS)
    function, bound = parse(words)
    result, verb = function(*bound.args, **bound.kwargs), VERBS[words[0]]
    if function is verb.function and not follows():  # and not its help
        shown = bound.arguments
        print(*([json.dumps(verb.json(result, shown))] if as_json else verb.lines(result, shown)), sep="\n")
        return verb.status(result)
    return 0


def parse(words: list[str]) -> tuple[Callable[..., Any], BoundArguments]:
    """The verb's function, or one that shows its help, and the arguments that it is called with."""
    from cyclopts import CycloptsError

    try:
        function, bound, _ = application().parse_args(words, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise UserError(misuse(error)) from None
    return function, bound


def refuse(text: str) -> int:
    print(f"vaelab: {text}", file=sys.stderr, flush=True)
    return 2


FULL = "out of memory", "not enough memory", "allocate memory", "excessive memory usage"  # torch's and joblib's words

KINDS = {int: "a whole number", float: "a number", bool: "yes or no"}


def sentence(error: Exception) -> str | None:
    """An error that is the user's to mend in a sentence with the value, what is allowed and the remedy; else None."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError) and any(words in str(error) for words in FULL)
    ):
        return "not enough memory; a smaller --latent-dim, --network, --batch-size or --size needs less"
    if isinstance(error, OSError) and error.errno in NO_ROOM:
        return f"no room to write: {error.strerror}"
    return None


def misuse(error: CycloptsError) -> str:
    """What the parser found."""
    from cyclopts.exceptions import CoercionError, MissingArgumentError

    verb = " ".join(("vaelab", *(error.command_chain or ())))
    if isinstance(error, CoercionError) and error.token is not None:
        wanted = (error.target_type, *get_args(error.target_type))
        for kind in (text for kind, text in KINDS.items() if kind in wanted):
            return f'{error.token.keyword or "argument"} must be {kind}, got "{error.token.value}"'
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name = error.argument.name
        return f"{name if error.keyword else name.removeprefix('--').upper()} is missing; see `{verb} --help`"
    return f"{' '.join(str(error).split())} See `{verb} --help`."
