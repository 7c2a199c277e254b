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
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

from vaelab import __version__, verbs
from vaelab.console import duration, follows, notice
from vaelab.errors import UserError, unknown
from vaelab.files import NO_ROOM

if TYPE_CHECKING:
    from inspect import BoundArguments

    from cyclopts import App, CycloptsError, Token

__all__ = ["main"]


@dataclass(frozen=True)
class Verb:
    """A verb's function, and how its result is shown: as lines for people, and as one JSON object."""

    function: Callable[..., Any]
    lines: Callable[[Any, dict[str, Any]], Iterable[str]]
    json: Callable[[Any, dict[str, Any]], Any]
    status: Callable[[Any], int] = lambda _: 0


def wrote(_: Any, given: dict[str, Any]) -> Iterable[str]:
    return [f"wrote {given['out']}"] if given.get("out") else ["nothing written: give --out"]


def drawn(images: Any, given: dict[str, Any]) -> dict[str, Any]:
    return {"out": str(given["out"]) if given.get("out") else None, "images": list(images.shape)}


def show_train(run: Any, _: dict[str, Any]) -> Iterable[str]:
    done = {"resumed": f"resumed after epoch {run.from_epoch} and trained", "existing": "found, already trained"}
    yield f"run {run.path}: {done.get(run.outcome, run.outcome)}"
    yield from metrics_table(list(run.metrics.values()))
    files = sorted(file.name for file in (run.path / "figures").glob("*.p*"))
    if files:
        yield f"figures in {run.path / 'figures'}: {', '.join(files)}"


def show_metrics(measured: dict[str, Any], _: dict[str, Any]) -> Iterable[str]:
    return metrics_table([measured])


def show_findings(findings: list[Any], _: dict[str, Any]) -> Iterable[str]:
    for state in ("alarm", "note", "well", "open"):
        for found in (f for f in findings if f.state == state):
            yield f"{state:<6} {found.ailment}: {found.number}"
            yield from (f"{'':<6} {text}" for text in (found.meaning, found.remedy and f"try: {found.remedy}") if text)
    if not any(f.state == "alarm" for f in findings):
        yield "no alarm"


def metrics_table(columns: list[dict[str, Any]]) -> Iterable[str]:
    """Metrics as lines, a column for each split that was measured, with standard errors over images."""
    for column in columns:
        yield f"{column['split']}: {column['n']:,} images of {column['data']}"
    yield " " * 24 + "".join(f"{column['split']:>24}" for column in columns)
    for name in columns[0]["metrics"] if columns else ():
        metrics = [column["metrics"][name] for column in columns]
        yield f"{name:<24}" + "".join(f"{value_and_error(m):>24}" for m in metrics) + note_beside(metrics[0])


def value_and_error(metric: dict[str, Any]) -> str:
    error = metric["stderr"]
    return f"{metric['value']:.5g}" + (f" +- {error:<7.2g}" if error is not None else " " * 11)


def note_beside(metric: dict[str, Any]) -> str:
    return f"   ({metric['note']})" if "note" in metric else ""


def show_layers(rows: Any, given: dict[str, Any]) -> Iterable[str]:
    for layer in rows:
        yield f"{layer.part:<8} {layer.name:<34} {' x '.join(map(str, layer.shape)):>16} {layer.parameters:>12,}"
    yield f"{'in all':<60} {sum(layer.parameters for layer in rows):>12,}"
    if given.get("out"):
        yield f"wrote {given['out']}"


def show_runs(rows: list[dict[str, Any]], given: dict[str, Any]) -> Iterable[str]:
    if not rows:
        return [f"no runs below {given.get('dir', '.')}; `vaelab train DATA` makes one"]
    shown = list(dict.fromkeys(n for n in ("negative_elbo", "mse", "kl", "active_units", given.get("sort")) if n))
    table = [["run", "data", "network", "latent", "loss", *shown, "MiB", ""]]
    for row in rows:
        spec, found = row["spec"], row["metrics"]
        about = [Path(spec["data"]).name, spec["network"]["name"], str(spec["latent_dim"]), spec["loss"]["name"]]
        numbers = [f"{found[n]:.5g}{'*' * (n in row['notes'])}" if n in found else "-" for n in shown]
        state = "" if row["state"] == "finished" else row["state"]
        table.append([row["path"], *about, *numbers, f"{row['bytes'] / 2**20:.1f}", state])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    left = {0, 1, 2, 4, len(widths) - 1}
    lines = ["  ".join(f"{cell:{'<' if i in left else '>'}{widths[i]}}" for i, cell in enumerate(line)).rstrip()
             for line in table]  # fmt: skip
    notes = {note for row in rows for name, note in row["notes"].items() if name in shown}
    return lines + [f"* {note}" for note in sorted(notes)]


def show_study(done: Any, given: dict[str, Any]) -> Iterable[str]:
    if given.get("list_"):
        yield from (f"{name:<12} {title}" for name, title in done.items())
        return
    if given.get("dry_run"):
        yield f"study {done['study']}: {done['runs']} runs, {done['existing']} exist, {done['missing']} to train"
        yield f"about {duration(done['seconds'])} with {done['workers']} workers"
        return
    results = done.results
    for claim in done.claims:
        reading = f" [{claim['reading']}]" if claim["reading"] else ""
        yield f"{claim['verdict']:<11} {claim['id']:<22}{reading} {claim['sentence']}"
        if claim.get("note"):
            yield f"{'':<12}{claim['note']}"
    for name, error in results.failed.items():
        yield f"failed: run {name}: {error}"
    if results.missing:
        yield f"partial: {results.missing} of {len(results.study.trials)} trials have no finished run"
    yield f"{done.images_trained:,} images trained on"
    yield f"report: {done.report}"


def study_json(done: Any, given: dict[str, Any]) -> Any:
    if given.get("list_") or given.get("dry_run"):
        return done
    return {"study": str(done.folder), "report": str(done.report), "images_trained": done.images_trained,
            "missing": done.results.missing, "failed": done.results.failed, "claims": done.claims}  # fmt: skip


def show_data(facts: dict[str, Any], _: dict[str, Any]) -> Iterable[str]:
    def counts(table: dict[str, int]) -> str:
        shown = [f"{name} ({n:,})" for name, n in list(table.items())[:COUNTED]]
        return ", ".join(shown) + (f" and {len(table) - COUNTED} more" if len(table) > COUNTED else "")

    total = sum(split["n"] for split in facts["splits"].values())
    yield f"{facts['source']}: {facts['location']}"
    yield f"{total:,} images, loaded as {' x '.join(map(str, facts['shape']))}"
    for name, split in facts["splits"].items():
        labels = f": {counts(split['categories'])}" if split.get("categories") else ""
        yield f"  {name:<11} {split['n']:>9,}  {split['origin']}{labels}"
    for name in ("sizes", "modes", "formats"):
        yield f"  {name:<11} {counts(facts[name])}"
    same = facts["duplicates"]
    examples = "".join(f"; {test} = {train}" for test, train in same["examples"])
    yield f"  duplicates  {same['count']:,} pictures of the test split stand in train too{examples}"
    yield f"  cache       {facts['bytes'] / 2**20:,.1f} MiB in {facts['cache']}"
    yield f"  content     {facts['fingerprint']}"
    yield f"  skipped     {len(facts['skipped']):,} files"
    yield from (f"    {skipped['file']}: {skipped['reason']}" for skipped in facts["skipped"])
    yield from (f"note: {note}" for note in facts["notes"])


COUNTED = 12  # categories, sizes and the like that are named one by one


VERBS: dict[str, Verb] = {
    "train": Verb(verbs.train, show_train, lambda run, _: {
        "run": str(run.path), "key": run.key, "outcome": run.outcome, "from_epoch": run.from_epoch,
        "images_trained": run.images_trained}),
    "evaluate": Verb(verbs.evaluate, show_metrics, lambda measured, _: measured),
    "doctor": Verb(verbs.doctor, show_findings, lambda found, _: {"findings": [f._asdict() for f in found]}),
    "reconstruct": Verb(verbs.reconstruct, wrote, drawn),
    "interpolate": Verb(verbs.interpolate, wrote, drawn),
    "sample": Verb(verbs.sample, wrote, drawn),
    "embed": Verb(verbs.embed, wrote, lambda path, _: {"out": str(path)}),
    "model": Verb(verbs.model, show_layers, lambda rows, _: {"layers": [row._asdict() for row in rows]}),
    "study": Verb(verbs.study, show_study, study_json,
                  lambda done: 3 if getattr(getattr(done, "results", None), "failed", None) else 0),
    "report": Verb(verbs.report, lambda path, _: [f"wrote {path}"], lambda path, _: {"report": str(path)}),
    "list": Verb(verbs.list_, show_runs, lambda rows, _: {"runs": rows}),
    "data": Verb(verbs.data, show_data, lambda facts, _: facts),
}  # fmt: skip


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
