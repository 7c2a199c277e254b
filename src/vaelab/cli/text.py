"""What the command line prints: each result as lines of text or as JSON."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vaelab.core.console import count_text, format_duration, shown
from vaelab.core.files import files_in
from vaelab.datasets.naming import MAX_NAME_SHOWN, list_text
from vaelab.evaluation.catalogue import LISTED_METRICS, NUMBER_FORMAT
from vaelab.runs.summary import skipped_lines

if TYPE_CHECKING:
    from vaelab.evaluation.diagnostics import Diagnosis
    from vaelab.models.summary import Layer
    from vaelab.runs.run import Run
    from vaelab.studies.judging import ClaimResult
    from vaelab.studies.results import StudyLook

__all__ = [
    "cache_lines",
    "data_lines",
    "doctor_lines",
    "evaluate_lines",
    "list_lines",
    "model_lines",
    "study_json",
    "study_lines",
    "train_json",
    "train_lines",
    "written_json",
    "written_lines",
]

Arguments = dict[str, Any]  # those that were given on the command line, by name

Json = dict[str, Any]  # as a result is stored and printed

MAX_LISTED = 12  # categories, sizes and the like that are listed one by one


def written_lines(_: Any, arguments: Arguments) -> list[str]:
    """Which picture was written."""
    return [f"wrote {arguments['out']}"] if arguments.get("out") else ["nothing written: give --out"]


def written_json(images: Any, arguments: Arguments) -> Json:
    return {"out": str(arguments["out"]) if arguments.get("out") else None, "images": list(images.shape)}


# Runs


def train_lines(run: Run, _: Arguments) -> Iterable[str]:
    """What became of a training: the run, its metrics and its figures."""
    outcomes = {"resumed": f"resumed after epoch {run.from_epoch} and trained", "existing": "found, already trained"}
    yield f"run {run.path}: {outcomes.get(run.outcome or '', run.outcome)}"
    yield from _metrics_lines(list(run.metrics.values()))
    figures = run.path / "figures"
    files = [file.name for file in files_in(figures, "*.p*")]
    if files:
        yield f"figures in {figures}: {', '.join(files)}"


def train_json(run: Run, _: Arguments) -> Json:
    return {
        "run": str(run.path),
        "key": run.key,
        "outcome": run.outcome,
        "from_epoch": run.from_epoch,
        "images_trained": run.images_trained,
    }


def evaluate_lines(record: Json, _: Arguments) -> Iterable[str]:
    """The metrics of one split."""
    return _metrics_lines([record])


def _metrics_lines(records: Sequence[Json]) -> Iterable[str]:
    """Metrics as a table, a column for each split that was measured, with standard errors over images."""
    for record in records:
        yield f"{record['split']}: {count_text(record['n'], 'image')} of {record['data']}"
    names = dict.fromkeys(name for record in records for name in record["metrics"])
    width = max([24, *(len(name) + 1 for name in names)])
    yield " " * width + "".join(f"{record['split']:>24}" for record in records)
    for name in names:
        metrics = [record["metrics"].get(name, {}) for record in records]  # not every split has every metric
        notes = [metric["note"] for metric in metrics if "note" in metric]
        note = f"   ({notes[0]})" if notes else ""
        yield f"{name:<{width}}" + "".join(f"{_value_and_error(metric):>24}" for metric in metrics) + note


def _value_and_error(metric: Json) -> str:
    if not metric:
        return "-" + " " * 11
    error = metric["stderr"]
    return format(metric["value"], NUMBER_FORMAT) + (f" +- {error:<7.2g}" if error is not None else " " * 11)


def doctor_lines(diagnoses: Sequence[Diagnosis], _: Arguments) -> Iterable[str]:
    """The diagnoses, alarms first, each with its meaning and its remedy."""
    for state in ("alarm", "note", "well", "open"):
        for diagnosis in diagnoses:
            if diagnosis.state != state:
                continue
            yield f"{state:<6} {diagnosis.ailment}: {diagnosis.number}"
            if diagnosis.meaning:
                yield f"{'':<6} {diagnosis.meaning}"
            if diagnosis.remedy:
                yield f"{'':<6} try: {diagnosis.remedy}"
    if not any(diagnosis.state == "alarm" for diagnosis in diagnoses):
        yield "no alarm"


def model_lines(layers: Sequence[Layer], arguments: Arguments) -> Iterable[str]:
    """The layers of a model with shapes and numbers of parameters."""
    for layer in layers:
        yield f"{layer.part:<8} {layer.name:<34} {' x '.join(map(str, layer.shape)):>16} {layer.parameters:>12,}"
    yield f"{'in all':<60} {sum(layer.parameters for layer in layers):>12,}"
    if arguments.get("out"):
        yield f"wrote {arguments['out']}"


def list_lines(rows: Sequence[Json], arguments: Arguments) -> list[str]:
    """A table of runs: what they are, their main metrics and disk use."""
    if not rows:
        return [f"no runs below {arguments.get('dir', '.')}; `vaelab train DATA` makes one"]
    metrics = list(LISTED_METRICS)
    if arguments.get("sort") and arguments["sort"] not in metrics:
        metrics.append(arguments["sort"])
    table = [["run", "data", "network", "latent", "loss", *metrics, "MiB", ""]]
    notes: set[str] = set()
    for row in rows:
        table.append(_list_row(row, metrics))
        notes.update(note for name, note in row["notes"].items() if name in metrics)
    return _align(table, left_columns={0, 1, 2, 4, len(table[0]) - 1}) + [f"* {note}" for note in sorted(notes)]


def _list_row(row: Json, metrics: Sequence[str]) -> list[str]:
    """The cells of one run; a star marks a metric with a note."""
    spec = row["spec"]
    cells = [row["path"], Path(spec["data"]).name, spec["network"]["name"], str(spec["latent_dim"])]
    cells.append(spec["loss"]["name"])
    for name in metrics:
        star = "*" if name in row["notes"] else ""
        cells.append(format(row["metrics"][name], NUMBER_FORMAT) + star if name in row["metrics"] else "-")
    cells.append(f"{row['bytes'] / 2**20:.1f}")
    cells.append("" if row["state"] == "finished" else row["state"])
    return cells


def _align(table: Sequence[Sequence[str]], left_columns: set[int]) -> list[str]:
    """The rows of a table as lines, in columns that start or end below each other."""
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    lines = []
    for row in table:
        cells = []
        for i, cell in enumerate(row):
            cells.append(cell.ljust(widths[i]) if i in left_columns else cell.rjust(widths[i]))
        lines.append("  ".join(cells).rstrip())
    return lines


# Studies


def study_lines(result: Any, arguments: Arguments) -> Iterable[str]:
    """The shipped studies, the plan of a study, or its verdicts."""
    if arguments.get("list_"):
        return [f"{name:<12} {title}" for name, title in result.items()]
    if arguments.get("dry_run"):
        return _plan_lines(result)
    return _verdict_lines(result)


def _plan_lines(plan: Json) -> list[str]:
    counts = f"{count_text(plan['runs'], 'run')}, {plan['existing']} exist, {plan['missing']} to train"
    lines = [
        f"study {plan['study']}: {counts}",
        f"about {format_duration(plan['seconds'])} with {count_text(plan['workers'], 'worker')}",
    ]
    if plan["most_runs"] > plan["runs"]:
        lines.append(f"then seeds for the claims that are still open, up to {count_text(plan['most_runs'], 'run')}")
    return lines


def _verdict_lines(result: Any) -> Iterable[str]:
    """The verdict of each claim, the runs that failed, and where the report is."""
    results = result.results
    for claim in results.claim_results:
        yield from _claim_lines(claim)
    if results.study.decide:
        yield from _look_lines(results.looks)
    if results.claim_results:
        yield results.errors.text
    for name, error in results.failed.items():
        yield f"failed: {error}" if name in error else f"failed: run {name}: {error}"
    if results.missing:
        yield f"partial: {results.missing} of {count_text(len(results.study.trials), 'trial')} have no finished run"
    yield f"{count_text(result.images_trained, 'image')} trained on"
    yield f"report: {result.report}"


def _claim_lines(claim: ClaimResult) -> Iterable[str]:
    """The verdict of a claim, and what must be said of it."""
    reading = f" [{claim.condition}]" if claim.condition else ""
    yield f"{claim.verdict_word:<11} {claim.claim.id:<22}{reading} {claim.claim.sentence}"
    if claim.note:
        yield f"{'':<12}{claim.note}"
    if claim.seeds_needed_text:
        yield f"{'':<12}{claim.seeds_needed_text} would decide it"


def _look_lines(looks: Sequence[StudyLook]) -> Iterable[str]:
    """What was trained for each look at the claims."""
    for number, look in enumerate(looks, 1):
        seeds = count_text(look.num_seeds, "seed")
        yield f"look {number}, {seeds}: {count_text(len(look.runs), 'run')}, {look.minutes:.1f} minutes of training"


def study_json(result: Any, arguments: Arguments) -> Any:
    if arguments.get("list_") or arguments.get("dry_run"):
        return result
    return {
        "study": str(result.folder),
        "report": str(result.report),
        "images_trained": result.images_trained,
        "missing": result.results.missing,
        "failed": result.results.failed,
        "looks": [{"seeds": look.num_seeds, "runs": len(look.runs)} for look in result.results.looks],
        "false_verdicts": result.results.errors.text,
        "claims": result.claims,
    }


# Data


def data_lines(facts: Json, _: Arguments) -> Iterable[str]:
    """What is in a data set, one kind of fact a line."""
    total = sum(split["n"] for split in facts["splits"].values())
    yield f"{shown(facts['source'])}: {shown(facts['location'])}"
    yield f"{count_text(total, 'image')}, loaded as {' x '.join(map(str, facts['shape']))}"
    for name, split in facts["splits"].items():
        labels = f": {_tally(split['categories'])}" if split.get("categories") else ""
        yield f"  {name:<11} {split['n']:>9,}  {split['origin']}{labels}"
    for name in ("sizes", "modes", "formats"):
        yield f"  {name:<11} {_tally(facts[name])}"
    for name in ("columns", "attributes"):
        if facts[name]:
            yield f"  {name:<11} {list_text(facts[name], MAX_LISTED)}"
    if facts["other_kinds"]:
        yield f"  other files {_tally(facts['other_kinds'])}"
    yield f"  duplicates  {_duplicates_text(facts['duplicates'])}"
    yield f"  cache       {facts['bytes'] / 2**20:,.1f} MiB in {facts['cache']} (`vaelab cache` tells more)"
    yield f"  content     {facts['fingerprint']}"
    yield f"  skipped     {count_text(len(facts['skipped']), 'file')}"
    for line in skipped_lines([(skipped["file"], skipped["reason"]) for skipped in facts["skipped"]]):
        yield f"    {line}"
    for note in facts["notes"]:
        yield f"note: {note}"


def cache_lines(facts: Json, arguments: Arguments) -> Iterable[str]:
    """What the cache takes, by kind, and how to empty it."""
    if arguments.get("clear"):
        yield f"freed {_mebibytes(facts['freed'])} MiB in {facts['folder']}"
        return
    yield f"{facts['folder']}: {_mebibytes(facts['bytes'])} MiB of at most {_mebibytes(facts['limit'])} MiB"
    for kind, noun in (("images", "data set"), ("program", "compiled program")):
        sizes = [item["bytes"] for item in facts["items"] if item["kind"] == kind]
        yield f"  {count_text(len(sizes), noun)}: {_mebibytes(sum(sizes))} MiB"
    yield "`vaelab cache --clear` empties it; $VAELAB_CACHE names another folder, $VAELAB_CACHE_LIMIT a bound in GiB"


def _mebibytes(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:,.1f}"


def _duplicates_text(duplicates: Json) -> str:
    count = duplicates["count"]
    verb = "is" if count == 1 else "are"
    examples = "".join(f"; {shown(test)} = {shown(train)}" for test, train in duplicates["examples"])
    return f"{count_text(count, 'picture')} of the test split {verb} in train too{examples}"


def _tally(table: dict[str, int]) -> str:
    """Names with their counts, the first few of them."""
    texts = [f"{shown(name, MAX_NAME_SHOWN)} ({n:,})" for name, n in list(table.items())[:MAX_LISTED]]
    more = f" and {len(table) - MAX_LISTED} more" if len(table) > MAX_LISTED else ""
    return ", ".join(texts) + more
