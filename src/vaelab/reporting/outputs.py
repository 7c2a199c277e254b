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
from vaelab.core.files import atomic_write, read_json, write_json, write_text
from vaelab.core.jobs import run_jobs
from vaelab.core.version import __version__, source_digest
from vaelab.figures import study_figures
from vaelab.reporting import document
from vaelab.studies.results import StudyResults

__all__ = ["write_study_outputs"]


def write_study_outputs(results: StudyResults, folder: Path, workers: int, requested_by: str | None = None) -> Path:
    """Write all of it into a folder; gives the document, which names the command that `asked` for the study.

    A single run, which no file asked for, has no table.
    """
    if results.study.text:
        write_result_files(results, folder)
    origin = folder / "origin.json"
    if requested_by:
        write_json(origin, {"command": requested_by})
    report, stamp = folder / "report.html", folder / "figures" / ".made.json"
    before = read_json(stamp) if stamp.exists() else {"from": None, "files": []}
    made_from = content_hash(results)
    if report.exists() and before["from"] == made_from:
        return report
    files = draw_all_figures(results, stamp.parent, workers)
    for name in set(before["files"]) - set(files):  # of experiments that are no longer asked for
        (stamp.parent / name).unlink(missing_ok=True)
    document.write_report(results, folder, read_json(origin) if results.study.text and origin.exists() else None)
    write_json(stamp, {"from": made_from, "files": files})
    return report


def content_hash(results: StudyResults) -> str:
    """A hash of all that figures and document are made from: what the results hold, and the code."""
    content = [
        __version__,
        source_digest(*SOURCE_SUFFIXES),
        results.study.text,
        dict(results.failed),
        results.claims,
        list(results.table_rows()),
    ]
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


SOURCE_SUFFIXES = "**/*.py", "reporting/templates/*"


def draw_all_figures(results: StudyResults, folder: Path, workers: int) -> list[str]:
    """Draw every figure, the experiments spread over worker processes; gives the names of the files."""
    files: list[str] = []
    shown = [(e, reading) for e in results.study.experiments for reading in e.conditions if e.figures]
    with progress("drawing", len(shown)) as advance:
        calls = [partial(study_figures.draw_study_figures, results, e, reading, folder) for e, reading in shown]
        for done, result in enumerate(run_jobs(calls, workers), 1):
            if result.error:
                raise RuntimeError(f"{result.error}\n{result.log}")
            files += [file.name for file in result.value]
            advance(done, shown[result.job_index][0].title)
    return sorted(files)


def write_result_files(results: StudyResults, folder: Path) -> None:
    """Write study.toml, the table, the claims and, apart from all that repeats, the timings."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_text(folder / "study.toml", results.study.text)
    rows = list(results.table_rows())
    names = list(dict.fromkeys(name for row in rows for name in row))
    write_text(folder / "table.csv", _to_csv(names, rows))
    with atomic_write(folder / "table.parquet") as temporary:
        pq.write_table(pa.table({name: [row.get(name) for row in rows] for name in names}), temporary)
    write_json(folder / "claims.json", results.claims)
    write_text(folder / "timings.csv", _to_csv(TIMING_COLUMNS, timing_rows(results)))


TIMING_COLUMNS = ("run", "seconds", "images_per_second", "device", "precision", "threads", "machine", "finished")


def timing_rows(results: StudyResults) -> Iterable[dict[str, Any]]:
    """How long each run took, and on what."""
    runs = {run.key: run for o in results.setting_results for run in o.runs.values()}
    for name, run in runs.items():
        origin = run.origin
        flat = {"run": name, **origin, **origin["plan"]}
        yield {column: flat.get(column) for column in TIMING_COLUMNS}


def _to_csv(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
