"""Publishing: what a study leaves on disk, from its table to its document.

    study.toml    the study as it was carried out, what the command line overrode included
    table.csv     a row for each trial, with the metrics of the test split; table.parquet is the same
    claims.json   every claim under each reading, with its verdict
    origin.json   the command that carried it out
    timings.csv   how long each run took, and on what: wall time stands nowhere else
    figures/      every figure as PNG and PDF
    report.html   one self-contained document

Pictures and document are made where numbers, study or code have changed since.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vaelab.core.console import progress
from vaelab.core.files import read_json, write_json, write_text, writing
from vaelab.core.jobs import carry_out
from vaelab.core.version import __version__, source_digest
from vaelab.figures import study_figures
from vaelab.reporting import document
from vaelab.studies.results import Results

__all__ = ["publish"]


def publish(results: Results, folder: Path, workers: int, asked: str | None = None) -> Path:
    """Write all of it into a folder; gives the document, which names the command that `asked` for the study.

    A single run, which no file asked for, has no table.
    """
    if results.study.text:
        write_results(results, folder)
    origin = folder / "origin.json"
    if asked:
        write_json(origin, {"command": asked})
    report, stamp = folder / "report.html", folder / "figures" / ".made.json"
    before = read_json(stamp) if stamp.exists() else {"from": None, "files": []}
    made_from = digest(results)
    if report.exists() and before["from"] == made_from:
        return report
    files = draw(results, stamp.parent, workers)
    for name in set(before["files"]) - set(files):  # of experiments that are no longer asked for
        (stamp.parent / name).unlink(missing_ok=True)
    document.write(results, folder, read_json(origin) if results.study.text and origin.exists() else None)
    write_json(stamp, {"from": made_from, "files": files})
    return report


def digest(results: Results) -> str:
    """A hash of all that figures and document are made from: what the results hold, and the code."""
    content = [
        __version__,
        source_digest(*CODE),
        results.study.text,
        dict(results.failed),
        results.claims,
        list(results.table()),
    ]
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


CODE = "**/*.py", "reporting/templates/*"


def draw(results: Results, folder: Path, workers: int) -> list[str]:
    """Draw every figure, the experiments spread over worker processes; gives the names of the files."""
    files: list[str] = []
    shown = [(e, reading) for e in results.study.experiments for reading in e.readings if e.figures]
    with progress("drawing", len(shown)) as advance:
        calls = [partial(study_figures.draw, results, e, reading, folder) for e, reading in shown]
        for done, result in enumerate(carry_out(calls, workers), 1):
            if result.error:
                raise RuntimeError(f"{result.error}\n{result.log}")
            files += [file.name for file in result.value]
            advance(done, shown[result.job][0].title)
    return sorted(files)


def write_results(results: Results, folder: Path) -> None:
    """Write study.toml, the table, the claims and, apart from all that repeats, the timings."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_text(folder / "study.toml", results.study.text)
    rows = list(results.table())
    names = list(dict.fromkeys(name for row in rows for name in row))
    write_text(folder / "table.csv", _csv(names, rows))
    with writing(folder / "table.parquet") as temporary:
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), temporary)
    write_json(folder / "claims.json", results.claims)
    write_text(folder / "timings.csv", _csv(TIMINGS, timings(results)))


TIMINGS = ("run", "seconds", "images_per_second", "device", "precision", "threads", "machine", "finished")


def timings(results: Results) -> Iterable[dict[str, Any]]:
    """How long each run took, and on what."""
    runs = {run.key: run for o in results.outcomes for run in o.runs.values()}
    for name, run in runs.items():
        origin = run.origin
        flat = {"run": name, **origin, **origin["plan"]}
        yield {column: flat.get(column) for column in TIMINGS}


def _csv(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
