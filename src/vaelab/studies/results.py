"""Results: what the runs of a study came to, setting by setting, and what follows for its claims."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from vaelab.analysis.registry import read_analyses
from vaelab.core.errors import UserError
from vaelab.evaluation.catalogue import column_names
from vaelab.runs.run import Run
from vaelab.runs.spec import Spec
from vaelab.studies.definition import Claim, Experiment, Setting, Study
from vaelab.studies.hypotheses import ContrastResult, Verdict, decide_verdict
from vaelab.studies.quantities import RunRecord

__all__ = ["ClaimResult", "SettingResult", "StudyResults", "TrialResult", "known_numbers", "read_record"]


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
    return RunRecord(metrics, run.history, analyses)


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
    """

    experiment: Experiment
    condition: str
    setting: Setting
    runs: Mapping[int, Run]
    records: Mapping[int, RunRecord]

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


# One claim


@dataclass(frozen=True)
class ClaimResult:
    """A claim under a condition, with its verdict.

    Attributes:
        claim: The claim.
        condition: The condition.
        verdict: What the runs say about it.
        num_seeds: How many seeds it was judged by.
        means: The mean over seeds of all that it compares, by name.
        contrasts: What was measured of each contrast; the first one decides.
        note: Why it could not be judged; empty where it was.
    """

    claim: Claim
    condition: str
    verdict: Verdict = "undecided"
    num_seeds: int = 0
    means: Mapping[str, float] = field(default_factory=dict)
    contrasts: Sequence[ContrastResult] = ()
    note: str = ""

    @property
    def deciding(self) -> ContrastResult | None:
        """The contrast that decides; None where nothing was judged."""
        return self.contrasts[0] if self.contrasts else None

    def to_dict(self) -> dict[str, Any]:
        """The claim as claims.json holds it."""
        identity = {
            "id": self.claim.id,
            "sentence": self.claim.sentence,
            "source": self.claim.source,
            "reading": self.condition,
            "expected": self.claim.expectation_text,
            "verdict": self.verdict,
        }
        if self.deciding is None:
            return identity | {"effect": None, "interval": None, "n": self.num_seeds, "note": self.note}
        return identity | {
            "effect": self.deciding.mean,
            "interval": self.deciding.interval,
            "n": self.num_seeds,
            "effect_size": self.deciding.effect_size,
            "decided_by": self.deciding.what,
            "means": dict(self.means),
            "contrasts": [contrast._asdict() for contrast in self.contrasts],
        }


# The study


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
        return sum(len(self.study.seeds) - len(result.runs) for result in self.setting_results)

    @property
    def finished_runs(self) -> list[Run]:
        """Every finished run once, in the order of the settings."""
        runs = [run for result in self.setting_results for run in result.runs.values()]
        return list(dict.fromkeys(runs))

    def specs(self, result: SettingResult) -> list[Spec]:
        """The specs of a setting, one for each seed: those of its runs, else as the study asks for them."""
        specs = []
        for seed in self.study.seeds:
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
    def claim_results(self) -> list[ClaimResult]:
        """Every claim under each of its conditions."""
        results = []
        for experiment in self.study.experiments:
            for claim in experiment.claims:
                for condition in claim.conditions:
                    results.append(self.judge_claim(experiment, claim, condition))
        return results

    @property
    def claims(self) -> list[dict[str, Any]]:
        """What claims.json holds."""
        return [result.to_dict() for result in self.claim_results]

    def judge_claim(self, experiment: Experiment, claim: Claim, condition: str) -> ClaimResult:
        """The verdict on a claim under a condition; undecided, with a note, where numbers are missing."""
        try:
            names, values = self.claim_values(experiment, claim, condition)
            contrasts = []
            for expectation in claim.expectations:
                contrasts += expectation.contrasts(values, names)
        except UserError as error:
            return ClaimResult(claim, condition, note=str(error))
        verdict, contrast_results = decide_verdict(contrasts)
        means = {name: float(mean) for name, mean in zip(names, values.mean(0), strict=True)}
        return ClaimResult(claim, condition, verdict, len(values), means, contrast_results)

    def claim_values(self, experiment: Experiment, claim: Claim, condition: str) -> tuple[list[str], np.ndarray]:
        """What a claim compares.

        Returns:
            The names of what is compared, and the values with shape (S, K), for the seeds that have all of them.

        Raises:
            UserError: No seed has all runs, or a run does not have the quantity.
        """
        settings = claim.settings(experiment)
        compared = [result for result in self.of_experiment(experiment, condition) if result.setting in settings]
        complete_seeds = [seed for seed in self.study.seeds if all(seed in result.records for result in compared)]
        if not complete_seeds:
            raise UserError("no seed has all the runs that it compares")
        rows = []
        for seed in complete_seeds:
            records = [result.records[seed] for result in compared]
            rows.append([quantity.value(record, records) for record in records for quantity in claim.quantities])
        return claim.compared_names(settings), np.array(rows)

    def trial_results(self) -> Iterator[TrialResult]:
        """The rows of the table: one for each trial that has a finished run."""
        records = [record for result in self.setting_results for record in result.records.values()]
        columns = column_names({name for record in records for name in record.metrics.get("test", {})})
        for result in self.setting_results:
            for seed, record in result.records.items():
                test = record.metrics.get("test", {})
                numbers = {}
                for analysis, table in sorted(record.analyses.items()):
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
