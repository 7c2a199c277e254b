"""From the words of a command line to the arguments of a verb.

The flags of a verb are the arguments of its function. `train` has besides a flag for each setting of a `Spec`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_origin

from vaelab.core.errors import UserError

if TYPE_CHECKING:
    from cyclopts import App, CycloptsError, Token

    from vaelab.runs.spec import SettingInfo

__all__ = ["flag_name", "parse_arguments"]


def parse_arguments(verb: str, function: Callable[..., Any], words: Sequence[str]) -> tuple[Callable[..., Any], Any]:
    """Parse the words after `vaelab`, the verb included.

    Returns:
        The function to call, which is `function` or one that prints its help, and its `BoundArguments`.

    Raises:
        UserError: The words are not the arguments of the verb.
    """
    from cyclopts import CycloptsError

    app, command = _build_app(verb, function)
    try:
        chosen, bound, _ = app.parse_args(list(words), exit_on_error=False, print_error=False)
    except CycloptsError as error:
        raise UserError(_usage_message(error)) from None
    return function if chosen is command else chosen, bound


def flag_name(setting: str) -> str:
    """The flag of a setting or argument: `batch_size` is `--batch-size`, `from_` is `--from`."""
    return f"--{setting.strip('_').replace('_', '-')}"


def _build_app(verb: str, function: Callable[..., Any]) -> tuple[App, Callable[..., Any]]:
    """The parser of one verb, and what it calls."""
    from cyclopts import App

    app = App(name="vaelab", help_format="plaintext", result_action="return_value")
    command = _command_function(function)
    app.command(command, name=verb)
    return app, command


def _command_function(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with the signature that the command line parses: whole numbers strictly, settings as flags."""

    @functools.wraps(function)
    def command(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    parameters = []
    for parameter in inspect.signature(function).parameters.values():
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD:
            parameters.append(parameter.replace(annotation=_cli_type(parameter.annotation)))
    if len(parameters) < len(inspect.signature(function).parameters):
        parameters[2:2] = _setting_flags()  # after the data and the preset
    command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    command.__doc__ = _unwrapped(function.__doc__ or "")
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return command


def _unwrapped(docstring: str) -> str:
    """A docstring with each paragraph and each argument's help on one line, for the help to wrap."""
    paragraphs = []
    for paragraph in inspect.cleandoc(docstring).split("\n\n"):
        lines: list[str] = []
        for line in paragraph.splitlines():
            continues = lines and not lines[-1].endswith(":") and (line.startswith(" " * 8) or not line.startswith(" "))
            if continues:
                lines[-1] += f" {line.strip()}"
            else:
                lines.append(line)
        paragraphs.append("\n".join(lines))
    return "\n\n".join(paragraphs)


def _setting_flags() -> Iterator[inspect.Parameter]:
    """A keyword argument for each setting of a `Spec`, with its help and its other names."""
    from cyclopts import Parameter

    from vaelab.runs.spec import spec_settings

    for info in spec_settings().values():
        if not info.flag:
            continue
        names = [flag_name(name) for name in (info.name, *info.aliases)]
        hint = Annotated[_word_type(info) | None, Parameter(name=names, help=info.help)]
        yield inspect.Parameter(info.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_cli_type(hint))


def _word_type(info: SettingInfo) -> type:
    """The plain type in which a flag's value is read; what is more than a number is read by the codec."""
    plain = {int, float, bool} & set(_plain_types(info.hint))
    return plain.pop() if len(plain) == 1 else str


def _plain_types(hint: Any) -> Iterator[Any]:
    """The types within a type hint."""
    if get_origin(hint) is Annotated:
        yield from _plain_types(get_args(hint)[0])
    elif get_origin(hint) is tuple:
        yield str  # several values with commas between them
    elif get_args(hint):
        for inner in get_args(hint):
            yield from _plain_types(inner)
    else:
        yield hint


def _cli_type(hint: Any) -> Any:
    """A type hint with how the command line reads it: whole numbers strictly, several numbers after one flag."""
    from cyclopts import Parameter

    strict_int = Parameter(converter=_parse_strict_int)
    if hint in ("int", "int | None", int | None):
        return Annotated[int | None, strict_int]
    if hint == "Sequence[int] | None":
        return Annotated[list[int] | None, Parameter(consume_multiple=True, negative="")]
    if get_origin(hint) is Annotated and get_args(hint)[0] == int | None:
        return Annotated[hint, strict_int]
    return hint


def _parse_strict_int(_: Any, tokens: Sequence[Token]) -> int:
    """Read a whole number; the parser's own reading would cut 2.5 down to 2."""
    return int(tokens[0].value)


ARGUMENT_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "yes or no"}


def _usage_message(error: CycloptsError) -> str:
    """What the parser found, in a sentence."""
    from cyclopts.exceptions import CoercionError, MissingArgumentError

    command = " ".join(("vaelab", *(error.command_chain or ())))
    if isinstance(error, CoercionError) and error.token is not None:
        allowed = (error.target_type, *get_args(error.target_type))
        for kind, text in ARGUMENT_TYPE_NAMES.items():
            if kind in allowed:
                return f'{error.token.keyword or "argument"} must be {text}, got "{error.token.value}"'
    if isinstance(error, MissingArgumentError) and error.argument is not None:
        name = error.argument.name
        missing = name if error.keyword else name.removeprefix("--").upper()
        return f"{missing} is missing; see `{command} --help`"
    return f"{' '.join(str(error).split())} See `{command} --help`."
