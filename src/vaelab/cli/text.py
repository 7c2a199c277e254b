"""What the command line prints: each result as lines of text or as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vaelab.core.console import format_duration

__all__ = [
    "data_lines",
    "doctor_lines",
    "evaluate_lines",
    "list_lines",
    "model_lines",
    "study_json",
    "study_lines",
    "train_lines",
    "written_json",
    "written_lines",
]


def written_lines(_: Any, arguments: dict[str, Any]) -> Iterable[str]:
    return [f"wrote {arguments['out']}"] if arguments.get("out") else ["nothing written: give --out"]


def written_json(images: Any, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"out": str(arguments["out"]) if arguments.get("out") else None, "images": list(images.shape)}


def train_lines(run: Any, _: dict[str, Any]) -> Iterable[str]:
    done = {"resumed": f"resumed after epoch {run.from_epoch} and trained", "existing": "found, already trained"}
    yield f"run {run.path}: {done.get(run.outcome, run.outcome)}"
    yield from metrics_lines(list(run.metrics.values()))
    files = sorted(file.name for file in (run.path / "figures").glob("*.p*"))
    if files:
        yield f"figures in {run.path / 'figures'}: {', '.join(files)}"


def evaluate_lines(measured: dict[str, Any], _: dict[str, Any]) -> Iterable[str]:
    return metrics_lines([measured])


def doctor_lines(diagnoses: list[Any], _: dict[str, Any]) -> Iterable[str]:
    for state in ("alarm", "note", "well", "open"):
        for found in (f for f in diagnoses if f.state == state):
            yield f"{state:<6} {found.ailment}: {found.number}"
            yield from (f"{'':<6} {text}" for text in (found.meaning, found.remedy and f"try: {found.remedy}") if text)
    if not any(f.state == "alarm" for f in diagnoses):
        yield "no alarm"


def metrics_lines(columns: list[dict[str, Any]]) -> Iterable[str]:
    """Metrics as lines, a column for each split that was measured, with standard errors over images."""
    for column in columns:
        yield f"{column['split']}: {column['n']:,} images of {column['data']}"
    yield " " * 24 + "".join(f"{column['split']:>24}" for column in columns)
    for name in columns[0]["metrics"] if columns else ():
        metrics = [column["metrics"][name] for column in columns]
        yield f"{name:<24}" + "".join(f"{value_and_error(m):>24}" for m in metrics) + note_suffix(metrics[0])


def value_and_error(metric: dict[str, Any]) -> str:
    error = metric["stderr"]
    return f"{metric['value']:.5g}" + (f" +- {error:<7.2g}" if error is not None else " " * 11)


def note_suffix(metric: dict[str, Any]) -> str:
    return f"   ({metric['note']})" if "note" in metric else ""


def model_lines(rows: Any, arguments: dict[str, Any]) -> Iterable[str]:
    for layer in rows:
        yield f"{layer.part:<8} {layer.name:<34} {' x '.join(map(str, layer.shape)):>16} {layer.parameters:>12,}"
    yield f"{'in all':<60} {sum(layer.parameters for layer in rows):>12,}"
    if arguments.get("out"):
        yield f"wrote {arguments['out']}"


def list_lines(rows: list[dict[str, Any]], arguments: dict[str, Any]) -> Iterable[str]:
    if not rows:
        return [f"no runs below {arguments.get('dir', '.')}; `vaelab train DATA` makes one"]
    shown = list(dict.fromkeys(n for n in ("negative_elbo", "mse", "kl", "active_units", arguments.get("sort")) if n))
    table = [["run", "data", "network", "latent", "loss", *shown, "MiB", ""]]
    for row in rows:
        spec, found = row["spec"], row["metrics"]
        about = [Path(spec["data"]).name, spec["network"]["name"], str(spec["latent_dim"]), spec["loss"]["name"]]
        numbers = [f"{found[n]:.5g}{'*' * (n in row['notes'])}" if n in found else "-" for n in shown]
        state = "" if row["state"] == "finished" else row["state"]
        table.append([row["path"], *about, *numbers, f"{row['bytes'] / 2**20:.1f}", state])
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    left = {0, 1, 2, 4, len(widths) - 1}
    lines = [
        "  ".join(f"{cell:{'<' if i in left else '>'}{widths[i]}}" for i, cell in enumerate(line)).rstrip()
        for line in table
    ]
    notes = {note for row in rows for name, note in row["notes"].items() if name in shown}
    return lines + [f"* {note}" for note in sorted(notes)]


def study_lines(result: Any, arguments: dict[str, Any]) -> Iterable[str]:
    if arguments.get("list_"):
        yield from (f"{name:<12} {title}" for name, title in result.items())
        return
    if arguments.get("dry_run"):
        counts = f"{result['runs']} runs, {result['existing']} exist, {result['missing']} to train"
        yield f"study {result['study']}: {counts}"
        yield f"about {format_duration(result['seconds'])} with {result['workers']} workers"
        return
    results = result.results
    for claim in result.claims:
        reading = f" [{claim['reading']}]" if claim["reading"] else ""
        yield f"{claim['verdict']:<11} {claim['id']:<22}{reading} {claim['sentence']}"
        if claim.get("note"):
            yield f"{'':<12}{claim['note']}"
    for name, error in results.failed.items():
        yield f"failed: run {name}: {error}"
    if results.missing:
        yield f"partial: {results.missing} of {len(results.study.trials)} trials have no finished run"
    yield f"{result.images_trained:,} images trained on"
    yield f"report: {result.report}"


def study_json(result: Any, arguments: dict[str, Any]) -> Any:
    if arguments.get("list_") or arguments.get("dry_run"):
        return result
    return {
        "study": str(result.folder),
        "report": str(result.report),
        "images_trained": result.images_trained,
        "missing": result.results.missing,
        "failed": result.results.failed,
        "claims": result.claims,
    }


def data_lines(facts: dict[str, Any], _: dict[str, Any]) -> Iterable[str]:
    def counts(table: dict[str, int]) -> str:
        shown = [f"{name} ({n:,})" for name, n in list(table.items())[:MAX_LISTED]]
        return ", ".join(shown) + (f" and {len(table) - MAX_LISTED} more" if len(table) > MAX_LISTED else "")

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


MAX_LISTED = 12  # categories, sizes and the like that are named one by one
