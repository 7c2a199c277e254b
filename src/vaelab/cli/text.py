"""What the command line prints: each result as lines of text or as JSON."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vaelab.core.console import duration

__all__ = [
    "drawn",
    "show_data",
    "show_findings",
    "show_layers",
    "show_metrics",
    "show_runs",
    "show_study",
    "show_train",
    "study_json",
    "wrote",
]


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
    lines = [
        "  ".join(f"{cell:{'<' if i in left else '>'}{widths[i]}}" for i, cell in enumerate(line)).rstrip()
        for line in table
    ]
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
    return {
        "study": str(done.folder),
        "report": str(done.report),
        "images_trained": done.images_trained,
        "missing": done.results.missing,
        "failed": done.results.failed,
        "claims": done.claims,
    }


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
