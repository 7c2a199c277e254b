"""Results: what the runs of a study came to, setting by setting, and what follows for its claims."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from vaelab.analysis.registry import read_analyses
from vaelab.core.errors import UserError
from vaelab.evaluation.catalogue import metric_names
from vaelab.runs.run import Run
from vaelab.studies.definition import Claim, Experiment, Setting, Study
from vaelab.studies.hypotheses import decide_verdict
from vaelab.studies.quantities import RunRecord

__all__ = ["SettingResult", "StudyResults", "read_record"]


def read_record(run: Run) -> RunRecord:
    """What a finished run left behind."""
    metrics = {
        split: {name: m["value"] for name, m in measured["metrics"].items()} for split, measured in run.metrics.items()
    }
    return RunRecord(metrics, run.history, read_analyses(run))


@dataclass(frozen=True)
class SettingResult:
    """A setting of an experiment under a reading: its finished runs and their records, by seed."""

    experiment: Experiment
    condition: str
    setting: Setting
    runs: Mapping[int, Run]
    records: Mapping[int, RunRecord]

    @property
    def name(self) -> str:
        return self.setting.name

    def values(self, metric: str) -> np.ndarray:
        """A metric of the test split, a value for each seed that has it."""
        found = [r.metrics["test"][metric] for r in self.records.values() if metric in r.metrics.get("test", {})]
        return np.array(found, dtype=np.float64)


@dataclass(frozen=True)
class StudyResults:
    """A study with what its runs came to so far."""

    study: Study
    setting_results: tuple[SettingResult, ...]
    failed: Mapping[str, str]  # what went wrong, by the key of the run

    def of_experiment(self, experiment: Experiment, condition: str) -> list[SettingResult]:
        """The outcomes of an experiment's settings, in their order."""
        return [o for o in self.setting_results if o.experiment is experiment and o.condition == condition]

    @property
    def missing(self) -> int:
        """How many trials have no finished run."""
        return sum(len(self.study.seeds) - len(o.runs) for o in self.setting_results)

    @cached_property
    def claims(self) -> list[dict[str, Any]]:
        """claims.json: every claim under each of its readings."""
        return [
            self.judge_claim(e, c, reading)
            for e in self.study.experiments
            for c in e.claims
            for reading in c.conditions
        ]

    def judge_claim(self, experiment: Experiment, claim: Claim, condition: str) -> dict[str, Any]:
        """A claim under a reading, with the contrast that decides it and all others."""
        head = {
            "id": claim.id,
            "sentence": claim.sentence,
            "source": claim.source,
            "reading": condition,
            "expected": claim.expectation_text,
        }
        try:
            names, values = self.claim_values(experiment, claim, condition)
            verdict, findings = decide_verdict([c for e in claim.expectations for c in e.contrasts(values, names)])
        except UserError as error:
            return head | {"verdict": "undecided", "effect": None, "interval": None, "n": 0, "note": str(error)}
        first = findings[0]
        means = {name: float(m) for name, m in zip(names, values.mean(0), strict=True)}
        return head | {
            "verdict": verdict,
            "effect": first.mean,
            "interval": first.interval,
            "n": len(values),
            "effect_size": first.effect_size,
            "decided_by": first.what,
            "means": means,
            "contrasts": [f._asdict() for f in findings],
        }

    def claim_values(self, experiment: Experiment, claim: Claim, condition: str) -> tuple[list[str], np.ndarray]:
        """What the claim compares: names, and values (seeds, names) of the seeds that have all of them."""
        outcomes = self.of_experiment(experiment, condition)
        compared = [o for o in outcomes if o.setting in claim.settings(experiment)]
        seeds = [seed for seed in self.study.seeds if all(seed in o.records for o in compared)]
        if not seeds:
            raise UserError("no seed has all the runs that it compares")
        rows = []
        for seed in seeds:
            peers = [o.records[seed] for o in compared]
            rows.append([m.value(o.records[seed], peers) for o in compared for m in claim.quantities])
        names = [o.name for o in compared] if len(claim.quantities) == 1 else [m.text for m in claim.quantities]
        return names, np.array(rows)

    def table_rows(self) -> Iterator[dict[str, Any]]:
        """The rows of the table: one for each trial that has a finished run, with the metrics of the test split."""
        for o in self.setting_results:
            for seed, r in o.records.items():
                test = r.metrics.get("test", {})
                numbers = {f"{of}.{name}": v for of, table in sorted(r.analyses.items()) for name, v in table.items()}
                head = {"experiment": o.experiment.id, "reading": o.condition, "setting": o.name, "seed": seed}
                yield head | {"run": o.runs[seed].key} | {name: test.get(name) for name in metric_names()} | numbers
