"""Looks: which seeds a study that decides its claims asks for next.

The first look has the seeds of the study. Then each setting of a claim that is still open gets one seed more, until
every claim is decided or has all the seeds that it may have. What is asked for follows from what the runs came to, so
that an interrupted study, when it goes on, asks for the same.
"""

from __future__ import annotations

from dataclasses import replace

from vaelab.studies.definition import Cell, Study
from vaelab.studies.results import StudyResults

__all__ = ["num_open_claims", "with_next_look"]


def num_open_claims(results: StudyResults) -> int:
    """How many claims more seeds may still decide."""
    return sum(result.judgement.is_open for result in results.claim_results)


def with_next_look(results: StudyResults) -> Study | None:
    """The study with the seeds of the next look.

    Args:
        results: What the runs so far came to.

    Returns:
        The study with more seeds for the settings of open claims; None where there is nothing to add.
    """
    study = results.study
    added = dict(study.added_seeds)
    for result in results.claim_results:
        if not study.decide or not result.judgement.is_open:
            continue
        for cell in _cells(study, result.claim.id, result.condition):
            num_seeds = max(result.judgement.next_look or 0, len(study.seeds_of(cell)))
            added[cell] = study.all_seeds[len(study.seeds) : num_seeds]
    return replace(study, added_seeds=added) if added != study.added_seeds else None


def _cells(study: Study, claim_id: str, condition: str) -> list[Cell]:
    """The settings that a claim compares under a condition."""
    for experiment in study.experiments:
        for claim in experiment.claims:
            if claim.id == claim_id:
                return [Cell(experiment.id, condition, setting.name) for setting in claim.settings(experiment)]
    return []
