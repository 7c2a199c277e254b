r"""Health: runs whose numbers mean nothing, found by the doctor's checks, so that no verdict rests on them.

divergence           the weights are no numbers, or numbers are absurdly large
posterior collapse   the codes tell nothing of their images
prior hole           samples of the prior come from where no code is; it matters where samples are judged
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from vaelab.analysis.comparison import stored_latent_stats
from vaelab.evaluation.diagnostics import (
    COLLAPSE_KL,
    MAX_GAP_SHARE,
    MAX_SOUND_KL,
    MAX_SOUND_RESIDUAL,
    Diagnosis,
    RunContext,
    check_collapse,
    check_divergence,
    check_prior_hole,
)
from vaelab.runs.run import Run
from vaelab.runs.spec import Spec
from vaelab.studies.quantities import RunRecord
from vaelab.training.divergence import STOPPED

__all__ = ["SickRun", "diverged_run", "find_sickness"]

SAMPLE_ANALYSES = {"samples"}  # analyses whose numbers are about samples of the prior


class SickRun(NamedTuple):
    """A run whose numbers mean nothing. The field names are the keys of claims.json.

    Attributes:
        setting: The setting that it is a run of.
        seed: Its seed.
        ailment: What is wrong, as the doctor calls it.
        number: The number that shows it.
        bound: What the number would be in a sound run.
    """

    setting: str
    seed: int
    ailment: str
    number: str
    bound: str

    @property
    def text(self) -> str:
        """Which run it is, and by which number.

        Example:
            >>> SickRun("8", 1, "posterior collapse", "KL 0.01 nats", "at least 0.5 nats").text
            '8, seed 1, KL 0.01 nats (sound: at least 0.5 nats)'
        """
        name = f"{self.setting}, " if self.setting else ""
        return f"{name}seed {self.seed}, {self.number} (sound: {self.bound})"


class Check(NamedTuple):
    """A check of the doctor, and what its number would be in a sound run, in words."""

    make: Callable[[RunContext], Diagnosis]
    bound: str


DIVERGENCE = Check(
    check_divergence,
    f"numbers, a KL of at most {MAX_SOUND_KL:g} nats per dimension, a residual of at most {MAX_SOUND_RESIDUAL:g}",
)

COLLAPSE = Check(check_collapse, f"a KL of at least {COLLAPSE_KL:g} nats, one active dimension at least")

PRIOR_HOLE = Check(check_prior_hole, f"at most {100 * MAX_GAP_SHARE:g} % of the KL")


def diverged_run(run: Run, setting: str, seed: int) -> SickRun | None:
    """A run whose training ended because its numbers were no numbers any more; None for every other.

    Args:
        run: A run that is not finished.
        setting: The name of its setting.
        seed: Its seed.
    """
    try:
        with (run.path / "failure.log").open(encoding="utf-8") as file:
            first_line = file.readline().strip()
    except (OSError, UnicodeDecodeError):
        return None
    if not first_line.startswith(STOPPED):
        return None
    return SickRun(setting, seed, "divergence", first_line.rstrip("."), DIVERGENCE.bound)


def find_sickness(record: RunRecord, spec: Spec, analyses: Sequence[str], setting: str, seed: int) -> SickRun | None:
    """What makes the numbers of a run meaningless.

    Args:
        record: What the run left behind; one without the statistics of `health` is taken to be sound.
        spec: Its settings.
        analyses: The analyses whose numbers are judged.
        setting: The name of its setting.
        seed: Its seed.

    Returns:
        The first thing that is wrong; None where nothing is.
    """
    numbers = record.analyses.get("health")
    if numbers is None:
        return None
    stats = stored_latent_stats(numbers)
    context = RunContext(spec, record.history, latent_stats=stats, has_finite_weights=stats is not None)
    checks = [DIVERGENCE, COLLAPSE]
    if SAMPLE_ANALYSES & set(analyses):
        checks.append(PRIOR_HOLE)
    for check in checks:
        diagnosis = check.make(context)
        if diagnosis.state == "alarm":
            return SickRun(setting, seed, diagnosis.ailment, diagnosis.number, check.bound)
    return None
