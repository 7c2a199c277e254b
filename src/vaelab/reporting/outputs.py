r"""Outputs: what a study leaves on disk, from its table to its report.

    study.toml    the study as it was carried out, with the changes of the command line
    table.csv     a row for each trial, with the metrics of the test split; table.parquet is the same
    claims.json   every claim under each condition, with its verdict
    origin.json   the command that carried it out, and the digest of study.toml
    timings.csv   how long each run took, and on what
    looks.csv     what each look at the claims cost: wall time is stored in these two files alone
    figures/      every figure as PNG and PDF
    report.html   one self-contained document

Figures and report are made again where numbers, study or code have changed.
"""

from __future__ import annotations

import csv
import hashlib
import io
import itertools
import json
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from vaelab.core.console import notice, progress
from vaelab.core.devices import choose_device
from vaelab.core.errors import UserError
from vaelab.core.files import atomic_write, content_digest, read_bytes, read_json, write_json, write_text
from vaelab.core.folders import check_folder
from vaelab.core.jobs import results_or_raise, run_jobs
from vaelab.core.version import __version__, source_digest
from vaelab.figures import study_figures
from vaelab.reporting.document import write_report
from vaelab.reporting.figure_record import (
    FigureRecord,
    check_figures_folder,
    file_digests,
    read_record,
    remove_outdated_figures,
    write_record,
)
from vaelab.runs.spec import Spec
from vaelab.studies.checks import check_measures, check_planned_runs
from vaelab.studies.definition import Study
from vaelab.studies.lock import check_unlocked
from vaelab.studies.plan import PlannedRun, plan_runs
from vaelab.studies.results import StudyResults

__all__ = ["output_names", "plan_checked_study", "write_study_outputs"]

SOURCE_PATTERNS = ("**/*.py", "reporting/templates/*")  # files whose content shapes figures and report

LOOK_COLUMNS = ("seeds", "runs", "minutes")

TIMING_COLUMNS = ("run", "seconds", "images_per_second", "device", "precision", "threads", "machine", "finished")


def plan_checked_study(study: Study, out: Path, device: str | None = None) -> dict[Spec, PlannedRun]:
    """The runs that a study asks for, once everything is checked that can be checked before the work.

    Args:
        study: The study.
        out: The folder that has or receives runs/ and studies/.
        device: The device to train on; the fastest there is if None.

    Returns:
        Each run once, by its spec. Nothing is written.

    Raises:
        UserError: The study, its data, the folder or the disk will not do.
    """
    check_measures(study)
    study_figures.check_figures(study)
    choose_device(device)
    check_folder(out / "studies" / study.name, *output_names(study))
    check_folder(out / "runs")
    check_unlocked(out / "studies" / study.name)
    planned_runs = plan_runs(study, out, device)
    check_planned_runs(study, planned_runs, out, device)
    return planned_runs


def write_study_outputs(
    results: StudyResults, folder: Path, workers: int, requested_by: str | None = None, anew: bool = False
) -> Path:
    """Write everything that a study leaves into its folder. A single run has no table, for no file asked for it.

    Args:
        results: What the study came to.
        folder: Its folder.
        workers: Processes that draw.
        requested_by: The command that asked for the study, which the report names.
        anew: Whether the study was carried out before, as its folder says.

    Returns:
        The path of the report.
    """
    origin_file = folder / "origin.json"
    if results.study.text:
        origin = _read_origin(origin_file) if anew else {"command": requested_by}
        is_changed = anew and _is_study_changed(folder / "study.toml", origin)
        if is_changed:
            notice(f"{folder / 'study.toml'} was changed after the study was carried out: the report follows it")
        write_result_files(results, folder)
        if not anew or ("study" in origin and not is_changed):
            write_json(origin_file, origin | {"study": content_digest(results.study.text.encode())})
    report = folder / "report.html"
    figures = folder / "figures"
    check_figures_folder(figures)
    record = read_record(figures)
    content = content_hash(results)
    if record.is_current(content, report, figures):
        return report
    files = draw_all_figures(results, figures, workers)
    remove_outdated_figures(figures, set(record.files) - set(files))
    write_report(results, folder, _read_origin(origin_file) if results.study.text else {})
    write_record(figures, FigureRecord(content, files, file_digests(files, report, figures)))
    return report


def _is_study_changed(file: Path, origin: Mapping[str, Any]) -> bool:
    """Whether a stored study is not what was carried out. Those of earlier versions have no digest."""
    return "study" in origin and content_digest(read_bytes(file)) != origin["study"]


def _read_origin(file: Path) -> dict[str, Any]:
    """The command that asked for a study; nothing where the file is missing or damaged, for reports can do without."""
    if not file.exists():
        return {}
    try:
        return read_json(file)
    except UserError:
        return {}


def output_names(study: Study) -> list[str]:
    """The names of the figures that a study will draw, for `check_folder`."""
    names = []
    for experiment in study.experiments:
        for condition, figure in itertools.product(experiment.conditions, experiment.figures):
            names.append(study_figures.figure_file_name(experiment, figure, condition))
    return names


def content_hash(results: StudyResults) -> str:
    """A hash of everything that figures and report are made from: what the results hold, and the code."""
    content = [
        __version__,
        source_digest(*SOURCE_PATTERNS),
        results.study.text,
        dict(results.failed),
        results.claims,
        [trial.to_dict() for trial in results.trial_results()],
    ]
    return hashlib.blake2b(json.dumps(content).encode(), digest_size=16).hexdigest()


def draw_all_figures(results: StudyResults, folder: Path, workers: int) -> list[str]:
    """Draw every figure, with the experiments spread over worker processes.

    Args:
        results: What the study came to.
        folder: The folder that receives the figures.
        workers: How many processes draw.

    Returns:
        The names of the files, sorted.
    """
    cells = []
    for experiment in results.study.experiments:
        if experiment.figures:
            cells += [(experiment, condition) for condition in experiment.conditions]
    jobs = [partial(study_figures.draw_study_figures, results, *cell, folder) for cell in cells]
    files: list[str] = []
    with progress("drawing", len(cells)) as advance:
        for num_done, result in enumerate(results_or_raise(run_jobs(jobs, workers)), 1):
            files += [file.name for file in result.value]
            experiment, _ = cells[result.job_index]
            advance(num_done, experiment.title)
    return sorted(files)


# Numbers


def write_result_files(results: StudyResults, folder: Path) -> None:
    """Write study.toml, the table, the claims and the timings."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    write_text(folder / "study.toml", results.study.text)
    rows = [trial.to_dict() for trial in results.trial_results()]
    names = list(dict.fromkeys(name for row in rows for name in row))
    write_text(folder / "table.csv", _to_csv(names, rows))
    columns = {name: [row.get(name) for row in rows] for name in names}
    with atomic_write(folder / "table.parquet") as temporary:
        pq.write_table(pa.table(columns), temporary)
    write_json(folder / "claims.json", results.claims)
    write_text(folder / "timings.csv", _to_csv(TIMING_COLUMNS, _timing_rows(results)))
    write_text(folder / "looks.csv", _to_csv(LOOK_COLUMNS, _look_rows(results)))


def _timing_rows(results: StudyResults) -> Iterable[dict[str, Any]]:
    """How long each run took, and on what."""
    for run in results.finished_runs:
        origin = run.origin
        facts = {"run": run.key, **origin, **origin["plan"]}
        yield {column: facts.get(column) for column in TIMING_COLUMNS}


def _look_rows(results: StudyResults) -> Iterable[dict[str, Any]]:
    """How many runs were trained for each look at the claims, and how long that took."""
    for look in results.looks:
        yield {"seeds": look.num_seeds, "runs": len(look.runs), "minutes": round(look.minutes, 2)}


def _to_csv(names: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
