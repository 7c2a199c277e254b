"""Results: what the runs of a study came to, setting by setting, and what follows for its claims."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np

from vaelab.analysis.registry import read_analyses, read_analysis_arrays
from vaelab.core.console import notice
from vaelab.core.errors import UserError
from vaelab.evaluation.catalogue import column_names
from vaelab.runs.run import Run
from vaelab.runs.spec import Spec
from vaelab.studies.definition import Cell, Claim, Experiment, Setting, Study
from vaelab.studies.health import SickRun, find_sickness
from vaelab.studies.judging import ClaimResult, ClaimRuns, SeedRuns, judge_claims, prepare_claim
from vaelab.studies.multiplicity import StudyErrors
from vaelab.studies.quantities import RunRecord

__all__ = ["ClaimResult", "SettingResult", "StudyLook", "StudyResults", "TrialResult", "known_numbers", "read_record"]

UNLISTED_ANALYSES = ("health", "image_values")  # analyses whose numbers are no results of a study


# One run


def read_record(run: Run) -> RunRecord:
    """Read what a finished run left behind.

    Args:
        run: A finished run.

    Returns:
        Its metrics by split, its history and the numbers of its analyses.

    Raises:
        UserError: A file of the run is damaged; it is named.
    """
    run.check_unread()
    metrics = {}
    for split, record in run.metrics.items():
        values = {name: metric["value"] for name, metric in record["metrics"].items()}
        metrics[split] = known_numbers(values)
    analyses = {name: known_numbers(numbers) for name, numbers in read_analyses(run).items()}
    return RunRecord(metrics, run.history, analyses, partial(_read_arrays, run))


def _read_arrays(run: Run, name: str) -> dict[str, np.ndarray]:
    """The arrays of an analysis. A claim is open without them, so it is said where they cannot be read."""
    try:
        return read_analysis_arrays(run, name)
    except UserError as error:
        notice(f"a claim stays open: {error}")
        raise


def known_numbers(values: Mapping[str, float | None]) -> dict[str, float]:
    """The numbers without those that are not defined for these data."""
    return {name: value for name, value in values.items() if value is not None}  # whole numbers stay whole


# One setting


@dataclass(frozen=True)
class SettingResult:
    """A setting of an experiment under a condition.

    Attributes:
        experiment: The experiment.
        condition: The condition.
        setting: The setting.
        runs: Its finished runs, by seed.
        records: What they left behind, by seed.
        diverged: Its runs that ended because their numbers were no numbers any more.
    """

    experiment: Experiment
    condition: str
    setting: Setting
    runs: Mapping[int, Run]
    records: Mapping[int, RunRecord]
    diverged: tuple[SickRun, ...] = ()

    @property
    def name(self) -> str:
        """The name of the setting."""
        return self.setting.name

    def values(self, metric: str, split: str = "test") -> np.ndarray:
        """A metric, for each seed that has it.

        Args:
            metric: The name of the metric.
            split: The split that it was measured on.

        Returns:
            The values, with shape (S,).
        """
        values = []
        for record in self.records.values():
            table = record.metrics.get(split, {})
            if metric in table:
                values.append(table[metric])
        return np.array(values, dtype=np.float64)

    def sickness(self, seed: int, analyses: Sequence[str]) -> SickRun | None:
        """What makes the numbers of a run meaningless, where these analyses are judged; None where nothing does."""
        if "health" not in self.records[seed].analyses:
            return None
        return find_sickness(self.records[seed], self.runs[seed].spec, analyses, self.name, seed)

    def analysis_numbers(self, analysis: str) -> list[Mapping[str, float]]:
        """The numbers of an analysis, for each seed that went through it."""
        return [record.analyses[analysis] for record in self.records.values() if analysis in record.analyses]


@dataclass(frozen=True)
class TrialResult:
    """A finished run of a study, as a row of its table.

    Attributes:
        experiment: The id of the experiment.
        condition: The condition.
        setting: The name of the setting.
        seed: The seed.
        run: The key of the run.
        metrics: The metrics of the test split; None where the run does not have one.
        numbers: The numbers of analyses, as "analysis.name".
    """

    experiment: str
    condition: str
    setting: str
    seed: int
    run: str
    metrics: Mapping[str, float | None]
    numbers: Mapping[str, float]

    def to_dict(self) -> dict[str, Any]:
        """The row as table.csv holds it."""
        return {
            "experiment": self.experiment,
            "reading": self.condition,
            "setting": self.setting,
            "seed": self.seed,
            "run": self.run,
            **self.metrics,
            **self.numbers,
        }


# The study


class StudyLook(NamedTuple):
    """A look of a study at its claims.

    Attributes:
        num_seeds: How many seeds the settings of open claims had then.
        runs: The runs that were asked for to take it.
    """

    num_seeds: int
    runs: tuple[Run, ...]

    @property
    def minutes(self) -> float:
        """The minutes of training that it took, of all workers together."""
        return sum(run.origin.get("seconds", 0.0) for run in self.runs) / 60


@dataclass(frozen=True)
class StudyResults:
    """A study with what its runs came to so far.

    Attributes:
        study: The study.
        setting_results: The result of every setting under every condition.
        failed: What went wrong, by the key of the run.
        images_trained: How many images were trained on now.
    """

    study: Study
    setting_results: tuple[SettingResult, ...]
    failed: Mapping[str, str] = field(default_factory=dict)
    images_trained: int = 0

    def of_experiment(self, experiment: Experiment, condition: str) -> list[SettingResult]:
        """The results of the settings of an experiment under a condition, in their order."""
        results = []
        for result in self.setting_results:
            if result.experiment is experiment and result.condition == condition:
                results.append(result)
        return results

    @property
    def missing(self) -> int:
        """How many trials have no finished run."""
        return len(self.study.trials) - sum(len(result.runs) for result in self.setting_results)

    @property
    def finished_runs(self) -> list[Run]:
        """Every finished run once, in the order of the settings."""
        runs = [run for result in self.setting_results for run in result.runs.values()]
        return list(dict.fromkeys(runs))

    def specs(self, result: SettingResult) -> list[Spec]:
        """The specs of a setting, one for each seed: those of its runs, else as the study asks for them."""
        specs = []
        for seed in self.study.seeds_of(Cell(result.experiment.id, result.condition, result.name)):
            if seed in result.runs:
                specs.append(result.runs[seed].spec)
            else:
                specs.append(self.study.spec(result.experiment, result.condition, result.setting, seed))
        return specs

    @property
    def num_specs(self) -> int:
        """How many different runs the study asks for."""
        return len({spec for result in self.setting_results for spec in self.specs(result)})

    @cached_property
    def judged_claims(self) -> tuple[list[ClaimResult], StudyErrors]:
        """Every claim under each of its conditions, and how the verdicts are kept from being false."""
        claims = []
        for experiment in self.study.experiments:
            for claim in experiment.claims:
                for condition in claim.conditions:
                    claims.append(prepare_claim(claim, condition, self._claim_runs(experiment, claim, condition)))
        return judge_claims(claims, self.study.look_plan)

    @property
    def claim_results(self) -> list[ClaimResult]:
        """Every claim under each of its conditions."""
        return self.judged_claims[0]

    @property
    def errors(self) -> StudyErrors:
        """How the verdicts are kept from being false."""
        return self.judged_claims[1]

    @property
    def claims(self) -> list[dict[str, Any]]:
        """What claims.json holds: each claim, with how false verdicts are controlled in the whole study."""
        control = {"false_verdicts": self.errors._asdict()}
        return [result.to_dict() | control for result in self.claim_results]

    def _claim_runs(self, experiment: Experiment, claim: Claim, condition: str) -> ClaimRuns:
        """The runs that a claim rests on, for the seeds that have all of them."""
        settings = claim.settings(experiment)
        compared = [result for result in self.of_experiment(experiment, condition) if result.setting in settings]
        of_seeds = []
        for seed in self.study.all_seeds:
            if all(seed in result.records for result in compared):
                records = [result.records[seed] for result in compared]
                of_seeds.append(SeedRuns(seed, records, self._sick_runs(compared, seed, claim)))
        diverged = [run for result in compared for run in result.diverged]
        return ClaimRuns(claim.compared_names(settings), of_seeds, diverged, self.study.repeat_splits)

    def _sick_runs(self, compared: Sequence[SettingResult], seed: int, claim: Claim) -> list[SickRun]:
        """The runs of a seed whose numbers mean nothing, where a claim is about models."""
        if not any(quantity.is_about_models for quantity in claim.quantities):
            return []
        sick = [result.sickness(seed, claim.required_analyses) for result in compared]
        return [run for run in sick if run is not None]

    @property
    def looks(self) -> list[StudyLook]:
        """What was trained for each look of the study at its claims, the first one included."""
        looks = [StudyLook(len(self.study.seeds), self._runs_of(self.study.seeds))]
        for number in range(len(self.study.seeds), len(self.study.all_seeds)):
            runs = self._runs_of(self.study.all_seeds[number : number + 1])
            if runs:
                looks.append(StudyLook(number + 1, runs))
        return looks

    def _runs_of(self, seeds: Sequence[int]) -> tuple[Run, ...]:
        """The finished runs of some seeds, each once."""
        runs = [result.runs[seed] for seed in seeds for result in self.setting_results if seed in result.runs]
        return tuple(dict.fromkeys(runs))

    def trial_results(self) -> Iterator[TrialResult]:
        """The rows of the table: one for each trial that has a finished run."""
        records = [record for result in self.setting_results for record in result.records.values()]
        columns = column_names({name for record in records for name in record.metrics.get("test", {})})
        for result in self.setting_results:
            for seed, record in result.records.items():
                test = record.metrics.get("test", {})
                numbers = {}
                for analysis, table in sorted(record.analyses.items()):
                    if analysis in UNLISTED_ANALYSES:
                        continue
                    numbers |= {f"{analysis}.{name}": value for name, value in table.items()}
                yield TrialResult(
                    experiment=result.experiment.id,
                    condition=result.condition,
                    setting=result.name,
                    seed=seed,
                    run=result.runs[seed].key,
                    metrics={name: test.get(name) for name in columns},
                    numbers=numbers,
                )
